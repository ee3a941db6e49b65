-- Which modules exist. Kong, OpenResty and their dependencies bring hundreds; a plugin may require any of them at load
-- time. Those that matter are written out in this prelude, the others resolve to permissive stand-ins, and any name
-- that none of them provides fails with Lua's own words.
local host, user_path, bundled, listed = ...

local M = {}

-- Does Kong 3.9 or one of its dependencies provide this module?
local function provided(name)
  local plugin = name:match("^kong%.plugins%.([^%.]+)")
  if plugin then return bundled[plugin] == true end
  return listed(name)
end

local proxy_mt = {}
local names = setmetatable({}, { __mode = "k" })

local function proxy(name)
  local made = setmetatable({}, proxy_mt)
  names[made] = name
  return made
end

function proxy_mt.__index(self, key)
  local child = proxy(tostring(names[self]) .. "." .. tostring(key))
  rawset(self, key, child)
  return child
end
function proxy_mt.__call(self) return proxy(tostring(names[self]) .. "()") end
function proxy_mt.__tostring(self) return tostring(names[self]) end
function proxy_mt.__concat(left, right) return tostring(left) .. tostring(right) end
function proxy_mt.__len() return 0 end
function proxy_mt.__unm() return 0 end
for _, event in ipairs { "__add", "__sub", "__mul", "__div", "__mod", "__pow" } do proxy_mt[event] = function() return 0 end end
function proxy_mt.__lt() return false end
function proxy_mt.__le() return true end

M.proxy, M.provided = proxy, provided

-- Built-in modules by name; each entry is a function that returns the module.
M.builtin = {}

-- The searcher for provided names: files of the configured path win, then what this prelude has, then a stand-in.
function M.searcher(name)
  if not provided(name) then return nil end
  local file = package.searchpath(name, user_path())
  if file and (host.phase() ~= "init_worker" or host.readable_by_workers(file)) then
    local chunk, err = loadfile(file)
    if not chunk then
      error("error loading module '" .. name .. "' from file '" .. file .. "':\n\t" .. err, 0)
    end
    host.loaded_file(file)
    return chunk
  end
  local builtin = M.builtin[name]
  if builtin then return builtin end
  local third, rest = name:match("^kong%.plugins%.([^%.]+)%.(.+)$")
  if third and rest ~= "handler" and rest ~= "schema" then
    if rest == "daos" or rest == "api" or rest == "migrations" or rest == "migrations.init" or rest == "status_api" then
      return nil
    end
  end
  return function() return proxy(name) end
end

return M
