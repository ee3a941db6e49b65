-- Kong's entity schemas: is a definition valid, is a value valid under it, which defaults does it get.
--
-- Definitions and messages follow Kong's; everything is kept in one pass over a value, because a stand-in has no
-- partial validations, no translations between versions and no references to vaults.
local M = {}

local null = ngx and ngx.null or require("kong.standin.host").null
local array_mt = require("kong.standin.host").array_mt
local check = require "kong.standin.validators"

local TYPES = { "string", "boolean", "integer", "number", "array", "set", "map", "record", "foreign", "json", "function" }
local TYPE_SET = {}
for _, name in ipairs(TYPES) do TYPE_SET[name] = true end

-- The attributes that a field of a plugin's schema may carry.
local ATTRIBUTES = {}
for name in string.gmatch([[type required default description elements keys values fields reference abstract auto unique
  unique_across_ws on_delete eq ne gt between len_eq len_min len_max starts_with not_match match match_all match_any
  match_none one_of not_one_of is_regex contains uuid timestamp immutable nilable err custom_validator
  mutually_exclusive_subsets referenceable encrypted hostname tags legacy translate_backwards deprecation json_schema
  transformations shorthand_fields entity_checks ttl cache_key endpoint_key name admin_api_name shorthand_tables
  indexed func deprecation len_min prefix_ws overwrite expand_shortfields workspaceable db_export before]], "%S+") do
  ATTRIBUTES[name] = true
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = copy(item) end
  return setmetatable(out, getmetatable(value))
end
M.copy = copy

-- Lays out a table of errors as Kong prints it.
local function pretty(value, indent)
  if type(value) ~= "table" then
    return type(value) == "string" and string.format("%q", value) or tostring(value)
  end
  local keys, lines = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    local label = type(key) == "number" and "" or (key .. " = ")
    lines[#lines + 1] = indent .. "  " .. label .. pretty(value[key], indent .. "  ")
  end
  return "{\n" .. table.concat(lines, ",\n") .. "\n" .. indent .. "}"
end

-- "schema violation (…)" for errors found in a schema itself.
local function definition_violation(errors)
  local parts, keys = {}, {}
  for key in pairs(errors) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local value = errors[key]
    if type(value) == "table" then
      local indexes = {}
      for index in pairs(value) do indexes[#indexes + 1] = index end
      table.sort(indexes, function(a, b) return tostring(a) < tostring(b) end)
      for _, index in ipairs(indexes) do
        parts[#parts + 1] = key .. "." .. index .. ": " .. pretty(value[index], "")
      end
    else
      parts[#parts + 1] = key .. ": " .. tostring(value)
    end
  end
  local head = #parts == 1 and "schema violation (" or (#parts .. " schema violations (")
  return head .. table.concat(parts, "; ") .. ")"
end

local check_fields

local function check_field(field)
  if type(field) ~= "table" then return "expected a record" end
  local errors = {}
  if field.type == nil then
    errors.type = "required field missing"
  elseif not TYPE_SET[field.type] then
    errors.type = "expected one of: " .. table.concat(TYPES, ", ")
  end
  for name in pairs(field) do
    if type(name) == "string" and not ATTRIBUTES[name] then errors[name] = "unknown field" end
  end
  if field.type == "record" then
    if field.fields == nil and not field.abstract then
      errors["@entity"] = { "fields of type 'record' must declare 'fields'" }
    elseif field.fields ~= nil then
      errors.fields = check_fields(field.fields)
    end
  elseif field.type == "array" or field.type == "set" then
    if field.elements == nil then
      errors["@entity"] = { "fields of type '" .. field.type .. "' must declare 'elements'" }
    else
      errors.elements = check_field(field.elements)
    end
  elseif field.type == "map" then
    if field.keys == nil or field.values == nil then
      errors["@entity"] = { "fields of type 'map' must declare 'keys' and 'values'" }
    else
      errors.keys, errors.values = check_field(field.keys), check_field(field.values)
    end
  elseif field.type == "foreign" and type(field.reference) ~= "string" then
    errors["@entity"] = { "fields of type 'foreign' must declare 'reference'" }
  end
  if field.default ~= nil and field.default ~= null and TYPE_SET[field.type] and next(errors) == nil then
    local mismatch = check.type_error(field, field.default, null)
    if mismatch then errors.default = mismatch end
  end
  return next(errors) ~= nil and errors or nil
end

function check_fields(fields)
  if type(fields) ~= "table" then return "expected an array" end
  if type(fields) ~= "table" or not check.is_sequence(fields) then return "expected an array" end
  local errors = {}
  for index, entry in ipairs(fields) do
    if type(entry) ~= "table" then
      errors[index] = "expected a record"
    else
      local name, definition = next(entry)
      if name == nil or type(name) ~= "string" then
        errors[index] = "each field must be a table with one string key"
      elseif next(entry, name) ~= nil then
        errors[index] = "each field must have exactly one name"
      else
        errors[index] = check_field(definition)
      end
    end
  end
  return next(errors) ~= nil and errors or nil
end

-- Is this a plugin's configuration schema? True, or nil and Kong's complaint.
function M.check_schema(schema)
  local errors = {}
  if type(schema) ~= "table" then
    return nil, "schema violation (expected a record)"
  end
  if schema.name == nil then
    errors.name = "required field missing"
  elseif type(schema.name) ~= "string" then
    errors.name = "expected a string"
  end
  if schema.fields == nil then
    errors.fields = "required field missing"
  else
    errors.fields = check_fields(schema.fields)
  end
  if schema.entity_checks ~= nil and type(schema.entity_checks) ~= "table" then
    errors.entity_checks = "expected an array"
  end
  if next(errors) ~= nil then
    return nil, definition_violation(errors)
  end
  return true
end

-- Is this the schema of an entity a plugin brings along?
function M.check_entity(schema)
  if type(schema) ~= "table" then
    return nil, "schema violation (expected a record)"
  end
  return M.check_schema(schema)
end

-- A value read from a form or the query: text, to be read as the field's type.
local function infer(field, value)
  if field.type == "array" or field.type == "set" then
    if type(value) ~= "table" then value = { value } end
    local out = {}
    for index, item in ipairs(value) do out[index] = infer(field.elements, item) end
    return out
  end
  if type(value) == "table" then
    if field.type == "map" then
      for key, item in pairs(value) do value[key] = infer(field.values, item) end
    elseif field.type == "record" and field.fields then
      for _, entry in ipairs(field.fields) do
        local name, definition = next(entry)
        if value[name] ~= nil then value[name] = infer(definition, value[name]) end
      end
    end
    return value
  end
  if value == "" and field.type ~= "string" then return null end
  if field.type == "number" or field.type == "integer" then return tonumber(value) or value end
  if field.type == "boolean" then
    if value == "true" then return true elseif value == "false" then return false end
  end
  return value
end

local validate_field

-- Checks the fields of a record and fills in defaults. `value` is changed in place.
local function process_record(schema, value, errors, context)
  local known = {}
  for _, entry in ipairs(schema.shorthand_fields or {}) do
    local name, field = next(entry)
    local given = value[name]
    value[name] = nil
    if given ~= nil and given ~= null and type(field.func) == "function" then
      for target, expanded in pairs(field.func(given) or {}) do value[target] = expanded end
    end
  end
  for _, entry in ipairs(schema.fields or {}) do
    local name, field = next(entry)
    known[name] = true
    local item = value[name]
    if item == nil then
      if field.default ~= nil then
        item = copy(field.default)
      elseif field.type == "record" and field.required and not field.abstract then
        item = {}
      elseif field.auto and context.auto then
        item = context.auto(name, field)
      else
        item = null
      end
    elseif context.infer and item ~= null then
      item = infer(field, item)
    end
    local err
    item, err = validate_field(field, item, context)
    value[name] = item
    if err ~= nil then errors[name] = err end
  end
  for name in pairs(value) do
    if not known[name] then
      errors[name] = "unknown field"
    end
  end
  local entity_errors = {}
  if next(errors) == nil then
    for _, entity_check in ipairs(schema.entity_checks or {}) do
      check.entity(entity_check, value, null, entity_errors, context.path)
    end
  end
  if #entity_errors > 0 then errors["@entity"] = entity_errors end
  return value
end

function validate_field(field, value, context)
  if value == null then
    if field.required and not field.auto then return value, "required field missing" end
    if field.eq ~= nil and field.eq ~= null then return value, "value must be " .. tostring(field.eq) end
    return value
  end
  if field.eq == null then return value, "value must be null" end
  local mismatch = check.type_error(field, value, null)
  if mismatch then return value, mismatch end
  if field.type == "record" and field.fields then
    local errors = {}
    process_record(field, value, errors, context)
    if next(errors) ~= nil then return value, errors end
  elseif field.type == "array" or field.type == "set" then
    local errors, out, seen = {}, setmetatable({}, array_mt), {}
    for index, item in ipairs(value) do
      local checked, err = validate_field(field.elements, item, context)
      if err ~= nil then errors[index] = err end
      if field.type == "array" or not seen[checked] then out[#out + 1] = checked end
      seen[checked] = true
    end
    value = out
    if next(errors) ~= nil then return value, errors end
  elseif field.type == "map" then
    local errors = {}
    for key, item in pairs(value) do
      local _, key_err = validate_field(field.keys, key, context)
      local checked, err = validate_field(field.values, item, context)
      value[key] = checked
      if key_err or err then errors[key] = key_err or err end
    end
    if next(errors) ~= nil then return value, errors end
  end
  local err = check.value(field, value)
  return value, err
end

-- A stored value in the shape that `field` has now: unknown fields go, missing ones get their default, or null where
-- nothing is required. Nothing is validated.
local function reshape(field, value)
  if value == nil then
    if field.default ~= nil then return copy(field.default) end
    if field.type == "record" and field.required and not field.abstract then
      value = {}
    else
      return not field.required and null or nil
    end
  end
  if type(value) ~= "table" then return value end
  if field.type == "record" and field.fields then return M.reshape(field, value) end
  if (field.type == "array" or field.type == "set") and type(field.elements) == "table" then
    local out = setmetatable({}, array_mt)
    for index, item in ipairs(value) do out[index] = reshape(field.elements, item) end
    return out
  end
  return value
end

-- `value` as a row of the datastore is read under a schema that may have changed since it was written.
function M.reshape(schema, value)
  local out = {}
  for _, entry in ipairs(schema.fields) do
    local name, field = next(entry)
    out[name] = reshape(field, value[name])
  end
  return out
end

-- Validates `value` under `schema` and completes it. Returns the entity, or nil and a table of errors by field.
-- `context.auto(name, field)` supplies ids and times; `context.infer` says that values came from a form.
function M.process(schema, value, context)
  local errors = {}
  local entity = process_record(schema, value, errors, context or {})
  if next(errors) ~= nil then return nil, errors end
  return entity
end

return M
