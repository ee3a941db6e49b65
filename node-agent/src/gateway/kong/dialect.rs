//! Which Kong this is: asked of its own command line, and again whenever executable or master changed.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};

use kctl_shared::spec::Failure;

use super::Kong;
use crate::gateway::cli::Cli;
use crate::gateway::dialect::Dialect;
use crate::gateway::effective::Environment;
use crate::gateway::process::{ProcessId, Tree};

/// What an answer is about.
type Stamp = (Option<(u64, u64, i64, u64)>, Option<ProcessId>);

/// The answer of `kong version`, as long as it holds.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<(Stamp, Dialect)>>);

impl Known {
    fn get(&self) -> Option<(Stamp, Dialect)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kong {
    /// The dialect found last; the newest before anybody asked.
    pub(super) fn dialect(&self) -> Dialect {
        self.known.get().map_or_else(Dialect::default, |(_, dialect)| dialect)
    }

    /// Finds out which Kong this is, if that is not known already.
    ///
    /// # Errors
    /// `KONG_NOT_FOUND`, `KONG_NOT_RUNNABLE`, `KONG_HANGS`, `KONG_VERSION_UNKNOWN`, `KONG_VERSION_UNSUPPORTED`.
    pub(super) async fn ask_version(&self) -> Result<Dialect, Failure> {
        let stamp = self.stamp();
        if let Some((known, dialect)) = self.known.get()
            && known == stamp
        {
            return Ok(dialect);
        }
        // Nothing is read or written, so anybody may ask.
        let cli = Cli { bin: self.config.bin.clone(), user: None, open_files: None };
        let ended = cli.run(&["version"], &Environment::new(), self.limits.command).await?;
        if !ended.succeeded() {
            let message =
                format!("`kong version` failed ({}), so nobody can tell which Kong this is", ended.words());
            return Err(Failure::new("KONG_NOT_RUNNABLE", message));
        }
        let dialect = Dialect::of(&ended.stdout)?;
        *self.known.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, dialect));
        Ok(dialect)
    }

    fn stamp(&self) -> Stamp {
        let file = std::fs::metadata(&self.config.bin).ok();
        let file = file.map(|m| (m.dev(), m.ino(), m.mtime_nsec() + m.mtime() * 1_000_000_000, m.len()));
        (file, Tree::of(self.prefix()).map(|tree| tree.master))
    }
}
