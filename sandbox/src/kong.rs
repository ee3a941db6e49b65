//! A stand-in for Kong Gateway: its command line, its process tree, its Admin API, its Lua plugins. It plays 3.9.1, and by
//! another name (`kong-2.8.5`) an older one, as far as whoever drives a node can tell them apart.
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
mod version;

/// The stand-in's Lua side, for whoever judges plugins without running a node.
pub mod prelude {
    pub use super::lua::json;
    pub use super::lua::source;
}

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Whether this process was started as `kong`. Ask before anything else: the master forks, and must be the only
/// thread of its process.
pub fn is_invoked() -> bool {
    std::env::args_os().next().is_some_and(|name| version_of(&name).is_some())
}

/// The name under which the executable plays `version` of Kong, if there is such a version.
pub fn executable_name(version: &str) -> Option<String> {
    let name = format!("kong-{version}");
    version::Version::of_executable(&name).map(|version| format!("kong-{version}"))
}

fn version_of(program: &OsString) -> Option<version::Version> {
    version::Version::of_executable(Path::new(program).file_name()?.to_str()?)
}

/// Runs a `kong` command line, the program's name included.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    if let Some(version) = args.next().as_ref().and_then(version_of) {
        version::play(version);
    }
    if args.peek().is_some_and(|verb| verb == nginx::VERB) {
        return nginx::main(args.skip(1));
    }
    cli::main(args.map(|arg| arg.to_string_lossy().into_owned()).collect())
}
