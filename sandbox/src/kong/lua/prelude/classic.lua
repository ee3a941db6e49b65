-- Classes as plugins of before 3.0 know them.
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
  local meta = getmetatable(self)
  while meta do
    if meta == class then return true end
    meta = getmetatable(meta)
  end
  return false
end

function Object:__call(...)
  local made = setmetatable({}, self)
  made:new(...)
  return made
end

return Object
