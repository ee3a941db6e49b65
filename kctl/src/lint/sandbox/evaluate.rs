//! Runs a rockspec: nothing but its own assignments around it, as LuaRocks has it.

use kctl_shared::package::{Evaluated, Key, Value};
use mlua::{Lua, StdLib, Table, Value as LuaValue};

use super::vm;

/// A rockspec assigns some strings; the longest have a few thousand instructions.
const INSTRUCTIONS: u64 = 5_000_000;
/// Values of a rockspec, nested ones counted too.
const MOST_VALUES: usize = 20_000;
const MOST_DEPTH: usize = 16;
/// Bytes of one string.
const MOST_TEXT: usize = 1 << 20;

/// # Errors
/// (code, sentence): `ROCKSPEC_INVALID` or `ROCKSPEC_ENDLESS`.
pub fn rockspec(name: &str, source: &[u8]) -> Result<Evaluated, (&'static str, String)> {
    let invalid = |why: String| ("ROCKSPEC_INVALID", why);
    let endless = |why: &str| ("ROCKSPEC_ENDLESS", format!("{name}: {why}"));
    let internal = |e: mlua::Error| invalid(format!("{name}: {e}"));
    let (lua, budget) = vm::new(StdLib::STRING).map_err(internal)?;
    let chunk = vm::compile(&lua, source, &format!("={name}")).map_err(invalid)?;
    let undefined = lua.create_table().map_err(internal)?;
    let globals = surroundings(&lua, &undefined).map_err(internal)?;
    chunk.set_environment(globals.clone()).map_err(internal)?;
    budget.renew(INSTRUCTIONS);
    let ran = chunk.call::<()>(());
    if budget.spent() {
        return Err(endless("running it does not come to an end"));
    }
    match ran {
        Ok(()) => {}
        Err(mlua::Error::MemoryError(_)) => return Err(endless("running it takes too much memory")),
        Err(e) => return Err(invalid(first_line(&e.to_string()))),
    }
    let mut count = 0;
    let mut found = Evaluated::default();
    for entry in globals.pairs::<LuaValue, LuaValue>() {
        let (key, value) = entry.map_err(internal)?;
        let value = plain(&value, 0, &mut count).ok_or_else(|| endless("it holds too much"))?;
        if let LuaValue::String(key) = key {
            found.globals.push((key.to_string_lossy(), value));
        }
    }
    found.globals.sort_by(|a, b| a.0.cmp(&b.0));
    for entry in undefined.pairs::<mlua::LuaString, bool>() {
        found.undefined.push(entry.map_err(internal)?.0.to_string_lossy());
    }
    found.undefined.sort();
    found.undefined.truncate(MOST_VALUES);
    Ok(found)
}

/// An empty table of globals that remembers what was looked for in it.
fn surroundings(lua: &Lua, undefined: &Table) -> mlua::Result<Table> {
    let remember = lua.create_function({
        let undefined = undefined.clone();
        move |_, (_, key): (LuaValue, LuaValue)| {
            if let LuaValue::String(key) = key {
                undefined.raw_set(key, true)?;
            }
            Ok(LuaValue::Nil)
        }
    })?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", remember)?;
    meta.raw_set("__metatable", false)?;
    let globals = lua.create_table()?;
    globals.set_metatable(Some(meta))?;
    Ok(globals)
}

/// `None` for what is too much or contains itself.
fn plain(value: &LuaValue, depth: usize, count: &mut usize) -> Option<Value> {
    *count += 1;
    if depth > MOST_DEPTH || *count > MOST_VALUES {
        return None;
    }
    Some(match value {
        LuaValue::String(text) if text.as_bytes().len() > MOST_TEXT => return None,
        LuaValue::String(text) => Value::Text(text.to_string_lossy()),
        LuaValue::Integer(n) => Value::Number(*n as f64),
        LuaValue::Number(n) => Value::Number(*n),
        LuaValue::Boolean(b) => Value::Bool(*b),
        LuaValue::Table(table) => {
            let mut entries = Vec::new();
            for entry in table.pairs::<LuaValue, LuaValue>() {
                let (key, value) = entry.ok()?;
                let key = match key {
                    LuaValue::Integer(n) => Key::Index(n),
                    LuaValue::Number(n) => Key::Index(n as i64),
                    LuaValue::String(text) => Key::Name(text.to_string_lossy()),
                    other => Key::Name(other.type_name().to_owned()),
                };
                entries.push((key, plain(&value, depth + 1, count)?));
            }
            // Lua's order of named fields is chance; what is made of them must not be.
            entries.sort_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
            Value::Table(entries)
        }
        other => Value::Other(other.type_name().to_owned()),
    })
}

fn order(key: &Key) -> (bool, i64, &str) {
    match key {
        Key::Index(n) => (false, *n, ""),
        Key::Name(name) => (true, 0, name),
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or(text);
    line.strip_prefix("runtime error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rockspec_can_do() {
        let source = br#"#!/usr/bin/lua
            local name = "x"
            package = "kong-plugin-" .. name
            version = ("1.0.0-%d"):format(1)
            build = { modules = { ["kong.plugins." .. name .. ".handler"] = "h.lua", "listed" }, n = 1, yes = true }
        "#;
        let found = rockspec("x.rockspec", source).unwrap();
        assert_eq!(found.get("package").and_then(Value::text), Some("kong-plugin-x"));
        assert_eq!(found.get("version").and_then(Value::text), Some("1.0.0-1"));
        let modules = found.get("build").and_then(|b| b.get("modules")).unwrap();
        let first = (Key::Index(1), Value::Text("listed".into()));
        assert_eq!(modules.table().unwrap()[0], first);
        assert_eq!(modules.get("kong.plugins.x.handler").and_then(Value::text), Some("h.lua"));
        assert_eq!(found.undefined, [""; 0]);
        assert_eq!(rockspec("x", b"x = os and 1").unwrap().undefined, ["os"]);
    }

    #[test]
    fn what_a_rockspec_cannot_do() {
        for (source, code) in [
            (&b"os.execute('id')"[..], "ROCKSPEC_INVALID"),
            (b"require 'os'", "ROCKSPEC_INVALID"),
            (b"package = ", "ROCKSPEC_INVALID"),
            (b"\x1bLJ\x02", "ROCKSPEC_INVALID"),
            (b"error('x')", "ROCKSPEC_INVALID"),
            (b"while true do end", "ROCKSPEC_ENDLESS"),
            (b"repeat until false", "ROCKSPEC_ENDLESS"),
            (b"local function f() return f() end f()", "ROCKSPEC_ENDLESS"),
            (b"a = {} for i = 1, 1e9 do a[i] = i end", "ROCKSPEC_ENDLESS"),
            (b"a = ('x'):rep(1e9)", "ROCKSPEC_ENDLESS"),
            (b"a = 'x' while true do a = a .. a end", "ROCKSPEC_ENDLESS"),
            (b"a = {} a.a = a", "ROCKSPEC_ENDLESS"),
            (b"a = ('x'):rep(2e6)", "ROCKSPEC_ENDLESS"),
        ] {
            let shown = String::from_utf8_lossy(source);
            let (found, message) = rockspec("x.rockspec", source).unwrap_err();
            assert_eq!(found, code, "{shown}: {message}");
            assert!(!message.contains('\n'), "{shown}: {message}");
        }
    }
}
