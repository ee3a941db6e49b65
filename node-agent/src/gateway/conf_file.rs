//! A node's own configuration file on disk: read with every oddity named, replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::dialect::Grammar;
use super::kong_conf::{ConfError, MAX_BYTES, too_large};
use super::node_conf::NodeConf;
use crate::durable::{self, faults, pass};

const STEP: &str = "conf.write";
/// Backups kept beside the agent's state.
const BACKUPS: usize = 10;

/// A kong.conf or kong.yml as it was read.
#[derive(Debug)]
pub struct ConfFile {
    /// The file itself, when the path given was a symbolic link.
    target: PathBuf,
    pub text: Vec<u8>,
    pub conf: NodeConf,
    pub modified: SystemTime,
    mode: u32,
    pub owner: (u32, u32),
}

impl ConfFile {
    /// # Errors
    /// `CONF_MISSING`, `CONF_NOT_A_FILE`, `CONF_UNREADABLE`, `CONF_TOO_LARGE`, `CONF_EMPTY`, `CONF_UNPARSABLE`,
    /// `CONF_YAML_UNSAFE`.
    pub fn read(path: &Path, grammar: Grammar) -> Result<Self, ConfError> {
        let shown = path.display();
        let target = fs::canonicalize(path).map_err(|e| trouble(path, &e))?;
        let metadata = fs::metadata(&target).map_err(|e| trouble(path, &e))?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
            let message = format!("{shown} is {what}; name the kong.conf that this node was started with");
            return Err(ConfError::new("CONF_NOT_A_FILE", message));
        }
        if metadata.len() > MAX_BYTES as u64 {
            return Err(too_large());
        }
        let mut text = Vec::new();
        let file = File::open(&target).map_err(|e| trouble(path, &e))?;
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut text).map_err(|e| trouble(path, &e))?;
        if text.is_empty() {
            let message = format!(
                "{shown} has 0 bytes, as after an interrupted write; restore it (a comment is enough for a node without settings)"
            );
            return Err(ConfError::new("CONF_EMPTY", message));
        }
        Ok(Self {
            conf: NodeConf::parse(&text, grammar)?,
            text,
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            mode: metadata.permissions().mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            target,
        })
    }

    /// Where in `backups` a copy of the file as it was read is to be kept, unless the newest one there is that. Room is
    /// made for it.
    ///
    /// # Errors
    /// Those of `mkdir` and `readdir`.
    pub fn backup(&self, backups: &Path) -> io::Result<Option<PathBuf>> {
        fs::create_dir_all(backups)?;
        let mut kept: Vec<PathBuf> =
            fs::read_dir(backups)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
        kept.sort();
        if kept.last().and_then(|newest| fs::read(newest).ok()).as_ref() == Some(&self.text) {
            return Ok(None);
        }
        let surplus = (kept.len() + 1).saturating_sub(BACKUPS);
        kept.iter().take(surplus).for_each(|old| drop(fs::remove_file(old)));
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(Some(backups.join(format!("kong.conf.{stamp:015}"))))
    }

    /// Keeps a copy of the file as it was read in `backups`, then replaces it by `text` if it is still so.
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn replace_keeping(&self, text: &[u8], backups: &Path) -> Result<(), ConfError> {
        let copy = self.backup(backups).map_err(|e| self.not_written(&e))?;
        let kept = copy.map_or(Ok(()), |copy| durable::replace("conf.backup", &copy, &self.text));
        kept.map_err(|e| self.not_written(&e))?;
        self.replace(text)
    }

    /// Replaces the file by `text` if it is still as it was read.
    ///
    /// # Errors
    /// `CONF_CHANGED` when somebody else wrote it meanwhile; `CONF_READ_ONLY`, `CONF_NOT_REPLACEABLE`, `CONF_OWNER`,
    /// `DISK_FULL`, `CONF_NOT_WRITTEN`. The file is untouched after each.
    pub fn replace(&self, text: &[u8]) -> Result<(), ConfError> {
        if self.mode & 0o222 == 0 {
            let message = format!(
                "{} is read-only; make it writable for its owner to let its plugins be managed",
                self.target.display()
            );
            return Err(ConfError::new("CONF_READ_ONLY", message));
        }
        let directory = self.target.parent().unwrap_or(Path::new("/"));
        let temporary = temporary_beside(&self.target);
        let written = self.write_beside(&temporary, text);
        let done = written.and_then(|()| self.unchanged()).and_then(|()| {
            let renamed = || -> io::Result<()> {
                let former = faults::former(&self.target);
                fs::rename(&temporary, &self.target)?;
                faults::renamed(&temporary, &self.target, former);
                pass(STEP, "renamed")?;
                durable::sync_directory(directory)?;
                pass(STEP, "done")
            };
            renamed().map_err(|e| self.not_written(&e))
        });
        if done.is_err() {
            // Whatever is left there is ours and of no use to anybody.
            let _ = fs::remove_file(&temporary);
        }
        done
    }

    fn write_beside(&self, temporary: &Path, text: &[u8]) -> Result<(), ConfError> {
        // A leftover of an earlier run must not lend its owner or mode.
        let _ = fs::remove_file(temporary);
        pass(STEP, "before").map_err(|e| self.not_written(&e))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(|e| self.not_written(&e))?;
        faults::created(temporary);
        file.write_all(text).map_err(|e| self.not_written(&e))?;
        let now = file.metadata().map_err(|e| self.not_written(&e))?;
        if (now.uid(), now.gid()) != self.owner {
            fchown(&file, Some(self.owner.0), Some(self.owner.1)).map_err(|_| {
                let message = format!(
                    "{} belongs to another user, and the agent may not write it in that user's name",
                    self.target.display()
                );
                ConfError::new("CONF_OWNER", message)
            })?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode)).map_err(|e| self.not_written(&e))?;
        faults::written(temporary);
        pass(STEP, "written").map_err(|e| self.not_written(&e))?;
        durable::sync(&file);
        faults::synced(temporary);
        pass(STEP, "synced").map_err(|e| self.not_written(&e))
    }

    fn unchanged(&self) -> Result<(), ConfError> {
        if fs::read(&self.target).is_ok_and(|now| now == self.text) {
            return Ok(());
        }
        let message = format!("{} was changed by somebody else at the same moment", self.target.display());
        Err(ConfError::new("CONF_CHANGED", message))
    }

    pub fn not_written(&self, error: &io::Error) -> ConfError {
        let path = self.target.display();
        let (code, hint) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ("DISK_FULL", "make room on its file system")
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                ("CONF_READ_ONLY", "let the agent write it and its directory")
            }
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => (
                "CONF_NOT_REPLACEABLE",
                "mount its directory instead of the single file, so that it can be replaced as a whole",
            ),
            _ => ("CONF_NOT_WRITTEN", "look at its file system"),
        };
        ConfError::new(code, format!("{path} could not be written ({error}); {hint}"))
    }
}

fn temporary_beside(target: &Path) -> PathBuf {
    target.with_file_name(format!(".{}.kctl-new", target.file_name().unwrap_or_default().to_string_lossy()))
}

/// Takes away what an agent that was killed in the middle of [`ConfFile::replace`] left.
pub fn sweep(path: &Path) {
    if let Ok(target) = fs::canonicalize(path) {
        // Mostly there is none.
        let _ = fs::remove_file(temporary_beside(&target));
    }
}

fn trouble(path: &Path, error: &io::Error) -> ConfError {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => ConfError::new(
            "CONF_MISSING",
            format!("{shown} does not exist; name the kong.conf that this node was started with"),
        ),
        _ => ConfError::new(
            "CONF_UNREADABLE",
            format!("{shown} cannot be read ({error}); let the agent read it"),
        ),
    }
}
