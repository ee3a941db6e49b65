//! Where to look for a leader: the configured members, and those the control plane named since.
//!
//! What was learned is kept on the disk, because all members that an agent was configured with may have been replaced by
//! the time it starts again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kctl_shared::network::Dialer;

use crate::durable;

const FILE: &str = "members";

#[derive(Debug)]
pub struct Members {
    configured: Vec<String>,
    path: PathBuf,
    dialer: Dialer,
    learned: Mutex<Vec<String>>,
}

impl Members {
    /// `configured` is not empty. A list that cannot be read is learned again.
    pub fn open(configured: Vec<String>, state_dir: &Path, dialer: Dialer) -> Self {
        let path = state_dir.join(FILE);
        let learned = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { configured, path, dialer, learned: Mutex::new(learned.unwrap_or_default()) }
    }

    /// The member to try at this turn.
    pub fn at(&self, turn: usize) -> String {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest word first; the configured ones stay, in case it misled.
        let others = self.configured.iter().filter(|url| !learned.contains(url));
        let all: Vec<&String> = learned.iter().chain(others).collect();
        all[turn % all.len()].clone()
    }

    /// The control plane's members are these.
    pub fn learn(&self, urls: Vec<String>) {
        let dialled = urls.iter().all(|url| self.dialer.check(url).is_ok());
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        // What the configuration says anyway is nothing new.
        let known = learned.is_empty()
            && urls.len() == self.configured.len()
            && urls.iter().all(|url| self.configured.contains(url));
        if urls.is_empty() || !dialled || known || *learned == urls {
            return;
        }
        tracing::info!(?urls, "members of the control plane");
        *learned = urls;
        let bytes = serde_json::to_vec(&*learned).unwrap_or_default();
        if let Err(error) = durable::replace("session.members", &self.path, &bytes) {
            tracing::warn!(%error, "the list of members is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kctl_shared::network::{Tcp, dialer};

    use super::*;

    #[test]
    fn what_was_learned_stays_and_what_was_configured_too() {
        let dir = tempfile::tempdir().unwrap();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let dialer = dialer(Arc::new(Tcp), false);
        let open = || Members::open(vec![url(1), url(2)], dir.path(), dialer.clone());
        let all = |members: &Members, count| (0..count).map(|n| members.at(n)).collect::<Vec<_>>();
        let members = open();
        assert_eq!(all(&members, 2), [url(1), url(2)]);
        members.learn(vec![url(2), url(3)]);
        members.learn(vec!["http://192.0.2.1:1".into()]);
        members.learn(Vec::new());
        assert_eq!(all(&members, 3), [url(2), url(3), url(1)]);
        assert_eq!(all(&open(), 3), [url(2), url(3), url(1)]);
    }
}
