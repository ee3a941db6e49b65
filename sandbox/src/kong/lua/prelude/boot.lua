-- Sets up the searchers and the globals of a fresh VM. Receives the host's functions, the sources of this prelude by
-- module name, and the search paths that were rendered into nginx.conf.
local host, load_source, options = ...

local function user_path() return options.user_path end

local bundled = {}
for _, name in ipairs(options.bundled) do bundled[name] = true end

package.path, package.cpath = options.path, options.cpath
package.preload["kong.standin.host"] = function() return host end
local preloaded = {
  ["kong.tools.module"] = "module", ["kong.db.schema.plugin_loader"] = "plugin_loader",
  ["kong.db.dao.plugins"] = "dao_plugins", ["kong.db.schema.others.declarative_config"] = "declarative",
  ["kong.db.declarative"] = "declarative_init", ["kong.cmd.config"] = "cmd_config",
  ["kong.db.schema.typedefs"] = "typedefs", ["kong"] = "init", ["resty.timerng"] = "timerng",
  ["kong.standin.schema"] = "schema", ["kong.standin.validators"] = "validators",
  ["kong.standin.entities"] = "entities", ["kong.standin.version"] = "version",
  ["kong.standin.runtime"] = "runtime", ["kong.standin.request"] = "request", ["kong.standin.pdk"] = "pdk",
  ["kong.standin.bundled"] = "bundled", ["kong.standin.ages"] = "ages",
}
for module, source in pairs(preloaded) do
  package.preload[module] = function(name) return load_source(source)(name) end
end

local modules = load_source("modules")(host, user_path, bundled, load_source("provided")())
for name, loader in pairs(load_source("builtin")(host, modules)) do modules.builtin[name] = loader end
local shipped = require "kong.standin.bundled"
for name in pairs(bundled) do
  modules.builtin["kong.plugins." .. name .. ".handler"] = function() return shipped.handler(name) end
  modules.builtin["kong.plugins." .. name .. ".schema"] = function() return shipped.schema(name) end
end
if host.version_num < 3000000 then
  package.preload["kong.vendor.classic"] = load_source("classic")
  package.preload["kong.plugins.base_plugin"] = load_source("base_plugin")
end
package.preload["kong.pdk.tracing"] = function() return modules.proxy("kong.tracing") end
table.insert(package.loaders, 2, modules.searcher)

_G.ngx = load_source("ngx")()
package.preload["ngx"] = nil
-- Kong never leaves these two to the C library's idea of failure.
_G.ngx.socket = host.in_cli and modules.proxy("ngx.socket") or setmetatable({}, { __index = function(_, name)
  return function() error("no request found", 2) end
end })

return function(name) return load_source(name) end
