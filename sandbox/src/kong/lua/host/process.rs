//! Clock, log, timers and identity of the process.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Result, Table, Value as LuaValue, Variadic};

use super::now;
use crate::kong::directives;
use crate::kong::log;
use crate::kong::lua::{Host, Paused, Phase, drive};

/// Clock, log, timers, identity.
pub fn register(lua: &Lua, host: &Rc<Host>, table: &Table) -> Result<()> {
    let cli = host.phase.get() == Phase::Cli;
    table.set(
        "log",
        lua.create_function(move |_, (level, message): (String, String)| {
            if !cli {
                log::write(&level, &message);
            }
            Ok(())
        })?,
    )?;
    table.set("now", lua.create_function(|_, ()| Ok((now() * 1000.0).round() / 1000.0))?)?;
    table.set(
        "sleep",
        lua.create_function(|_, seconds: f64| {
            std::thread::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 3600.0)));
            Ok(())
        })?,
    )?;
    table.set("pid", lua.create_function(|_, ()| Ok(std::process::id()))?)?;
    table
        .set("uuid", lua.create_function(|_, _: Variadic<LuaValue>| Ok(uuid::Uuid::new_v4().to_string()))?)?;
    let it = Rc::clone(host);
    table.set("worker_id", lua.create_function(move |_, ()| Ok(it.worker_id.get()))?)?;
    let it = Rc::clone(host);
    table.set("worker_count", lua.create_function(move |_, ()| Ok(it.worker_count.get()))?)?;
    let it = Rc::clone(host);
    table.set("exiting", lua.create_function(move |_, ()| Ok(it.exiting.get()))?)?;
    let it = Rc::clone(host);
    table.set("node_id", lua.create_function(move |_, ()| Ok(it.node_id.clone()))?)?;
    table.set("hostname", lua.create_function(|_, ()| Ok(hostname()))?)?;
    let it = Rc::clone(host);
    table.set("prefix", lua.create_function(move |_, ()| Ok(format!("{}/", it.conf.text("prefix"))))?)?;
    let it = Rc::clone(host);
    table.set(
        "phase",
        lua.create_function(move |_, ()| {
            Ok(match it.phase.get() {
                Phase::Cli => "timer",
                Phase::Init => "init",
                Phase::Worker => "init_worker",
            })
        })?,
    )?;
    let it = Rc::clone(host);
    table.set(
        "timer",
        lua.create_function(move |lua, (delay, repeat, callback): (f64, bool, Function)| {
            if it.phase.get() == Phase::Worker {
                start_timer(
                    lua.clone(),
                    Duration::from_secs_f64(delay.clamp(0.0, 31_536_000.0)),
                    repeat,
                    callback,
                );
            }
            Ok((true, LuaValue::Nil))
        })?,
    )?;
    table.set(
        "readable_by_workers",
        lua.create_function(|_, path: String| Ok(readable_by_workers(Path::new(&path))))?,
    )?;
    table.set("shared_dicts", if cli { Vec::new() } else { directives::shared_dicts(&host.conf) })?;
    table.set("loaded_file", lua.create_function(|_, _: String| Ok(()))?)?;
    table.set("request_tail", lua.create_function(|_, request: Table| Ok(request_tail(&request)))?)
}

/// What nginx appends to a log line about a request.
pub fn request_tail(request: &Table) -> String {
    let get = |key: &str| request.get::<String>(key).unwrap_or_default();
    format!(
        ", client: {}, server: kong, request: \"{} {} HTTP/1.1\", host: \"{}\", request_id: \"{}\"",
        get("client_ip"),
        get("method"),
        get("path"),
        get("authority"),
        get("request_id")
    )
}

/// Whether a worker could open a file. A master that runs as root gives its workers to `nobody`; the stand-in's keep
/// root's rights and judge by the mode bits instead. What a test has directly below the temporary directory is private
/// by custom and does not count.
fn readable_by_workers(path: &Path) -> bool {
    const OTHERS_READ: u32 = 0o004;
    const OTHERS_SEARCH: u32 = 0o001;
    if !rustix::process::geteuid().is_root() {
        return std::fs::File::open(path).is_ok();
    }
    let has = |path: &Path, bit: u32| {
        std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & bit != 0)
    };
    let temporary = std::env::temp_dir();
    let counts = |directory: &Path| directory.parent() != Some(&temporary);
    has(path, OTHERS_READ)
        && path.ancestors().skip(1).all(|directory| {
            directory.as_os_str().is_empty() || !counts(directory) || has(directory, OTHERS_SEARCH)
        })
}

/// The machine's name, as `GET /` and `kong.node.get_hostname` show it.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn start_timer(lua: Lua, delay: Duration, repeat: bool, callback: Function) {
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(delay).await;
            let Ok(thread) = lua.create_thread(callback.clone()) else { return };
            if let Paused::Failed(error) = drive(&thread, false).await {
                log::write(
                    "error",
                    &format!("lua entry thread aborted: runtime error: {error}, context: ngx.timer"),
                );
            }
            if !repeat {
                return;
            }
        }
    });
}
