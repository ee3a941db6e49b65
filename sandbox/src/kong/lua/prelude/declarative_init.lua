-- Stands for kong/db/declarative/init.lua.
local declarative_config = require "kong.db.schema.others.declarative_config"
local M = {}
--@33
function M.new_config(names)
--@37
  local ok = declarative_config.load(names)
  return ok
end

return M
