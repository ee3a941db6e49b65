-- Modules that plugins commonly call at load time, written out because a stand-in that answers anything would mislead.
local host, modules = ...
local M = {}

M["cjson"] = function()
  local cjson = { null = host.null, encode = host.json_encode, decode = host.json_decode, empty_array_mt = host.array_mt,
    array_mt = host.array_mt, empty_array = setmetatable({}, host.array_mt), _VERSION = "2.1.0.10",
    encode_empty_table_as_object = function() end, decode_array_with_array_mt = function() end,
    encode_sparse_array = function() end, encode_number_precision = function() end, encode_max_depth = function() end,
    decode_max_depth = function() end, encode_keep_buffer = function() end, encode_invalid_numbers = function() end,
    decode_invalid_numbers = function() end, encode_escape_forward_slash = function() end,
    encode_skip_unsupported_value_types = function() end, _NAME = "cjson" }
  cjson.new = function() return cjson end
  return cjson
end
M["cjson.safe"] = function()
  local safe = {}
  for key, value in pairs(require "cjson") do safe[key] = value end
  local function guard(f)
    return function(...)
      local ok, result = pcall(f, ...)
      if ok then return result end
      return nil, result
    end
  end
  safe.encode, safe.decode = guard(host.json_encode), guard(host.json_decode)
  safe.new = function() return safe end
  return safe
end
M["kong.tools.cjson"] = function() return require "cjson.safe" end
M["kong.meta"] = function()
  local version, parts = host.version, host.version_parts
  return { version = version, core_version = version, _VERSION = version, _NAME = "kong", _SERVER_TOKENS = "kong/" .. version,
    _VERSION_TABLE = { major = parts[1], minor = parts[2], patch = parts[3] } }
end
M["kong.constants"] = function()
  return modules.proxy("kong.constants")
end

local function split(text, separator)
  local out, at = {}, 1
  separator = separator or ","
  while true do
    local from, to = text:find(separator, at, true)
    if not from then break end
    out[#out + 1] = text:sub(at, from - 1)
    at = to + 1
  end
  out[#out + 1] = text:sub(at)
  return out
end
local function strip(text) return (tostring(text):gsub("^%s+", ""):gsub("%s+$", "")) end
local function contains(list, value)
  for _, item in ipairs(list or {}) do if item == value then return true end end
  return false
end
local function deep_copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = deep_copy(item) end
  return setmetatable(out, getmetatable(value))
end
local function merge(a, b)
  local out = {}
  for key, value in pairs(a or {}) do out[key] = value end
  for key, value in pairs(b or {}) do out[key] = value end
  return out
end
local function tools(extra)
  return function()
    return setmetatable(extra, { __index = modules.proxy("kong.tools") })
  end
end
M["kong.tools.string"] = tools { split = split, strip = strip, replace_dashes = function(t) return (t:gsub("-", "_")) end,
  isempty = function(t) return t == nil or t == "" end }
M["kong.tools.table"] = tools { deep_copy = deep_copy, cycle_aware_deep_copy = deep_copy, shallow_copy = merge,
  table_merge = merge, table_contains = contains }
M["kong.tools.uuid"] = tools { uuid = host.uuid, is_valid_uuid = function(t)
  return type(t) == "string" and t:match("^%x+%-%x+%-%x+%-%x+%-%x+$") ~= nil end }
M["kong.tools.utils"] = tools { split = split, strip = strip, table_contains = contains, deep_copy = deep_copy,
  cycle_aware_deep_copy = deep_copy, table_merge = merge, uuid = host.uuid }
M["kong.tools.time"] = tools { time_ns = function() return host.now() * 1e9 end, get_now_ms = function() return host.now() * 1000 end }
M["resty.jit-uuid"] = function()
  return setmetatable({ generate_v4 = host.uuid, seed = function() end }, { __call = host.uuid })
end
M["pl.stringx"] = function()
  return setmetatable({ split = split, strip = strip, startswith = function(t, s) return t:sub(1, #s) == s end },
    { __index = modules.proxy("pl.stringx") })
end
M["pl.tablex"] = function()
  return setmetatable({ deepcopy = deep_copy, merge = merge, find = function(list, value)
    for index, item in ipairs(list) do if item == value then return index end end
  end }, { __index = modules.proxy("pl.tablex") })
end
M["table.new"] = function() return function() return {} end end
M["table.clear"] = function() return function(t) for key in pairs(t) do t[key] = nil end end end
M["table.nkeys"] = function() return function(t) local n = 0 for _ in pairs(t) do n = n + 1 end return n end end
M["table.isempty"] = function() return function(t) return next(t) == nil end end
M["kong.tools.gzip"] = function() return modules.proxy("kong.tools.gzip") end

return M
