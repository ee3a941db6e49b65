-- Kong's bundled plugins: their priorities, and the few whose configuration or behaviour a test of a node needs. The
-- others accept any configuration and do nothing.
local M = {}

M.priorities = {
  ["jwt"] = 1450,
  ["acl"] = 950,
  ["correlation-id"] = 100001,
  ["cors"] = 2000,
  ["oauth2"] = 1400,
  ["tcp-log"] = 7,
  ["udp-log"] = 8,
  ["file-log"] = 9,
  ["http-log"] = 12,
  ["key-auth"] = 1250,
  ["hmac-auth"] = 1030,
  ["basic-auth"] = 1100,
  ["ip-restriction"] = 990,
  ["request-transformer"] = 801,
  ["response-transformer"] = 800,
  ["request-size-limiting"] = 951,
  ["rate-limiting"] = 910,
  ["response-ratelimiting"] = 900,
  ["syslog"] = 4,
  ["loggly"] = 6,
  ["datadog"] = 10,
  ["ldap-auth"] = 1200,
  ["statsd"] = 11,
  ["bot-detection"] = 2500,
  ["aws-lambda"] = 750,
  ["request-termination"] = 2,
  ["prometheus"] = 13,
  ["proxy-cache"] = 100,
  ["session"] = 1900,
  ["acme"] = 1705,
  ["grpc-gateway"] = 998,
  ["grpc-web"] = 3,
  ["pre-function"] = 1000000,
  ["post-function"] = -1000,
  ["azure-functions"] = 749,
  ["zipkin"] = 100000,
  ["opentelemetry"] = 14,
  ["ai-proxy"] = 770,
  ["ai-prompt-decorator"] = 772,
  ["ai-prompt-template"] = 773,
  ["ai-prompt-guard"] = 771,
  ["ai-request-transformer"] = 777,
  ["ai-response-transformer"] = 768,
  ["standard-webhooks"] = 760,
  ["redirect"] = 779,
}

local function record(fields) return { { config = { type = "record", required = true, fields = fields } } } end
local function strings(default) return { type = "array", elements = { type = "string" }, default = default } end

local schemas = {}
schemas["key-auth"] = function(typedefs)
  return { { consumer = typedefs.no_consumer }, { protocols = typedefs.protocols_http }, { config = { type = "record",
    fields = {
      { key_names = { type = "array", required = true, elements = typedefs.header_name, default = { "apikey" } } },
      { hide_credentials = { type = "boolean", required = true, default = false } },
      { anonymous = { type = "string" } }, { key_in_header = { type = "boolean", required = true, default = true } },
      { key_in_query = { type = "boolean", required = true, default = true } },
      { key_in_body = { type = "boolean", required = true, default = false } },
      { run_on_preflight = { type = "boolean", required = true, default = true } },
      { realm = { type = "string", required = false } },
    } } } }
end
schemas["prometheus"] = function(typedefs)
  local fields = { { per_consumer = { type = "boolean", default = false } } }
  if require("kong.standin.host").version_num >= 3000000 then
    for _, kind in ipairs { "status_code", "ai", "latency", "bandwidth", "upstream_health" } do
      fields[#fields + 1] = { [kind .. "_metrics"] = { type = "boolean", default = false } }
    end
  end
  return { { protocols = typedefs.protocols }, { config = { type = "record", fields = fields } } }
end
schemas["correlation-id"] = function(typedefs)
  return { { protocols = typedefs.protocols_http }, { config = { type = "record", fields = {
    { header_name = { type = "string", default = "Kong-Request-ID" } },
    { generator = { type = "string", default = "uuid#counter", required = true,
      one_of = { "uuid", "uuid#counter", "tracker" } } },
    { echo_downstream = { type = "boolean", required = true, default = false } },
  } } } }
end
schemas["cors"] = function(typedefs)
  return { { consumer = typedefs.no_consumer }, { protocols = typedefs.protocols_http }, { config = { type = "record",
    fields = {
      { origins = strings() }, { headers = strings() }, { exposed_headers = strings() },
      { methods = { type = "array", elements = { type = "string" }, default =
        { "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT" } } },
      { max_age = { type = "number" } }, { credentials = { type = "boolean", required = true, default = false } },
      { private_network = { type = "boolean", required = true, default = false } },
      { preflight_continue = { type = "boolean", required = true, default = false } },
      { allow_origin_absent = { type = "boolean", default = true } },
    } } } }
end
schemas["request-termination"] = function(typedefs)
  return { { protocols = typedefs.protocols_http }, { config = { type = "record", fields = {
    { status_code = { type = "integer", required = true, default = 503, between = { 100, 599 } } },
    { message = { type = "string" } }, { content_type = { type = "string" } }, { body = { type = "string" } },
    { echo = { type = "boolean", required = true, default = false } }, { trigger = typedefs.header_name },
  } } } }
end
schemas["rate-limiting"] = function(typedefs)
  local fields = {}
  for _, period in ipairs { "second", "minute", "hour", "day", "month", "year" } do
    fields[#fields + 1] = { [period] = { type = "number", gt = 0 } }
  end
  for _, entry in ipairs {
    { limit_by = { type = "string", default = "consumer",
      one_of = { "consumer", "credential", "ip", "service", "header", "path" } } },
    { header_name = typedefs.header_name }, { path = typedefs.path },
    { policy = { type = "string", default = "local", len_min = 0, one_of = { "local", "cluster", "redis" } } },
    { fault_tolerant = { type = "boolean", required = true, default = true } },
    { hide_client_headers = { type = "boolean", required = true, default = false } },
    { error_code = { type = "number", default = 429, gt = 0 } },
    { error_message = { type = "string", default = "API rate limit exceeded" } },
    { sync_rate = { type = "number", required = true, default = -1 } },
  } do fields[#fields + 1] = entry end
  return { { protocols = typedefs.protocols_http }, { config = { type = "record", fields = fields } } }, {
    { at_least_one_of = { "config.second", "config.minute", "config.hour", "config.day", "config.month",
      "config.year" } } }
end

function M.schema(name)
  local typedefs = require "kong.db.schema.typedefs"
  local build = schemas[name]
  if not build then
    return { name = name, fields = { { protocols = typedefs.protocols_http },
      { config = { type = "json", default = {} } } } }
  end
  local fields, entity_checks = build(typedefs)
  return { name = name, fields = fields, entity_checks = entity_checks }
end

local handlers = {}

handlers["key-auth"] = function(handler)
  local host = require "kong.standin.host"
  local function key_of(conf)
    for _, name in ipairs(conf.key_names) do
      local key = conf.key_in_header and kong.request.get_header(name)
      key = key or (conf.key_in_query and kong.request.get_query_arg(name))
      if type(key) == "string" and key ~= "" then return key end
    end
  end
  local function refuse(message)
    return kong.response.error(401, message, { ["WWW-Authenticate"] = 'Key realm="kong"' })
  end
  function handler:access(conf)
    local key = key_of(conf)
    if not key then return refuse("No API key found in request") end
    local credential = host.db_find("keyauth_credentials", "key", key)
    if not credential then return refuse("Unauthorized") end
    kong.client.authenticate(host.db_select("consumers", credential.consumer.id), credential)
  end
end

handlers["request-termination"] = function(handler)
  function handler:access(conf)
    local body = conf.body
    if body then
      return kong.response.exit(conf.status_code, body, { ["Content-Type"] = conf.content_type or "application/json" })
    end
    return kong.response.exit(conf.status_code, { message = conf.message or "Service unavailable" })
  end
end

-- Answers by code, as the real one counts them; of everything else it counts, nothing.
handlers["prometheus"] = function(handler)
  local since_3 = require("kong.standin.host").version_num >= 3000000
  local function named(name) return type(name) == "string" and name or nil end
  local function quoted(text) return (tostring(text):gsub("\\", "\\\\"):gsub('"', '\\"')) end
  function handler:log(conf)
    local r = require("kong.standin.request").current
    local service = r.service and (named(r.service.name) or r.service.host)
    if not r.route or (since_3 and not conf.status_code_metrics) or not (since_3 or service) then return end
    local text = string.format('service="%s",route="%s",code="%s"', quoted(service or ""),
      quoted(named(r.route.name) or r.route.id), r.status)
    if since_3 then
      local source = (r.exited or r.failed) and "kong" or "service"
      text = text .. string.format(',source="%s",workspace="default",consumer=""', source)
    end
    r.counted = text
  end
end

handlers["correlation-id"] = function(handler)
  local counter = 0
  function handler:access(conf)
    counter = counter + 1
    local id = require("kong.standin.host").uuid() .. "#" .. counter
    kong.service.request.set_header(conf.header_name, id)
    kong.ctx.plugin.id = id
  end
  function handler:header_filter(conf)
    if conf.echo_downstream then kong.response.set_header(conf.header_name, kong.ctx.plugin.id) end
  end
end

function M.handler(name)
  local handler = { PRIORITY = M.priorities[name], VERSION = "3.9.1" }
  if handlers[name] then handlers[name](handler) end
  -- Older Kongs make one of every handler.
  return setmetatable(handler, { __call = function(self) return self end })
end

return M
