//! One configuration of the master: Kong initialised under it, and the sockets it listens on.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::binds::Bound;
use crate::kong::conf::{Conf, Sources};
use crate::kong::db::Data;
use crate::kong::lua::{Engine, Host, Phase};
use crate::kong::shm::{MAX_WORKERS, Shared};
use crate::kong::{prefix, version};

/// A master's present configuration.
#[derive(Debug)]
pub struct Cycle {
    /// Settings as `.kong_env` had them.
    pub conf: Conf,
    /// The VM with all plugins loaded.
    pub engine: Rc<Engine>,
    /// Open sockets.
    pub listeners: Vec<Bound>,
    /// Number of workers.
    pub workers: usize,
    /// How long a draining worker may take; without it, for ever.
    pub shutdown_timeout: Option<Duration>,
}

/// Why there is no new cycle.
#[derive(Debug)]
pub enum Failure {
    /// nginx refused its configuration.
    Conf(String),
    /// Kong's init phase threw.
    Lua(String),
}

/// Reads the configuration that the command line left in the prefix. The master's environment does not count.
pub fn read_conf(prefix: &Path) -> Result<Conf, String> {
    if version::is_ancient() {
        // The command line has put it into the master's environment.
        let path = std::env::var("KONG_CONF").unwrap_or_default();
        let text = Conf::read_file(path.as_ref())?;
        return Conf::of_yaml(&text).map_err(|errors| errors.join("\n"));
    }
    let path = prefix::kong_env(prefix);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("open() \"{}\" failed ({error})", path.display()))?;
    Conf::load(&Sources { text: Some(&text), environment: false, prefix: Some(prefix) })
        .map_err(|errors| errors.join("\n"))
}

impl Cycle {
    /// Initialises Kong. The `kong` dictionary is flushed first, so that even a failure leaves its mark.
    pub fn init(
        prefix: &Path,
        conf: Conf,
        shared: Shared,
        node_id: &str,
        first: bool,
    ) -> Result<Self, Failure> {
        let search = prefix::rendered_search(prefix).map_err(|error| Failure::Conf(error.to_string()))?;
        let workers = worker_count(&conf);
        let shutdown_timeout = conf.get("nginx_main_worker_shutdown_timeout").and_then(duration);
        let host = Rc::new(Host::new(conf.clone(), node_id.to_owned(), Phase::Init, None));
        host.worker_id.set(first.then_some(0));
        host.worker_count.set(workers);
        shared.flush();
        let engine =
            Engine::new(Rc::clone(&host), &search).map_err(|error| Failure::Lua(error.to_string()))?;
        engine.init_by_lua().map_err(Failure::Lua)?;
        if let Some(data) = host.declared.take() {
            host.store
                .write(|stored| replace(stored, data))
                .map_err(|error| Failure::Lua(error.to_string()))?;
        }
        if host.store.is_shared() {
            shared.count_router_build();
            shared.count_iterator_build();
        }
        let token = host.debug_token.take().unwrap_or_default();
        write_token(&prefix.join(".request_debug_token"), &token)
            .map_err(|error| Failure::Conf(error.to_string()))?;
        Ok(Self { conf, engine: Rc::new(engine), listeners: Vec::new(), workers, shutdown_timeout })
    }
}

fn replace(stored: &mut Data, data: Data) -> std::io::Result<()> {
    stored.entities = data.entities;
    stored.hash = data.hash;
    Ok(())
}

fn write_token(path: &PathBuf, token: &str) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::write(path, token)
}

fn worker_count(conf: &Conf) -> usize {
    let wanted = conf.text("nginx_main_worker_processes");
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    wanted.parse().unwrap_or_else(|_| cores()).clamp(1, MAX_WORKERS)
}

/// nginx's time notation: `3s`, `500ms`, `2m`, plain seconds.
fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    match &text[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        "h" => Some(Duration::from_secs(number * 3600)),
        _ => None,
    }
}
