-- The global `ngx`: the part of lua-nginx-module's interface that plugins commonly touch.
local host = require "kong.standin.host"
local request = require "kong.standin.request"
local timers = require "resty.timerng"

local ngx = {
  null = host.null, OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
  HTTP_GET = 2, HTTP_HEAD = 4, HTTP_PUT = 16, HTTP_POST = 8, HTTP_DELETE = 32, HTTP_OPTIONS = 512, HTTP_PATCH = 16384,
  HTTP_OK = 200, HTTP_CREATED = 201, HTTP_ACCEPTED = 202, HTTP_NO_CONTENT = 204, HTTP_MOVED_PERMANENTLY = 301,
  HTTP_MOVED_TEMPORARILY = 302, HTTP_SEE_OTHER = 303, HTTP_NOT_MODIFIED = 304, HTTP_BAD_REQUEST = 400,
  HTTP_UNAUTHORIZED = 401, HTTP_FORBIDDEN = 403, HTTP_NOT_FOUND = 404, HTTP_NOT_ALLOWED = 405, HTTP_CONFLICT = 409,
  HTTP_TOO_MANY_REQUESTS = 429, HTTP_INTERNAL_SERVER_ERROR = 500, HTTP_METHOD_NOT_IMPLEMENTED = 501,
  HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503, HTTP_GATEWAY_TIMEOUT = 504,
  HTTP_MKCOL = 64, HTTP_COPY = 128, HTTP_MOVE = 256, HTTP_PROPFIND = 1024, HTTP_PROPPATCH = 2048, HTTP_LOCK = 4096,
  HTTP_UNLOCK = 8192, HTTP_TRACE = 32768, HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101,
  HTTP_PARTIAL_CONTENT = 206, HTTP_SPECIAL_RESPONSE = 300, HTTP_TEMPORARY_REDIRECT = 307,
  HTTP_PERMANENT_REDIRECT = 308, HTTP_PAYMENT_REQUIRED = 402, HTTP_NOT_ACCEPTABLE = 406, HTTP_REQUEST_TIMEOUT = 408,
  HTTP_GONE = 410, HTTP_UPGRADE_REQUIRED = 426, HTTP_CLOSE = 444, HTTP_ILLEGAL = 451, HTTP_NOT_IMPLEMENTED = 501,
  HTTP_VERSION_NOT_SUPPORTED = 505, HTTP_INSUFFICIENT_STORAGE = 507,
  config = { subsystem = "http", debug = false, nginx_version = 1025003, ngx_lua_version = 10026,
    prefix = function() return host.prefix() end, nginx_configure = function() return "" end },
}

local LEVELS = { [0] = "emerg", "emerg", "alert", "crit", "error", "warn", "notice", "info", "debug" }

function ngx.log(level, ...)
  local parts = {}
  for index = 1, select("#", ...) do parts[index] = tostring((select(index, ...))) end
  local info = debug.getinfo(2, "Sl")
  local where = info and (info.short_src:match("([^/]+)$") .. ":" .. info.currentline .. ": ") or ""
  host.log(LEVELS[level] or "error", "[lua] " .. where .. table.concat(parts))
end
function _G.print(...) ngx.log(ngx.NOTICE, ...) end

ngx.now, ngx.time = host.now, function() return math.floor(host.now()) end
function ngx.update_time() end
function ngx.req_start_time() return host.now() end
function ngx.today() return os.date("!%Y-%m-%d") end
function ngx.localtime() return os.date("%Y-%m-%d %H:%M:%S") end
function ngx.utctime() return os.date("!%Y-%m-%d %H:%M:%S") end
function ngx.http_time(seconds) return os.date("!%a, %d %b %Y %H:%M:%S GMT", seconds) end
function ngx.cookie_time(seconds) return os.date("!%a, %d-%b-%y %H:%M:%S GMT", seconds) end
function ngx.get_phase() return request.current and request.current.phase or host.phase() end
ngx.md5, ngx.encode_base64, ngx.decode_base64 = host.md5, host.encode_base64, host.decode_base64
function ngx.md5_bin(text)
  return (ngx.md5(text):gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end))
end
function ngx.quote_sql_str(text)
  local escaped = { ["\0"] = "\\0", ["\n"] = "\\n", ["\r"] = "\\r", ["\26"] = "\\Z", ["'"] = "\\'", ['"'] = '\\"', ["\\"] = "\\\\" }
  return "'" .. tostring(text):gsub("[%z\n\r\26'\"\\]", escaped) .. "'"
end

function ngx.sleep(seconds)
  local current = request.current
  if current and current.can_yield then
    coroutine.yield("sleep", seconds)
    request.current = current
  else
    host.sleep(seconds)
  end
end

function ngx.escape_uri(text)
  return (tostring(text):gsub("[^%w%-%._~]", function(c) return string.format("%%%02X", c:byte()) end))
end
function ngx.unescape_uri(text)
  return (tostring(text):gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end
function ngx.encode_args(args)
  local parts = {}
  for key, value in pairs(args) do
    if type(value) ~= "table" then value = { value } end
    for _, item in ipairs(value) do
      parts[#parts + 1] = item == true and ngx.escape_uri(key) or (ngx.escape_uri(key) .. "=" .. ngx.escape_uri(item))
    end
  end
  return table.concat(parts, "&")
end
function ngx.decode_args(text)
  local out = {}
  for pair in tostring(text or ""):gmatch("[^&]+") do
    local key, value = pair:match("^([^=]*)=(.*)$")
    key = ngx.unescape_uri(key or pair)
    value = value and ngx.unescape_uri(value) or true
    if out[key] == nil then out[key] = value
    elseif type(out[key]) == "table" then table.insert(out[key], value)
    else out[key] = { out[key], value } end
  end
  return out
end

ngx.worker = {
  pid = host.pid, id = host.worker_id, count = host.worker_count, exiting = function() return host.exiting() end,
  pids = function() return {} end,
}
ngx.timer = { at = timers.at, every = timers.every, running_count = function() return 0 end,
  pending_count = function() return 0 end }
ngx.process = {}

-- Shared dictionaries: what Kong's nginx.conf configures. The stand-in keeps them per process.
local function new_dict()
  local values, dict = {}, {}
  local function live(key)
    local entry = values[key]
    if entry and entry.expires and entry.expires <= host.now() then values[key] = nil return nil end
    return entry
  end
  function dict:get(key) local entry = live(key) if entry then return entry.value, entry.flags end return nil end
  function dict:get_stale(key) return self:get(key) end
  function dict:set(key, value, ttl, flags)
    if value == nil then values[key] = nil return true end
    values[key] = { value = value, flags = flags, expires = ttl and ttl > 0 and host.now() + ttl or nil }
    return true
  end
  dict.safe_set = dict.set
  function dict:add(key, value, ttl, flags)
    if live(key) then return false, "exists" end
    return self:set(key, value, ttl, flags)
  end
  dict.safe_add = dict.add
  function dict:replace(key, ...) if not live(key) then return false, "not found" end return self:set(key, ...) end
  function dict:delete(key) values[key] = nil end
  function dict:incr(key, by, init, ttl)
    local entry = live(key)
    if not entry then
      if init == nil then return nil, "not found" end
      self:set(key, init + by, ttl)
      return init + by
    end
    entry.value = entry.value + by
    return entry.value
  end
  function dict:ttl(key)
    local entry = live(key)
    if not entry then return nil, "not found" end
    return entry.expires and entry.expires - host.now() or 0
  end
  function dict:expire(key, ttl)
    local entry = live(key)
    if not entry then return nil, "not found" end
    entry.expires = ttl > 0 and host.now() + ttl or nil
    return true
  end
  function dict:get_keys() local out = {} for key in pairs(values) do out[#out + 1] = key end return out end
  function dict:flush_all() values = {} end
  function dict:flush_expired() return 0 end
  function dict:capacity() return 5242880 end
  function dict:free_space() return 5242880 end
  return dict
end
ngx.shared = {}
for name in string.gmatch([[kong kong_locks kong_healthchecks kong_cluster_events kong_rate_limiting_counters
  kong_core_db_cache kong_core_db_cache_miss kong_db_cache kong_db_cache_miss kong_secrets prometheus_metrics]], "%S+") do
  ngx.shared[name] = new_dict()
end
-- What the node's own directives make; Kong's command line is given none of them.
local made = host.shared_dicts
for _, name in ipairs(type(made) == "table" and made or {}) do ngx.shared[name] = new_dict() end

ngx.ctx = setmetatable({}, {
  __index = function(_, key) return request.get().ctx[key] end,
  __newindex = function(_, key, value) request.get().ctx[key] = value end,
})

local function set_header(current, name, value)
  local key = tostring(name):lower():gsub("_", "-")
  if value == nil then current.resp_headers[key] = nil return end
  local values = {}
  for index, item in ipairs(type(value) == "table" and value or { value }) do values[index] = tostring(item) end
  current.resp_headers[key] = { name = name, values = values }
end
ngx.header = setmetatable({}, {
  __index = function(_, name)
    local entry = request.get().resp_headers[tostring(name):lower():gsub("_", "-")]
    if not entry then return nil end
    return #entry.values == 1 and entry.values[1] or entry.values
  end,
  __newindex = function(_, name, value) set_header(request.get(), name, value) end,
})
ngx.set_response_header = set_header

ngx.arg = setmetatable({}, {
  __index = function(_, index) return request.get().arg[index] end,
  __newindex = function(_, index, value) request.get().arg[index] = value end,
})

local function req_headers(current)
  local out = {}
  for key, values in pairs(current.headers) do out[key] = #values == 1 and values[1] or values end
  return setmetatable(out, { __index = function(_, key)
    return rawget(out, (tostring(key):lower():gsub("_", "-")))
  end })
end

ngx.req = {
  get_headers = function() return req_headers(request.get()) end,
  get_method = function() return request.get().method end,
  set_method = function() end,
  get_uri_args = function() return ngx.decode_args(request.get().query) end,
  set_uri_args = function(args)
    request.get().query = type(args) == "table" and ngx.encode_args(args) or tostring(args)
  end,
  set_uri = function(uri) request.get().upstream.path = uri end,
  read_body = function() request.get() end,
  get_body_data = function() local body = request.get().body if body == "" then return nil end return body end,
  get_body_file = function() return nil end,
  get_post_args = function() return ngx.decode_args(request.get().body) end,
  set_body_data = function(body) request.get().upstream.body = body end,
  discard_body = function() end,
  set_header = function(name, value)
    request.get().headers[name:lower()] = type(value) == "table" and value or { tostring(value) }
  end,
  clear_header = function(name) request.get().headers[name:lower()] = nil end,
  start_time = function() return request.get().start_time end,
  http_version = function() return 1.1 end,
  raw_header = function() return "" end,
  is_internal = function() return false end,
}

local VARS = {
  host = function(r) return r.host end, uri = function(r) return r.path end, request_uri = function(r)
    return r.query ~= "" and (r.path .. "?" .. r.query) or r.path end,
  request_method = function(r) return r.method end, remote_addr = function(r) return r.client_ip end,
  remote_port = function(r) return tostring(r.client_port) end, scheme = function(r) return r.scheme end,
  args = function(r) return r.query ~= "" and r.query or nil end, server_port = function(r) return tostring(r.port) end,
  status = function(r) return r.status and tostring(r.status) end, request_id = function(r) return r.request_id end,
  kong_request_id = function(r) return r.request_id end, realip_remote_addr = function(r) return r.client_ip end,
  server_protocol = function() return "HTTP/1.1" end, request_length = function(r) return tostring(#r.body) end,
  msec = function() return tostring(host.now()) end, pid = function() return tostring(host.pid()) end,
  binary_remote_addr = function(r) return r.client_ip end, query_string = function(r) return r.query end,
}
ngx.var = setmetatable({}, {
  __index = function(_, name)
    local current = request.get()
    name = tostring(name)
    if current.vars[name] ~= nil then return current.vars[name] end
    local read = VARS[name]
    if read then return read(current) end
    local header = name:match("^http_(.+)$")
    if header then
      local values = current.headers[(header:gsub("_", "-"))]
      return values and table.concat(values, ", ") or nil
    end
    local arg = name:match("^arg_(.+)$")
    if arg then
      local value = ngx.decode_args(current.query)[arg]
      return type(value) == "table" and value[1] or value
    end
    local cookie = name:match("^cookie_(.+)$")
    if cookie and current.headers.cookie then
      return table.concat(current.headers.cookie, "; "):match("%f[%w_%-]" .. cookie:gsub("%p", "%%%0") .. "=([^;]*)")
    end
    return nil
  end,
  __newindex = function(_, name, value) request.get().vars[name] = value end,
})

-- Ends the request with what has been said so far; the coroutine is never resumed.
local function finish(status)
  local current = request.get()
  if status and status >= 200 then current.status = status end
  current.exited = true
  if current.can_yield then coroutine.yield("exit") end
end
ngx.exit = function(status)
  if status == ngx.OK or status == ngx.DECLINED then
    if request.current and request.current.can_yield and request.current.said then return finish() end
    return
  end
  finish(status == ngx.ERROR and 500 or status)
end
local function say(text)
  local current = request.get()
  current.said = (current.said or "") .. text
  current.response_body = current.said
  return 1
end
local function flatten(...)
  local parts = {}
  for index = 1, select("#", ...) do
    local value = (select(index, ...))
    parts[index] = type(value) == "table" and table.concat(value) or tostring(value)
  end
  return table.concat(parts)
end
ngx.print = function(...) return say(flatten(...)) end
ngx.say = function(...) return say(flatten(...) .. "\n") end
ngx.flush = function() return 1 end
ngx.eof = function() return 1 end
ngx.redirect = function(uri, status)
  set_header(request.get(), "Location", uri)
  finish(status or 302)
end
ngx.exec = function() error("API disabled in the context of access_by_lua*", 2) end
ngx.send_headers = function() return 1 end
ngx.on_abort = function() return 1 end
ngx.is_subrequest, ngx.headers_sent = false, false

setmetatable(ngx, {
  __index = function(_, key)
    if key == "status" then return request.get().status or 0 end
    return nil
  end,
  __newindex = function(self, key, value)
    if key == "status" then request.get().status = value else rawset(self, key, value) end
  end,
})

ngx.re = {
  match = function(subject, pattern, options) return host.re_match(subject, pattern, options or "") end,
  find = function(subject, pattern, options)
    local _, from, to = host.re_match(subject, pattern, options or "")
    return from, to
  end,
  gsub = function(subject, pattern, replace, options) return host.re_sub(subject, pattern, replace, options or "", true) end,
  sub = function(subject, pattern, replace, options) return host.re_sub(subject, pattern, replace, options or "", false) end,
  gmatch = function(subject, pattern, options)
    local at = 1
    return function()
      local captures, from, to = host.re_match(subject:sub(at), pattern, options or "")
      if not captures then return nil end
      at = at + math.max(to, from)
      return captures
    end
  end,
}

-- What a plugin may keep in a local when it is loaded, and must not need here when it runs.
local function absent(name)
  return function() error(name .. " is not part of the stand-in", 2) end
end
local function offline() return nil, "the stand-in opens no sockets" end
for _, name in ipairs { "crc32_long", "crc32_short", "sha1_bin", "hmac_sha1", "parse_http_time", "run_worker_thread" } do
  ngx[name] = absent("ngx." .. name)
end
for _, name in ipairs { "init_body", "append_body", "finish_body", "set_body_file", "socket" } do
  ngx.req[name] = absent("ngx.req." .. name)
end
ngx.location = { capture = absent("ngx.location.capture"), capture_multi = absent("ngx.location.capture_multi") }
ngx.socket = { tcp = offline, udp = offline, stream = offline, connect = offline }
ngx.resp = { get_headers = function()
  local out = {}
  for key, header in pairs(request.get().resp_headers) do
    out[key] = #header.values == 1 and header.values[1] or header.values
  end
  return out
end }

ngx.thread = {
  spawn = function(callback, ...) return { results = { pcall(callback, ...) } } end,
  wait = function(thread) return unpack(thread.results) end,
  kill = function() return true end,
}

return ngx
