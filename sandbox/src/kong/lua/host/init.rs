//! What `Kong.init` and `kong config parse` ask of the process.

use std::rc::Rc;

use mlua::{Function, Lua, Result, Table, Value as LuaValue};
use serde_json::{Value, json};

use crate::kong::db::{Data, UNREACHABLE, parse_declarative};
use crate::kong::log;
use crate::kong::lua::{Host, Phase, json};

/// What `Kong.init` and `kong config parse` ask for.
pub fn register(lua: &Lua, host: &Rc<Host>, table: &Table) -> Result<()> {
    let it = Rc::clone(host);
    table.set(
        "configuration",
        lua.create_function(move |lua, ()| {
            let conf = json!({
                "kong": it.conf.to_json(), "database": it.conf.text("database"),
                "loaded_plugins": it.conf.loaded_plugins(), "strategy": it.conf.text("database"),
            });
            json::to_lua(lua, &conf)
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "connect_database",
        lua.create_function(move |_, ()| {
            let up = !it.store.is_shared() || it.store.reachable();
            Ok(if up { (Some(true), None) } else { (None, Some(UNREACHABLE)) })
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "plugin_servers",
        lua.create_function(move |_, ()| {
            if it.phase.get() == Phase::Cli {
                return Ok(Some("attempt to index upvalue 'kong' (a nil value)"));
            }
            log::write("notice", "[kong] process.lua:90 [pluginserver] loading external plugins info");
            log::write("notice", "[kong] process.lua:101 [pluginserver] loaded #0 external plugins info");
            Ok(None)
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "check_plugins_in_use",
        lua.create_function(move |_, ()| {
            let data = it.store.read().map_err(mlua::Error::external)?;
            Ok((true, data.in_use_but_not_enabled(&it.conf.loaded_plugins())))
                .map(|(ok, complaint)| if complaint.is_some() { (None, complaint) } else { (Some(ok), None) })
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "load_declarative",
        lua.create_function(move |lua, ()| match load_declarative(lua, &it) {
            Ok(data) => {
                *it.declared.borrow_mut() = data;
                Ok((Some(true), None))
            }
            Err(error) => Ok((None, Some(error))),
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "initialised",
        lua.create_function(move |_, ()| {
            let token = it
                .conf
                .get("request_debug_token")
                .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
            log::write(
                "notice",
                &format!("[lua] init.lua:794: init(): [request-debug] token for request debugging: {token}"),
            );
            *it.debug_token.borrow_mut() = Some(token);
            Ok(())
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "parse_file",
        lua.create_function(move |lua, ()| {
            let Some(path) = &it.parse_file else { return Ok((Some(true), None)) };
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(_) => return Ok((None, Some(format!("{}: No such file or directory", path.display())))),
            };
            match parse(lua, &text) {
                Ok(_) => Ok((Some(true), None)),
                Err(error) => Ok((None, Some(error))),
            }
        })?,
    )
}

/// The configuration of a node without a database, when its settings name one.
fn load_declarative(lua: &Lua, host: &Host) -> std::result::Result<Option<Data>, String> {
    if let Some(path) = host.conf.get("declarative_config") {
        let text = std::fs::read_to_string(path)
            .map_err(|_| format!("{path}:\n{path}: No such file or directory"))?;
        return parse(lua, &text).map(Some).map_err(|error| format!("{path}:\n{error}"));
    }
    match host.conf.get("declarative_config_string") {
        Some(text) => parse(lua, text).map(Some).map_err(|error| format!("(string):\n{error}")),
        None => Ok(None),
    }
}

fn parse(lua: &Lua, text: &str) -> std::result::Result<Data, String> {
    parse_with(lua, text).map_err(|error| error.text)
}

/// Reads a declarative configuration with the schemas this VM has loaded.
pub fn parse_with(lua: &Lua, text: &str) -> std::result::Result<Data, crate::kong::db::ParseError> {
    let insert = || -> Result<Function> {
        let require: Function = lua.globals().get("require")?;
        require.call::<Table>("kong.standin.runtime")?.get("insert")
    };
    let mut validate = |kind: &str, value: Value| -> std::result::Result<Value, Value> {
        let call =
            || -> Result<(LuaValue, LuaValue)> { insert()?.call((kind, json::to_lua(lua, &value)?, false)) };
        let thrown = |error: mlua::Error| json!(error.to_string());
        match call().map_err(thrown)? {
            (LuaValue::Nil, errors) => Err(json::from_lua(lua, &errors).map_err(thrown)?),
            (entity, _) => json::from_lua(lua, &entity).map_err(thrown),
        }
    };
    parse_declarative(text, &mut validate)
}
