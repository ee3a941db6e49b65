-- Stands for kong/cmd/init.lua: runs a command and cuts the position off its error.
local cmd_exec = require("kong.cmd.config").cmd_exec
--@15
return function(on_error)
--@31
  xpcall(function() cmd_exec() end, on_error)
end
