-- Stands for resty/timerng/init.lua: Kong's timers exist in workers only.
local host = require "kong.standin.host"
local request = require "kong.standin.request"
local M = {}

local function guarded(callback, args)
  return function(premature)
    request.current = { phase = "timer", can_yield = true, ctx = {}, shared = {}, plugin_ctx = {}, vars = {},
      headers = {}, resp_headers = {}, upstream = { headers = {}, cleared = {} }, query = "", path = "", body = "" }
    return callback(premature, unpack(args, 1, args.n))
  end
end

--@378
function M.at(delay, callback, ...)
  local started = host.phase() ~= "init"
--@381
  assert(started, "the timer module is not started")
  return host.timer(delay, false, guarded(callback, { n = select("#", ...), ... }))
end

function M.every(interval, callback, ...)
  local started = host.phase() ~= "init"
  assert(started, "the timer module is not started")
  return host.timer(interval, true, guarded(callback, { n = select("#", ...), ... }))
end

return M
