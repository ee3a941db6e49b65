//! A stand-in for Kong Gateway 3.9.1: its command line, its process tree, its Admin API, its Lua plugins.
//!
//! It exists so that everything which drives a Kong node can be tested where no Kong is installed. What a node shows
//! to an agent is reproduced: exit codes and texts, the prefix, the error log, worker generations, the refusal of a
//! bad reload, readiness, propagation between nodes of a group. What only traffic would show is there as far as a
//! plugin needs it. TLS, streams, hybrid mode and migrations of plugins are not.
//!
//! ```text
//! cli ──► conf ──► prefix ──► nginx (master) ──fork──► nginx::worker ──► node ──► api, proxy
//!                                 │                                        │
//!                                 └────────────── lua (plugins) ───────────┴──► db
//! ```

mod api;
mod cli;
mod conf;
mod db;
mod directives;
mod encoding;
mod log;
mod lua;
mod nginx;
mod node;
mod prefix;
mod proxy;
mod raw;
mod shm;

/// The stand-in's Lua side, for whoever judges plugins without running a node.
pub mod prelude {
    pub use super::lua::json;
    pub use super::lua::source;
}

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Version of Kong that is stood in for.
pub const VERSION: &str = "3.9.1";

/// Whether this process was started as `kong`. Ask before anything else: the master forks, and must be the only
/// thread of its process.
pub fn is_invoked() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "kong"))
}

/// Runs a `kong` command line, the program's name included.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.skip(1).peekable();
    if args.peek().is_some_and(|verb| verb == nginx::VERB) {
        return nginx::main(args.skip(1));
    }
    cli::main(args.map(|arg| arg.to_string_lossy().into_owned()).collect())
}
