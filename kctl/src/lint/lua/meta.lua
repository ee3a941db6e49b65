-- Whether Kong takes a schema: the rules for definitions (of configurations and of entities), by version.
local host, validators = ...
local null, now = host.null, host.kong.number
local M = {}

local function since(version, until_version) return now >= version and now <= (until_version or 9999) end

local TYPES = { string = true, number = true, boolean = true, integer = true, array = true, set = true, map = true,
  record = true, foreign = true, ["function"] = true, json = since(305) or nil }

-- What an attribute of a field holds. "any" is not looked at.
local ATTRIBUTES = {
  type = "string", required = "boolean", reference = "string", default = "default", auto = "boolean",
  unique = "boolean", unique_across_ws = since(201) and "boolean" or nil, on_delete = "on_delete", abstract = "boolean",
  generate_admin_api = "boolean", immutable = since(102) and "boolean" or nil, err = "string",
  encrypted = since(103) and "boolean" or nil, referenceable = since(208) and "boolean" or nil,
  json_schema = since(305) and "table" or nil, transient = since(308) and "boolean" or nil,
  deprecation = since(307) and "table" or nil, description = since(304) and "description" or nil,
  examples = since(306) and "array" or nil, legacy = since(100, 208) and "boolean" or nil,
  between = "between", eq = "any", ne = "any", gt = "number", len_eq = "integer", len_min = "integer",
  len_max = "integer", match = "string", not_match = "string", match_all = "patterns", match_none = "patterns",
  match_any = "table", starts_with = "string", one_of = "array", not_one_of = since(102) and "array" or nil,
  contains = "any", is_regex = "boolean", timestamp = "boolean", uuid = "boolean", custom_validator = "function",
  mutually_exclusive_subsets = since(103) and "array" or nil, elements = "field", keys = "field", values = "field",
  fields = "fields", entity_checks = "checks", shorthands = since(104, 299) and "array" or nil,
  shorthand_fields = since(203) and "shorthands" or nil,
}

-- Attributes that only some types can have.
local function set(...)
  local out = {}
  for _, name in ipairs { ... } do out[name] = true end
  return out
end
local ONLY = {
  between = set("integer", "number"), len_eq = set("array", "set", "string", "map"), match = set "string",
  one_of = set("string", "number", "integer"), contains = set("array", "set"), is_regex = set "string",
  timestamp = set("number", "integer"), uuid = set "string", legacy = set "string",
  unique = set("string", "number", "integer", "foreign"), unique_across_ws = set("string", "number", "integer", "foreign"),
  abstract = set("string", "number", "integer", "record", "array", "set", "map"), json_schema = set "json",
  transient = set("string", "number", "integer", "array", "set", "boolean"),
}
local NEEDS = { array = { "elements" }, set = { "elements" }, map = { "keys", "values" }, record = { "fields" },
  json = { "json_schema" } }

local CHECKS = set("at_least_one_of", "conditional_at_least_one_of", "only_one_of", "distinct", "conditional",
  "custom_entity_check", since(102) and "mutually_required" or "distinct",
  since(102) and "mutually_exclusive_sets" or "distinct", since(206) and "mutually_exclusive" or "distinct")

-- Definitions nest; a cycle or a joke ends here.
local MOST_DEPTH = 24

local function is_array(value)
  if type(value) ~= "table" then return false end
  local count, highest = 0, 0
  for key in pairs(value) do
    if type(key) ~= "number" or key < 0 or math.floor(key) ~= key then return false end
    count, highest = count + 1, math.max(highest, key)
  end
  return count == highest
end

local function a(kind)
  return (kind:find("^[aeiou]") and "an " or "a ") .. kind
end

-- Each entry of `errors` is "path: what is wrong".
local function add(errors, path, what) errors[#errors + 1] = path .. ": " .. what end

-- Whether a value comes out of a module that is only pretended: of such nothing can be said.
local function pretended(value) return type(value) == "table" and getmetatable(value) == false end

local check_field, check_fields, check_checks

local function scalar(kind, value)
  if kind == "integer" then return type(value) == "number" and math.floor(value) == value end
  return type(value) == kind
end

local function check_attribute(errors, path, name, kind, value, field, depth)
  local at = path .. "." .. name
  if kind == "any" or pretended(value) then
    return
  elseif kind == "default" then
    local wrong = M.value_error(field, value, 0)
    if wrong then add(errors, at, wrong) end
  elseif kind == "string" then
    if type(value) ~= "string" then add(errors, at, "expected a string")
    elseif value == "" then add(errors, at, "length must be at least 1") end
  elseif kind == "description" then
    if type(value) ~= "string" then add(errors, at, "expected a string")
    elseif #value < 10 or #value > 500 then add(errors, at, "length must be between 10 and 500") end
  elseif kind == "on_delete" then
    if value ~= "restrict" and value ~= "cascade" and value ~= "null" then
      add(errors, at, "expected one of: restrict, cascade, null")
    end
  elseif kind == "between" then
    if not is_array(value) then add(errors, at, "expected an array")
    elseif #value ~= 2 then add(errors, at, "length must be 2")
    elseif type(value[1]) ~= "number" or type(value[2]) ~= "number" then add(errors, at, "expected a number") end
  elseif kind == "array" then
    if not is_array(value) then add(errors, at, "expected an array") end
  elseif kind == "table" then
    if type(value) ~= "table" then add(errors, at, "expected a record") end
  elseif kind == "patterns" then
    if not is_array(value) then add(errors, at, "expected an array") return end
    for index, entry in ipairs(value) do
      if type(entry) ~= "table" then add(errors, at .. "[" .. index .. "]", "expected a record")
      elseif type(entry.pattern) ~= "string" then add(errors, at .. "[" .. index .. "].pattern", "required field missing") end
    end
  elseif kind == "field" then
    check_field(errors, at, value, depth + 1)
  elseif kind == "fields" then
    check_fields(errors, at, value, depth + 1)
  elseif kind == "checks" then
    check_checks(errors, at, value)
  elseif kind == "shorthands" then
    if not is_array(value) then add(errors, at, "expected an array") return end
    for index, entry in ipairs(value) do
      local key, inner = nil, nil
      if type(entry) == "table" then key, inner = next(entry) end
      if type(key) ~= "string" or next(entry, key) ~= nil then add(errors, at .. "[" .. index .. "]", "length must be 1")
      elseif type(inner) ~= "table" or type(inner.func) ~= "function" then
        add(errors, at .. "." .. key .. ".func", "required field missing")
      end
    end
  elseif not scalar(kind, value) then
    add(errors, at, "expected " .. a(kind))
  end
end

function check_field(errors, path, field, depth)
  if depth > MOST_DEPTH or pretended(field) then return end
  if type(field) ~= "table" then return add(errors, path, "expected a record") end
  local names = {}
  for name in pairs(field) do names[#names + 1] = name end
  table.sort(names, function(x, y) return tostring(x) < tostring(y) end)
  local kind = field.type
  if kind == nil then
    add(errors, path, "missing type declaration")
  elseif not TYPES[kind] and not pretended(kind) then
    add(errors, path .. ".type", "expected one of the types Kong has, not " .. string.format("%q", tostring(kind)))
  end
  for _, name in ipairs(names) do
    local expected, value = ATTRIBUTES[name], field[name]
    if not expected then
      add(errors, path, "unknown field '" .. tostring(name) .. "'")
    elseif value ~= null or expected == "any" or expected == "default" then
      if ONLY[name] and TYPES[kind] and not ONLY[name][kind] then
        add(errors, path, string.format("field of type '%s' cannot have attribute '%s'", tostring(kind), name))
      end
      if name ~= "default" then check_attribute(errors, path, name, expected, value, field, depth) end
    end
  end
  for _, name in ipairs(NEEDS[kind] or {}) do
    if field[name] == nil and not (kind == "record" and field.abstract) then
      add(errors, path, string.format("field of type '%s' must declare '%s'", kind, name))
    end
  end
  if field.unique_across_ws and not field.unique then add(errors, path .. ".unique", "required field missing") end
  -- A default is measured by a definition that is sound itself.
  if #errors == 0 and field.default ~= nil then
    check_attribute(errors, path, "default", "default", field.default, field, depth)
  end
end

function check_fields(errors, path, fields, depth)
  if pretended(fields) then return end
  if type(fields) ~= "table" then return add(errors, path, "expected an array") end
  if not is_array(fields) then
    return add(errors, path, "expected an array of tables with one field each")
  end
  for index, entry in ipairs(fields) do
    local at = path .. "[" .. index .. "]"
    if type(entry) ~= "table" then
      add(errors, at, "expected a map")
    else
      local name, field = next(entry)
      if pretended(entry) then name = nil
      elseif name == nil then add(errors, at, "field entry table is empty")
      elseif type(name) ~= "string" then add(errors, at, "each key in fields must be a string")
      elseif next(entry, name) ~= nil then add(errors, at, "each field stands in a table of its own (length must be 1)")
      elseif type(field) ~= "table" then add(errors, path .. "." .. name, "'" .. name .. "' must be a table")
      else check_field(errors, path .. "." .. name, field, depth) end
    end
  end
end

function check_checks(errors, path, checks)
  if not is_array(checks) then return add(errors, path, "expected an array") end
  for index, entry in ipairs(checks) do
    local at, count = path .. "[" .. index .. "]", 0
    if type(entry) ~= "table" then
      add(errors, at, "expected a record")
    else
      for name in pairs(entry) do
        if CHECKS[name] then count = count + 1 else add(errors, at, "unknown field '" .. tostring(name) .. "'") end
      end
      if count ~= 1 then add(errors, at, "exactly one kind of check must be set") end
    end
  end
end

-- What is wrong with a value under a field, or nil. Only defaults are measured here.
function M.value_error(field, value, depth)
  if pretended(value) or pretended(field) then return nil end
  if depth > MOST_DEPTH or value == null or type(field) ~= "table" then
    if value == null and type(field) == "table" and field.required then return "required field missing" end
    return nil
  end
  if field.eq == null and now >= 100 and field.eq ~= nil then return "value must be null" end
  if field.abstract or field.type == "foreign" or field.type == "json" then return nil end
  if field.referenceable and type(value) == "string" and value:match("^{vault://") then return nil end
  local wrong = validators.type_error(field, value, null)
  if wrong then return wrong end
  if field.type == "array" or field.type == "set" then
    for index, item in ipairs(value) do
      wrong = M.value_error(field.elements, item, depth + 1)
      if wrong then return "[" .. index .. "] " .. wrong end
    end
  elseif field.type == "map" then
    for key, item in pairs(value) do
      wrong = M.value_error(field.keys, key, depth + 1) or M.value_error(field.values, item, depth + 1)
      if wrong then return tostring(key) .. ": " .. wrong end
    end
  elseif field.type == "record" then
    local known = {}
    for _, entry in ipairs(field.fields or {}) do
      local name, inner = next(entry)
      known[name] = true
      local item = value[name]
      if item == nil and inner.default == nil and inner.required and inner.type ~= "record" and not inner.auto then
        return name .. ": required field missing"
      end
      if item ~= nil then
        wrong = M.value_error(inner, item, depth + 1)
        if wrong then return name .. ": " .. wrong end
      end
    end
    for _, entry in ipairs(field.shorthand_fields or {}) do known[next(entry)] = true end
    for name in pairs(value) do
      if not known[name] then return tostring(name) .. ": unknown field" end
    end
  end
  local ok, complaint = host.guarded(validators.value, field, value)
  if ok then return complaint end
  return nil
end

local TOP = { name = true, fields = true, entity_checks = true, check = true,
  shorthands = since(104, 299) or nil, shorthand_fields = since(203) or nil, transformations = since(104) or nil }
local ENTITY = { primary_key = true, workspaceable = true, endpoint_key = true, cache_key = true, ttl = true,
  db_export = true, subschema_key = true, subschema_error = true, generate_admin_api = true, admin_api_name = true,
  table_name = true, admin_api_nested_name = true, dao = true, legacy = since(100, 208) or nil }

local function check_top(errors, schema, entity)
  local names = {}
  for name in pairs(schema) do names[#names + 1] = name end
  table.sort(names, function(x, y) return tostring(x) < tostring(y) end)
  for _, name in ipairs(names) do
    if not (TOP[name] or entity and ENTITY[name]) then add(errors, tostring(name), "unknown field") end
  end
  if schema.name == nil then add(errors, "name", "required field missing")
  elseif type(schema.name) ~= "string" then add(errors, "name", "expected a string")
  elseif schema.name == "" then add(errors, "name", "length must be at least 1") end
  if schema.fields == nil then add(errors, "fields", "'fields' must be a table")
  else check_fields(errors, "fields", schema.fields, 0) end
  if schema.entity_checks ~= nil then check_checks(errors, "entity_checks", schema.entity_checks) end
  if schema.check ~= nil and type(schema.check) ~= "function" then add(errors, "check", "expected a function") end
end

-- The fields of a plugin entity, which a plugin's schema can only make narrower.
local PARENT = {
  id = "string", name = "string", created_at = "integer", route = "foreign", service = "foreign", consumer = "foreign",
  config = "record", enabled = "boolean", protocols = since(101) and "set" or nil, tags = since(101) and "set" or nil,
  run_on = since(100, 108) and "string" or nil, api = since(15, 99) and "foreign" or nil,
  updated_at = since(302) and "integer" or nil, instance_name = since(302) and "string" or nil,
}
if since(100, 100) then PARENT.run_on = "string" end

-- A list of what Kong would say against a plugin's configuration schema.
function M.plugin(schema)
  local errors = {}
  check_top(errors, schema, false)
  if #errors > 0 then return errors end
  for _, entry in ipairs(schema.fields) do
    local name, field = next(entry)
    local expected = PARENT[name]
    if name == nil or pretended(field) then
      expected = nil
    elseif not expected then
      add(errors, "fields." .. name, "cannot create a new field (a plugin's own fields stand inside config)")
    elseif field.type ~= expected and not (expected == "record" and field.type == "json") then
      add(errors, "fields." .. name, "cannot change type in a specialized field")
    end
  end
  return errors
end

-- A list of what Kong would say against the schema of an entity. `known` are the entities there are.
function M.entity(schema, known)
  local errors = {}
  if type(schema) ~= "table" then return { "expected a record" } end
  check_top(errors, schema, true)
  if not is_array(schema.primary_key) then
    add(errors, "primary_key", schema.primary_key == nil and "required field missing" or "expected an array")
  end
  if #errors > 0 then return errors end
  local fields = {}
  for _, entry in ipairs(schema.fields) do
    local name, field = next(entry)
    fields[name] = field
    if field.type == "foreign" and field.reference and not known[field.reference] and field.reference ~= schema.name then
      add(errors, "fields." .. name, "schema refers to an invalid foreign entity: " .. tostring(field.reference))
    elseif field.type == "function" then
      add(errors, "fields." .. name, "entities cannot have function types")
    elseif field.type == "map" and field.keys and field.keys.type ~= "string" then
      add(errors, "fields." .. name, "entities map keys must be strings")
    end
  end
  if schema.endpoint_key and not fields[schema.endpoint_key] then add(errors, "endpoint_key", "value must be a field name") end
  for _, name in ipairs(type(schema.cache_key) == "table" and schema.cache_key or {}) do
    if not fields[name] then add(errors, "cache_key", "values must be field names") end
  end
  if type(schema.cache_key) == "table" and #schema.cache_key == 1 then
    local only = fields[schema.cache_key[1]]
    if only and not only.unique then add(errors, "cache_key", "a field used as a single cache key must be unique") end
  end
  if schema.ttl and fields.ttl then add(errors, "ttl", "ttl is a reserved field name when ttl is enabled") end
  return errors
end

local LEGACY_TYPES = set("url", "table", "array", "timestamp", "string", "number", "boolean")
local LEGACY_ATTRIBUTES = set("type", "schema", "immutable", "enum", "default", "required", "unique", "func", "new_type")

-- What Kong 1 and 2 say against the form of schema that came before 1.0.
function M.legacy(schema, path, errors)
  errors, path = errors or {}, path or "fields"
  if type(schema.fields) ~= "table" then add(errors, path, "'fields' must be a table") return errors end
  for name, field in pairs(schema.fields) do
    local at = path .. "." .. tostring(name)
    if type(field) ~= "table" then
      add(errors, at, "expected a table")
    elseif field.new_type == nil then
      for attribute, value in pairs(field) do
        if not LEGACY_ATTRIBUTES[attribute] then
          add(errors, at, "unknown legacy field attribute: " .. tostring(attribute))
        elseif attribute == "type" and not LEGACY_TYPES[value] then
          add(errors, at, "unknown legacy field type: " .. tostring(value))
        elseif attribute == "schema" and type(value) == "table" then
          M.legacy(value, at .. ".schema", errors)
        end
      end
    end
  end
  return errors
end

M.is_array = is_array
return M
