-- Stands for kong/db/schema/typedefs.lua: the field types that plugin schemas share. A typedef can be used as it is
-- or called with attributes that override it.
local null = require("kong.standin.host").null

local HTTP = { "grpc", "grpcs", "http", "https" }
local STREAM = { "tcp", "tls", "udp" }
local ALL = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp" }
local ROUTE_HTTP = { "http", "https" }

local function protocol_set(names)
  return { type = "set", required = true, default = names, elements = { type = "string", one_of = names },
    description = "A set of strings representing HTTP protocols." }
end

local function a_port(value)
  return value >= 0 and value <= 65535
end

local function an_absolute_path(value)
  if value:sub(1, 1) ~= "/" then return nil, "should start with: /" end
  return true
end

local function a_url(value)
  local scheme, rest = value:match("^(%a[%w+.-]*)://(.+)$")
  if not scheme then return nil, "missing scheme in url" end
  if rest:match("^[/?#]") then return nil, "missing host in url" end
  return true
end

local function a_host(value)
  if value:match("[%s/?#]") then return nil, "invalid hostname: " .. value end
  return true
end

local function a_header(value)
  if not value:match("^[%w_%-]+$") then
    return nil, "bad header name '" .. value .. "', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
  end
  return true
end

local function an_ip(value)
  if value:match("^%d+%.%d+%.%d+%.%d+$") or value:match("^[%x:]+:[%x:.]*$") then return true end
  return nil, "not an ip address: " .. value
end

local function an_ip_or_cidr(value)
  if an_ip((value:gsub("/%d+$", ""))) then return true end
  return nil, "invalid ip or cidr range: '" .. value .. "'"
end

local function absent(reference)
  return { type = "foreign", reference = reference, eq = null,
    description = "Custom type for representing a foreign key with a null value allowed." }
end

local TYPES = {
  http_method = { type = "string", match = "^%u+$" },
  protocol = { type = "string", one_of = ALL },
  protocols = { type = "set", required = true, default = HTTP, elements = { type = "string", one_of = ALL } },
  protocols_http = protocol_set(HTTP),
  protocols_stream = protocol_set(STREAM),
  protocols_http_https = protocol_set(ROUTE_HTTP),
  host = { type = "string", custom_validator = a_host },
  host_with_optional_port = { type = "string", custom_validator = a_host },
  wildcard_host = { type = "string", custom_validator = a_host },
  ip = { type = "string", custom_validator = an_ip },
  ip_or_cidr = { type = "string", custom_validator = an_ip_or_cidr },
  cidr_v4 = { type = "string", custom_validator = an_ip_or_cidr },
  port = { type = "integer", between = { 0, 65535 }, custom_validator = a_port },
  path = { type = "string", starts_with = "/", custom_validator = an_absolute_path },
  router_path = { type = "string" },
  url = { type = "string", custom_validator = a_url },
  header_name = { type = "string", description = "A string representing an HTTP header name.",
    custom_validator = a_header },
  timeout = { type = "integer", between = { 0, 2147483646 } },
  uuid = { type = "string", uuid = true, auto = true },
  auto_timestamp_s = { type = "integer", timestamp = true, auto = true },
  auto_timestamp_ms = { type = "number", timestamp = true, auto = true },
  utf8_name = { type = "string", unique = true },
  name = { type = "string", unique = true },
  sni = { type = "string" },
  wildcard_sni = { type = "string" },
  certificate = { type = "string" },
  key = { type = "string" },
  tag = { type = "string", required = true },
  tags = { type = "set", elements = { type = "string", required = true } },
  semantic_version = { type = "string" },
  lua_code = { type = "map", keys = { type = "string" }, values = { type = "string" } },
  capture_group = { type = "string" },
  no_api = absent("apis"),
  no_route = absent("routes"),
  no_service = absent("services"),
  no_consumer = absent("consumers"),
  no_consumer_group = absent("consumer_groups"),
  redis = { type = "record", required = true, fields = {
    { host = { type = "string" } }, { port = { type = "integer", between = { 0, 65535 }, default = 6379 } },
    { timeout = { type = "integer", default = 2000 } }, { username = { type = "string" } },
    { password = { type = "string" } }, { database = { type = "integer", default = 0 } },
    { ssl = { type = "boolean", default = false } }, { ssl_verify = { type = "boolean", default = false } },
    { server_name = { type = "string" } },
  } },
  methods = { type = "set", elements = { type = "string", match = "^%u+$" } },
  hosts = { type = "array", elements = { type = "string" } },
  paths = { type = "array", elements = { type = "string" } },
  headers = { type = "map", keys = { type = "string" }, values = { type = "array", elements = { type = "string" } } },
  snis = { type = "set", elements = { type = "string" } },
  sources = { type = "set", elements = { type = "record", fields = {
    { ip = { type = "string" } }, { port = { type = "integer" } } } } },
  destinations = { type = "set", elements = { type = "record", fields = {
    { ip = { type = "string" } }, { port = { type = "integer" } } } } },
}

local typedefs = {}
local methods = {}

-- `typedefs.url { required = true }`: the type with some attributes replaced.
local overridable = {
  __call = function(base, overrides)
    local out = {}
    for key, value in pairs(base) do out[key] = value end
    for key, value in pairs(overrides or {}) do out[key] = value end
    return setmetatable(out, getmetatable(base))
  end,
}
for name, definition in pairs(TYPES) do methods[name] = setmetatable(definition, overridable) end

return setmetatable(typedefs, {
  __index = function(_, name)
    local definition = methods[name]
    if definition == nil then error("schema typedef error: definition " .. tostring(name) .. " does not exist", 2) end
    return definition
  end,
})
