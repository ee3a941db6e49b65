-- What a worker does with the plugins the master has loaded: the iterator over configured plugins and the phases.
local host = require "kong.standin.host"
local request = require "kong.standin.request"
local entities = require "kong.standin.entities"
local schema_of = require "kong.standin.schema"
local version_of = require("kong.standin.version").clean

local M = {}

local state = { handlers = {}, schemas = {}, names = {}, iterator = {} }

function M.setup_pdk(config)
  _G.kong = require("kong.standin.pdk").new(config.kong)
  package.loaded["kong.globalpatches"] = true
end

-- `kong.db` as the master's init phase offers it: DAOs that read the datastore.
function M.setup_db()
  local function dao(entity)
    return {
      select = function(_, key) return host.db_select(entity, type(key) == "table" and key.id or key) end,
      each = function() return next, host.db_list(entity), nil end,
      page = function() return host.db_list(entity) end,
    }
  end
  _G.kong.db = setmetatable({ strategy = _G.kong.configuration.database }, { __index = function(self, entity)
    if type(entity) ~= "string" then return nil end
    local made = dao(entity)
    rawset(self, entity, made)
    return made
  end })
end

function M.setup_plugins(loader, names)
  state.handlers, state.schemas, state.names = loader.handlers, loader.schemas, names
  for _, schema in pairs(state.schemas) do
    for _, entry in ipairs(schema.fields) do
      -- Kong makes every plugin's configuration a required record.
      if entry.config and entry.config.required == nil then entry.config.required = true end
    end
  end
end

-- Name, version and priority of every loaded plugin, in the order of `plugins`.
function M.available()
  local out = {}
  for _, name in ipairs(state.names) do
    local handler = state.handlers[name]
    if handler then
      out[#out + 1] = { name = name, version = handler.VERSION and version_of(tostring(handler.VERSION)), priority = handler.PRIORITY or 0 }
    end
  end
  return out
end

function M.insert(entity, value, infer) return entities.insert(entity, value, state.schemas, infer) end
function M.update(entity, stored, patch, infer) return entities.update(entity, stored, patch, state.schemas, infer) end

function M.read(entity, rows)
  for index, row in ipairs(rows) do rows[index] = entities.read(entity, row, state.schemas) end
  return rows
end

-- A schema in the form of the Admin API, or nil.
function M.schema(kind, name)
  local schema
  if kind == "plugins" then schema = state.schemas[name] else schema = entities.schemas[name] end
  if not schema then return nil end
  local function plain(value)
    if value == host.null then return host.null end
    if type(value) ~= "table" then return value end
    local out, list = {}, #value > 0
    for key, item in pairs(value) do
      if type(item) ~= "function" and key ~= "func" then out[key] = plain(item) end
    end
    return list and setmetatable(out, host.array_mt) or out
  end
  return { fields = setmetatable(plain(schema.fields), host.array_mt),
    entity_checks = setmetatable(plain(schema.entity_checks or {}), host.array_mt) }
end

-- The path searcher of a worker: files that only root can read are not there for it.
local function search_as_worker(name)
  local tried = {}
  local relative = name:gsub("%.", "/")
  for template in package.path:gmatch("[^;]+") do
    local file = template:gsub("%?", (relative:gsub("%%", "%%%%")))
    if host.readable_by_workers(file) then
      local chunk, err = loadfile(file)
      if not chunk then
        error("error loading module '" .. name .. "' from file '" .. file .. "':\n\t" .. err, 0)
      end
      return chunk
    end
    tried[#tried + 1] = "\n\tno file '" .. file .. "'"
  end
  return table.concat(tried)
end

-- Worker start: the rest of `kong`, then every plugin's init_worker. Returns what went wrong, or nil.
function M.init_worker()
  local kong = _G.kong
  package.loaders[3] = search_as_worker
  kong.timer = { at = function(_, ...) return ngx.timer.at(...) end, every = function(_, ...) return ngx.timer.every(...) end,
    named_at = function(_, _, ...) return ngx.timer.at(...) end,
    named_every = function(_, _, ...) return ngx.timer.every(...) end }
  local cached = {}
  local cache = {
    get = function(_, key, _, callback, ...)
      if cached[key] == nil and callback then cached[key] = callback(...) end
      return cached[key]
    end,
    get_bulk = function() return {} end,
    invalidate = function(_, key) cached[key] = nil end, invalidate_local = function(_, key) cached[key] = nil end,
    purge = function() cached = {} end, safe_set = function(_, key, value) cached[key] = value return true end,
    probe = function(_, key) return nil, nil, cached[key] end,
    cache_key = function(_, ...) return table.concat({ ... }, ":") end,
  }
  kong.cache, kong.core_cache = cache, cache
  kong.worker_events = { register = function() end, post = function() return true end, subscribe = function() end,
    publish = function() return true end, poll = function() return true end }
  kong.cluster_events = { subscribe = function() return true end, broadcast = function() return true end }
  kong.dns = { toip = function(name) return name end }
  local failed
  for _, name in ipairs(state.names) do
    local handler = state.handlers[name]
    if handler and type(handler.init_worker) == "function" then
      local ok, err = pcall(handler.init_worker, handler)
      if not ok and not failed then
        failed = 'failed to execute the "init_worker" handler for plugin "' .. name .. '": ' .. tostring(err)
      end
    end
  end
  return failed
end

local function without_nulls(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do
    if item ~= host.null then out[key] = without_nulls(item) end
  end
  return out
end

-- Replaces the plugins iterator by one over `rows`, the rows of the datastore's plugins table.
function M.build_iterator(rows)
  local entries, used = {}, {}
  for _, row in ipairs(M.read("plugins", rows)) do
    local handler = state.handlers[row.name]
    if handler and row.enabled ~= false then
      local config = without_nulls(type(row.config) == "table" and row.config or {})
      config.__plugin_id = row.id
      used[row.name] = true
      entries[#entries + 1] = { name = row.name, handler = handler, config = config, id = row.id,
        route = type(row.route) == "table" and row.route.id or nil,
        service = type(row.service) == "table" and row.service.id or nil,
        consumer = type(row.consumer) == "table" and row.consumer.id or nil }
    end
  end
  table.sort(entries, function(a, b)
    if a.handler.PRIORITY ~= b.handler.PRIORITY then return a.handler.PRIORITY > b.handler.PRIORITY end
    if a.name ~= b.name then return a.name > b.name end
    return a.id < b.id
  end)
  state.iterator = entries
  local configs = {}
  for _, entry in ipairs(entries) do
    configs[entry.name] = configs[entry.name] or {}
    table.insert(configs[entry.name], entry.config)
  end
  for _, name in ipairs(state.names) do
    local handler = state.handlers[name]
    if handler and type(handler.configure) == "function" then pcall(handler.configure, handler, configs[name]) end
  end
end

-- The best entry of each plugin name for the request, by how much of its scope is spelled out.
local function in_scope(r)
  local best, order = {}, {}
  for _, entry in ipairs(r.iterator) do
    local fits = (not entry.route or (r.route and entry.route == r.route.id))
      and (not entry.service or (r.service and entry.service == r.service.id))
      and (not entry.consumer or (r.consumer and entry.consumer == r.consumer.id))
    if fits then
      local weight = (entry.consumer and 4 or 0) + (entry.route and 2 or 0) + (entry.service and 1 or 0)
      if not best[entry.name] then order[#order + 1] = entry.name end
      if not best[entry.name] or weight > best[entry.name].weight then
        best[entry.name] = { entry = entry, weight = weight }
      end
    end
  end
  local position = 0
  return function()
    position = position + 1
    local name = order[position]
    return name and best[name].entry
  end
end

-- A request as the phases see it; `raw` carries what the server read.
function M.new_request(raw)
  raw.ctx, raw.shared, raw.vars, raw.plugin_ctxs = {}, {}, {}, {}
  raw.plugin_ctx, raw.resp_headers = {}, {}
  raw.upstream = { headers = {}, cleared = {} }
  raw.iterator = state.iterator
  return raw
end

local function enter(r, entry)
  request.current = r
  r.plugin_ctxs[entry.id] = r.plugin_ctxs[entry.id] or {}
  r.plugin_ctx, r.plugin_id = r.plugin_ctxs[entry.id], entry.id
end

local function wants(entry, phase)
  local method = entry.handler[phase]
  return type(method) == "function" and method or nil
end

-- rewrite, certificate and access; runs in a coroutine that yields "sleep" and "exit".
function M.access(r)
  r.can_yield = true
  local done = {}
  local again = true
  while again do
    again = false
    local consumer = r.consumer
    for entry in in_scope(r) do
      if not done[entry.name] then
        for _, phase in ipairs { "rewrite", "access" } do
          local method = wants(entry, phase)
          if method and not (phase == "rewrite" and (entry.route or entry.service)) then
            r.phase = phase
            enter(r, entry)
            local ok, err = pcall(method, entry.handler, entry.config)
            if not ok then
              host.log("error", "[kong] init.lua:406 [" .. entry.name .. "] " .. tostring(err) .. host.request_tail(r))
              r.status, r.response_body, r.exited = 500, nil, true
              r.internal_error = true
              return
            end
          end
        end
        done[entry.name] = true
        if r.consumer ~= consumer then again = true break end
      end
    end
  end
  r.can_yield = false
end

-- header_filter; an error here breaks the connection, as in nginx. Returns the error.
function M.header_filter(r)
  r.phase, r.can_yield = "header_filter", false
  for entry in in_scope(r) do
    local method = wants(entry, "header_filter")
    if method then
      enter(r, entry)
      local ok, err = xpcall(method, function(e) e = debug.traceback(e, 2) return e end, entry.handler, entry.config)
      if not ok then request.current = nil return tostring(err) end
    end
  end
  request.current = nil
end

function M.needs_body(r)
  for entry in in_scope(r) do
    if wants(entry, "body_filter") or wants(entry, "response") then return true end
  end
  return false
end

-- response and body_filter over a whole body; returns the body to send.
function M.body_filter(r, body)
  r.response_body = body
  for _, phase in ipairs { "response", "body_filter" } do
    r.phase = phase
    for entry in in_scope(r) do
      local method = wants(entry, phase)
      if method then
        r.arg = phase == "body_filter" and { body, true } or nil
        enter(r, entry)
        local ok, err = pcall(method, entry.handler, entry.config)
        if not ok then host.log("error", "[kong] init.lua:462 [" .. entry.name .. "] " .. tostring(err)) end
        if r.arg then body = r.arg[1] or "" end
      end
    end
  end
  r.arg, request.current = nil, nil
  return body
end

function M.log(r)
  r.phase, r.can_yield = "log", false
  for entry in in_scope(r) do
    local method = wants(entry, "log")
    if method then
      enter(r, entry)
      local ok, err = pcall(method, entry.handler, entry.config)
      if not ok then host.log("error", "[kong] init.lua:462 [" .. entry.name .. "] " .. tostring(err)) end
    end
  end
  request.current = nil
end

-- Admin API routes that plugins bring along (`api.lua`); errors are thrown, as when Kong loads `kong.api`.
function M.load_api()
  local load_module_if_exists = require("kong.tools.module").load_module_if_exists
  local routes = {}
  for _, name in ipairs(state.names) do
    local ok, api = load_module_if_exists("kong.plugins." .. name .. ".api")
    if ok and type(api) == "table" then
      for path, methods in pairs(api) do routes[path] = methods end
    else
      host.log("debug", "[lua] init.lua:120: No API endpoints loaded for plugin: " .. name)
    end
  end
  state.api = routes
end

-- Runs a plugin's Admin API route in the request `r`. False when there is none.
function M.api(r)
  local methods = state.api[r.path]
  if not methods then return false end
  local method = type(methods) == "function" and methods or methods.GET and methods[r.method] or methods[r.method]
  if type(methods) == "table" and methods.methods then method = methods.methods[r.method] end
  request.current, r.phase, r.can_yield = r, "admin_api", true
  if not method then kong.response.exit(405, { message = "Method not allowed" }) end
  local result = method({ params = ngx.decode_args(r.query), req = { method = r.method } }, kong.db, {})
  if type(result) == "table" and result.status then kong.response.exit(result.status, result.json or result[1]) end
  return true
end

return M
