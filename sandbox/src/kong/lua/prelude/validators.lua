-- The checks a field definition can ask for, with Kong's messages.
local M = {}

local EXPECTED = {
  string = "expected a string", boolean = "expected a boolean", integer = "expected an integer",
  number = "expected a number", array = "expected an array", set = "expected a set", map = "expected a map",
  record = "expected a record", foreign = "expected a record", ["function"] = "expected a function",
}

-- Only for tables.
function M.is_sequence(value)
  local count = 0
  for key in pairs(value) do
    if type(key) ~= "number" then return false end
    count = count + 1
  end
  return count == #value
end

-- Nil, or what is wrong with the type of `value`.
function M.type_error(field, value, null)
  local kind, actual = field.type, type(value)
  local ok
  if value == null then
    return nil
  elseif kind == "integer" then
    ok = actual == "number" and math.floor(value) == value
  elseif kind == "array" or kind == "set" then
    ok = actual == "table" and M.is_sequence(value)
  elseif kind == "map" or kind == "record" or kind == "foreign" then
    ok = actual == "table"
  elseif kind == "json" then
    ok = true
  else
    ok = actual == kind
  end
  return not ok and EXPECTED[kind] or nil
end

local function join(list)
  local out = {}
  for index, item in ipairs(list) do out[index] = tostring(item) end
  return table.concat(out, ", ")
end

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local UUID = "^" .. ("x"):rep(8) .. "%-" .. ("x"):rep(4) .. "%-" .. ("x"):rep(4) .. "%-" .. ("x"):rep(4) .. "%-"
  .. ("x"):rep(12) .. "$"
UUID = UUID:gsub("x", "%%x")

local function length(value)
  if type(value) ~= "table" then return #value end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count
end

local CHECKS = {
  { "between", function(value, limits)
    if value < limits[1] or value > limits[2] then
      return "value should be between " .. limits[1] .. " and " .. limits[2]
    end
  end },
  { "gt", function(value, limit)
    if not (value > limit) then return "value must be greater than " .. limit end
  end },
  { "eq", function(value, wanted)
    if value ~= wanted then return "value must be " .. tostring(wanted) end
  end },
  { "ne", function(value, unwanted)
    if value == unwanted then return "value must not be " .. tostring(unwanted) end
  end },
  { "len_eq", function(value, wanted)
    if length(value) ~= wanted then return "length must be " .. wanted end
  end },
  { "len_min", function(value, limit)
    if length(value) < limit then return "length must be at least " .. limit end
  end },
  { "len_max", function(value, limit)
    if length(value) > limit then return "length must be at most " .. limit end
  end },
  { "starts_with", function(value, start)
    if value:sub(1, #start) ~= start then return "should start with: " .. start end
  end },
  { "match", function(value, pattern)
    if not value:match(pattern) then return "invalid value: " .. value end
  end },
  { "not_match", function(value, pattern)
    if value:match(pattern) then return "invalid value: " .. value end
  end },
  { "match_all", function(value, patterns)
    for _, entry in ipairs(patterns) do
      if not value:match(entry.pattern) then return entry.err or ("invalid value: " .. value) end
    end
  end },
  { "match_none", function(value, patterns)
    for _, entry in ipairs(patterns) do
      if value:match(entry.pattern) then return entry.err or ("invalid value: " .. value) end
    end
  end },
  { "match_any", function(value, alternatives)
    for _, pattern in ipairs(alternatives.patterns or {}) do
      if value:match(pattern) then return nil end
    end
    return alternatives.err or ("invalid value: " .. value)
  end },
  { "one_of", function(value, allowed)
    if not contains(allowed, value) then return "expected one of: " .. join(allowed) end
  end },
  { "not_one_of", function(value, refused)
    if contains(refused, value) then return "must not be one of: " .. join(refused) end
  end },
  { "contains", function(value, wanted)
    if not contains(value, wanted) then return "expected to contain: " .. tostring(wanted) end
  end },
  { "uuid", function(value, wanted)
    if wanted and not value:match(UUID) then return "expected a valid UUID" end
  end },
  { "timestamp", function(value, wanted)
    if wanted and value <= 0 then return "expected a valid timestamp" end
  end },
}

-- Nil, or what is wrong with a value of the right type.
function M.value(field, value)
  if field.type == "string" and field.len_min == nil and value == "" then
    return "length must be at least 1"
  end
  for _, entry in ipairs(CHECKS) do
    local argument = field[entry[1]]
    if argument ~= nil then
      local err = entry[2](value, argument)
      if err then return field.err or err end
    end
  end
  if type(field.custom_validator) == "function" then
    local ok, err = field.custom_validator(value)
    if not ok then return err or field.err or "validation failed" end
  end
end

local function at_path(value, path, null)
  for part in path:gmatch("[^%.]+") do
    if type(value) ~= "table" then return nil end
    value = value[part]
  end
  if value == null then return nil end
  return value
end

local function quoted(names)
  local out = {}
  for index, name in ipairs(names) do out[index] = "'" .. name .. "'" end
  return table.concat(out, ", ")
end

local ENTITY = {}

function ENTITY.at_least_one_of(names, entity, null)
  for _, name in ipairs(names) do
    if at_path(entity, name, null) ~= nil then return nil end
  end
  return "at least one of these fields must be non-empty: " .. quoted(names)
end

function ENTITY.only_one_of(names, entity, null)
  local count = 0
  for _, name in ipairs(names) do
    if at_path(entity, name, null) ~= nil then count = count + 1 end
  end
  if count ~= 1 then return "exactly one of these fields must be non-empty: " .. quoted(names) end
end

function ENTITY.mutually_exclusive(names, entity, null)
  local count = 0
  for _, name in ipairs(names) do
    if at_path(entity, name, null) ~= nil then count = count + 1 end
  end
  if count > 1 then return "only one or none of these fields must be set: " .. quoted(names) end
end

function ENTITY.mutually_required(names, entity, null)
  local missing, count = {}, 0
  for _, name in ipairs(names) do
    if at_path(entity, name, null) == nil then missing[#missing + 1] = name else count = count + 1 end
  end
  if count > 0 and #missing > 0 then
    return "all or none of these fields must be set: " .. quoted(names)
  end
end

function ENTITY.distinct(names, entity, null)
  local seen = {}
  for _, name in ipairs(names) do
    local value = at_path(entity, name, null)
    if value ~= nil and seen[value] then
      return "values of these fields must be distinct: " .. quoted(names)
    end
    if value ~= nil then seen[value] = true end
  end
end

local function condition_holds(field, value)
  if field.required and value == nil then return false end
  return value == nil or M.value(field, value) == nil
end

ENTITY["conditional"] = function(arg, entity, null)
  local tested = at_path(entity, arg.if_field, null)
  if tested == nil or not condition_holds(arg.if_match, tested) then return nil end
  local value = at_path(entity, arg.then_field, null)
  if not condition_holds(arg.then_match, value) then
    return arg.then_err or ("failed conditional validation given value of field '" .. arg.if_field .. "'")
  end
end

function ENTITY.custom_entity_check(arg, entity)
  local ok, err = arg.fn(entity)
  if not ok then return err or "entity check failed" end
end

-- Runs one entry of `entity_checks` and appends its complaint to `errors`.
function M.entity(entry, entity, null, errors)
  local name, arg = next(entry)
  local run = ENTITY[name]
  if run then
    local err = run(arg, entity, null)
    if err then errors[#errors + 1] = err end
  end
end

return M
