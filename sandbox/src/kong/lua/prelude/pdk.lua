-- The global `kong`: Kong's plugin development kit, as far as a request through the stand-in can serve it.
local host = require "kong.standin.host"
local request = require "kong.standin.request"

local M = {}

local function first(values) return values and values[1] or nil end
local function lower(name) return (tostring(name):lower():gsub("_", "-")) end

local function logger(namespace)
  local function emit(level, depth, ...)
    local parts = {}
    for index = 1, select("#", ...) do parts[index] = tostring((select(index, ...))) end
    local info = debug.getinfo(depth, "Sl")
    local where = info and (info.short_src:match("([^/]+)$") .. ":" .. info.currentline) or "?"
    local prefix = namespace and ("[" .. namespace .. "] ") or ""
    host.log(level, "[kong] " .. where .. " " .. prefix .. table.concat(parts))
  end
  local log = {}
  for name, level in pairs { debug = "debug", info = "info", notice = "notice", warn = "warn", err = "error",
    crit = "crit", alert = "alert", emerg = "emerg" } do
    log[name] = function(...) emit(level, 3, ...) end
  end
  log.inspect = setmetatable({ on = function() end, off = function() end }, { __call = function() end })
  log.set_serialize_value = function() end
  log.deprecation = setmetatable({}, { __call = function() end })
  log.new = function(name) return logger(name) end
  log.set_format = function() end
  log.serialize = function()
    local r = request.get()
    return { request = { method = r.method, uri = r.path, headers = ngx.req.get_headers(), querystring = {} },
      response = { status = r.status, headers = {} }, client_ip = r.client_ip, started_at = r.start_time * 1000,
      service = r.service, route = r.route, consumer = r.consumer, latencies = { kong = 0, proxy = 0, request = 0 } }
  end
  return setmetatable(log, { __call = function(_, ...) emit("notice", 3, ...) end })
end
M.logger = logger

local function args_of(r) return ngx.decode_args(r.query) end

local function parse_body(r)
  local kind = first(r.headers["content-type"]) or ""
  if kind:find("application/json", 1, true) then
    local ok, value = pcall(host.json_decode, r.body)
    if not ok then return nil, "invalid json body" end
    return value, nil, "application/json"
  elseif kind:find("application/x-www-form-urlencoded", 1, true) then
    return ngx.decode_args(r.body), nil, "application/x-www-form-urlencoded"
  end
  return nil, "unsupported content type '" .. kind .. "'"
end

local function exit(status, body, headers)
  local r = request.get()
  r.status, r.source = status, "exit"
  for name, value in pairs(headers or {}) do ngx.set_response_header(r, name, value) end
  if type(body) == "table" then
    body = host.json_encode(body)
    if not r.resp_headers["content-type"] then
      ngx.set_response_header(r, "Content-Type", "application/json; charset=utf-8")
    end
  end
  r.response_body, r.exited = body or "", true
  if r.can_yield then coroutine.yield("exit") end
end

local MESSAGES = { [400] = "Bad request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not found",
  [405] = "Method not allowed", [413] = "Payload too large", [429] = "Too many requests",
  [500] = "An unexpected error occurred", [502] = "An invalid response was received from the upstream server",
  [503] = "The upstream server is currently unavailable", [504] = "The upstream server is timing out" }

-- The PDK for a configuration. Parts that only exist later (db, cache, timer) are added by the caller.
function M.new(configuration)
  local kong = {
    version = host.version, version_num = host.version_num, configuration = configuration,
    pdk_major_version = 1, pdk_version = "1.0.0", log = logger(),
  }
  kong.ctx = {
    shared = setmetatable({}, {
      __index = function(_, key) return request.get().shared[key] end,
      __newindex = function(_, key, value) request.get().shared[key] = value end,
    }),
    plugin = setmetatable({}, {
      __index = function(_, key) return request.get().plugin_ctx[key] end,
      __newindex = function(_, key, value) request.get().plugin_ctx[key] = value end,
    }),
    keys = {},
  }
  kong.request = {
    get_scheme = function() return request.get().scheme end, get_host = function() return request.get().host end,
    get_port = function() return request.get().port end, get_method = function() return request.get().method end,
    get_forwarded_scheme = function() return request.get().scheme end,
    get_forwarded_host = function() return request.get().host end,
    get_forwarded_port = function() return request.get().port end,
    get_forwarded_path = function() return request.get().path end,
    get_forwarded_prefix = function() return nil end, get_http_version = function() return 1.1 end,
    get_path = function() return request.get().path end, get_raw_path = function() return request.get().path end,
    get_path_with_query = function()
      local r = request.get()
      return r.query ~= "" and (r.path .. "?" .. r.query) or r.path
    end,
    get_raw_query = function() return request.get().query end,
    get_query_arg = function(name)
      local value = args_of(request.get())[name]
      return type(value) == "table" and value[1] or value
    end,
    get_query = function() return args_of(request.get()) end,
    get_header = function(name) return first(request.get().headers[lower(name)]) end,
    get_headers = function() return ngx.req.get_headers() end,
    get_raw_body = function() return request.get().body end, get_body = function() return parse_body(request.get()) end,
    get_start_time = function() return math.floor(request.get().start_time * 1000) end,
    get_uri_captures = function() return { named = {}, unnamed = {} } end,
  }
  kong.client = {
    get_ip = function() return request.get().client_ip end,
    get_forwarded_ip = function() return request.get().client_ip end,
    get_port = function() return request.get().client_port end,
    get_forwarded_port = function() return request.get().client_port end,
    get_consumer = function() return request.get().consumer end,
    get_credential = function() return request.get().credential end,
    get_protocol = function() return request.get().scheme end,
    authenticate = function(consumer, credential)
      local r = request.get()
      r.consumer, r.credential = consumer, credential
    end,
    load_consumer = function(id) return host.db_select("consumers", id) end,
  }
  kong.router = {
    get_route = function() return request.get().route end, get_service = function() return request.get().service end,
  }
  local upstream = function() return request.get().upstream end
  kong.service = {
    set_target = function(name, port) upstream().host, upstream().port = name, port end,
    set_upstream = function(name) upstream().host = name return true end,
    set_timeouts = function() end, set_retries = function() end, set_tls_verify = function() end,
    request = {
      set_scheme = function(value) upstream().scheme = value end, set_path = function(value) upstream().path = value end,
      set_raw_query = function(value) upstream().query = value end,
      set_query = function(args) upstream().query = ngx.encode_args(args) end,
      set_method = function(value) upstream().method = value end,
      set_header = function(name, value)
        upstream().headers[lower(name)] = type(value) == "table" and value or { tostring(value) }
      end,
      add_header = function(name, value)
        local headers = upstream().headers
        headers[lower(name)] = headers[lower(name)] or {}
        table.insert(headers[lower(name)], tostring(value))
      end,
      clear_header = function(name)
        upstream().headers[lower(name)] = nil
        upstream().cleared[lower(name)] = true
      end,
      set_headers = function(headers)
        for name, value in pairs(headers) do
          upstream().headers[lower(name)] = type(value) == "table" and value or { tostring(value) }
        end
      end,
      set_raw_body = function(body) upstream().body = body end,
      set_body = function(args) upstream().body = host.json_encode(args) return true end,
      disable_tls = function() end, enable_buffering = function() end,
    },
    response = {
      get_status = function() return request.get().upstream_status end,
      get_header = function(name)
        local entry = request.get().resp_headers[lower(name)]
        return entry and first(entry.values)
      end,
      get_headers = function() return kong.response.get_headers() end,
      get_raw_body = function() return request.get().response_body end,
      get_body = function() return host.json_decode(request.get().response_body or "null") end,
    },
  }
  kong.response = {
    get_status = function() return request.get().status end, set_status = function(value) request.get().status = value end,
    get_header = function(name)
      local entry = request.get().resp_headers[lower(name)]
      return entry and first(entry.values)
    end,
    get_headers = function()
      local out = {}
      for key, entry in pairs(request.get().resp_headers) do
        out[key] = #entry.values == 1 and entry.values[1] or entry.values
      end
      return out
    end,
    get_source = function() return request.get().source or "service" end,
    set_header = function(name, value) ngx.set_response_header(request.get(), name, value) end,
    add_header = function(name, value)
      local entry = request.get().resp_headers[lower(name)]
      if entry then table.insert(entry.values, tostring(value))
      else ngx.set_response_header(request.get(), name, value) end
    end,
    clear_header = function(name) ngx.set_response_header(request.get(), name, nil) end,
    set_headers = function(headers)
      for name, value in pairs(headers) do ngx.set_response_header(request.get(), name, value) end
    end,
    get_raw_body = function() return request.get().arg and request.get().arg[1] or request.get().response_body end,
    set_raw_body = function(body)
      local r = request.get()
      if r.arg then r.arg[1] = body else r.response_body = body end
    end,
    exit = function(status, body, headers) return exit(status, body, headers) end,
    error = function(status, message, headers)
      local r = request.get()
      ngx.set_response_header(r, "Content-Type", "application/json; charset=utf-8")
      return exit(status, '{\n  "message":' .. host.json_encode(message or MESSAGES[status] or "Error")
        .. ',\n  "request_id":"' .. r.request_id .. '"\n}', headers)
    end,
  }
  kong.node = { get_id = host.node_id, get_memory_stats = function() return {} end, get_hostname = host.hostname }
  kong.cluster = { get_id = function() return nil, "not available" end }
  kong.ip = { is_trusted = function() return false end }
  kong.nginx = { get_subsystem = function() return "http" end, get_tls1_version_str = function() return "TLSv1.2" end }
  kong.table = {
    new = function() return {} end, clear = function(t) for key in pairs(t) do t[key] = nil end end,
    merge = function(a, b)
      local out = {}
      for key, value in pairs(a or {}) do out[key] = value end
      for key, value in pairs(b or {}) do out[key] = value end
      return out
    end,
  }
  kong.vault = { get = function() return nil, "not available" end, is_reference = function(v)
    return type(v) == "string" and v:sub(1, 9) == "{vault://" end }
  kong.plugin = { get_id = function() return request.get().plugin_id end }
  kong.tracing = require "kong.pdk.tracing"
  kong.telemetry = { log = function() return true end }
  return kong
end

return M
