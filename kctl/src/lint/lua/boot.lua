-- The surroundings a plugin is loaded in: its own modules strictly, Kong's as far as loading needs them, anything else
-- as a stand-in that bears whatever is done to it. Receives the host; returns what the judge needs.
local host = ...

-- Taken before plugin code can change them.
local raw_type, raw_pcall, raw_xpcall, setmetatable, getmetatable, rawget, rawset =
  type, pcall, xpcall, setmetatable, getmetatable, rawget, rawset
local find, gsub, match, sub, format = string.find, string.gsub, string.match, string.sub, string.format
local loaded = package.loaded

local M = {
  -- Modules that were asked for and are not there: name -> true.
  missing = {},
  -- Modules of others: { name, optional }.
  foreign = {},
  -- Own files that do not compile: file -> Lua's words.
  broken = {},
  -- How often a stand-in was used as if it were the real thing.
  guessed = 0,
  -- How deep in pcall and xpcall the code is.
  guarded = 0,
}

-- Stand-ins -----------------------------------------------------------------------------------------------------------

-- How often one stand-in may be called: a loop over what it gives has to end.
local MOST_CALLS = 64
local children = setmetatable({}, { __mode = "k" })
local names = setmetatable({}, { __mode = "k" })
local calls = setmetatable({}, { __mode = "k" })
local proxy_mt = {}

local function proxy(name)
  local made = setmetatable({}, proxy_mt)
  names[made], children[made] = name, {}
  return made
end
M.proxy = proxy

function proxy_mt.__index(self, key)
  local own = children[self]
  if own[key] == nil then own[key] = proxy(tostring(names[self]) .. "." .. tostring(key)) end
  return own[key]
end
function proxy_mt.__newindex(self, key, value)
  if value ~= nil then children[self][key] = value end
end
function proxy_mt.__call(self)
  M.guessed = M.guessed + 1
  calls[self] = (calls[self] or 0) + 1
  if calls[self] > MOST_CALLS then return nil end
  return proxy(tostring(names[self]) .. "()")
end
function proxy_mt.__tostring(self) return tostring(names[self]) end
function proxy_mt.__concat(left, right) M.guessed = M.guessed + 1 return tostring(left) .. tostring(right) end
function proxy_mt.__len() M.guessed = M.guessed + 1 return 0 end
for _, event in ipairs { "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm" } do
  proxy_mt[event] = function(left, right)
    M.guessed = M.guessed + 1
    if raw_type(left) == "number" then return left end
    return raw_type(right) == "number" and right or 0
  end
end
function proxy_mt.__lt() M.guessed = M.guessed + 1 return false end
function proxy_mt.__le() M.guessed = M.guessed + 1 return true end
proxy_mt.__metatable = false

-- Libraries -----------------------------------------------------------------------------------------------------------

local util = require "jit.util"
M.util = util
local no_file = "No such file or directory"
_G.io = {
  open = function(path) M.guessed = M.guessed + 1 return nil, tostring(path) .. ": " .. no_file, 2 end,
  lines = function(path) M.guessed = M.guessed + 1 error(tostring(path) .. ": " .. no_file, 2) end,
  popen = function() M.guessed = M.guessed + 1 return nil, no_file, 2 end,
  read = function() end, write = function() return true end, close = function() return true end,
  tmpfile = function() return nil, no_file, 2 end, type = function() return nil end,
  stdout = proxy "io.stdout", stderr = proxy "io.stderr", stdin = proxy "io.stdin",
}
local os = os
_G.os = {
  time = os.time, date = os.date, clock = os.clock, difftime = os.difftime,
  getenv = function() M.guessed = M.guessed + 1 return nil end,
  execute = function() M.executed = "os.execute" M.guessed = M.guessed + 1 return nil, "exit", 1 end,
  exit = function() M.exited = true error("os.exit was called", 2) end,
  remove = function(path) return nil, tostring(path) .. ": " .. no_file, 2 end,
  rename = function(path) return nil, tostring(path) .. ": " .. no_file, 2 end,
  setlocale = function() return "C" end,
  tmpname = function() M.guessed = M.guessed + 1 return "/tmp/lua_000000" end,
}
_G.debug = {
  traceback = function(text) return text end, getinfo = function() return { source = "=?", short_src = "?", currentline = 0, what = "Lua" } end,
  getlocal = function() end, getupvalue = function() end, setupvalue = function() end, gethook = function() end,
  sethook = function() end, getregistry = function() return {} end, getmetatable = getmetatable,
  setmetatable = function(value, mt) if raw_type(value) == "table" then setmetatable(value, mt) end return value end,
  getfenv = getfenv, setfenv = setfenv, upvalueid = function() end,
}
local jit_stub = { off = function() end, on = function() end, flush = function() end, status = function() return true end,
  version = jit.version, version_num = jit.version_num, os = "Linux", arch = jit.arch, opt = { start = function() end } }
_G.jit = jit_stub
local real_load = loadstring
local function load_text(text, name)
  if sub(text, 1, 1) == "\27" then return nil, "attempt to load chunk with wrong mode" end
  return real_load(text, name)
end
_G.loadstring = function(text, name) return load_text(tostring(text), name or tostring(text)) end
_G.load = function(chunk, name, mode, env)
  if raw_type(chunk) == "function" then
    local parts = {}
    for _ = 1, 10000 do
      local part = chunk()
      if part == nil or part == "" then break end
      parts[#parts + 1] = part
    end
    chunk = table.concat(parts)
  end
  local made, err = load_text(tostring(chunk), name or "=(load)")
  if made and env then setfenv(made, env) end
  return made, err
end
_G.loadfile = function(path) return nil, "cannot open " .. tostring(path) end
_G.dofile = function(path) error("cannot open " .. tostring(path), 2) end
string.dump = nil
_G.print = function() end
local collect = collectgarbage
_G.collectgarbage = function(what) return what == "count" and collect("count") or 0 end

-- What a missing module means to the code depends on whether it is ready for it.
_G.pcall = function(f, ...)
  M.guarded = M.guarded + 1
  local function back(...) M.guarded = M.guarded - 1 return ... end
  return back(raw_pcall(f, ...))
end
_G.xpcall = function(f, handler, ...)
  M.guarded = M.guarded + 1
  local function back(...) M.guarded = M.guarded - 1 return ... end
  return back(raw_xpcall(f, handler, ...))
end

-- Modules -------------------------------------------------------------------------------------------------------------

local null = host.null
local standin = setmetatable({
  null = null, array_mt = {}, in_cli = false, log = function() end, now = os.time, phase = function() return "init" end,
  prefix = function() return "/usr/local/kong/" end, pid = function() return 1 end, worker_id = function() return 0 end,
  worker_count = function() return 1 end, exiting = function() return false end, hostname = function() return "node" end,
  node_id = function() return "00000000-0000-4000-8000-000000000000" end, sleep = function() end,
  uuid = function() return "00000000-0000-4000-8000-000000000000" end, md5 = function() return ("0"):rep(32) end,
  encode_base64 = function(text) return tostring(text) end, decode_base64 = function(text) return tostring(text) end,
  json_encode = function() M.guessed = M.guessed + 1 return "{}" end, json_decode = function(text)
    if raw_type(text) ~= "string" then M.guessed = M.guessed + 1 return M.proxy "cjson.decode()" end
    local ok, value = raw_pcall(host.json_decode, text)
    if not ok then error("Expected value but found invalid token at character 1", 2) end
    return value
  end,
  re_match = function() M.guessed = M.guessed + 1 return nil end,
  re_sub = function(text) M.guessed = M.guessed + 1 return text, 0 end,
}, { __index = function(_, key) return function() M.guessed = M.guessed + 1 end end })

local preload = { ["kong.standin.host"] = function() return standin end }
for module, source in pairs { ["kong.standin.request"] = "request", ["kong.standin.version"] = "version",
  ["kong.standin.validators"] = "validators", ["kong.standin.pdk"] = "pdk", ["resty.timerng"] = "timerng",
  ["kong.standin.typedefs"] = "typedefs", ["kong.standin.bundled"] = "bundled",
  ["kong.vendor.classic"] = "classic", ["kong.plugins.base_plugin"] = "base_plugin" } do
  preload[module] = function(name) return host.prelude(source)(name) end
end
preload["kong.pdk.tracing"] = function() return proxy "kong.tracing" end
for name, made in pairs(host.prelude("builtin")(standin, { proxy = proxy })) do preload[name] = made end
preload["kong.db.schema.typedefs"] = function() return host.prelude("own:typedefs")(host, require "kong.standin.typedefs") end
preload["kong.meta"] = function()
  local v = host.kong
  local text = v.major .. "." .. v.minor .. ".0"
  return { version = text, core_version = text, _VERSION = text, _NAME = "kong", _SERVER_TOKENS = "kong/" .. text,
    _VERSION_TABLE = { major = v.major, minor = v.minor, patch = 0 } }
end
-- The constants that plugins put into tables while they are loaded; all others are pretended.
preload["kong.constants"] = function()
  local constants = proxy "kong.constants"
  constants.HEADERS = setmetatable({ CONSUMER_ID = "X-Consumer-ID", CONSUMER_CUSTOM_ID = "X-Consumer-Custom-ID",
    CONSUMER_USERNAME = "X-Consumer-Username", CREDENTIAL_USERNAME = "X-Credential-Username",
    CREDENTIAL_IDENTIFIER = "X-Credential-Identifier", ANONYMOUS = "X-Anonymous-Consumer", VIA = "Via",
    UPSTREAM_LATENCY = "X-Kong-Upstream-Latency", PROXY_LATENCY = "X-Kong-Proxy-Latency",
    RATELIMIT_LIMIT = "X-RateLimit-Limit", RATELIMIT_REMAINING = "X-RateLimit-Remaining",
    FORWARDED_HOST = "X-Forwarded-Host", FORWARDED_PREFIX = "X-Forwarded-Prefix", REQUEST_ID = "X-Kong-Request-Id" },
    { __index = proxy "kong.constants.HEADERS" })
  return constants
end
preload["kong.db.schema"] = function()
  local schema, callable = proxy "kong.db.schema", {}
  function callable.__call(base, overrides)
    local out = {}
    for key, value in pairs(base) do out[key] = value end
    for key, value in pairs(overrides or {}) do out[key] = value end
    return setmetatable(out, callable)
  end
  schema.define = function(definition) return setmetatable(definition, callable) end
  return schema
end
preload["ffi"] = function()
  local ffi = proxy "ffi"
  ffi.os, ffi.arch, ffi.null = "Linux", "x64", null
  ffi.abi = function(what) return what == "64bit" or what == "le" end
  ffi.cdef, ffi.string, ffi.sizeof = function() end, function() return "" end, function() return 8 end
  return ffi
end
preload["bit"] = function() return _G.bit end
preload["jit"] = function() return jit_stub end
preload["pl.class"] = function()
  local function class(base)
    local made = {}
    made.__index = made
    return setmetatable(made, { __index = base, __call = function(self, ...)
      local object = setmetatable({}, self)
      if self._init then self._init(object, ...) end
      return object
    end })
  end
  return setmetatable({ properties = class }, { __call = function(_, base) return class(base) end })
end

for name in pairs(loaded) do
  if name ~= "_G" and name ~= "string" and name ~= "table" and name ~= "math" and name ~= "coroutine" and name ~= "bit" then
    loaded[name] = nil
  end
end
loaded.io, loaded.os, loaded.debug, loaded.package = _G.io, _G.os, _G.debug, package
package.preload, package.loaders, package.loadlib, package.searchpath = {}, {}, nil, nil
package.path, package.cpath = "/usr/local/share/lua/5.1/?.lua;/usr/local/share/lua/5.1/?/init.lua;;", ""

-- The file of a module, among those of the release: its key and its source.
local function own_file(name)
  local path = gsub(name, "%.", "/")
  for _, file in ipairs { path .. ".lua", path .. "/init.lua" } do
    local text, chunk = host.file(file)
    if text then return file, text, chunk end
  end
end
M.own_file = own_file

-- Compiles an own file; nil and Lua's words if it does not.
function M.compile(file, text, chunk)
  local made, err = host.compile(text, chunk)
  if not made then M.broken[file] = err end
  return made, err
end

-- What Kong brings along beside itself; told by its newest version, since little of it ever goes away.
local listed = host.prelude("provided")()
local always = {}
for name in ("string table math coroutine io os debug package bit jit ngx ndk _G"):gmatch("%S+") do always[name] = true end
M.listed = function(name) return always[name] or preload[name] ~= nil or listed(name) end

local own_prefix = "kong.plugins." .. host.plugin .. "."
local loading = {}
-- While the surroundings are set up, their own modules are there for any version.
local booting = true

-- A loader for a module, or nil.
local function resolve(name)
  local file, text, chunk = own_file(name)
  if file then
    local made, err = M.compile(file, text, chunk)
    if not made then error("error loading module '" .. name .. "' from file '" .. file .. "':\n\t" .. err, 0) end
    return made
  end
  local dotted = gsub(name, "/", ".")
  if sub(dotted, 1, #own_prefix) == own_prefix then return nil end
  if dotted == "kong" or sub(dotted, 1, 5) == "kong." then
    if host.provides(dotted) then
      M.used = M.used or {}
      M.used[dotted] = true
      return preload[dotted] or function() return proxy(name) end
    end
    local other = match(dotted, "^kong%.plugins%.([^.]+)%.")
    if not other or host.bundled(other) then return nil end
  elseif preload[dotted] then
    return preload[dotted]
  elseif listed(dotted) then
    return function() return proxy(name) end
  end
  M.foreign[#M.foreign + 1] = { name = dotted, optional = M.guarded > 0 }
  if M.guarded > 0 then return nil end
  return function() return proxy(name) end
end

_G.require = function(name)
  name = tostring(name)
  local present = loaded[name]
  if present == nil and preload[name] and not own_file(name) and (booting or sub(name, 1, 13) == "kong.standin.") then
    present = preload[name](name)
    loaded[name] = present
    return present
  end
  if present ~= nil then
    if present == loading then error("loop or previous error loading module '" .. name .. "'", 2) end
    return present
  end
  local ok, loader = raw_pcall(resolve, name)
  if not ok then error(loader, 0) end
  if not loader then
    M.missing[name] = true
    error("module '" .. name .. "' not found", 2)
  end
  loaded[name] = loading
  local result = loader(name)
  if result ~= nil then
    loaded[name] = result
  elseif loaded[name] == loading then
    loaded[name] = true
  end
  return loaded[name]
end

-- Old code makes modules of itself; what it writes then are not globals.
_G.module = function(name, ...)
  local made = {}
  loaded[name] = made
  _G[name] = _G[name] or made
  made._M, made._NAME = made, name
  for index = 1, select("#", ...) do
    local extend = select(index, ...)
    if raw_type(extend) == "function" then extend(made) end
  end
  setfenv(2, made)
end
package.seeall = function(made) setmetatable(made, { __index = _G }) end

-- Globals -------------------------------------------------------------------------------------------------------------

_G.bit = bit
loaded.bit = bit
_G.ngx = host.prelude("ngx")()
loaded.ngx = _G.ngx
-- Which dictionaries a node's nginx makes is not known here: any name is one, and the scanner says which are not declared.
do
  local shared = _G.ngx.shared
  local _, some = next(shared)
  setmetatable(shared, { __index = function(_, name) if type(name) == "string" then return some end end })
end
_G.ngx.socket = setmetatable({}, { __index = function()
  return function() error("no request found", 2) end
end })
_G.ngx.config.nginx_version = 1025003
_G.ndk = proxy "ndk"
if host.kong.number >= 14 then
  local number = host.kong.major * 1000000 + host.kong.minor * 1000
  local configuration = setmetatable({ prefix = "/usr/local/kong", database = "postgres", role = "traditional",
    plugins = { "bundled" }, loaded_plugins = { [host.plugin] = true }, log_level = "notice", nginx_user = "kong kong",
    admin_listeners = {}, proxy_listeners = {}, status_listeners = {}, anonymous_reports = true, mem_cache_size = "128m",
    trusted_ips = {}, vaults = { "bundled" }, pg_host = "127.0.0.1", pg_port = 5432, pg_database = "kong", pg_user = "kong",
    pg_timeout = 5000, lua_ssl_verify_depth = 1, lua_package_path = "./?.lua;./?/init.lua;", db_cache_ttl = 0,
    worker_consistency = "eventual", real_ip_header = "X-Real-IP", dns_resolver = {},
  }, { __index = function() M.guessed = M.guessed + 1 return nil end })
  local kong = require("kong.standin.pdk").new(configuration)
  kong.version = host.kong.major .. "." .. host.kong.minor .. ".0"
  kong.version_num = number
  kong.db, kong.dns = proxy "kong.db", proxy "kong.dns"
  _G.kong = kong
  loaded.kong = nil
end
M.null = null
M.raw_pcall, M.raw_xpcall = raw_pcall, raw_xpcall

-- Kong's own surroundings once workers run; `api` is loaded there.
function M.as_worker()
  standin.phase = function() return "init_worker" end
  for _, name in ipairs { "cache", "core_cache", "worker_events", "cluster_events", "timer" } do
    if _G.kong and rawget(_G.kong, name) == nil then _G.kong[name] = proxy("kong." .. name) end
  end
end

booting = false
loaded["kong.pdk.tracing"], loaded["resty.timerng"] = nil, nil

-- The globals there are; what else is read by code is not there, what is written is the code's doing.
M.globals = {}
for name in pairs(_G) do M.globals[name] = true end
return M
