//! What the adapter has to remember over a restart of the agent: what it was about to change, when it sent which
//! configuration to the running master, and which workers were proven with it.
//!
//! It is a memory, not an authority: everything in it is about one master of one boot, and without it the adapter
//! observes, reloads once more than needed, or keeps a directory longer.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kctl_shared::spec::Failure;
use serde::{Deserialize, Serialize};

use super::Wanted;
use super::error_log::LogMark;
use super::process::{self, ProcessId, Tree};
use crate::durable::{Replacement, replace, replace_all};

/// Reloads remembered; older ones than this many have no workers left in practice.
const MAX_LOADS: usize = 64;
/// The step that keeps a copy of `.kong_env`.
const KEEP: &str = "kong.keep-armed";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    boot: String,
    master: Option<ProcessId>,
    /// In order; the first one is what the master was found with.
    loads: Vec<Load>,
    /// The latest proof.
    pub proof: Option<Proof>,
    /// Where the error logs ended before the latest reload.
    log: Vec<LogMark>,
    /// An edit that is neither proven nor put back.
    pub pending: Option<Pending>,
    /// A restart was begun and nothing was proven since.
    #[serde(default)]
    restarting: bool,
}

/// A configuration that a HUP offered to the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Load {
    generation: Option<PathBuf>,
    /// Ticks since boot.
    sent: u64,
    proven: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub wanted: Wanted,
    pub workers: BTreeSet<ProcessId>,
}

/// Names that an edit of ours added to the directive, or took out of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub added: BTreeSet<String>,
    pub removed: BTreeSet<String>,
}

impl Memory {
    /// Forgets what was about another master. The edit that is under way stays: files outlive processes.
    fn about(&mut self, tree: &Tree, armed: Option<PathBuf>) {
        let boot = process::boot_id();
        if self.boot != boot || self.master != Some(tree.master) {
            let loads = vec![Load { generation: armed, sent: 0, proven: Some(0) }];
            *self = Self {
                boot,
                master: Some(tree.master),
                loads,
                pending: self.pending.take(),
                ..Self::default()
            };
        }
    }

    /// Whether a Kong that does not run was stopped by a restart of ours that never came to its end.
    pub fn stopped_by_us(&self) -> bool {
        self.restarting && self.boot == process::boot_id()
    }

    /// Where the logs of this master ended before its latest reload.
    pub fn log_of(&self, tree: &Tree) -> &[LogMark] {
        if self.master == Some(tree.master) { &self.log } else { &[] }
    }

    /// Whether the proof covers all workers that take new connections.
    pub fn covers(&self, wanted: &Wanted, tree: &Tree) -> bool {
        let proof =
            self.proof.as_ref().filter(|proof| proof.wanted == *wanted && self.master == Some(tree.master));
        proof.is_some_and(|proof| tree.serving().all(|worker| proof.workers.contains(&worker)))
    }

    /// Generations that the workers of `tree` may have been started with: of those in the proof the proven one; of others
    /// what was proven last before their start, and whatever was offered between that and their start.
    fn generations_of(&self, tree: &Tree) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for worker in &tree.workers {
            if let Some(proof) = self.proof.as_ref().filter(|proof| proof.workers.contains(&worker.id)) {
                found.extend(proof.wanted.generation.clone());
                continue;
            }
            let started = worker.id.started;
            let first =
                self.loads.iter().rposition(|l| l.proven.is_some_and(|at| at <= started)).unwrap_or(0);
            let possible = self.loads[first.min(self.loads.len())..].iter().take_while(|l| l.sent <= started);
            found.extend(possible.filter_map(|load| load.generation.clone()));
        }
        found
    }
}

/// [`Memory`] in a file that is replaced as a whole.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    armed: PathBuf,
    memory: Mutex<Memory>,
}

impl Record {
    /// One that cannot be read is started anew.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("kong.json");
        let memory =
            fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, armed: state_dir.join("kong_env"), memory: Mutex::new(memory) }
    }

    /// Keeps a copy of `.kong_env`, which is deleted and written anew by every `prepare`.
    pub fn keep_armed(&self, path: &Path) -> Result<(), Failure> {
        self.unkept(path).map_or(Ok(()), |bytes| {
            replace(KEEP, &self.armed, &bytes).map_err(|e| not_written(&self.armed, &e))
        })
    }

    /// What is in `.kong_env`, if there is something of which no copy is kept.
    fn unkept(&self, path: &Path) -> Option<Vec<u8>> {
        let bytes = fs::read(path).ok().filter(|bytes| !bytes.is_empty())?;
        (fs::read(&self.armed).ok().as_ref() != Some(&bytes)).then_some(bytes)
    }

    pub fn kept_armed(&self) -> &Path {
        &self.armed
    }

    pub fn memory(&self) -> Memory {
        self.lock().clone()
    }

    /// What living workers may still read from; everything there is, when the memory is not about this master.
    pub fn old_generations(
        &self,
        tree: &Tree,
        everything: impl Iterator<Item = PathBuf>,
    ) -> BTreeSet<PathBuf> {
        let memory = self.lock();
        if memory.boot == process::boot_id() && memory.master == Some(tree.master) {
            return memory.generations_of(tree);
        }
        // A master that was never reloaded by us has one generation of workers, with what was armed at its start.
        if tree.draining().next().is_some() { everything.collect() } else { BTreeSet::new() }
    }

    /// An edit is about to be made: notes it, and keeps what it and the `prepare` after it take away, the former text of
    /// the file at `backup` and a copy of the `.kong_env` at `armed`.
    pub fn intend(
        &self,
        pending: Pending,
        backup: Option<(&Path, &[u8])>,
        armed: Option<&Path>,
    ) -> Result<(), Failure> {
        let unkept = armed.and_then(|path| self.unkept(path));
        let backup = backup.map(|(path, bytes)| Replacement { step: "conf.backup", path, bytes });
        let armed = unkept.as_ref().map(|bytes| Replacement {
            step: KEEP,
            path: &self.armed,
            bytes: bytes.as_slice(),
        });
        let beside: Vec<Replacement> = backup.into_iter().chain(armed).collect();
        self.change_beside("kong.intend", &beside, |memory| {
            let known = memory.pending.get_or_insert_default();
            known.added.extend(pending.added);
            known.removed.extend(pending.removed);
        })
    }

    /// A HUP with this configuration is about to be sent.
    pub fn sending(
        &self,
        tree: &Tree,
        before: Option<PathBuf>,
        generation: Option<PathBuf>,
        log: Vec<LogMark>,
    ) -> Result<(), Failure> {
        self.change("kong.sending", |memory| {
            memory.about(tree, before);
            memory.loads.push(Load { generation, sent: process::ticks_now(), proven: None });
            if memory.loads.len() > MAX_LOADS {
                memory.loads.remove(0);
            }
            memory.log = log;
            memory.proof = None;
        })
    }

    /// Kong is about to be stopped and started again.
    pub fn restarting(&self) -> Result<(), Failure> {
        self.change("kong.restarting", |memory| {
            let boot = process::boot_id();
            if memory.boot != boot {
                *memory = Memory { boot, pending: memory.pending.take(), ..Memory::default() };
            }
            memory.restarting = true;
        })
    }

    /// The running workers are proven to be as `wanted` says.
    pub fn proven(&self, tree: &Tree, wanted: &Wanted) -> Result<(), Failure> {
        let proof = Proof { wanted: wanted.clone(), workers: tree.serving().collect() };
        let memory = self.memory();
        if memory.proof.as_ref() == Some(&proof) && memory.pending.is_none() && !memory.restarting {
            return Ok(());
        }
        self.change("kong.proven", |memory| {
            memory.about(tree, wanted.generation.clone());
            memory.proof = Some(proof);
            memory.restarting = false;
            memory.pending = None;
            if let Some(load) = memory.loads.last_mut().filter(|l| l.generation == wanted.generation) {
                load.proven.get_or_insert_with(process::ticks_now);
            }
        })
    }

    /// The edit under way was taken back before anything running was touched.
    pub fn taken_back(&self) -> Result<(), Failure> {
        self.change("kong.taken-back", |memory| memory.pending = None)
    }

    fn change(&self, step: &'static str, change: impl FnOnce(&mut Memory)) -> Result<(), Failure> {
        self.change_beside(step, &[], change)
    }

    fn change_beside(
        &self,
        step: &'static str,
        beside: &[Replacement<'_>],
        change: impl FnOnce(&mut Memory),
    ) -> Result<(), Failure> {
        let mut memory = self.lock();
        change(&mut memory);
        let bytes = serde_json::to_vec(&*memory).unwrap_or_default();
        let own = Replacement { step, path: &self.path, bytes: &bytes };
        replace_all(&[&[own], beside].concat()).map_err(|error| not_written(&self.path, &error))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::StorageFull { "DISK_FULL" } else { "STATE_NOT_WRITTEN" };
    Failure::new(code, format!("{} could not be written ({error})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::process::Worker;

    fn tree(workers: &[(i32, u64, bool)]) -> Tree {
        let worker = |&(pid, started, draining): &(i32, u64, bool)| Worker {
            id: ProcessId { pid, started },
            draining,
        };
        Tree {
            master: ProcessId { pid: 1, started: 5 },
            stopped: false,
            workers: workers.iter().map(worker).collect(),
            starting: 0,
        }
    }

    #[test]
    fn an_old_worker_may_read_what_was_proven_or_offered_before_it_started() {
        let load = |n: u64, sent, proven| Load { generation: Some(format!("/g/{n}").into()), sent, proven };
        let memory = Memory {
            loads: vec![
                load(1, 0, Some(0)),
                load(2, 100, Some(110)),
                load(3, 200, None),
                load(4, 300, Some(310)),
            ],
            ..Memory::default()
        };
        let of = |started| memory.generations_of(&tree(&[(2, started, true)]));
        let names =
            |list: &[u64]| list.iter().map(|n| PathBuf::from(format!("/g/{n}"))).collect::<BTreeSet<_>>();
        assert_eq!(of(50), names(&[1]));
        assert_eq!(of(105), names(&[1, 2]));
        assert_eq!(of(150), names(&[2]));
        assert_eq!(of(250), names(&[2, 3]));
        assert_eq!(of(400), names(&[4]));
    }

    #[test]
    fn a_proof_is_about_the_workers_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::open(dir.path());
        let (first, wanted) = (tree(&[(2, 50, false), (3, 50, false)]), Wanted::default());
        let pending = Pending { added: BTreeSet::from(["a".into()]), removed: BTreeSet::new() };
        record.intend(pending, None, None).unwrap();
        record.sending(&first, None, None, Vec::new()).unwrap();
        record.proven(&first, &wanted).unwrap();
        let memory = Record::open(dir.path()).memory();
        assert_eq!(memory.pending, None);
        assert!(memory.covers(&wanted, &first));
        assert!(memory.covers(&wanted, &tree(&[(3, 50, false), (9, 10, true)])));
        assert!(!memory.covers(&wanted, &tree(&[(3, 51, false)])));
        assert!(!memory.covers(&Wanted { generation: Some("/g/1".into()), ..wanted }, &first));
    }
}
