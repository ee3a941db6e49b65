//! A prefix that no Kong runs in: to render into, to load a list of plugins in, to start a Kong for a moment.
//!
//! Its path is short, because Kong puts unix sockets in it, and is open to everybody on the way, because nginx's workers
//! are another user. It is gone when it is dropped, and so is every process in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kctl_shared::spec::Failure;
use rustix::process::{Pid, Signal};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::process::{self, Tree};

/// A Kong that was asked to end gets this long.
const STOP_GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    user: Option<(u32, u32)>,
}

/// Names of one agent's scratch prefixes begin alike, so that it can tell its own from others'.
fn tag(prefix: &Path) -> String {
    let digest = hex::encode(Sha256::digest(prefix.as_os_str().as_encoded_bytes()));
    format!("kctl-{}-", &digest[..8])
}

impl Scratch {
    /// For the node whose prefix is `prefix`; written as `user`.
    ///
    /// # Errors
    /// `SCRATCH_FAILED`.
    pub fn new(prefix: &Path, user: Option<(u32, u32)>) -> Result<Self, Failure> {
        let made = || -> io::Result<Self> {
            let directory = tempfile::Builder::new().prefix(&tag(prefix)).rand_bytes(6).tempdir()?;
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
            if let Some((uid, gid)) = user {
                chown(directory.path(), Some(uid), Some(gid))?;
            }
            Ok(Self { directory, user })
        };
        made().map_err(|e| failed(&e))
    }

    pub fn prefix(&self) -> PathBuf {
        self.directory.path().join("p")
    }

    /// Writes a file that only the user Kong's commands run as can read: a kong.conf has passwords in it.
    ///
    /// # Errors
    /// `SCRATCH_FAILED`.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<PathBuf, Failure> {
        let path = self.directory.path().join(name);
        let written = || -> io::Result<()> {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            if let Some((uid, gid)) = self.user {
                fchown(&file, Some(uid), Some(gid))?;
            }
            file.write_all(text)
        };
        written().map_err(|e| failed(&e))?;
        Ok(path)
    }

    /// Ends a Kong that runs in it, gently at first.
    pub async fn stop(&self) {
        let Some(tree) = Tree::of(&self.prefix()) else { return };
        signal(tree.master.pid, Signal::TERM);
        let deadline = tokio::time::Instant::now() + STOP_GRACE;
        while tokio::time::Instant::now() < deadline {
            if Tree::of(&self.prefix()).is_none() {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        kill_all(&self.prefix());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        kill_all(&self.prefix());
    }
}

/// Takes away what an agent that was killed left of its scratch prefixes, processes included. Only what the agent's or
/// Kong's own user owns: anybody can put a directory of that name there.
pub fn sweep(prefix: &Path) {
    let tag = tag(prefix);
    let owners = [Some(rustix::process::geteuid().as_raw()), fs::metadata(prefix).ok().map(|m| m.uid())];
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&tag)) {
        if !fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_dir() && owners.contains(&Some(m.uid()))) {
            continue;
        }
        kill_all(&entry.path().join("p"));
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "a scratch prefix stays");
        }
    }
}

fn kill_all(prefix: &Path) {
    // The pid file is written by nginx; without one nothing was ever started there. A link could lead to the real one.
    if !fs::symlink_metadata(prefix).is_ok_and(|m| m.is_dir()) || !prefix.join("pids/nginx.pid").exists() {
        return;
    }
    if let Some(tree) = Tree::of(prefix) {
        // Children first become nobody's when the master goes, so they are listed before.
        let children = process::descendants(tree.master.pid);
        signal(tree.master.pid, Signal::KILL);
        children.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may be gone by itself, which is as good.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn failed(error: &io::Error) -> Failure {
    let directory = std::env::temp_dir();
    let message =
        format!("no scratch prefix in {} ({error}); make room there or set TMPDIR", directory.display());
    Failure::new(
        if error.kind() == io::ErrorKind::StorageFull { "DISK_FULL" } else { "SCRATCH_FAILED" },
        message,
    )
}

/// Ports on loopback that were free a moment ago, all different.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Failure> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| failed(&e))?;
        *port = listener.local_addr().map_err(|e| failed(&e))?.port();
        held.push(listener);
    }
    Ok(ports)
}
