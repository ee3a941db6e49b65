-- Stands for kong/db/dao/plugins.lua: loading the handlers, schemas and entities of all plugins at once.
local load_module_if_exists = require("kong.tools.module").load_module_if_exists
local plugin_loader = require "kong.db.schema.plugin_loader"
local schema_of = require "kong.standin.schema"
local version_of = require("kong.standin.version").clean
local host = require "kong.standin.host"
local words = require "kong.standin.ages"

local M = {}

--@158
local function load_plugin_handler(plugin)
  local module_name = "kong.plugins." .. plugin .. ".handler"
--@163
  local ok, handler = load_module_if_exists(module_name)
  if not ok and words.before_3_0 then return nil, words.not_installed(plugin, handler) end
  if not ok then
    -- Kong asks its external plugin servers next; there are none.
    local complaint = host.plugin_servers()
    if complaint then error(complaint) end
    return nil, plugin .. " plugin is enabled but not installed;\nno plugin found"
  end
  if type(handler) == "table" and type(rawget(handler, "response")) == "function"
     and (type(rawget(handler, "header_filter")) == "function" or type(rawget(handler, "body_filter")) == "function") then
    return nil, string.format("Plugin %q can't be loaded because it implements both `response` "
      .. "and `header_filter` or `body_filter` methods.\n", plugin)
  end
  return handler
end

-- Keys 1 to n and nothing else; an empty table is one.
local function is_list(value)
  if type(value) ~= "table" then
    return false
  end
  local count = 0
  for key in pairs(value) do
    if type(key) ~= "number" then
      return false
    end
    count = count + 1
  end
  return count == #value
end

--@230
local function load_daos(plugin, strategy)
  local ok, daos = load_module_if_exists("kong.plugins." .. plugin .. ".daos")
  if not ok then
    return true
  end
  if not is_list(daos) then
    return nil, "custom plugin '" .. plugin .. "' returned non-array daos definition table"
  end
  for index, definition in ipairs(daos) do
    local name = type(definition) == "table" and definition.name or tostring(index)
    local valid, err = schema_of.check_entity(definition)
    if not valid then
      return nil, "schema of custom plugin entity '" .. plugin .. "." .. tostring(name) .. "' is invalid: ["
        .. strategy .. "] " .. err
    end
--@258
    host.log("debug", "[lua] plugins.lua:258: loader_fn(): Loading custom plugin entity: '"
      .. plugin .. "." .. tostring(name) .. "'")
  end
  return true
end

--@272
local function load_plugin(self, plugin)
  local schema, err, handler, ok
--@276
  handler, err = load_plugin_handler(plugin)
  if not handler then
    return nil, err
  end
--@281
  schema, err = plugin_loader.load_subschema(plugin, self.strategy)
  if not schema then
    return nil, err
  end
  ok, err = load_daos(plugin, self.strategy)
  if not ok then
    return nil, err
  end
  self.schemas[plugin] = schema
--@300
  host.log("debug", "[lua] plugins.lua:300: load_plugin(): Loading plugin: " .. plugin)
  return handler
end

--@318
function M.load_plugin_schemas(self, names)
  local errs, handlers = {}, {}
  for _, plugin in ipairs(names) do
    local err, handler
--@328
    handler, err = load_plugin(self, plugin)
    if handler ~= nil and words.before_3_0 then handlers[plugin] = words.instance(handler)
    elseif handler ~= nil then -- One that is no table fails right here, with Lua's own words.
--@331
      local priority, version = handler.PRIORITY, handler.VERSION
      if type(priority) ~= "number" or math.floor(priority) ~= priority then
        errs[#errs + 1] = "on plugin '" .. plugin .. "': " .. string.format(
          "Plugin %q cannot be loaded because its PRIORITY field is not a valid integer number, got: %q.\n",
          plugin, tostring(priority))
      elseif type(version) ~= "string" or not version_of(version) then
        errs[#errs + 1] = "on plugin '" .. plugin .. "': " .. string.format(
          "Plugin %q cannot be loaded because its VERSION field does not follow the \"x.y.z\" format, got: %q.\n",
          plugin, tostring(version))
      else
        handlers[plugin] = handler
      end
    else
      if host.version_num < 1001000 then return nil, err end
      errs[#errs + 1] = "on plugin '" .. plugin .. "': " .. tostring(err)
    end
  end
  if #errs > 0 then
    return nil, "error loading plugin schemas: " .. table.concat(errs, "; ")
  end
  self.handlers = handlers
  return true
end

-- A loader for one datastore strategy: "postgres" or "off".
function M.new(strategy)
  return { strategy = strategy, handlers = {}, schemas = {}, load_plugin_schemas = M.load_plugin_schemas }
end

return M
