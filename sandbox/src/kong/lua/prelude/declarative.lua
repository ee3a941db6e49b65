-- Stands for kong/db/schema/others/declarative_config.lua, whose frames show when a schema does not load in the CLI.
local plugin_loader = require "kong.db.schema.plugin_loader"

local M = {}

-- The command line has no PDK, and Kong falls over that before it can report a missing plugin.
local kong = nil
local load_plugin_subschemas

--@276
function load_plugin_subschemas(names, depth)
  if depth == 0 then
    for _, plugin in ipairs(names) do
      local schema, err
--@283
      schema, err = plugin_loader.load_subschema(plugin, "declarative")
      if not schema then
        if string.find(err, "^no configuration schema found") then kong.log.notice(err) end
        error(err)
      end
    end
    return true
  end
--@291
  local ok = load_plugin_subschemas(names, depth - 1)
  return ok
end

--@940
function M.load(names)
--@946
  local ok = load_plugin_subschemas(names, 2)
  return ok
end

return M
