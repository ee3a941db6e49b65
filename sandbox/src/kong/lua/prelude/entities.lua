-- The schemas of Kong's own entities, as far as a node shows them to an agent.
local host = require "kong.standin.host"
local schema_of = require "kong.standin.schema"

local null = host.null
local M = {}

local ID = { id = { type = "string", uuid = true, auto = true } }
local CREATED = { created_at = { type = "integer", timestamp = true, auto = true } }
local UPDATED = { updated_at = { type = "integer", timestamp = true, auto = true } }
local TAGS = { tags = { type = "set", elements = { type = "string", required = true } } }
local HTTP = { "grpc", "grpcs", "http", "https" }
local PROTOCOLS = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp" }

local function foreign(name, reference)
  return { [name] = { type = "foreign", reference = reference, on_delete = "cascade" } }
end

local function timeout(name)
  return { [name] = { type = "integer", between = { 1, 2147483646 }, default = 60000 } }
end

local function expand_url(url)
  local scheme, rest = url:match("^(%a+)://(.+)$")
  if not scheme then return { host = url } end
  local authority, path = rest:match("^([^/?#]+)(.*)$")
  local name, port = (authority or ""):match("^(.-):(%d+)$")
  return {
    protocol = scheme, host = name or authority, port = tonumber(port) or (scheme == "https" and 443 or 80),
    path = (path and path ~= "" and path ~= "/") and path or (path == "/" and "/" or null),
  }
end

M.schemas = {
  services = { fields = {
    ID, CREATED, UPDATED, { name = { type = "string", unique = true } },
    { retries = { type = "integer", between = { 0, 32767 }, default = 5 } },
    { protocol = { type = "string", one_of = PROTOCOLS, required = true, default = "http" } },
    { host = { type = "string", required = true } },
    { port = { type = "integer", between = { 0, 65535 }, required = true, default = 80 } },
    { path = { type = "string", starts_with = "/" } },
    timeout("connect_timeout"), timeout("write_timeout"), timeout("read_timeout"), TAGS,
    { client_certificate = { type = "foreign", reference = "certificates" } }, { tls_verify = { type = "boolean" } },
    { tls_verify_depth = { type = "integer", between = { 0, 64 } } },
    { ca_certificates = { type = "array", elements = { type = "string", uuid = true } } },
    { enabled = { type = "boolean", required = true, default = true } },
  }, shorthand_fields = { { url = { type = "string", func = expand_url } } } },
  routes = { fields = {
    ID, CREATED, UPDATED, { name = { type = "string", unique = true } },
    { protocols = { type = "set", required = true, elements = { type = "string", one_of = PROTOCOLS },
      default = { "http", "https" } } },
    { https_redirect_status_code = { type = "integer", one_of = { 426, 301, 302, 307, 308 }, required = true,
      default = 426 } },
    { strip_path = { type = "boolean", required = true, default = true } },
    { preserve_host = { type = "boolean", required = true, default = false } },
    { request_buffering = { type = "boolean", required = true, default = true } },
    { response_buffering = { type = "boolean", required = true, default = true } }, TAGS,
    { service = { type = "foreign", reference = "services" } },
    { snis = { type = "set", elements = { type = "string" } } },
    { sources = { type = "set", elements = { type = "record", fields = { { ip = { type = "string" } },
      { port = { type = "integer" } } } } } },
    { destinations = { type = "set", elements = { type = "record", fields = { { ip = { type = "string" } },
      { port = { type = "integer" } } } } } },
    { methods = { type = "set", elements = { type = "string", match = "^%u+$" } } },
    { hosts = { type = "array", elements = { type = "string" } } },
    { paths = { type = "array", elements = { type = "string", match_any = { patterns = { "^/", "^~" },
      err = "should start with: / (fixed path) or ~/ (regex path)" } } } },
    { headers = { type = "map", keys = { type = "string" }, values = { type = "array",
      elements = { type = "string" } } } },
    { regex_priority = { type = "integer", default = 0 } },
    { path_handling = { type = "string", one_of = { "v0", "v1" }, default = "v0" } },
  } },
  consumers = { fields = {
    ID, CREATED, UPDATED, { username = { type = "string", unique = true } },
    { custom_id = { type = "string", unique = true } }, TAGS,
  }, entity_checks = { { at_least_one_of = { "custom_id", "username" } } } },
  keyauth_credentials = { fields = {
    ID, CREATED, { consumer = { type = "foreign", reference = "consumers", required = true } },
    { key = { type = "string", auto = true, unique = true } }, { ttl = { type = "integer" } }, TAGS,
  } },
  plugins = { fields = {
    ID, { name = { type = "string", required = true, description = "The name of the Plugin that's going to be added." } },
    { instance_name = { type = "string", unique = true } }, CREATED, UPDATED,
    foreign("route", "routes"), foreign("service", "services"), foreign("consumer", "consumers"),
    { config = { type = "record", abstract = true,
      description = "The configuration properties for the Plugin." } },
    { protocols = { type = "set", required = true, elements = { type = "string", one_of = PROTOCOLS },
      default = HTTP } },
    { enabled = { type = "boolean", required = true, default = true } }, TAGS,
  } },
}

-- The plugins schema with one plugin's own fields laid over it.
function M.plugin_schema(own)
  local overrides = {}
  for _, entry in ipairs(own.fields or {}) do
    local name, field = next(entry)
    overrides[name] = field
  end
  local fields = {}
  for _, entry in ipairs(M.schemas.plugins.fields) do
    local name, field = next(entry)
    if name == "config" and not overrides.config then
      field = { type = "record", required = true, fields = {} }
    end
    fields[#fields + 1] = { [name] = overrides[name] or field }
  end
  return { fields = fields, entity_checks = own.entity_checks, shorthand_fields = own.shorthand_fields }
end

-- "name" of a plugins row is checked before anything else.
local function schema_for(entity, value, loaded)
  if entity ~= "plugins" then
    return M.schemas[entity]
  end
  local name = value.name
  if name == nil or name == null then
    return nil, { name = "required field missing" }
  end
  if type(name) ~= "string" then
    error("plugin name is not a string")
  end
  local own = loaded[name]
  if not own then
    return nil, { name = "plugin '" .. name .. "' not enabled; add it to the 'plugins' configuration property" }
  end
  return M.plugin_schema(own)
end

-- A new or replacing entity out of the client's `value`.
function M.insert(entity, value, loaded, infer)
  local schema, errors = schema_for(entity, value, loaded)
  if not schema then return nil, errors end
  return schema_of.process(schema, value, { infer = infer, auto = host.auto_value })
end

-- Lays `patch` over `stored`: records are merged, everything else is replaced.
local function merge(stored, patch)
  for key, value in pairs(patch) do
    local old = stored[key]
    if type(value) == "table" and type(old) == "table" and getmetatable(value) ~= host.array_mt
       and getmetatable(old) ~= host.array_mt and key ~= "service" and key ~= "route" and key ~= "consumer" then
      stored[key] = merge(old, value)
    else
      stored[key] = value
    end
  end
  return stored
end

-- A stored row as it is read with the schemas that are loaded now.
function M.read(entity, stored, loaded)
  local own = entity == "plugins" and loaded[stored.name]
  if not own or host.version_num < 1000000 then return stored end
  return schema_of.reshape(M.plugin_schema(own), stored)
end

-- `stored` changed by `patch`.
function M.update(entity, stored, patch, loaded, infer)
  stored = M.read(entity, stored, loaded)
  local merged = merge(stored, patch)
  if patch.updated_at == nil then merged.updated_at = nil end
  local schema, errors = schema_for(entity, merged, loaded)
  if not schema then return nil, errors end
  return schema_of.process(schema, merged, { infer = infer, auto = host.auto_value })
end

return M
