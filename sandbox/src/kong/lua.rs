//! Plugins run for real: a LuaJIT with Kong's surroundings around them.

pub mod host;
pub mod json;
pub mod paths;
mod sources;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Thread, Value as LuaValue};
use regex::Regex;
use serde_json::Value;

use crate::kong::conf::{BUNDLED_PLUGINS, Conf};
use crate::kong::db::{Data, Store};
use crate::kong::raw;

pub use sources::{KONG_LUA, find as source};

/// Runs a chunk in a coroutine and returns its error with the traceback that nginx would print: without the frames of
/// the guard itself, in the outer traceback and in those that Kong has put into the message.
const GUARD: &str = r#"
local main = ...
local failure
local co = coroutine.create(function()
  local ok = xpcall(main, function(err) failure = debug.traceback(tostring(err), 2) end)
end)
coroutine.resume(co)
return failure and (failure:gsub("\n\t%[C%]: in function 'xpcall'\n\tguard:%d+: in function <guard:%d+>", ""))
"#;

/// Where a VM runs, which decides what Kong's own interfaces answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The command line: no datastore, no requests.
    Cli,
    /// The master's init_by_lua.
    Init,
    /// A worker.
    Worker,
}

/// What the Lua side can ask of the process it runs in.
#[derive(Debug)]
pub struct Host {
    /// The node's configuration.
    pub conf: Conf,
    /// The node's datastore.
    pub store: Store,
    /// Id of the node, constant over reloads.
    pub node_id: String,
    /// Where the VM runs.
    pub phase: Cell<Phase>,
    /// Number of this worker; the first init of a master reads 0 and a reload reads none, as nginx has it.
    pub worker_id: Cell<Option<u64>>,
    /// Number of workers.
    pub worker_count: Cell<usize>,
    /// Whether this worker is draining.
    pub exiting: Cell<bool>,
    /// The declarative configuration that init has read.
    pub declared: RefCell<Option<Data>>,
    /// File of `kong config parse`.
    pub parse_file: Option<PathBuf>,
    /// Token for request debugging, set by a successful init.
    pub debug_token: RefCell<Option<String>>,
    regexes: RefCell<HashMap<String, Regex>>,
}

impl Host {
    /// A host for one VM.
    pub fn new(conf: Conf, node_id: String, phase: Phase, parse_file: Option<PathBuf>) -> Self {
        let store = Store::new(&conf);
        Self {
            conf,
            store,
            node_id,
            phase: Cell::new(phase),
            worker_id: Cell::new(None),
            worker_count: Cell::new(1),
            exiting: Cell::new(false),
            declared: RefCell::new(None),
            parse_file,
            debug_token: RefCell::new(None),
            regexes: RefCell::new(HashMap::new()),
        }
    }
}

/// A VM with Kong's prelude.
#[derive(Debug)]
pub struct Engine {
    lua: Lua,
    host: Rc<Host>,
    load_source: Function,
}

/// Why an entity was refused.
#[derive(Debug)]
pub enum Refusal {
    /// Errors by field.
    Fields(Value),
    /// The schema code itself threw.
    Thrown(String),
}

/// How a coroutine of a phase stopped.
#[derive(Debug)]
pub enum Paused {
    /// It ran to its end.
    Finished(MultiValue),
    /// It ended the request.
    Exited,
    /// It wants to be resumed after this many seconds.
    Sleeping(f64),
    /// It threw.
    Failed(String),
}

impl Engine {
    /// Starts a VM. `search` are the module search paths as nginx or the command line would have them.
    pub fn new(host: Rc<Host>, search: &paths::Search) -> mlua::Result<Self> {
        let lua = raw::lua();
        let functions = host::functions(&lua, &host)?;
        let load_source = lua.create_function(|lua, name: String| {
            let Some((chunk, text)) = sources::find(&name) else {
                return Err(mlua::Error::runtime(format!("no source '{name}'")));
            };
            lua.load(text).set_name(chunk).into_function()
        })?;
        let options = lua.create_table()?;
        options.set("path", search.path.as_str())?;
        options.set("cpath", search.cpath.as_str())?;
        options.set("user_path", search.user_path.as_str())?;
        options.set("bundled", BUNDLED_PLUGINS.to_vec())?;
        let boot: Function = load_source.call("boot")?;
        boot.call::<()>((functions, &load_source, options))?;
        Ok(Self { lua, host, load_source })
    }

    /// The VM's host.
    pub fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// The VM itself.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Runs Kong's init phase. The error is the text that nginx prints after `init_by_lua error: `.
    pub fn init_by_lua(&self) -> Result<(), String> {
        // The prometheus plugin brings a shared dictionary, which moves the block down by a line.
        let line =
            if self.host.conf.loaded_plugins().iter().any(|name| name == "prometheus") { 44 } else { 43 };
        let run = || -> mlua::Result<Option<String>> {
            let (_, text) = sources::find("init_by_lua").unwrap_or_default();
            let main = self
                .lua
                .load(text)
                .set_name(format!("=init_by_lua(nginx-kong.conf:{line})"))
                .into_function()?;
            let guarded: Function = self.lua.load(GUARD).set_name("=guard").into_function()?;
            guarded.call(main)
        };
        match run() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Runs `kong config parse`; the error is what the command prints after `Error: `.
    pub fn config_parse(&self) -> Result<(), String> {
        let run = || -> mlua::Result<Option<String>> {
            let guarded: Function = self
                .lua
                .load(
                    "local load, worker = ...\nlocal failure\n\
                     local inline_gen = load('command_line')(load('cmd_init')(), function(err)\n\
                     failure = tostring(err):match('^.-:.-: (.*)$') or tostring(err)\nend)\n\
                     local co = coroutine.create(worker(inline_gen))\nlocal ok, err = coroutine.resume(co)\n\
                     if not ok and not failure then failure = tostring(err) end\nreturn failure",
                )
                .into_function()?;
            let (chunk, text) = sources::find("cmd_worker").unwrap_or_default();
            let line = if self.host.conf.has_database() { "154" } else { "158" };
            let worker = self.lua.load(text).set_name(chunk.replace("NNN", line)).into_function()?;
            guarded.call((&self.load_source, worker))
        };
        match run() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A function of the prelude's runtime.
    fn runtime(&self, name: &str) -> mlua::Result<Function> {
        let require: Function = self.lua.globals().get("require")?;
        require.call::<Table>("kong.standin.runtime")?.get(name)
    }

    /// Loaded plugins: name, version as Kong cleans it, priority.
    pub fn available(&self) -> mlua::Result<Vec<(String, String, f64)>> {
        let list: Vec<Table> = self.runtime("available")?.call(())?;
        list.into_iter()
            .map(|entry| {
                // A VERSION that passed the loader always cleans; `scm` never gets here.
                let version: Option<String> = entry.get("version")?;
                Ok((entry.get("name")?, version.unwrap_or_default(), entry.get("priority")?))
            })
            .collect()
    }

    /// Stored entities as the schemas that are loaded now read them.
    pub fn read(&self, kind: &str, stored: Vec<Value>) -> mlua::Result<Vec<Value>> {
        // No other schema ever changes.
        if kind != "plugins" || stored.is_empty() {
            return Ok(stored);
        }
        let rows = json::to_lua(&self.lua, &Value::Array(stored))?;
        let rows: Vec<LuaValue> = self.runtime("read")?.call((kind, rows))?;
        rows.iter().map(|row| json::from_lua(&self.lua, row)).collect()
    }

    /// Validates and completes a new entity. `infer` says that all values came as text.
    pub fn insert(&self, kind: &str, value: &Value, infer: bool) -> Result<Value, Refusal> {
        let call = || -> mlua::Result<(LuaValue, LuaValue)> {
            self.runtime("insert")?.call((kind, json::to_lua(&self.lua, value)?, infer))
        };
        self.entity(call())
    }

    /// Validates `stored` changed by `patch`.
    pub fn update(&self, kind: &str, stored: &Value, patch: &Value, infer: bool) -> Result<Value, Refusal> {
        let call = || -> mlua::Result<(LuaValue, LuaValue)> {
            let stored = json::to_lua(&self.lua, stored)?;
            self.runtime("update")?.call((kind, stored, json::to_lua(&self.lua, patch)?, infer))
        };
        self.entity(call())
    }

    fn entity(&self, result: mlua::Result<(LuaValue, LuaValue)>) -> Result<Value, Refusal> {
        let thrown = |error: mlua::Error| Refusal::Thrown(error.to_string());
        match result.map_err(thrown)? {
            (LuaValue::Nil, errors) => {
                Err(Refusal::Fields(json::from_lua(&self.lua, &errors).map_err(thrown)?))
            }
            (entity, _) => json::from_lua(&self.lua, &entity).map_err(thrown),
        }
    }

    /// A schema as the Admin API shows it; `kind` is `plugins` or `entities`.
    pub fn schema(&self, kind: &str, name: &str) -> mlua::Result<Option<Value>> {
        let schema: LuaValue = self.runtime("schema")?.call((kind, name))?;
        if schema.is_nil() { Ok(None) } else { json::from_lua(&self.lua, &schema).map(Some) }
    }

    /// Runs every plugin's init_worker; the text is Kong's complaint about the first that threw.
    pub fn init_worker(&self) -> mlua::Result<Option<String>> {
        self.runtime("init_worker")?.call(())
    }

    /// Rebuilds the plugins iterator from the datastore's rows.
    pub fn build_iterator(&self, data: &Data) -> mlua::Result<()> {
        let rows: Vec<Value> = data.all("plugins").cloned().collect();
        self.runtime("build_iterator")?.call(json::to_lua(&self.lua, &Value::Array(rows))?)
    }

    /// Calls a runtime function that takes a request.
    pub fn call<R: mlua::FromLuaMulti>(&self, name: &str, args: impl mlua::IntoLuaMulti) -> mlua::Result<R> {
        self.runtime(name)?.call(args)
    }

    /// A coroutine over a runtime function.
    pub fn coroutine(&self, name: &str) -> mlua::Result<Thread> {
        self.lua.create_thread(self.runtime(name)?)
    }
}

/// Runs a coroutine to its next stop.
pub fn step(thread: &Thread, args: impl mlua::IntoLuaMulti) -> Paused {
    let values: MultiValue = match thread.resume(args) {
        Ok(values) => values,
        Err(error) => return Paused::Failed(error.to_string()),
    };
    if !thread.is_resumable() {
        return Paused::Finished(values);
    }
    let mut values = values.into_iter();
    match values.next().and_then(|kind| kind.as_string().map(mlua::LuaString::to_string_lossy)).as_deref() {
        Some("sleep") => {
            Paused::Sleeping(values.next().and_then(|seconds| seconds.as_f64()).unwrap_or_default())
        }
        _ => Paused::Exited,
    }
}

/// Runs a coroutine to its end, sleeping where it sleeps.
pub async fn drive(thread: &Thread, args: impl mlua::IntoLuaMulti) -> Paused {
    let mut stop = step(thread, args);
    while let Paused::Sleeping(seconds) = stop {
        tokio::time::sleep(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))).await;
        stop = step(thread, ());
    }
    stop
}
