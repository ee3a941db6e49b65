-- Stands for kong/tools/module.lua: which failure of `require` means "not there" and which one is thrown.
local host = require "kong.standin.host"
local M = {}

--@14
local function load_module_if_exists(module_name)
  -- Called through xpcall directly: Kong's own tracebacks show no frame of a wrapper here.
  local handler = function(err) if host.version_num >= 3000000 then err = debug.traceback(err, 2) end return err end
--@18
  local ok, result = xpcall(require, handler, module_name)
  if ok then
    return true, result
  end
  result = tostring(result)
  if string.find(result, "module '" .. module_name .. "' not found", 1, true) then
    return false, result
  end
  local message = "error loading module '" .. module_name .. "':\n" .. result
--@29
  error(message)
end

M.load_module_if_exists = load_module_if_exists
return M
