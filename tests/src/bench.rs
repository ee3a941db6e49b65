//! What kctl costs beside the commands that it cannot do without: see CONTRIBUTING.md for what the figures mean.

pub mod agent;
mod bare;
pub mod commands;
pub mod fanout;
mod figures;
pub mod memory;
mod node;
pub mod plan;
mod plugin;
mod process;
mod rounds;
pub mod unpack;
pub mod writes;

use std::path::{Path, PathBuf};

/// An executable of this workspace, built as the running one was.
///
/// # Panics
/// When it is not there, with the command that builds it.
pub fn sibling(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.parent().unwrap_or(Path::new("/")).join(name);
    assert!(path.exists(), "{} is not built: cargo build --release --workspace --bins", path.display());
    path
}

/// A directory that Kong's workers, another user, can look into.
fn directory(prefix: &str) -> tempfile::TempDir {
    let temp = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    temp
}

/// As many threads as a member has.
const THREADS: usize = 2;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build().unwrap()
}
