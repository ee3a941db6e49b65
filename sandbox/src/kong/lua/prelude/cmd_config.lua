-- Stands for kong/cmd/config.lua: `kong config parse` loads every schema, then every handler, then reads the file.
local host = require "kong.standin.host"
local dao_plugins = require "kong.db.dao.plugins"
local declarative = require "kong.db.declarative"
local runtime = require "kong.standin.runtime"

local M = {}

--@60
function M.cmd_exec()
  local config = host.configuration()
  runtime.setup_pdk(config)
--@78
  declarative.new_config(config.loaded_plugins)
  local plugins = dao_plugins.new("declarative")
--@87
  local ok, err = plugins:load_plugin_schemas(config.loaded_plugins)
  if not ok then
    error(err)
  end
  runtime.setup_plugins(plugins, config.loaded_plugins)
  ok, err = host.parse_file()
  if not ok then
    error("Failed parsing:\n" .. err)
  end
end

return M
