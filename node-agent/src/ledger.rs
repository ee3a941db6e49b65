//! What the agent must not forget: the spec it follows, its fences, what it proved, what it tried.
//!
//! One file, replaced atomically: temporary file, fsync, rename, fsync of the directory. A failed sync ends the process,
//! because nobody knows what is on the disk after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::mutant;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{NodeSpec, ReleaseRef};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempts::Attempts;
use crate::durable;
use crate::gateway::Wanted;

/// Numbers of generation directories set aside at once.
const GENERATIONS: u64 = 12;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub node: Option<NodeId>,
    /// Drawn once; a copy of the directory on another machine has the same one and is found out by that.
    pub nonce: String,
    /// Raised at every start.
    pub boot: u64,
    pub spec: Option<NodeSpec>,
    pub proven: Wanted,
    pub managed: BTreeSet<PluginName>,
    pub attempts: Attempts,
    /// Generation directories up to this number may be there or have been; none of them is used again.
    pub generation: u64,
    pub put_back_due: bool,
    /// When Kong was last told to load something else.
    #[serde(default)]
    pub last_reload: Option<Timestamp>,
    /// Files of these were made good, and Kong was not reloaded since.
    #[serde(default)]
    pub tainted: BTreeSet<PluginName>,
    /// What a cluster of another epoch had enabled when this node went over to it, or that it knew nothing of it: not decided with this node in view, so
    /// it is not brought about until the cluster wants something else.
    #[serde(default)]
    pub held: BTreeMap<PluginName, Option<ReleaseRef>>,
    #[serde(default)]
    pub traffic: Traffic,
}

/// Whether the node is in its load balancer, as far as the hooks ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    #[default]
    In,
    /// A hook was begun; how it ended nobody knows, or badly.
    Unsure,
    Out,
}

impl Record {
    /// Another start of the agent; everything it knew, its fences above all, stays.
    pub fn restart(&mut self) {
        self.boot += 1;
        if mutant::is("fence-forgotten") {
            self.spec = None;
        }
    }

    /// Whether a spec is one to follow from now on: not when it is the present one.
    ///
    /// # Errors
    /// `STALE_SPEC` for an older one, `SPEC_CONFLICT` for the same generation with other content, `EPOCH_CHANGED` for one
    /// of a cluster that this node was not let go over to.
    pub fn admits(&self, spec: &NodeSpec) -> Result<bool, Fault> {
        let Some(present) = &self.spec else { return Ok(true) };
        if spec.epoch != present.epoch {
            if spec.supersedes == Some(present.epoch) {
                return Ok(true);
            }
            return Err(Fault::new(
                "EPOCH_CHANGED",
                format!(
                    "the control plane is of epoch {}, this node follows epoch {}",
                    spec.epoch, present.epoch
                ),
            )
            .hint(format!("kctl node approve {}", spec.node)));
        }
        let (new, old) = ((spec.epoch, spec.generation), (present.epoch, present.generation));
        let slack = u64::from(mutant::is("fence-off-by-one"));
        if (new.0, new.1 + slack) < old {
            return Err(Fault::new("STALE_SPEC", format!("generation {new:?} is older than {old:?}")));
        }
        if new == old && spec.hash() != present.hash() {
            return Err(Fault::new(
                "SPEC_CONFLICT",
                format!("generation {new:?} came with other content before"),
            ));
        }
        Ok(*present != *spec)
    }

    pub fn follow(&mut self, spec: NodeSpec) {
        if self.spec.as_ref().is_some_and(|present| present.epoch != spec.epoch) {
            // Log positions mean something else there.
            self.attempts = Attempts::default();
            self.held = self.proven.listed.keys().map(|plugin| (plugin.clone(), None)).collect();
            self.held.extend(spec.plugins.iter().map(|(plugin, p)| (plugin.clone(), p.enabled.clone())));
        }
        self.held.retain(|plugin, held| spec.plugins.get(plugin).is_none_or(|p| p.enabled == *held));
        self.attempts.retain(|p| spec.plugins.contains_key(p));
        self.spec = Some(spec);
    }
}

#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    record: Record,
    /// Number of the newest generation directory of this run, at most the record's.
    generation: u64,
    /// What is on the disk.
    written: Vec<u8>,
    _lock: File,
}

fn corrupt(path: &Path, why: impl std::fmt::Display) -> Fault {
    Fault::new("LEDGER_CORRUPT", format!("{} cannot be trusted: {why}", path.display()))
        .hint("move the agent's state directory away and register the node under a new id")
}

/// `body` with its own digest before it.
fn seal(body: &[u8]) -> Vec<u8> {
    [format!("{}\n", Digest::of(body)).as_bytes(), body].concat()
}

impl Ledger {
    /// # Errors
    /// `AGENT_RUNNING` when another agent has the directory, `LEDGER_CORRUPT`, `STATE_DIR`.
    pub fn open(dir: &Path, node: &NodeId) -> Result<Self, Fault> {
        let failed = |e: io::Error| {
            Fault::new("STATE_DIR", format!("{}: {e}", dir.display())).hint("check the agent's state_dir")
        };
        fs::create_dir_all(dir).map_err(failed)?;
        restrict(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(Fault::new("AGENT_RUNNING", format!("another agent uses {}", dir.display()))
                .hint("stop it, or give this one a state_dir of its own"));
        }
        let path = dir.join("ledger");
        let mut record = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|why| corrupt(&path, why))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Record { nonce: uuid::Uuid::new_v4().to_string(), ..Record::default() }
            }
            Err(e) => return Err(failed(e)),
        };
        if record.node.as_ref().is_some_and(|n| n != node) {
            return Err(Fault::new("STATE_DIR", format!("{} belongs to another node", dir.display()))
                .hint("give each node a state_dir of its own"));
        }
        record.node = Some(node.clone());
        record.restart();
        let generation = record.generation;
        let mut ledger = Self { path, record, generation, written: Vec::new(), _lock: lock };
        ledger.write("ledger.start");
        Ok(ledger)
    }

    /// What the directory's record says, for a look while another process has it.
    ///
    /// # Errors
    /// `LEDGER_CORRUPT`, `STATE_DIR`.
    pub fn peek(dir: &Path) -> Result<Record, Fault> {
        let path = dir.join("ledger");
        let bytes = fs::read(&path).map_err(|e| {
            Fault::new("STATE_DIR", format!("{}: {e}", path.display())).hint("check the agent's state_dir")
        })?;
        parse(&bytes).map_err(|why| corrupt(&path, why))
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// A number for a generation directory that none ever had; numbers are set aside on the disk by the dozen.
    pub fn next_generation(&mut self) -> u64 {
        if self.generation >= self.record.generation {
            self.update("ledger.generation", |r| r.generation += GENERATIONS);
        }
        self.generation += 1;
        self.generation
    }

    /// Changes what may be lost: it comes to the disk with whatever may not.
    pub fn remember(&mut self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
    }

    /// Changes the record and returns once it is on the disk; `step` is one of [`durable::STEPS`].
    pub fn update(&mut self, step: &'static str, change: impl FnOnce(&mut Record)) {
        change(&mut self.record);
        self.write(step);
    }

    fn write(&mut self, step: &'static str) {
        let body = serde_json::to_vec(&self.record).unwrap_or_default();
        if body == self.written {
            return;
        }
        if let Err(error) = durable::replace(step, &self.path, &seal(&body)) {
            tracing::error!(%error, path = %self.path.display(), "LEDGER_WRITE_FAILED: ending rather than guessing what is on the disk");
            std::process::exit(70);
        }
        self.written = body;
    }

    /// Takes a new spec if the fences allow it; whether anything changed.
    ///
    /// # Errors
    /// `STALE_SPEC` for an older one, `SPEC_CONFLICT` for the same generation with other content.
    pub fn accept(&mut self, spec: NodeSpec) -> Result<bool, Fault> {
        if !self.record.admits(&spec)? {
            return Ok(false);
        }
        self.update("ledger.spec", |r| r.follow(spec));
        Ok(true)
    }
}

fn parse(bytes: &[u8]) -> Result<Record, String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no checksum")?;
    let (sum, body) = (&bytes[..end], &bytes[end + 1..]);
    if sum != Digest::of(body).to_string().as_bytes() {
        return Err("it does not fit its checksum".into());
    }
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn restrict(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::parse("n1").unwrap()
    }

    fn spec(generation: u64) -> NodeSpec {
        NodeSpec {
            node: node(),
            epoch: 1,
            supersedes: None,
            generation,
            plugins: Default::default(),
            task: None,
            hold: None,
        }
    }

    #[test]
    fn fences_hold_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), &node()).unwrap();
        assert_eq!(Ledger::open(dir.path(), &node()).unwrap_err().code, "AGENT_RUNNING");
        assert!(ledger.accept(spec(5)).unwrap());
        let (nonce, boot) = (ledger.record().nonce.clone(), ledger.record().boot);
        drop(ledger);
        let mut ledger = Ledger::open(dir.path(), &node()).unwrap();
        assert_eq!(ledger.record().nonce, nonce);
        assert_eq!(ledger.record().boot, boot + 1);
        assert_eq!(ledger.accept(spec(4)).unwrap_err().code, "STALE_SPEC");
        let other = NodeSpec {
            task: Some(kctl_shared::spec::EntityTask {
                grant: Default::default(),
                operation: "o".into(),
                plugin: "p".parse().unwrap(),
                delete: Default::default(),
                attach: Default::default(),
                scan_only: false,
            }),
            ..spec(5)
        };
        assert_eq!(ledger.accept(other).unwrap_err().code, "SPEC_CONFLICT");
        assert!(!ledger.accept(spec(5)).unwrap());
    }

    #[test]
    fn another_epoch_is_followed_only_when_somebody_let_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), &node()).unwrap();
        assert!(ledger.accept(spec(5)).unwrap());
        let release = |version: &str| Some(ReleaseRef::new(version, Digest::of(version.as_bytes())));
        let asked = kctl_shared::spec::PluginSpec { enabled: release("1"), ..Default::default() };
        let plugins = BTreeMap::from([("p".parse().unwrap(), asked)]);
        for (epoch, generation) in [(2, 9), (2, 1), (0, 9)] {
            let other = NodeSpec { epoch, ..spec(generation) };
            assert_eq!(ledger.accept(other).unwrap_err().code, "EPOCH_CHANGED");
            let other = NodeSpec { epoch, supersedes: Some(7), ..spec(generation) };
            assert_eq!(ledger.accept(other).unwrap_err().code, "EPOCH_CHANGED");
        }
        let other = NodeSpec { epoch: 2, supersedes: Some(1), plugins, ..spec(1) };
        assert!(ledger.accept(other.clone()).unwrap());
        assert_eq!(ledger.record().held.len(), 1);
        assert_eq!(ledger.accept(spec(6)).unwrap_err().code, "EPOCH_CHANGED", "no way back");
        let mut later = NodeSpec { generation: 8, ..other };
        later.plugins.values_mut().for_each(|p| p.grant.index = 8);
        assert!(ledger.accept(later.clone()).unwrap());
        assert_eq!(ledger.record().held.len(), 1, "it wants the same");
        later.generation = 9;
        later.plugins.values_mut().for_each(|p| p.enabled = release("2"));
        assert!(ledger.accept(later).unwrap());
        assert!(ledger.record().held.is_empty(), "decided in this epoch");
    }

    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        drop(Ledger::open(dir.path(), &node()).unwrap());
        let path = dir.path().join("ledger");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Ledger::open(dir.path(), &node()).unwrap_err().code, "LEDGER_CORRUPT");
    }
}
