//! Steps that have to be on the disk before the next one is taken.
//!
//! Every step has a name. Between its parts it passes named points ([`faults`]), at which a test ends the process, lets
//! the step fail, or cuts the power; see [`STEPS`] for all of them.

pub mod faults;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

pub use faults::pass;
use kctl_shared::spec::Failure;

/// Names of all durable steps with the points each of them passes, in order.
pub const STEPS: &[(&str, &[&str])] = &[
    ("ledger.start", REPLACE),
    ("ledger.spec", REPLACE),
    ("ledger.generation", REPLACE),
    ("ledger.managed", REPLACE),
    ("ledger.proven", REPLACE),
    ("store.file", WRITE),
    ("store.release", RENAME),
    ("store.delete", RENAME),
    ("gen.link", WRITE),
    ("gen.release", RENAME),
    ("gen.delete", RENAME),
    ("conf.backup", REPLACE),
    ("conf.write", REPLACE),
    ("kong.intend", REPLACE),
    ("kong.keep-armed", REPLACE),
    ("kong.prepare", COMMAND),
    ("kong.sending", REPLACE),
    ("kong.reload", COMMAND),
    ("kong.proven", REPLACE),
];

/// Steps that are only taken when something failed before, or on a Kong that is restarted.
pub const SELDOM: &[&str] = &[
    "ledger.failed",
    "ledger.waits",
    "ledger.worked",
    "ledger.put-back",
    "ledger.put-back-due",
    "kong.taken-back",
    "kong.restarting",
    "session.members",
];

/// Points of [`replace`].
const REPLACE: &[&str] = &["before", "written", "synced", "renamed", "done"];
/// Points of [`write_new`] and [`link`].
const WRITE: &[&str] = &["before", "written", "synced"];
/// Points of [`rename`].
const RENAME: &[&str] = &["before", "renamed", "done"];
/// Points around a command of Kong's.
const COMMAND: &[&str] = &["before", "done"];

/// Files brought to the disk at the same time.
const SYNCS: usize = 8;

/// Bytes that must be free wherever a step is going to write, beyond what it writes.
const HEADROOM: u64 = 4 << 20;

/// Brings a file or directory to the disk. After a failed sync nobody can tell what is there, and asking again may be
/// answered wrongly, so the process ends instead.
pub fn sync(file: &File) {
    if let Err(error) = file.sync_all() {
        tracing::error!(%error, "SYNC_FAILED: ending rather than guessing what is on the disk");
        std::process::exit(70);
    }
}

/// # Errors
/// When the directory cannot be opened.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    sync(&File::open(directory)?);
    faults::synced_directory(directory);
    Ok(())
}

/// Directories up from `path` that are not there yet, open to everybody whatever the umask; not synced.
///
/// # Errors
/// Those of `mkdir`.
pub fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => {
            other?;
            faults::created(path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        }
    }
}

/// A file that was not there, whole and synced; its name is not until its directory is.
///
/// # Errors
/// Those of `open` and `write`; a leftover may stay.
pub fn write_new(step: &'static str, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = written(step, path, bytes, mode)?;
    sync(&file);
    faults::synced(path);
    pass(step, "synced")
}

/// A new file with its content, not yet on the disk.
fn written(step: &'static str, path: &Path, bytes: &[u8], mode: u32) -> io::Result<File> {
    pass(step, "before")?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    faults::created(path);
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    faults::written(path);
    pass(step, "written")?;
    Ok(file)
}

/// Several files as [`write_new`] makes one, in directories that are there: all written first, then brought to the disk at
/// the same time, which costs it hardly more than one.
///
/// # Errors
/// As [`write_new`].
pub fn write_all_new(step: &'static str, files: &[(PathBuf, &[u8])], mode: u32) -> io::Result<()> {
    let mut open = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        open.push(written(step, path, bytes, mode)?);
    }
    sync_together(&open);
    files.iter().try_for_each(|(path, _)| {
        faults::synced(path);
        pass(step, "synced")
    })
}

/// As [`sync_directory`], all at the same time.
///
/// # Errors
/// When one of them cannot be opened.
pub fn sync_directories(directories: &[PathBuf]) -> io::Result<()> {
    let open = directories.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
    sync_together(&open);
    directories.iter().for_each(|directory| faults::synced_directory(directory));
    Ok(())
}

/// Those who wait at the same time share one write of the file system's journal.
fn sync_together(files: &[File]) {
    if let [file] = files {
        return sync(file);
    }
    let share = files.len().div_ceil(SYNCS).max(1);
    std::thread::scope(|threads| {
        for part in files.chunks(share) {
            threads.spawn(|| part.iter().for_each(sync));
        }
    });
}

/// A symbolic link that was not there.
///
/// # Errors
/// Those of `symlink`.
pub fn link(step: &'static str, target: &Path, path: &Path) -> io::Result<()> {
    pass(step, "before")?;
    symlink(target, path)?;
    faults::created(path);
    pass(step, "written")?;
    pass(step, "synced")
}

/// Gives `from` its name `to`, over what has it, and brings both directories to the disk.
///
/// # Errors
/// Those of `rename`.
pub fn rename(step: &'static str, from: &Path, to: &Path) -> io::Result<()> {
    pass(step, "before")?;
    renamed(from, to)?;
    pass(step, "renamed")?;
    let root = Path::new("/");
    let (there, here) = (to.parent().unwrap_or(root), from.parent().unwrap_or(root));
    let both = [there, here].map(Path::to_owned);
    sync_directories(if here == there { &both[..1] } else { &both })?;
    pass(step, "done")
}

fn renamed(from: &Path, to: &Path) -> io::Result<()> {
    let former = faults::former(to);
    fs::rename(from, to)?;
    faults::renamed(from, to, former);
    Ok(())
}

/// A file of the agent's own that is going to have other content; only the agent can read it.
#[derive(Clone, Copy, Debug)]
pub struct Replacement<'a> {
    pub step: &'static str,
    pub path: &'a Path,
    pub bytes: &'a [u8],
}

/// Replaces a file as a whole.
///
/// # Errors
/// As [`replace_all`].
pub fn replace(step: &'static str, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_all(&[Replacement { step, path, bytes }])
}

/// Replaces each file as a whole, in any order among them; the disk is waited for as long as for one.
///
/// # Errors
/// Those of `open`, `write` and `rename`; each file is the old one or the new one.
pub fn replace_all(files: &[Replacement<'_>]) -> io::Result<()> {
    let temporaries: Vec<PathBuf> = files.iter().map(|f| f.path.with_extension("new")).collect();
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut open = Vec::with_capacity(files.len());
    for (file, temporary) in files.iter().zip(&temporaries) {
        let directory = file.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        if !directories.iter().any(|d| d == directory) {
            directories.push(directory.to_owned());
        }
        // A leftover of an earlier run must not lend its mode.
        let _ = fs::remove_file(temporary);
        open.push(written(file.step, temporary, file.bytes, 0o600)?);
    }
    sync_together(&open);
    for (file, temporary) in files.iter().zip(&temporaries) {
        faults::synced(temporary);
        pass(file.step, "synced")?;
    }
    for (file, temporary) in files.iter().zip(&temporaries) {
        renamed(temporary, file.path)?;
        pass(file.step, "renamed")?;
    }
    sync_directories(&directories)?;
    files.iter().try_for_each(|file| pass(file.step, "done"))
}

/// # Errors
/// `DISK_FULL` when one of the directories has no room for `bytes` and some more.
pub fn ensure_room(directories: &[&Path], bytes: u64) -> Result<(), Failure> {
    for directory in directories {
        // A file system that does not tell is taken for one with room: writing will show.
        let Ok(stat) = rustix::fs::statvfs(*directory) else { continue };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < HEADROOM.saturating_add(bytes) {
            let message =
                format!("{} has only {free} bytes free; nothing was touched; make room", directory.display());
            return Err(Failure::new("DISK_FULL", message));
        }
    }
    Ok(())
}
