-- Stands for resty/core/ctx.lua of OpenResty: the request that is being processed, if any.
local M = { current = nil }

--@68
function M.get()
  if M.current == nil then
--@71
    error("no request found")
  end
  return M.current
end

return M
