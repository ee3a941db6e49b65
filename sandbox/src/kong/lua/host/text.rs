//! JSON, digests and regular expressions.

use std::rc::Rc;

use mlua::{Lua, LuaString, Result, Table, Value as LuaValue};
use regex::{Captures, Regex, RegexBuilder};
use serde_json::Value;

use crate::kong::encoding;
use crate::kong::lua::{Host, json};

/// JSON, digests, regular expressions.
pub fn register(lua: &Lua, host: &Rc<Host>, table: &Table) -> Result<()> {
    table.set(
        "json_encode",
        lua.create_function(|lua, value: LuaValue| Ok(json::from_lua(lua, &value)?.to_string()))?,
    )?;
    table.set(
        "json_decode",
        lua.create_function(|lua, text: LuaString| {
            let value: Value = serde_json::from_slice(&text.as_bytes()).map_err(mlua::Error::external)?;
            json::to_lua(lua, &value)
        })?,
    )?;
    table.set("md5", lua.create_function(|_, text: LuaString| Ok(encoding::md5(&text.as_bytes())))?)?;
    table.set(
        "encode_base64",
        lua.create_function(|_, text: LuaString| Ok(encoding::base64(&text.as_bytes())))?,
    )?;
    table.set(
        "decode_base64",
        lua.create_function(|lua, text: String| {
            encoding::base64_decode(&text).map(|bytes| lua.create_string(bytes)).transpose()
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "re_match",
        lua.create_function(move |lua, (subject, pattern, options): (String, String, String)| {
            let regex = compiled(&it, &pattern, &options)?;
            let Some(found) = regex.captures(&subject) else {
                return Ok((LuaValue::Nil, LuaValue::Nil, LuaValue::Nil));
            };
            let captures = captures_table(lua, &regex, &found)?;
            let (from, to) = found.get(0).map_or((0, 0), |whole| (whole.start(), whole.end()));
            let number = |at: usize| LuaValue::Integer(i64::try_from(at).unwrap_or(i64::MAX));
            Ok((LuaValue::Table(captures), number(from + 1), number(to)))
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "re_sub",
        lua.create_function(
            move |lua, (subject, pattern, replace, options, all): (String, String, LuaValue, String, bool)| {
                let regex = compiled(&it, &pattern, &options)?;
                let mut count = 0;
                let mut failure = None;
                let replacer = |found: &Captures<'_>| {
                    count += 1;
                    replacement(lua, &regex, &replace, found).unwrap_or_else(|error| {
                        failure = Some(error);
                        String::new()
                    })
                };
                let result = regex.replacen(&subject, usize::from(!all), replacer).into_owned();
                failure.map_or(Ok((result, count)), Err)
            },
        )?,
    )
}

fn compiled(host: &Host, pattern: &str, options: &str) -> Result<Regex> {
    let key = format!("{options}/{pattern}");
    if let Some(regex) = host.regexes.borrow().get(&key) {
        return Ok(regex.clone());
    }
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(options.contains('i'))
        .multi_line(options.contains('m'))
        .dot_matches_new_line(options.contains('s'))
        .ignore_whitespace(options.contains('x'))
        .build()
        .map_err(|error| mlua::Error::runtime(error.to_string()))?;
    host.regexes.borrow_mut().insert(key, regex.clone());
    Ok(regex)
}

fn captures_table(lua: &Lua, regex: &Regex, found: &Captures<'_>) -> Result<Table> {
    let table = lua.create_table()?;
    for (index, capture) in found.iter().enumerate() {
        match capture {
            Some(capture) => table.raw_set(index, capture.as_str())?,
            None => table.raw_set(index, false)?,
        }
    }
    for name in regex.capture_names().flatten() {
        if let Some(capture) = found.name(name) {
            table.raw_set(name, capture.as_str())?;
        }
    }
    Ok(table)
}

fn replacement(lua: &Lua, regex: &Regex, replace: &LuaValue, found: &Captures<'_>) -> Result<String> {
    match replace {
        LuaValue::Function(function) => function.call(captures_table(lua, regex, found)?),
        LuaValue::String(template) => {
            let template = template.to_string_lossy();
            let mut out = String::new();
            let mut chars = template.chars().peekable();
            while let Some(c) = chars.next() {
                match (c, chars.peek().copied()) {
                    ('$', Some('$')) => {
                        chars.next();
                        out.push('$');
                    }
                    ('$', Some(digit)) if digit.is_ascii_digit() => {
                        chars.next();
                        let index = digit.to_digit(10).unwrap_or_default() as usize;
                        out.push_str(found.get(index).map_or("", |capture| capture.as_str()));
                    }
                    (other, _) => out.push(other),
                }
            }
            Ok(out)
        }
        other => Err(mlua::Error::runtime(format!("bad replacement of type {}", other.type_name()))),
    }
}
