-- The nginx worker that `resty` starts to run its script in.
local inline_gen = ...
local on_exit = function(err) return err end
--@43
local script = function()
--@44
  inline_gen()
end
--@50
return function()
--@52
  xpcall(script, on_exit)
end
