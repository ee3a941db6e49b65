//! Judges a plugin: its Lua in a VM, with Kong's surroundings pretended, and its text.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, StdLib, Table, Value as LuaValue};

use super::super::job::{Line, PluginJob, Raw};
use super::super::modules;
use super::super::scan::Sources;
use super::Say;
use super::vm::{self, Budget};

/// For each module that is loaded. Plugins take some thousands.
const INSTRUCTIONS: u64 = 20_000_000;

const BOOT: &str = include_str!("../lua/boot.lua");
const META: &str = include_str!("../lua/meta.lua");
const JUDGE: &str = include_str!("../lua/judge.lua");
/// Sources of our own that stand in for Kong's; the others are the stand-in's.
const OWN: [(&str, &str); 1] = [("typedefs", include_str!("../lua/typedefs.lua"))];

/// Says everything about the plugin, in the order in which it is found.
pub fn judge(job: &PluginJob, files: Vec<Vec<u8>>, say: Say) {
    let sources = Sources::new(job, &files);
    let needed: BTreeSet<String> = sources.reachable().into_iter().map(str::to_owned).collect();
    let missing = Rc::new(RefCell::new(BTreeSet::new()));
    let noted: Say = Rc::new({
        let (missing, say) = (Rc::clone(&missing), Rc::clone(&say));
        move |mut line| {
            if let Line::Found(raw) = &mut line {
                if raw.rule == "SYNTAX_ERROR_UNUSED" && needed.contains(&raw.file) {
                    raw.rule = "SYNTAX_ERROR".into();
                }
                if let Some(module) = raw.message.strip_prefix("module '").and_then(|m| m.split('\'').next())
                {
                    missing.borrow_mut().insert(module.replace('/', "."));
                }
            }
            say(line);
        }
    });
    match run(job, &files, &noted) {
        Ok((_lua, listed)) => {
            let listed = |name: &str| listed.call::<bool>(name).unwrap_or(false);
            // What stopped the loading is not told again as something that will happen later.
            let told = |raw: &Raw| {
                matches!(raw.rule.as_str(), "MODULE_NOT_PACKAGED" | "MODULE_GONE")
                    && missing.borrow().iter().any(|m| raw.message.starts_with(&format!("{m} ")))
            };
            sources
                .findings(&listed)
                .into_iter()
                .filter(|raw| !told(raw))
                .for_each(|raw| say(Line::Found(raw)));
        }
        Err(e) => say(found("LOAD_CRASHED", "", 0, format!("Lua gave up: {}", first_line(&e.to_string())))),
    }
}

/// Runs everything; returns what tells which modules Kong brings along.
fn run(job: &PluginJob, files: &[Vec<u8>], say: &Say) -> mlua::Result<(Lua, Function)> {
    let libraries =
        StdLib::STRING | StdLib::TABLE | StdLib::MATH | StdLib::BIT | StdLib::PACKAGE | StdLib::OS;
    let (lua, budget) = vm::new(libraries)?;
    let host = lua.create_table()?;
    facts(&lua, &host, job)?;
    sources(&lua, &host, job, files)?;
    reports(&lua, &host, say, &budget)?;
    let chunk = |source: &str, name: &str| lua.load(source).set_name(format!("={name}")).into_function();
    budget.renew(INSTRUCTIONS);
    let around: Table = chunk(BOOT, "boot")?.call(&host)?;
    let validators: LuaValue = prelude(&lua, "validators")?.call("validators")?;
    let version: Table = prelude(&lua, "version")?.call("version")?;
    let meta: Table = chunk(META, "meta")?.call((&host, validators))?;
    let loading = lua.create_function({
        let (say, budget) = (Rc::clone(say), Rc::clone(&budget));
        move |_, module: String| {
            budget.renew(INSTRUCTIONS);
            say(Line::Loading(module));
            Ok(())
        }
    })?;
    host.set("loading", loading)?;
    let ended = chunk(JUDGE, "judge")?.call::<()>((&host, &around, meta, version.get::<Function>("clean")?));
    if let Err(e) = ended {
        let message = first_line(&e.to_string());
        let rule = if matches!(e, mlua::Error::MemoryError(_)) { "LOAD_CRASHED" } else { "LOAD_UNCERTAIN" };
        say(found(rule, "", 0, format!("judging it went wrong: {message}")));
    }
    budget.renew(u64::MAX);
    let listed = around.get("listed")?;
    Ok((lua, listed))
}

fn facts(lua: &Lua, host: &Table, job: &PluginJob) -> mlua::Result<()> {
    let kong = lua.create_table()?;
    kong.set("major", job.kong.major)?;
    kong.set("minor", job.kong.minor)?;
    kong.set("number", job.kong.number())?;
    host.set("kong", kong)?;
    host.set("plugin", job.plugin.as_str())?;
    host.set("null", LuaValue::NULL)?;
    let lua_files = job.files.iter().map(|f| f.key.as_str()).filter(|k| k.ends_with(".lua"));
    host.set("files", lua_files.collect::<Vec<_>>())?;
    let target = job.kong;
    host.set("provides", lua.create_function(move |_, name: String| Ok(modules::provides(&name, target)))?)?;
    host.set("bundled", lua.create_function(move |_, name: String| Ok(modules::bundles(&name, target)))?)?;
    host.set(
        "json_decode",
        lua.create_function(|lua, text: String| {
            let value: serde_json::Value = serde_json::from_str(&text).map_err(mlua::Error::external)?;
            kctl_sandbox::kong::prelude::json::to_lua(lua, &value)
        })?,
    )
}

fn sources(lua: &Lua, host: &Table, job: &PluginJob, files: &[Vec<u8>]) -> mlua::Result<()> {
    let all: std::collections::HashMap<String, (mlua::LuaString, String)> = job
        .files
        .iter()
        .zip(files)
        .map(|(head, bytes)| Ok((head.key.clone(), (lua.create_string(bytes)?, chunk_name(head)))))
        .collect::<mlua::Result<_>>()?;
    host.set(
        "file",
        lua.create_function(move |lua, key: String| match all.get(&key) {
            None => Ok(MultiValue::new()),
            Some((text, chunk)) => {
                let chunk = lua.create_string(chunk)?;
                Ok(MultiValue::from_iter([LuaValue::String(text.clone()), LuaValue::String(chunk)]))
            }
        })?,
    )?;
    host.set("prelude", lua.create_function(|lua, name: String| prelude(lua, &name))?)?;
    host.set(
        "compile",
        lua.create_function(|lua, (text, name): (mlua::LuaString, String)| {
            match vm::compile(lua, &text.as_bytes(), &name) {
                Ok(function) => Ok((LuaValue::Function(function), LuaValue::Nil)),
                Err(words) => Ok((LuaValue::Nil, LuaValue::String(lua.create_string(words)?))),
            }
        })?,
    )
}

/// What Lua calls a file, short enough for Lua to say it whole.
fn chunk_name(head: &super::super::job::Head) -> String {
    const MOST: usize = 55;
    let short =
        if head.chunk.len() <= MOST { &head.chunk } else { head.key.rsplit('/').next().unwrap_or("") };
    format!("@{short}")
}

fn prelude(lua: &Lua, name: &str) -> mlua::Result<Function> {
    if let Some(own) = name.strip_prefix("own:") {
        let (_, text) =
            OWN.iter().find(|(n, _)| *n == own).ok_or_else(|| mlua::Error::runtime("no source"))?;
        return lua.load(*text).set_name(format!("={own}")).into_function();
    }
    let (chunk, text) =
        kctl_sandbox::kong::prelude::source(name).ok_or_else(|| mlua::Error::runtime("no source"))?;
    lua.load(text).set_name(chunk).into_function()
}

fn reports(lua: &Lua, host: &Table, say: &Say, budget: &Rc<Budget>) -> mlua::Result<()> {
    let heard = Rc::clone(say);
    host.set(
        "found",
        lua.create_function(
            move |_, (rule, file, line, message): (String, String, u32, mlua::LuaString)| {
                let message = message.to_string_lossy();
                heard(found(&rule, &file, line, message));
                Ok(())
            },
        )?,
    )?;
    let heard = Rc::clone(say);
    host.set(
        "handler",
        lua.create_function(move |_, (priority, version): (Option<f64>, Option<String>)| {
            heard(Line::Handler { priority, version });
            Ok(())
        })?,
    )?;
    let watched = Rc::clone(budget);
    host.set("exhausted", lua.create_function(move |_, ()| Ok(watched.spent()))?)?;
    let heard = Rc::clone(say);
    host.set(
        "foreign",
        lua.create_function(move |_, (name, optional): (String, bool)| {
            if !optional {
                heard(Line::Needs(name));
            }
            Ok(())
        })?,
    )?;
    let guarded =
        lua.load("local pcall = pcall return function(...) return pcall(...) end").eval::<Function>()?;
    host.set("guarded", guarded)
}

fn found(rule: &str, file: &str, line: u32, message: String) -> Line {
    const MOST: usize = 600;
    let cut: String = message.chars().take(MOST).collect();
    let message = if cut.len() < message.len() { format!("{cut}…") } else { cut };
    Line::Found(Raw { rule: rule.into(), file: file.into(), line, message })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or(text).to_owned()
}
