-- In which Kongs of other ages differ when they load plugins: their words, and what they take for a handler and a schema.
local host = require "kong.standin.host"

local M = {}

local function before(number) return host.version_num < number end

M.before_3_0 = before(3000000)

-- A handler that is not there; `tried` is what `require` had to say.
function M.not_installed(plugin, tried)
  if before(9000) then
    return "The following plugin has been enabled in the configuration but it is not installed on the system: " .. plugin
  end
  return plugin .. " plugin is enabled but not installed;\n" .. tried
end

function M.no_schema(plugin)
  if before(9000) then return "Cannot find the schema for the following plugin: " .. plugin end
  return "no configuration schema found for plugin: " .. plugin
end

-- Whether rows without their plugin are looked for before anything is loaded.
function M.checks_use_first() return before(2003000) end

function M.in_use(complaint)
  if before(9000) then
    return "You are using a plugin that has not been enabled in the configuration: " .. complaint:match("^%S+")
  end
  return complaint
end

-- Until 1.2 every handler was a class to be called; until 3.0 those that extend BasePlugin were.
function M.instance(handler)
  if before(1002000) then return handler() end
  if type(handler) == "table" and type(handler.is) == "function" and handler:is(require "kong.plugins.base_plugin") then
    return handler()
  end
  return handler
end

-- Schemas of before 1.0: fields by their names.
function M.is_old_schema(schema)
  return M.before_3_0 and type(schema) == "table" and schema.name == nil and type(schema.fields) == "table"
    and schema.fields[1] == nil
end

local types = { table = "map", timestamp = "number", url = "string" }

function M.converted(plugin, schema)
  local fields = {}
  for name, old in pairs(schema.fields) do
    local kind = types[old.type] or old.type or "string"
    local field = { type = kind, required = old.required, one_of = old.enum }
    if type(old.default) ~= "function" then field.default = old.default end
    if kind == "array" then field.elements = { type = "string" } end
    if kind == "map" then
      field.keys, field.values = { type = "string" }, { type = "string" }
    end
    fields[#fields + 1] = { [name] = field }
  end
  return { name = plugin, fields = { { config = { type = "record", required = true, fields = fields } } } }
end

return M
