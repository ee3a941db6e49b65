-- Loads a plugin as Kong would and says what Kong would say against it: handler, schema, entities, migrations, Admin API.
-- Receives the host and the surroundings; every finding goes to host.found(rule, file, line, sentence).
local host, around, meta, version_of = ...
local now, null = host.kong.number, host.null
local raw_xpcall = around.raw_xpcall
local prefix = "kong.plugins." .. host.plugin .. "."

local function place(message)
  local file, line = tostring(message):match("([%w_%-./]+%.lua):(%d+):")
  return file, tonumber(line)
end
local function found(rule, module, sentence, at)
  local file, line = place(at or "")
  if not file and module then file = around.own_file(prefix .. module) end
  host.found(rule, file or "", line or 0, sentence)
end

-- Words of Lua's that a stand-in used for the real thing may have provoked.
local DOUBTFUL = { "'for' .- must be a number", "attempt to compare", "bad argument #%d+ to", "attempt to call a nil value",
  "attempt to call field", "attempt to call method", "attempt to index", "attempt to perform arithmetic",
  "attempt to concatenate", "attempt to get length", "invalid value %(", "assertion failed" }

local function explain(module, message)
  message = tostring(message):gsub("^error loading module '[^\n]*\n%s*", "")
  for file, words in pairs(around.broken) do
    if message:find(words, 1, true) then
      local _, line = place(words)
      return host.found("SYNTAX_ERROR", file, line or 0, words)
    end
  end
  if around.exited then return found("OS_EXIT", module, "os.exit is called when the plugin is loaded, which ends Kong", message) end
  if host.exhausted() then
    local doubt = around.guessed > 0 and "LOAD_UNCERTAIN" or "LOAD_ENDLESS"
    return found(doubt, module, "loading does not come to an end", message)
  end
  local absent = message:match("module '([^'\n]+)' not found")
  if absent and around.missing[absent] then
    local dotted = absent:gsub("/", ".")
    if dotted == "kong.plugins.base_plugin" then
      return found("BASE_PLUGIN_GONE", module, "module '" .. absent .. "' not found: it is made from BasePlugin, which Kong 3.0 took away", message)
    end
    return found("MODULE_NOT_FOUND", module, "module '" .. absent .. "' not found", message)
  end
  if around.guessed > 0 then
    for _, words in ipairs(DOUBTFUL) do
      if message:find(words) then
        return found("LOAD_UNCERTAIN", module,
          "loading went wrong here, where much of Kong is only pretended: " .. message, message)
      end
    end
  end
  found("LOAD_ERROR", module, message, message)
end

-- Whether there is such a module, and what it is; nil, true if loading it failed and that has been told.
local function load(module)
  local name = prefix .. module
  if not around.own_file(name) then return nil, false end
  host.loading(module)
  around.exited = false
  local ok, result = raw_xpcall(function() return require(name) end, function(message)
    return type(message) == "string" and message or "(error object is " .. (type(message) == "table" and "a table" or tostring(message)) .. ")"
  end)
  around.guarded = 0
  if ok and not host.exhausted() and not around.exited then return result, false end
  explain(module, ok and "" or result)
  return nil, true
end

-- Handler -------------------------------------------------------------------------------------------------------------

local function implements(handler, phase)
  local method = handler[phase]
  if type(method) ~= "function" then return false end
  if now < 300 and handler.super then return rawget(handler, phase) ~= nil end
  return true
end

local function show(value)
  if type(value) == "string" then return string.format("%q", value) end
  return tostring(value)
end

local function handler_of()
  local handler, failed = load("handler")
  if failed then return end
  if not around.own_file(prefix .. "handler") then
    return found("HANDLER_MISSING", nil, host.plugin .. " has no handler.lua: Kong finds no plugin of that name")
  end
  if type(handler) ~= "table" then
    return found("HANDLER_INVALID", "handler", "handler.lua returns " .. (handler == true and "nothing" or "a " .. type(handler))
      .. ", and must return a table")
  end
  local ok, priority, version = raw_xpcall(function() return handler.PRIORITY, handler.VERSION end, tostring)
  if not ok then return explain("handler", priority) end
  local proxied = tostring(getmetatable(handler)) == "false"
  if now >= 300 then
    local whole = type(priority) == "number" and priority == priority and math.abs(priority) ~= math.huge
      and math.floor(priority) == priority
    if not whole and not proxied then
      found("PRIORITY_INVALID", "handler", "PRIORITY is " .. show(priority) .. ", and must be a whole number")
    elseif (type(version) ~= "string" or not version_of(version)) and not proxied then
      found("HANDLER_VERSION_INVALID", "handler", "VERSION is " .. show(version) .. ", and must be like \"1.2.3\", with at most three parts")
    end
  else
    if priority ~= nil and type(priority) ~= "number" then
      found("PRIORITY_INVALID", "handler", "PRIORITY is " .. show(priority) .. ", and must be a number")
    elseif priority == nil then
      found("PRIORITY_MISSING", "handler", "there is no PRIORITY: it is 0, after all of Kong's own plugins; Kong 3 wants one")
    end
    if type(version) ~= "string" or not version_of(version) then
      found("VERSION_MISSING", "handler", "VERSION is " .. show(version) .. "; Kong 3 wants one like \"1.2.3\"")
    end
  end
  if now >= 300 and not proxied then
    for name, taken in pairs(require("kong.standin.bundled").priorities) do
      if taken == priority then
        found("PRIORITY_TAKEN", "handler", "PRIORITY " .. tostring(priority) .. " equals bundled \"" .. name .. "\": the names decide which runs first")
      end
    end
  end
  if now >= 203 and implements(handler, "response") and (implements(handler, "header_filter") or implements(handler, "body_filter")) then
    found("PHASES_CONFLICT", "handler", "it has `response` together with `header_filter` or `body_filter`, which Kong refuses")
  end
  if now < 300 and type(handler.is) == "function" or now < 101 then
    -- Kong makes an object of the class.
    host.loading("handler")
    local made, err = raw_xpcall(function()
      local above = getmetatable(handler)
      if now < 101 or type(above) == "table" and above.__call then return handler() end
    end, tostring)
    if not made then explain("handler", err) end
  end
  host.handler(type(priority) == "number" and priority or nil, type(version) == "string" and version or nil)
end

-- Schema --------------------------------------------------------------------------------------------------------------

local MOST_TOLD = 5
local function tell(rule, module, before, errors)
  table.sort(errors)
  local told = table.concat(errors, "; ", 1, math.min(#errors, MOST_TOLD))
  if #errors > MOST_TOLD then told = told .. "; and " .. (#errors - MOST_TOLD) .. " more" end
  found(rule, module, before .. told)
end

local function looks_old(schema)
  if type(schema.fields) ~= "table" or schema.name ~= nil then return false end
  return schema.no_consumer ~= nil or schema.self_check ~= nil or next(schema.fields) == nil
    or not meta.is_array(schema.fields)
end

local function schema_of()
  local schema, failed = load("schema")
  if failed then return end
  if not around.own_file(prefix .. "schema") then
    return found("SCHEMA_MISSING", nil, host.plugin .. " has no schema.lua: no configuration schema found for plugin")
  end
  if type(schema) ~= "table" then
    return found("SCHEMA_INVALID", "schema", "schema.lua returns " .. (schema == true and "nothing" or "a " .. type(schema))
      .. ", and must return a table")
  end
  if getmetatable(schema) == false then return end
  host.loading("schema")
  if now < 300 and schema.name == nil then
    local errors = now >= 15 and meta.legacy(schema) or {}
    if #errors > 0 then return tell("SCHEMA_INVALID", "schema", "failed converting legacy schema: ", errors) end
    return found("SCHEMA_OLD_FORM", "schema", "the schema has the form of before 1.0, which Kong 3.0 no longer takes")
  end
  if looks_old(schema) then
    return found("SCHEMA_OLD", "schema",
      "the schema has the form of before 1.0 (a map of fields and no name), which Kong takes no more since 3.0")
  end
  local ok, errors = raw_xpcall(function() return meta.plugin(schema) end, tostring)
  if not ok then return explain("schema", errors) end
  -- 1.0 only warned of what is wrong with a new-style schema.
  if #errors > 0 then tell(now == 100 and "SCHEMA_DOUBTFUL" or "SCHEMA_INVALID", "schema", "schema violation: ", errors) end
  if type(schema.name) == "string" and schema.name ~= host.plugin then
    found("SCHEMA_NAME", "schema", "the schema calls itself " .. show(schema.name) .. ", which Kong takes no notice of")
  end
end

-- Entities and migrations ---------------------------------------------------------------------------------------------

local CORE = {}
for name in ([[consumers routes services plugins upstreams targets certificates snis ca_certificates tags workspaces apis
  cluster_ca parameters clustering_data_planes vaults keys key_sets filter_chains consumer_groups ssl_certificates
  ssl_servers_names keyauth_credentials basicauth_credentials jwt_secrets hmacauth_credentials oauth2_credentials
  oauth2_tokens oauth2_authorization_codes acls sessions ratelimiting_metrics response_ratelimiting_metrics acme_storage
  vaults_beta]]):gmatch("%S+") do CORE[name] = true end

local function daos_of()
  local daos, failed = load("daos")
  if failed or not around.own_file(prefix .. "daos") then return end
  if getmetatable(daos) == false then return end
  if type(daos) ~= "table" or (now >= 300 and not meta.is_array(daos)) then
    return found("DAOS_INVALID", "daos", type(daos) == "table"
      and "daos.lua returns a table with names as keys; since 3.0 Kong takes a list only (non-array daos definition table)"
      or "daos.lua returns " .. (daos == true and "nothing" or "a " .. type(daos)) .. ", and must return a list of schemas")
  end
  if now < 15 then return end
  local list, keyed = {}, daos[1] == nil and next(daos) ~= nil
  for key, schema in pairs(daos) do
    local skip = keyed and (key == "tables" and not (type(schema) == "table" and schema.fields))
    if not skip and (now >= 208 or not keyed or type(schema) == "table" and schema.name) then list[#list + 1] = schema end
  end
  if keyed then found("DAOS_OLD_FORM", "daos", "daos.lua returns a table with names as keys, which Kong 3.0 no longer takes") end
  for _, schema in ipairs(list) do
    if type(schema) == "table" and type(schema.name) == "string" then CORE[schema.name] = true end
  end
  for _, schema in ipairs(list) do
    local ok, errors = raw_xpcall(function() return meta.entity(schema, CORE) end, tostring)
    if not ok then return explain("daos", errors) end
    local name = type(schema) == "table" and schema.name
    if #errors > 0 then tell("DAOS_INVALID", "daos", "the schema of the entity " .. tostring(name) .. " is invalid: ", errors) end
  end
end

local function migration_errors(migration)
  local errors = {}
  local databases = { postgres = true }
  if now < 304 then databases.cassandra = true end
  local seen = 0
  for key, value in pairs(migration) do
    if key ~= "name" and not databases[key] then
      errors[#errors + 1] = tostring(key) .. ": unknown field"
    elseif databases[key] then
      if type(value) ~= "table" then
        errors[#errors + 1] = key .. ": expected a record"
      else
        for part, content in pairs(value) do
          local wanted = part == "up" and "string" or (part == "teardown" or part == "up_f") and "function" or nil
          if part == "up_f" and now < 203 then wanted = nil end
          if not wanted then errors[#errors + 1] = key .. "." .. tostring(part) .. ": unknown field"
          elseif type(content) ~= wanted then errors[#errors + 1] = key .. "." .. part .. ": expected a " .. wanted
          else seen = seen + 1 end
        end
      end
    end
  end
  for name in pairs(databases) do
    if migration[name] == nil then errors[#errors + 1] = name .. ": required field missing" end
  end
  if #errors == 0 and seen == 0 then errors[1] = "at least one of postgres.up, postgres.teardown must be non-empty" end
  return errors
end

local function migrations_of()
  if now < 15 then return end
  local name = around.own_file(prefix .. "migrations") and "migrations"
    or around.own_file(prefix .. "migrations.init") and "migrations.init" or nil
  if not name then
    local old = around.own_file(prefix .. "migrations.postgres") or around.own_file(prefix .. "migrations.cassandra")
    if old then
      host.found("MIGRATIONS_OLD_FORM", old, 0, "migrations have the form of before 1.0, which Kong does not see: nothing of them is run")
    end
    return
  end
  local index, failed = load(name)
  if failed or getmetatable(index) == false then return end
  if type(index) ~= "table" then return found("MIGRATIONS_INVALID", name, "the list of migrations must be a table") end
  for _, step in ipairs(index) do
    local module = "migrations." .. tostring(step)
    local migration, broken = load(module)
    if not broken then
      if not around.own_file(prefix .. module) then
        found("MIGRATIONS_INVALID", name, "failed to load migration '" .. prefix .. module .. "': it is not there")
      elseif type(migration) ~= "table" then
        found("MIGRATIONS_INVALID", module, "a migration must return a table")
      elseif getmetatable(migration) ~= false then
        local errors = migration_errors(migration)
        if #errors > 0 then
          tell("MIGRATIONS_INVALID", module, "with a database Kong refuses migration " .. tostring(step) .. ": ", errors)
        end
      end
    end
  end
end

-- Admin API -----------------------------------------------------------------------------------------------------------

local function api_of()
  around.as_worker()
  for _, module in ipairs { "api", now >= 201 and "status_api" or nil } do
    local api, failed = load(module)
    if not failed and around.own_file(prefix .. module) and type(api) ~= "table" and api ~= true then
      found("API_ERROR", module, module .. ".lua returns a " .. type(api) .. ", and must return a table of routes")
    end
  end
end

-- All files -----------------------------------------------------------------------------------------------------------

local util = around.util

local function walk(proto, write, seen)
  local info = util.funcinfo(proto)
  for pc = 1, (info.bytecodes or 1) - 1 do
    local ins = util.funcbc(proto, pc)
    if not ins then break end
    if ins < 0 then ins = ins + 4294967296 end
    if ins % 256 == write then
      local name = util.funck(proto, -math.floor(ins / 65536) - 1)
      if type(name) == "string" then seen(name, util.funcinfo(proto, pc).currentline) end
    end
  end
  if info.children then
    for index = -1, -65536, -1 do
      local constant = util.funck(proto, index)
      if constant == nil then break end
      if type(constant) == "proto" then walk(constant, write, seen) end
    end
  end
end

local function all_files()
  host.loading("")
  local probe = host.compile("probe_global = 1", "=probe")
  local write
  for pc = 1, 8 do
    local ins = util.funcbc(probe, pc)
    if not ins then break end
    if ins < 0 then ins = ins + 4294967296 end
    if util.funck(probe, -math.floor(ins / 65536) - 1) == "probe_global" then write = ins % 256 end
  end
  for _, file in ipairs(host.files) do
    local text, chunk = host.file(file)
    local made, err = host.compile(text, chunk)
    if not made then
      if not around.broken[file] then
        local _, line = place(err)
        host.found("SYNTAX_ERROR_UNUSED", file, line or 0, err)
      end
    elseif write and not text:find("module%s*%(") then
      local told, list, first = {}, {}, nil
      walk(made, write, function(name, line)
        if not told[name] and not around.globals[name] then
          told[name] = true
          list[#list + 1] = name
          first = math.min(first or line, line)
        end
      end)
      if #list > 0 then
        table.sort(list)
        local names = table.concat(list, ", ", 1, math.min(#list, 8)) .. (#list > 8 and ", …" or "")
        host.found("GLOBAL_WRITTEN", file, first, (#list == 1 and "it writes the global " or "it writes the globals ")
          .. names .. ", which all plugins of a worker share")
      end
    end
  end
end

handler_of()
schema_of()
daos_of()
migrations_of()
api_of()
if around.executed then
  found("OS_EXECUTE_LOADING", "handler", around.executed .. " is called when the plugin is loaded")
end
for _, other in ipairs(around.foreign) do host.foreign(other.name, other.optional) end
all_files()
