//! What plugins read from the datastore.

use std::rc::Rc;

use mlua::{Lua, Result, Table, Value as LuaValue};
use serde_json::Value;

use super::now;
use crate::kong::lua::{Host, json};

/// Reading entities, and the values that an entity gets without being given them.
pub fn register(lua: &Lua, host: &Rc<Host>, table: &Table) -> Result<()> {
    let it = Rc::clone(host);
    table.set(
        "db_select",
        lua.create_function(move |lua, (kind, key): (String, Option<String>)| {
            let data = it.store.read().map_err(mlua::Error::external)?;
            key.and_then(|key| data.find(&kind, &key).cloned())
                .map(|entity| json::to_lua(lua, &entity))
                .transpose()
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "db_find",
        lua.create_function(move |lua, (kind, field, wanted): (String, String, String)| {
            let data = it.store.read().map_err(mlua::Error::external)?;
            let found = data.all(&kind).find(|entity| entity[&field].as_str() == Some(&wanted));
            found.map(|entity| json::to_lua(lua, entity)).transpose()
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "db_list",
        lua.create_function(move |lua, kind: String| {
            let data = it.store.read().map_err(mlua::Error::external)?;
            let rows: Vec<Value> = data.all(&kind).cloned().collect();
            json::to_lua(lua, &Value::Array(rows))
        })?,
    )?;
    table.set(
        "auto_value",
        lua.create_function(|lua, (name, _field): (String, Table)| match name.as_str() {
            "created_at" | "updated_at" => Ok(LuaValue::Number(now().floor())),
            "key" => Ok(LuaValue::String(lua.create_string(uuid::Uuid::new_v4().simple().to_string())?)),
            _ => Ok(LuaValue::String(lua.create_string(uuid::Uuid::new_v4().to_string())?)),
        })?,
    )
}
