//! Backups: one tar file with the replicated state as of one log index and every artifact it names.
//!
//! ```text
//! kctl-backup.json      {"format":1,…}   what this file is
//! state                 the state, as a snapshot holds it
//! artifacts/<hex>.tar   one release each; .sealed: entities that a removal took out of Kong, which need the key of the
//!                       members' sealing_key_file where they were given one
//! manifest.json         versions, epoch, index, and the sha256 of every part before it
//! manifest.sha256       sha256 of the manifest
//! ```
//!
//! The manifest comes last, so that a backup is written in one go while it is read, and one that was cut off has none.

pub mod read;
pub mod restore;
pub mod write;

use kctl_shared::digest::Digest;
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Raised on an incompatible change of the file or of the state in it.
pub const FORMAT: u32 = 1;

const MARK: &str = "kctl-backup.json";
const STATE: &str = "state";
const ARTIFACTS: &str = "artifacts/";
const MANIFEST: &str = "manifest.json";
const SEAL: &str = "manifest.sha256";

/// What stands first in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    /// Version of the member that wrote it.
    kctl: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Version of the member that wrote it.
    pub kctl: String,
    /// RFC 3339.
    pub created_at: String,
    pub epoch: u64,
    /// Log index up to which the state is complete.
    pub index: u64,
    pub generation: u64,
    pub plugins: Vec<PluginPart>,
    pub nodes: usize,
    pub releases: usize,
    /// Operations that had not ended; restoring ends them as aborted.
    pub live_operations: Vec<String>,
    /// In the order of the file.
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginPart {
    pub name: String,
    pub version: String,
    pub group: String,
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub sha256: Digest,
}

impl Manifest {
    fn of(state: &crate::state::ClusterState, index: u64, at: Timestamp) -> Self {
        let plugins = state.groups.iter().flat_map(|(group, g)| {
            g.plugins.iter().filter_map(move |(name, p)| {
                let digest = p.release?;
                let version = state.releases.get(&digest).map(|r| r.version.clone()).unwrap_or_default();
                let (name, group) = (name.to_string(), group.to_string());
                Some(PluginPart { name, version, group, digest: digest.to_string() })
            })
        });
        Self {
            format: FORMAT,
            kctl: env!("CARGO_PKG_VERSION").into(),
            created_at: at.to_string(),
            epoch: state.epoch,
            index,
            generation: state.generation,
            plugins: plugins.collect(),
            nodes: state.nodes.len(),
            releases: state.releases.len(),
            live_operations: state.live_operations().map(|o| o.id.clone()).collect(),
            parts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
