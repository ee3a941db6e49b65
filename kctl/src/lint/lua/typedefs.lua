-- Kong's shared field types for the version that is asked for: the stand-in's, and what only some versions have.
local host, shared = ...
local null = host.null

local function null_of(definition)
  local out = {}
  for key, value in pairs(definition) do out[key] = value end
  out.eq = null
  return out
end
local strings = { type = "array", elements = { type = "string" } }
local methods = { type = "set", elements = { type = "string", match = "^%u+$" } }
local headers = { type = "map", keys = { type = "string" }, values = { type = "array", elements = { type = "string" } } }
local addresses = { type = "set", elements = { type = "record", fields = { { ip = { type = "string" } }, { port = { type = "integer" } } } } }
local number = function(default) return { type = "number", default = default } end
local integer = function(default) return { type = "integer", default = default } end

-- name -> { definition, first version, last version }, versions as major * 100 + minor
local more = {
  cidr = { { type = "string" }, 100 }, redis_host = { { type = "string" }, 306 }, cookie_name = { { type = "string" }, 306 },
  redis_server_name = { { type = "string" }, 309 }, capability = { { type = "string" }, 309 },
  router_path = { { type = "string" }, 300 }, router_paths = { strings, 300 }, paths = { strings, 102, 208 },
  no_hosts = { null_of(strings), 102 }, no_paths = { null_of(strings), 102 }, no_methods = { null_of(methods), 102 },
  no_headers = { null_of(headers), 102 }, no_sources = { null_of(addresses), 102 },
  no_destinations = { null_of(addresses), 102 }, pem = { { type = "record", fields = {
    { private_key = { type = "string" } }, { public_key = { type = "string" } } } }, 302 },
  jwk = { { type = "string" }, 302 }, ttl = { { type = "number", between = { 0, 100000000 } }, 309 },
  run_on = { { type = "string", required = true, default = "first", one_of = { "first", "second", "all" } }, 100, 108 },
  run_on_first = { { type = "string", required = true, default = "first", one_of = { "first" } }, 100, 108 },
  no_api = { { type = "foreign", reference = "apis", eq = null }, 15, 108 },
  utf8_name = { { type = "string", unique = true }, 200 }, semantic_version = { { type = "string" }, 208 },
  lua_code = { { type = "map", keys = { type = "string" }, values = { type = "string" } }, 208 },
  propagation = { { type = "record", required = true, fields = {
    { extract = { type = "array", elements = { type = "string" } } }, { clear = { type = "array", elements = { type = "string" } } },
    { inject = { type = "array", elements = { type = "string" } } }, { default_format = { type = "string" } } } }, 307 },
  queue = { { type = "record", required = true, fields = {
    { max_batch_size = integer(1) }, { max_coalescing_delay = number(1) }, { max_entries = integer(10000) },
    { max_bytes = { type = "integer" } }, { max_retry_time = number(60) }, { initial_retry_delay = number(0.01) },
    { max_retry_delay = number(60) }, { concurrency_limit = integer(1) } } }, 303 },
  -- What the stand-in has and others lack.
  protocols_stream = { null, 999 }, protocols_http_https = { null, 999 }, wildcard_sni = { null, 999 },
  capture_group = { null, 999 }, no_consumer_group = { null, 999 }, redis = { null, 999 }, snis = { null, 999 },
}

local callable = {}
function callable.__call(base, overrides)
  local out = {}
  for key, value in pairs(base) do out[key] = value end
  for key, value in pairs(overrides or {}) do out[key] = value end
  return setmetatable(out, callable)
end

return setmetatable({}, { __index = function(self, name)
  local entry, made = more[name], nil
  if entry then
    local now = host.kong.number
    made = now >= entry[2] and now <= (entry[3] or 9999) and setmetatable(entry[1], callable) or nil
  else
    local ok, definition = host.guarded(function() return shared[name] end)
    made = ok and definition or nil
    -- Descriptions came with 3.4.
    if made and host.kong.number < 304 then
      made = setmetatable(made {}, callable)
      made.description = nil
    end
  end
  if not made then error("schema typedef error: definition " .. tostring(name) .. " does not exist", 2) end
  rawset(self, name, made)
  return made
end })
