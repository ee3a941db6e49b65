//! Consensus: an ordered, durable log of commands that all members apply alike.
//!
//! This file and those below `raft/` are the only ones that name openraft or sled; the rest of the member sees
//! [`Consensus`].

mod append;
mod batch;
mod disk;
mod journal;
mod log;
mod machine;
mod membership;
mod network;
mod propose;
mod seed;
mod service;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::network::Dialer;
use kctl_shared::proto::raft::raft_service_server::RaftServiceServer;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Config, Instant as _, Raft, ReadPolicy, ServerState, SnapshotPolicy, TokioInstant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::state::{CONTROL_PLANE, ClusterState};
pub use disk::{Change, Disk, Disks, Record, Sled};
use log::LogStore;
pub use machine::Decided;
use machine::StateMachine;
pub(crate) use network::PATIENCE;
use propose::Proposals;
pub use propose::ProposeError;
pub use seed::seed;
pub use service::RaftRpc;
use types::TypeConfig;
pub use types::{MemberAddress, Outcome};

const HEARTBEAT_MS: u64 = 250;
const ELECTION_MIN_MS: u64 = 1_000;
const ELECTION_MAX_MS: u64 = 2_000;
/// Entries between two snapshots; about what is applied again after a restart.
const SNAPSHOT_EVERY: u64 = 2_000;
/// Entries kept behind a snapshot for members that lag a little.
const KEPT_ENTRIES: u64 = 500;

#[derive(Clone, Debug)]
pub struct ConsensusConfig {
    pub id: u64,
    pub data_dir: PathBuf,
    /// The members a new cluster starts with; empty for a member that waits to be let into one that runs.
    pub members: BTreeMap<u64, MemberAddress>,
    pub heartbeat_ms: u64,
    /// Shortest and longest election timeout in milliseconds.
    pub election_ms: (u64, u64),
    pub snapshot_every: u64,
}

impl ConsensusConfig {
    pub fn new(id: u64, data_dir: PathBuf, members: BTreeMap<u64, MemberAddress>) -> Self {
        Self {
            id,
            data_dir,
            members,
            heartbeat_ms: HEARTBEAT_MS,
            election_ms: (ELECTION_MIN_MS, ELECTION_MAX_MS),
            snapshot_every: SNAPSHOT_EVERY,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<u64>,
    /// This member leads and heard from a quorum within the last election timeout.
    pub is_leader: bool,
}

#[derive(Clone, Debug)]
pub struct MemberInfo {
    pub address: MemberAddress,
    pub voter: bool,
    /// Highest log index known to be on that member; known on the leader only.
    pub matched: Option<u64>,
    pub reachable: Option<bool>,
}

/// The state as of one log index.
#[derive(Clone, Debug)]
pub struct Captured {
    pub index: u64,
    pub state: ClusterState,
}

impl Captured {
    /// As a snapshot holds it.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn encoded(&self) -> Result<Vec<u8>, Fault> {
        types::encode(&self.state).map_err(|e| Fault::new("INTERNAL", format!("encoding the state: {e}")))
    }
}

/// What [`Captured::encoded`] wrote.
///
/// # Errors
/// When it is of another format or damaged.
pub fn decode_state(bytes: &[u8]) -> std::io::Result<ClusterState> {
    let mut state: ClusterState = types::decode(bytes)?;
    state.settle_in();
    Ok(state)
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    id: u64,
    raft: Raft<TypeConfig, StateMachine>,
    machine: StateMachine,
    proposals: Proposals,
    leadership: watch::Receiver<Leadership>,
    /// Cancelled when this member ends.
    ended: CancellationToken,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the member's store and joins the cluster; a member with an empty store starts the cluster that its
    /// configuration describes, or waits to be let into one. The service must be mounted on the member's raft address.
    ///
    /// # Errors
    /// `STORE_CORRUPT`, `STORE_IN_USE`, `MEMBER_ID_MISMATCH`, `MEMBER_REMOVED`.
    pub async fn open(
        config: ConsensusConfig,
        disks: &dyn Disks,
        dialer: Dialer,
    ) -> Result<(Self, RaftServiceServer<RaftRpc>), Fault> {
        let log_dir = disk::directory(&config.data_dir, "raft-log");
        let state_dir = disk::directory(&config.data_dir, "state");
        let (log_disk, state_disk) = (disks.open_log(&log_dir)?, disks.open(&state_dir)?);
        claim(&*state_disk, &state_dir, config.id)?;
        let log = LogStore::open(&log_dir, log_disk)?;
        let machine = StateMachine::open(&state_dir, state_disk)?;
        let internal = |what: &str, e: &dyn std::fmt::Display| Fault::new("INTERNAL", format!("{what}: {e}"));
        let raft_config = Config {
            cluster_name: "kctl".into(),
            heartbeat_interval: config.heartbeat_ms,
            election_timeout_min: config.election_ms.0,
            election_timeout_max: config.election_ms.1,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            enable_pre_vote: Some(true),
            // A leader that started again would go on in its old term, not knowing how far it had committed: reads that it
            // then calls linearizable miss what it acknowledged before. It has to be elected again.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let raft_config = raft_config.validate().map_err(|e| internal("raft configuration", &e))?;
        machine.is_member()?;
        let network = network::Network { dialer, machine: machine.clone() };
        let raft = Raft::new(config.id, Arc::new(raft_config), network, log, machine.clone())
            .await
            .map_err(|e| internal("raft", &e))?;
        let pristine = !raft.is_initialized().await.map_err(|e| internal("raft", &e))?;
        if pristine && !config.members.is_empty() {
            // Every pristine member proposes the same first entry, so whoever comes first does not matter.
            raft.initialize(config.members.clone()).await.map_err(|e| internal("raft", &e))?;
        }
        let (leadership, led) = watch::channel(Leadership::default());
        tokio::spawn(watch_leadership(raft.clone(), leadership, Duration::from_millis(config.election_ms.1)));
        let proposals = Proposals::start(raft.clone());
        let ended = CancellationToken::new();
        let service = RaftServiceServer::new(RaftRpc {
            raft: raft.clone(),
            epoch: machine.epoch_only(),
            ended: ended.clone(),
        })
        .max_decoding_message_size(network::MAX_MESSAGE)
        .max_encoding_message_size(network::MAX_MESSAGE);
        Ok((Self { id: config.id, raft, machine, proposals, leadership: led, ended }, service))
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    pub fn applied_index(&self) -> u64 {
        *self.machine.watch_applied().borrow()
    }

    /// Commits the commands, in order, in one log entry that may be shared with other callers.
    ///
    /// # Errors
    /// `NotLeader`: nothing happened. `Unknown`: it may or may not take effect.
    pub async fn propose(&self, commands: Vec<crate::state::Command>) -> Result<Vec<Outcome>, ProposeError> {
        self.propose_by(commands, CONTROL_PLANE.into()).await
    }

    /// As [`Self::propose`], for somebody.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub async fn propose_by(
        &self,
        commands: Vec<crate::state::Command>,
        who: String,
    ) -> Result<Vec<Outcome>, ProposeError> {
        self.proposals.propose(commands, who).await
    }

    /// Afterwards [`Self::with_state`] shows every write that was acknowledged before the call.
    ///
    /// # Errors
    /// This member does not lead, or a quorum did not confirm that it does.
    pub async fn linearizable(&self) -> Result<(), Fault> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::new("NOT_LEADER", format!("leadership is not confirmed: {e}"))),
        }
    }

    pub fn with_state<R>(&self, read: impl FnOnce(&ClusterState) -> R) -> R {
        self.machine.with_state(read)
    }

    /// A copy of the state, and the index it is complete up to.
    pub fn capture(&self) -> Captured {
        self.machine.capture()
    }

    /// What the agents may have to be told of.
    pub fn watch_decided(&self) -> watch::Receiver<Decided> {
        self.machine.watch_decided()
    }

    /// Index of the latest applied entry.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.machine.watch_applied()
    }

    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Returns once this member does not lead, or no longer with a quorum behind it. Cancel-safe.
    pub async fn deposed(&self) {
        drop(self.watch_leadership().wait_for(|l| !l.is_leader).await);
    }

    pub fn members(&self) -> BTreeMap<u64, MemberInfo> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let replication = metrics.replication.as_ref();
        let heard = metrics.heartbeat.as_ref();
        let nodes = membership.nodes().map(|(id, address)| {
            let matched = replication.and_then(|r| r.get(id)).and_then(|l| l.as_ref()).map(|l| l.index);
            let reachable = heard.and_then(|h| h.get(id)).map(|at| {
                at.as_ref()
                    .is_some_and(|at| TokioInstant::now() - **at < Duration::from_millis(3 * ELECTION_MAX_MS))
            });
            let info =
                MemberInfo { address: address.clone(), voter: voters.contains(id), matched, reachable };
            (*id, info)
        });
        nodes.collect()
    }

    /// Writes a snapshot of what is applied now, whatever the policy says; returns when it is on the disk.
    ///
    /// # Errors
    /// `INTERNAL` when the member is shutting down.
    pub async fn snapshot(&self) -> Result<(), Fault> {
        let internal = |e: &dyn std::fmt::Display| Fault::new("INTERNAL", format!("no snapshot: {e}"));
        let applied = self.applied_index();
        self.raft.trigger().snapshot().await.map_err(|e| internal(&e))?;
        let covers = |m: &openraft::RaftMetrics<TypeConfig>| m.snapshot.is_some_and(|id| id.index >= applied);
        self.raft.wait(None).metrics(covers, "a snapshot").await.map_err(|e| internal(&e))?;
        Ok(())
    }

    pub async fn shutdown(&self) {
        self.ended.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end cleanly");
        }
    }
}

/// A store belongs to one member id for ever.
fn claim(disk: &dyn Disk, path: &Path, id: u64) -> Result<(), Fault> {
    let unreadable = |e| disk::corrupt(path, e);
    match disk.scan(b"member").map_err(unreadable)?.into_iter().next() {
        None => {
            disk.write(vec![Change::Put(b"member".to_vec(), id.to_be_bytes().to_vec())]).map_err(unreadable)
        }
        Some((_, owner)) if owner == id.to_be_bytes() => Ok(()),
        Some(_) => Err(Fault::new(
            "MEMBER_ID_MISMATCH",
            format!("the store in {} is another member's", path.display()),
        )
        .hint("start it with the id it was made with; ids are never used again")),
    }
}

/// Turns the library's metrics into [`Leadership`]. The clock matters too: a leader that hears nobody changes no metric.
async fn watch_leadership(
    raft: Raft<TypeConfig, StateMachine>,
    out: watch::Sender<Leadership>,
    election_timeout: Duration,
) {
    let mut metrics = raft.metrics();
    loop {
        let now = {
            let m = metrics.borrow_and_update();
            let alone = m.membership_config.membership().voter_ids().count() == 1;
            let confirmed =
                m.last_quorum_acked.as_ref().is_some_and(|at| TokioInstant::now() - **at < election_timeout);
            let leading = m.state == ServerState::Leader;
            let is_leader = leading && m.running_state.is_ok() && (alone || confirmed);
            // One that nobody confirms any more has a successor or waits for one; it does not know which.
            let leader = m.current_leader.filter(|_| is_leader || !leading);
            Leadership { term: m.current_term, leader, is_leader }
        };
        let leads = now.is_leader;
        out.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
        let pause = if leads { election_timeout / 4 } else { election_timeout * 4 };
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { break },
            () = out.closed() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
