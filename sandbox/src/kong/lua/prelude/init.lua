-- Stands for kong/init.lua: what the master runs in init_by_lua. The frames and lines are those of Kong 3.9.1.
local host = require "kong.standin.host"
local dao_plugins = require "kong.db.dao.plugins"
local runtime = require "kong.standin.runtime"

local Kong = {}

--@640
function Kong.init()
  local config = host.configuration()
  runtime.setup_pdk(config)
--@660
  local database = assert(host.connect_database())
  runtime.setup_db(database)
  local db = { plugins = dao_plugins.new(config.strategy) }
  local ok, err
  local ages = require "kong.standin.ages"
  if ages.checks_use_first() then
    ok, err = host.check_plugins_in_use()
    if not ok then error(ages.in_use(err), 0) end
  end
--@708
  ok = assert(db.plugins:load_plugin_schemas(config.loaded_plugins))
  runtime.setup_plugins(db.plugins, config.loaded_plugins)
  if config.database == "off" then
    ok, err = host.load_declarative()
    if not ok then
--@731
      error("error parsing declarative config file " .. err)
    end
  elseif not ages.checks_use_first() then
    ok, err = host.check_plugins_in_use()
    if not ok then
--@743
      error("error building initial plugins: " .. err)
    end
  end
--@790
  host.initialised()
end

return Kong
