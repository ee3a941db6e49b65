-- The inline script of `resty` that runs a command of Kong; called through a table, the function has no name there.
local run, on_error = ...
local runs = { run }
return function()
--@5
  runs[1](on_error)
end
