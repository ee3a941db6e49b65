-- Stands for kong/db/schema/plugin_loader.lua: one plugin's configuration schema.
local load_module_if_exists = require("kong.tools.module").load_module_if_exists
local schema_of = require "kong.standin.schema"

local M = {}

--@15
function M.load_subschema(plugin, strategy)
  local module_name = "kong.plugins." .. plugin .. ".schema"
--@18
  local ok, schema = load_module_if_exists(module_name)
  if not ok then
    return nil, "no configuration schema found for plugin: " .. plugin
  end
  local valid, err = schema_of.check_schema(schema)
  if not valid then
    return nil, "[" .. strategy .. "] " .. err
  end
  return schema
end

return M
