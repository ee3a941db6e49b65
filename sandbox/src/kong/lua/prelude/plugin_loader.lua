-- Stands for kong/db/schema/plugin_loader.lua: one plugin's configuration schema.
local load_module_if_exists = require("kong.tools.module").load_module_if_exists
local schema_of = require "kong.standin.schema"

local ages = require "kong.standin.ages"

local M = {}

--@15
function M.load_subschema(plugin, strategy)
  local module_name = "kong.plugins." .. plugin .. ".schema"
--@18
  local ok, schema = load_module_if_exists(module_name)
  if not ok then
    return nil, ages.no_schema(plugin)
  end
  if ages.is_old_schema(schema) then schema = ages.converted(plugin, schema) end
  local valid, err = schema_of.check_schema(schema)
  if not valid then
    return nil, "[" .. strategy .. "] " .. err
  end
  return schema
end

return M
