//! Files and directories that Kong's workers can read whatever the umask, and that are on the disk when it says so.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kctl_shared::spec::Failure;

use crate::durable;
pub(super) use crate::durable::make_directories as make_dirs;

pub(super) fn failed(what: &str, path: &Path, e: &io::Error) -> Failure {
    let code = if e.kind() == io::ErrorKind::StorageFull { "DISK_FULL" } else { "PLACING_FAILED" };
    Failure::new(code, format!("{what} {}: {e}", path.display()))
}

/// A new file of mode 0644, synced, with the directories above it.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    durable::write_new("store.file", path, bytes, 0o644)
}

/// Replaces a small file at once and for good.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    make_dirs(parent)?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    durable::sync(file.as_file());
    file.persist(path).map_err(|e| e.error)?;
    sync_dir(parent)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    durable::sync_directory(path)
}

/// New files of mode 0644, synced, with the directories above them.
pub(super) fn write_all_new(files: &[(PathBuf, &[u8])]) -> io::Result<()> {
    files.iter().filter_map(|(path, _)| path.parent()).try_for_each(make_dirs)?;
    durable::write_all_new("store.file", files, 0o644)
}

/// Directories only, `more` with them: their files were synced when they were written.
pub(super) fn sync_dirs(path: &Path, more: Option<&Path>) -> io::Result<()> {
    fn below(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                below(&entry.path(), found)?;
            }
        }
        found.push(path.to_owned());
        Ok(())
    }
    let mut found = Vec::new();
    below(path, &mut found)?;
    found.extend(more.map(Path::to_owned));
    durable::sync_directories(&found)
}

/// Everything below, files that somebody else wrote included.
pub(super) fn sync_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_all(&entry.path())?;
        } else if kind.is_file() {
            durable::sync(&File::open(entry.path())?);
        }
    }
    sync_dir(path)
}

/// Takes away `from` and what is above it, as long as it is empty and below `top`.
pub(super) fn prune(from: &Path, top: &Path) {
    for directory in from.ancestors().take_while(|d| d.starts_with(top) && *d != top) {
        if fs::remove_dir(directory).is_err() && directory.exists() {
            return;
        }
    }
}
