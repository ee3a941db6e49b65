//! JSON values to Lua and back, with Kong's conventions: `null` is `ngx.null`, arrays carry a metatable.

use mlua::{Lua, Result, Table, Value as LuaValue};
use serde_json::{Map, Number, Value};

/// Registry name of the metatable that marks a table as an array.
const ARRAY_MT: &str = "kong.standin.array_mt";

/// Tables nested deeper than this do not become JSON.
const MAX_DEPTH: usize = 64;

/// The metatable that marks arrays; made on first use.
pub fn array_metatable(lua: &Lua) -> Result<Table> {
    if let Ok(table) = lua.named_registry_value::<Table>(ARRAY_MT) {
        return Ok(table);
    }
    let table = lua.create_table()?;
    lua.set_named_registry_value(ARRAY_MT, &table)?;
    Ok(table)
}

/// A JSON value as Lua sees it.
pub fn to_lua(lua: &Lua, value: &Value) -> Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::NULL,
        Value::Bool(flag) => LuaValue::Boolean(*flag),
        Value::Number(number) => LuaValue::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for item in items {
                table.raw_push(to_lua(lua, item)?)?;
            }
            table.set_metatable(Some(array_metatable(lua)?))?;
            LuaValue::Table(table)
        }
        Value::Object(entries) => {
            let table = lua.create_table_with_capacity(0, entries.len())?;
            for (key, item) in entries {
                table.raw_set(key.as_str(), to_lua(lua, item)?)?;
            }
            LuaValue::Table(table)
        }
    })
}

/// A Lua value as JSON. Functions and userdata have no JSON form and are an error.
pub fn from_lua(lua: &Lua, value: &LuaValue) -> Result<Value> {
    let arrays = array_metatable(lua)?;
    convert(value, &arrays, 0)
}

fn convert(value: &LuaValue, arrays: &Table, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(mlua::Error::runtime("Cannot serialise, excessive depth"));
    }
    Ok(match value {
        LuaValue::Nil | LuaValue::LightUserData(_) => Value::Null,
        LuaValue::Boolean(flag) => Value::Bool(*flag),
        LuaValue::Integer(integer) => Value::Number((*integer).into()),
        LuaValue::Number(number) => Value::Number(to_number(*number)),
        LuaValue::String(text) => Value::String(text.to_string_lossy()),
        LuaValue::Table(table) => {
            let is_array = table.metatable().is_some_and(|meta| meta == *arrays);
            let length = table.raw_len();
            if is_array || length > 0 {
                let mut items = Vec::with_capacity(length);
                for index in 1..=length {
                    items.push(convert(&table.raw_get(index)?, arrays, depth + 1)?);
                }
                return Ok(Value::Array(items));
            }
            let mut entries = Map::new();
            for pair in table.pairs::<LuaValue, LuaValue>() {
                let (key, item) = pair?;
                let key = match key {
                    LuaValue::String(text) => text.to_string_lossy(),
                    LuaValue::Integer(integer) => integer.to_string(),
                    LuaValue::Number(number) => number.to_string(),
                    other => {
                        return Err(mlua::Error::runtime(format!(
                            "Cannot serialise {}: table key must be a number or string",
                            other.type_name()
                        )));
                    }
                };
                entries.insert(key, convert(&item, arrays, depth + 1)?);
            }
            Value::Object(entries)
        }
        other => {
            return Err(mlua::Error::runtime(format!(
                "Cannot serialise {}: type not supported",
                other.type_name()
            )));
        }
    })
}

/// Integral doubles are integers in JSON, as cjson prints them.
fn to_number(number: f64) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        // The bounds make the conversion exact.
        #[allow(clippy::cast_possible_truncation)]
        return Number::from(number as i64);
    }
    Number::from_f64(number).unwrap_or_else(|| Number::from(0))
}
