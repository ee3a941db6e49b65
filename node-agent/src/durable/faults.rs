//! Faults on purpose, for tests: `KCTL_TEST_FAULT=<step>.<point>:<kill|error|power>` in the environment of a debug build.
//! In a release build nothing of this is there.
//!
//! A power cut loses what was not synced: contents written without a sync are cut short, names given without a sync of
//! their directory are taken back. What other programs wrote is not lost.

#[cfg(not(debug_assertions))]
pub use absent::*;
#[cfg(debug_assertions)]
pub use present::*;

#[cfg(not(debug_assertions))]
mod absent {
    use std::io;
    use std::path::Path;

    #[inline]
    pub fn pass(_step: &'static str, _point: &'static str) -> io::Result<()> {
        Ok(())
    }
    #[inline]
    pub fn former(_path: &Path) -> Option<Vec<u8>> {
        None
    }
    #[inline]
    pub fn created(_path: &Path) {}
    #[inline]
    pub fn written(_path: &Path) {}
    #[inline]
    pub fn synced(_path: &Path) {}
    #[inline]
    pub fn renamed(_from: &Path, _to: &Path, _former: Option<Vec<u8>>) {}
    #[inline]
    pub fn synced_directory(_directory: &Path) {}
}

#[cfg(debug_assertions)]
mod present {
    use std::fs::{self, File};
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Kill,
        Error,
        Power,
    }

    struct Plan {
        point: String,
        kind: Kind,
        /// What a power cut takes back, oldest first.
        unsynced: Vec<Undo>,
    }

    enum Undo {
        /// The content of a file is not on the disk.
        Cut(PathBuf),
        /// The name is not.
        Remove(PathBuf),
        /// The new name is not; `former` had it.
        Rename { from: PathBuf, to: PathBuf, former: Option<Vec<u8>> },
    }

    impl Undo {
        fn path(&mut self) -> Option<&mut PathBuf> {
            match self {
                Self::Cut(path) | Self::Remove(path) => Some(path),
                Self::Rename { .. } => None,
            }
        }
    }

    static PLAN: LazyLock<Mutex<Option<Plan>>> = LazyLock::new(|| Mutex::new(planned()));
    /// Every point that is passed goes to this file, a line each.
    static TRACE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("KCTL_TEST_FAULT_TRACE").map(PathBuf::from));

    fn planned() -> Option<Plan> {
        let text = std::env::var("KCTL_TEST_FAULT").ok()?;
        let (point, kind) = text.split_once(':')?;
        let kind = match kind {
            "kill" => Kind::Kill,
            "error" => Kind::Error,
            "power" => Kind::Power,
            _ => return None,
        };
        Some(Plan { point: point.to_owned(), kind, unsynced: Vec::new() })
    }

    /// A named point: goes on, fails, or does not return.
    ///
    /// # Errors
    /// The fault that was asked for, once.
    pub fn pass(step: &'static str, point: &'static str) -> io::Result<()> {
        if let Some(trace) = &*TRACE {
            let file = File::options().append(true).create(true).open(trace);
            let _told = file.and_then(|mut f| writeln!(f, "{step}.{point}"));
        }
        let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
        let met = plan.as_ref().is_some_and(|p| p.point.strip_prefix(step) == Some(&format!(".{point}")));
        let Some(met) = met.then(|| plan.take()).flatten() else { return Ok(()) };
        match met.kind {
            Kind::Error => return Err(io::Error::other(format!("fault on purpose at {step}.{point}"))),
            Kind::Power => met.unsynced.iter().rev().for_each(lose),
            Kind::Kill => {}
        }
        let _gone = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }

    /// What is already gone cannot be lost again.
    fn lose(undo: &Undo) {
        let _lost = match undo {
            Undo::Cut(path) => {
                File::options().write(true).open(path).and_then(|f| f.set_len(f.metadata()?.len() / 2))
            }
            Undo::Remove(path) => match fs::symlink_metadata(path) {
                Ok(m) if m.is_dir() => fs::remove_dir_all(path),
                _ => fs::remove_file(path),
            },
            Undo::Rename { from, to, former } => fs::rename(to, from).and_then(|()| match former {
                Some(bytes) => fs::write(to, bytes),
                None => Ok(()),
            }),
        };
    }

    fn note(change: impl FnOnce(&mut Vec<Undo>)) {
        let mut plan = PLAN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plan.as_mut().filter(|p| p.kind == Kind::Power) {
            change(&mut plan.unsynced);
        }
    }

    /// What has the name that is going to be given to something else.
    pub fn former(path: &Path) -> Option<Vec<u8>> {
        let mut former = None;
        note(|_| former = fs::read(path).ok());
        former
    }

    pub fn created(path: &Path) {
        note(|unsynced| unsynced.push(Undo::Remove(path.to_owned())));
    }

    pub fn written(path: &Path) {
        note(|unsynced| unsynced.push(Undo::Cut(path.to_owned())));
    }

    pub fn synced(path: &Path) {
        note(|unsynced| unsynced.retain(|u| !matches!(u, Undo::Cut(p) if p == path)));
    }

    pub fn renamed(from: &Path, to: &Path, former: Option<Vec<u8>>) {
        let undo = Undo::Rename { from: from.to_owned(), to: to.to_owned(), former };
        note(|unsynced| unsynced.push(undo));
    }

    pub fn synced_directory(directory: &Path) {
        let there = |path: &Path| path.parent() == Some(directory);
        note(|unsynced| {
            let (kept, safe): (Vec<_>, Vec<_>) =
                std::mem::take(unsynced).into_iter().partition(|undo| match undo {
                    Undo::Cut(_) => true,
                    Undo::Remove(path) => !there(path),
                    Undo::Rename { to, .. } => !there(to),
                });
            *unsynced = kept;
            // What is not synced inside a directory is lost at its new place; its own former name does not matter any more.
            for undo in safe {
                let Undo::Rename { from, to, .. } = undo else { continue };
                unsynced.retain(|undo| !matches!(undo, Undo::Remove(path) if *path == from));
                for path in unsynced.iter_mut().filter_map(Undo::path) {
                    if let Ok(rest) = path.strip_prefix(&from) {
                        *path = to.join(rest);
                    }
                }
            }
        });
    }
}
