//! The state machine: applies committed entries to the replicated state and writes snapshots of it.
//!
//! The state lives in memory. What is on disk is the newest snapshot; after a restart the entries behind it are applied
//! again, so the log may only be purged behind a snapshot that is synced.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use futures_util::{Stream, StreamExt as _};
use kctl_shared::fault::Fault;
use kctl_shared::simulated::aside;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use super::disk::{Change, Disk, corrupt, join_large, put_large};
use super::types::{
    LogId, Outcome, Outcomes, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, decode, encode,
};
use super::{Captured, decode_state};
use crate::state::members::configured;
use crate::state::{CONTROL_PLANE, ClusterState, Command, LogStamp, apply_by};

const HEAD: &[u8] = b"head";
const BODY: &[u8] = b"snap/";
const REMOVED: &[u8] = b"removed";

fn removed_fault() -> Fault {
    Fault::new("MEMBER_REMOVED", "this member was removed from its cluster and serves no more")
        .hint("for another member: a new id, an empty data_dir and `join` in its configuration")
}

#[derive(Debug, Default)]
struct Machine {
    state: ClusterState,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// Cheap to clone; all clones are the same machine.
#[derive(Clone)]
pub(super) struct StateMachine {
    machine: Arc<RwLock<Machine>>,
    disk: Arc<dyn Disk>,
    applied: watch::Sender<u64>,
    decided: watch::Sender<Decided>,
}

/// What the agents of other nodes may have to be told of: not every entry concerns them, and there are thousands of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Raised by whatever may change the spec of a node that was there before.
    pub turn: u64,
    /// gRPC URLs of all members.
    pub members: Arc<[String]>,
}

fn urls(membership: &StoredMembership) -> Arc<[String]> {
    membership.membership().nodes().map(|(_, node)| node.grpc.clone()).collect()
}

/// Applies a command; whether it may change the spec of a node that was there before.
fn apply_one(state: &mut ClusterState, at: LogStamp, who: Option<&str>, command: Command) -> (Outcome, bool) {
    // Who joins is in its own spec alone.
    let joins = matches!(command, Command::RegisterNode { .. });
    let before = state.generation;
    let outcome = apply_by(state, at, who.unwrap_or(CONTROL_PLANE), command);
    let concerns = !joins && state.generation != before;
    (outcome, concerns)
}

/// The epoch of a machine, without holding on to it or its disk: a connection may outlive the member.
#[derive(Clone)]
pub(super) struct Epoch(Weak<RwLock<Machine>>);

impl Epoch {
    /// As [`StateMachine::epoch`]; 0 when there is no machine any more.
    pub(super) fn now(&self) -> u64 {
        self.0.upgrade().map_or(0, |machine| epoch(&machine))
    }
}

fn epoch(machine: &RwLock<Machine>) -> u64 {
    let machine = machine.read().unwrap_or_else(PoisonError::into_inner);
    if machine.applied.is_some() { machine.state.epoch } else { 0 }
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateMachine")
    }
}

/// Which of the two snapshot slots is valid, and what it is a snapshot of.
#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    slot: u8,
    bytes: u64,
    checksum: u32,
    meta: SnapshotMeta,
}

impl StateMachine {
    /// # Errors
    /// `STORE_CORRUPT`.
    pub(super) fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, Fault> {
        let mut machine = Machine::default();
        let newest = load(&*disk).map_err(|e| corrupt(path, e))?;
        if let Some((head, body)) = newest {
            machine.state = decode_state(&body).map_err(|e| corrupt(path, e))?;
            machine.applied = head.meta.last_log_id;
            machine.membership = head.meta.last_membership;
        }
        let index = machine.applied.map_or(0, |id| id.index);
        let decided = Decided { turn: index, members: urls(&machine.membership) };
        let (applied, decided) = (watch::Sender::new(index), watch::Sender::new(decided));
        Ok(Self { machine: Arc::new(RwLock::new(machine)), disk, applied, decided })
    }

    pub(super) fn with_state<R>(&self, read: impl FnOnce(&ClusterState) -> R) -> R {
        read(&self.machine.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    pub(super) fn capture(&self) -> Captured {
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        Captured { index: machine.applied.map_or(0, |id| id.index), state: machine.state.clone() }
    }

    /// Of the cluster this member belongs to; 0 while it belongs to none.
    pub(super) fn epoch(&self) -> u64 {
        epoch(&self.machine)
    }

    pub(super) fn epoch_only(&self) -> Epoch {
        Epoch(Arc::downgrade(&self.machine))
    }

    /// # Errors
    /// `MEMBER_REMOVED`.
    pub(super) fn is_member(&self) -> Result<(), Fault> {
        let removed = self.disk.scan(REMOVED).map_err(|e| corrupt(Path::new("state"), e))?;
        if removed.is_empty() { Ok(()) } else { Err(removed_fault()) }
    }

    /// Remembers for ever that this member was taken out of its cluster.
    pub(super) fn mark_removed(&self) -> Fault {
        if let Err(error) = self.disk.write(vec![Change::Put(REMOVED.to_vec(), vec![1])]) {
            tracing::warn!(%error, "not written down; it is found out again at the next start");
        }
        removed_fault()
    }

    pub(super) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(super) fn watch_decided(&self) -> watch::Receiver<Decided> {
        self.decided.subscribe()
    }

    fn with<R>(&self, edit: impl FnOnce(&mut Machine) -> R) -> R {
        edit(&mut self.machine.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn save(&self, meta: &SnapshotMeta, body: &[u8]) -> io::Result<()> {
        let before = load_head(&*self.disk)?;
        let slot = before.as_ref().map_or(0, |h| 1 - h.slot);
        let head =
            Head { slot, bytes: body.len() as u64, checksum: crc32fast::hash(body), meta: meta.clone() };
        let stale = |slot: u8| -> io::Result<Vec<Change>> {
            Ok(self.disk.scan(&prefix(slot))?.into_iter().map(|(key, _)| Change::Delete(key)).collect())
        };
        // The new body is whole on disk before the head names it, and the old one goes after.
        let mut changes = stale(slot)?;
        changes.extend(put_large(&prefix(slot), body));
        self.disk.write(changes)?;
        self.disk.write(vec![Change::Put(HEAD.to_vec(), encode(&head)?)])?;
        self.disk.write(stale(1 - slot)?)
    }
}

fn prefix(slot: u8) -> Vec<u8> {
    [BODY, &[slot], b"/"].concat()
}

fn load_head(disk: &dyn Disk) -> io::Result<Option<Head>> {
    disk.scan(HEAD)?.into_iter().next().map(|(_, value)| decode(&value)).transpose()
}

fn load(disk: &dyn Disk) -> io::Result<Option<(Head, Vec<u8>)>> {
    let Some(head) = load_head(disk)? else { return Ok(None) };
    let body = join_large(disk.scan(&prefix(head.slot))?);
    if body.len() as u64 != head.bytes || crc32fast::hash(&body) != head.checksum {
        return Err(io::Error::other("the snapshot does not fit its checksum"));
    }
    Ok(Some((head, body)))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.with(|m| (m.applied, m.membership.clone())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let index = entry.log_id.index;
            let mut concerns = false;
            let mut members = None;
            let outcomes = self.with(|m| {
                m.applied = Some(entry.log_id);
                Ok::<_, io::Error>(match entry.payload {
                    EntryPayload::Blank => Outcomes::default(),
                    EntryPayload::Membership(membership) => {
                        // A step between two configurations is none.
                        if membership.get_joint_config().len() == 1 {
                            let nodes = membership.nodes().map(|(id, n)| (*id, n.clone())).collect();
                            let at = LogStamp { index, offset: 0, proposed_at: m.state.clock };
                            configured(&mut m.state, at, &nodes, &membership.voter_ids().collect());
                        }
                        m.membership = StoredMembership::new(Some(entry.log_id), membership);
                        members = Some(urls(&m.membership));
                        Outcomes::default()
                    }
                    EntryPayload::Normal(batch) => {
                        let batch = batch.take()?;
                        let stamp = |offset| LogStamp { index, offset, proposed_at: batch.proposed_at };
                        let who = batch.by.into_iter().map(Some).chain(std::iter::repeat(None));
                        let commands = batch.commands.into_iter().zip(who).zip(0..);
                        let state = &mut m.state;
                        Outcomes(
                            commands
                                .map(|((c, who), offset)| {
                                    let (outcome, touches) =
                                        apply_one(state, stamp(offset), who.as_deref(), c);
                                    concerns |= touches;
                                    outcome
                                })
                                .collect(),
                        )
                    }
                })
            })?;
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
            self.applied.send_replace(index);
            if concerns || members.is_some() {
                self.decided.send_modify(|decided| {
                    decided.turn = index;
                    decided.members = members.unwrap_or_else(|| decided.members.clone());
                });
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Vec<u8>) -> Result<(), io::Error> {
        let state = decode_state(&snapshot)?;
        self.save(meta, &snapshot)?;
        self.with(|m| {
            *m = Machine { state, applied: meta.last_log_id, membership: meta.last_membership.clone() }
        });
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.applied.send_replace(index);
        self.decided.send_replace(Decided { turn: index, members: urls(&meta.last_membership) });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(load(&*self.disk)?.map(|(head, body)| Snapshot { meta: head.meta, snapshot: body }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        // A copy shares most of what it is made of; nothing is held up while it is encoded and written.
        let (meta, state) = {
            let m = self.machine.read().unwrap_or_else(PoisonError::into_inner);
            let meta = SnapshotMeta { last_log_id: m.applied, last_membership: m.membership.clone() };
            (meta, m.state.clone())
        };
        let this = self.clone();
        let built = aside(move || {
            let body = encode(&state)?;
            this.save(&meta, &body)?;
            Ok(Snapshot { meta, snapshot: body })
        });
        built.await.map_err(io::Error::other)?
    }
}
