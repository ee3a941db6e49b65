-- The class that plugins for Kong before 3.0 are made from.
local Object = {}
Object.__index = Object

function Object:new() end

function Object:extend()
  local class = {}
  for key, value in pairs(self) do
    if type(key) == "string" and key:sub(1, 2) == "__" then class[key] = value end
  end
  class.__index, class.super = class, self
  return setmetatable(class, self)
end

function Object:implement(...)
  for _, mixin in ipairs { ... } do
    for key, value in pairs(mixin) do
      if self[key] == nil and type(value) == "function" then self[key] = value end
    end
  end
end

function Object:is(class)
  local above = getmetatable(self)
  while above do
    if above == class then return true end
    above = getmetatable(above)
  end
  return false
end

function Object:__call(...)
  local object = setmetatable({}, self)
  object:new(...)
  return object
end

local BasePlugin = Object:extend()
function BasePlugin:new(name) self._name = name end
for _, phase in ipairs { "init_worker", "certificate", "rewrite", "access", "response", "header_filter", "body_filter",
  "preread", "log" } do
  BasePlugin[phase] = function() end
end
return BasePlugin
