-- The class that plugins extended until 3.0.
local Object = require "kong.vendor.classic"
local BasePlugin = Object:extend()

function BasePlugin:new(name) self._name = name end

for _, phase in ipairs { "init_worker", "certificate", "rewrite", "access", "response", "header_filter", "body_filter",
  "log", "preread" } do
  BasePlugin[phase] = function() end
end

return BasePlugin
