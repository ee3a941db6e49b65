//! One agent for one Kong: a lock on the directories that only one may change.

use std::fs::File;
use std::path::Path;

use kctl_shared::fault::Fault;

/// Held until dropped; the directories themselves are locked, so nothing is left behind.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    _held: Vec<File>,
}

impl Claim {
    /// Directories that do not exist are not claimed: nobody can have begun there.
    ///
    /// # Errors
    /// `AGENT_RUNNING`.
    pub fn on(directories: &[&Path]) -> Result<Self, Fault> {
        let mut held = Vec::new();
        for directory in directories {
            let Ok(file) = File::open(directory) else { continue };
            if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
                return Err(Fault::new(
                    "AGENT_RUNNING",
                    format!("another agent works on {}", directory.display()),
                )
                .hint("stop it: a Kong has one agent, and each agent directories of its own"));
            }
            held.push(file);
        }
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir(&one).unwrap();
        let first = Claim::on(&[&one, &other]).unwrap();
        assert_eq!(Claim::on(&[&other, &one]).unwrap_err().code, "AGENT_RUNNING");
        drop(first);
        let _second = Claim::on(&[&one]).unwrap();
    }
}
