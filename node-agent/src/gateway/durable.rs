//! Steps that have to be on the disk before the next one is taken.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Brings a file or directory to the disk. After a failed sync nobody can tell what is there, and asking again may be
/// answered wrongly, so the process ends instead.
pub fn sync(file: &File) {
    if let Err(error) = file.sync_all() {
        tracing::error!(%error, "SYNC_FAILED: ending rather than guessing what is on the disk");
        std::process::exit(70);
    }
}

pub fn sync_directory(directory: &Path) -> io::Result<()> {
    sync(&File::open(directory)?);
    Ok(())
}

/// Replaces a file of the agent's own as a whole; only the agent can read it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("new");
    // A leftover of an earlier run must not lend its mode.
    let _ = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    sync(&file);
    fs::rename(&temporary, path)?;
    sync_directory(directory)
}
