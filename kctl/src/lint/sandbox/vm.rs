//! A LuaJIT with bounds: interpreted, so that every instruction counts, and with a ceiling for its memory.

use std::cell::Cell;
use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, VmState};

/// Bytes that Lua may hold.
const MEMORY: usize = 192 << 20;
/// Instructions between two looks at the budget.
const STEP: u32 = 10_000;

/// Instructions left, and whether they ever ran out.
#[derive(Debug, Default)]
pub struct Budget {
    left: Cell<u64>,
    spent: Cell<bool>,
}

impl Budget {
    /// Starts a new part of the work.
    pub fn renew(&self, instructions: u64) {
        self.left.set(instructions);
        self.spent.set(false);
    }

    pub fn spent(&self) -> bool {
        self.spent.get()
    }
}

/// # Errors
/// Those of Lua.
pub fn new(libraries: StdLib) -> mlua::Result<(Lua, Rc<Budget>)> {
    let lua = Lua::new_with(libraries | StdLib::JIT, LuaOptions::default())?;
    lua.load("jit.off() jit.flush()").exec()?;
    // A literal such as 1LL makes LuaJIT open its ffi library, and put it where anyone finds it. So it is opened first,
    // before anything foreign is compiled, and taken away again.
    let _opened = lua.load("return 1LL").into_function()?;
    let loaded: Option<mlua::Table> = lua.named_registry_value("_LOADED")?;
    loaded.map_or(Ok(()), |loaded| loaded.raw_set("ffi", mlua::Value::Nil))?;
    lua.set_memory_limit(MEMORY)?;
    let budget = Rc::new(Budget { left: Cell::new(u64::MAX), spent: Cell::new(false) });
    let watched = Rc::clone(&budget);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(STEP), move |_, _| {
        let left = watched.left.get().saturating_sub(u64::from(STEP));
        watched.left.set(left);
        if left == 0 {
            // Code that catches this is stopped again at once, and by the kernel if it insists.
            watched.spent.set(true);
            return Err(mlua::Error::runtime("it does not come to an end"));
        }
        Ok(VmState::Continue)
    })?;
    Ok((lua, budget))
}

/// Compiles source text, never bytecode; the error is Lua's own sentence.
pub fn compile(lua: &Lua, source: &[u8], name: &str) -> Result<Function, String> {
    // As the interpreter does with a file's first line.
    let shebang =
        source.starts_with(b"#").then(|| source.iter().position(|b| *b == b'\n').unwrap_or(source.len()));
    let source = &source[shebang.unwrap_or(0)..];
    lua.load(source).set_mode(ChunkMode::Text).set_name(name).into_function().map_err(|e| match e {
        mlua::Error::SyntaxError { message, .. } => message,
        other => other.to_string(),
    })
}
