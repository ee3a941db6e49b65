//! The functions behind `kong.standin.host`.

mod datastore;
mod init;
mod process;
mod text;

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use mlua::{Lua, Result, Table, Value as LuaValue};

use super::{Host, Phase, json};

pub use init::parse_with;
pub use process::{hostname, request_tail};

/// Builds the table of host functions.
pub fn functions(lua: &Lua, host: &Rc<Host>) -> Result<Table> {
    let table = lua.create_table()?;
    table.set("null", LuaValue::NULL)?;
    let version = crate::kong::version::played();
    table.set("version", version.to_string())?;
    table.set("version_num", version.number())?;
    table.set("version_parts", [version.0, version.1, version.2])?;
    table.set("array_mt", json::array_metatable(lua)?)?;
    table.set("in_cli", host.phase.get() == Phase::Cli)?;
    process::register(lua, host, &table)?;
    text::register(lua, host, &table)?;
    datastore::register(lua, host, &table)?;
    init::register(lua, host, &table)?;
    Ok(table)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default()
}
