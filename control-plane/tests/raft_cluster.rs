//! Consensus over real TCP and real stores: what is acknowledged stays, whoever goes away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "raft_cluster/members.rs"]
mod members;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kctl_control_plane::raft::{Consensus, ConsensusConfig, MemberAddress, Sled};
use kctl_control_plane::state::Command;
use kctl_control_plane::state::model::NodeFacts;
use kctl_shared::name::{GroupName, NodeId};
use kctl_shared::network::{Tcp, dialer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

struct Member {
    consensus: Consensus,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

struct Cluster {
    dir: TempDir,
    members: BTreeMap<u64, MemberAddress>,
    running: BTreeMap<u64, Member>,
    snapshot_every: u64,
}

impl Cluster {
    async fn start(size: u64, snapshot_every: u64) -> Self {
        let mut members = BTreeMap::new();
        let mut listeners = Vec::new();
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let raft = format!("http://{}", listener.local_addr().unwrap());
            members.insert(id, MemberAddress { raft, ..MemberAddress::default() });
            listeners.push((id, listener));
        }
        let mut cluster =
            Self { dir: TempDir::new().unwrap(), members, running: BTreeMap::new(), snapshot_every };
        for (id, listener) in listeners {
            cluster.run(id, listener).await;
        }
        cluster
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    async fn run(&mut self, id: u64, listener: TcpListener) {
        self.run_as(id, listener, self.members.clone()).await;
    }

    /// Runs a member with these founders; with none it waits to be let in.
    async fn run_as(&mut self, id: u64, listener: TcpListener, founders: BTreeMap<u64, MemberAddress>) {
        let mut config = ConsensusConfig::new(id, self.path(id), founders);
        config.snapshot_every = self.snapshot_every;
        // A member that was stopped a moment ago lets go of its store when its last task has ended.
        let (consensus, service) = until("the store to be released", || async {
            match Consensus::open(config.clone(), &Sled, dialer(Arc::new(Tcp), false)).await {
                Err(fault) if fault.code == "STORE_IN_USE" => None,
                opened => Some(opened.unwrap()),
            }
        })
        .await;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let served = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpListenerStream::new(listener);
            server
                .serve_with_incoming_shutdown(incoming, async move { token.cancelled().await })
                .await
                .unwrap();
        });
        self.running.insert(id, Member { consensus, stop, served });
    }

    async fn restart(&mut self, id: u64) {
        let address = self.members[&id].raft.strip_prefix("http://").unwrap().to_owned();
        let listener = until("the port to be free", || {
            let address = address.clone();
            async move { TcpListener::bind(address).await.ok() }
        })
        .await;
        self.run(id, listener).await;
    }

    async fn stop(&mut self, id: u64) {
        let member = self.running.remove(&id).unwrap();
        member.consensus.shutdown().await;
        member.stop.cancel();
        member.served.abort();
        drop(member.consensus);
    }

    async fn leader(&self) -> u64 {
        until("a leader", || async {
            self.running
                .iter()
                .find(|(_, m)| m.consensus.watch_leadership().borrow().is_leader)
                .map(|(id, _)| *id)
        })
        .await
    }

    /// Proposes through whoever leads until it is acknowledged.
    async fn write(&self, n: u64) {
        until("a write to be acknowledged", || async {
            let leader = self.leader().await;
            let outcome = self.running[&leader].consensus.propose(vec![register(n)]).await;
            matches!(outcome.as_deref(), Ok([Ok(_)])).then_some(())
        })
        .await;
    }
}

fn node(n: u64) -> NodeId {
    NodeId::parse(&format!("n{n}")).unwrap()
}

fn register(n: u64) -> Command {
    let group = GroupName::parse("default").unwrap();
    Command::RegisterNode { node: node(n), group, nonce: "x".into(), boot: 1, facts: NodeFacts::default() }
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(consensus: &Consensus) -> usize {
    consensus.with_state(|s| s.nodes.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_the_leader_and_everyone_together() {
    let mut cluster = Cluster::start(3, 1_000).await;
    for n in 0..20 {
        cluster.write(n).await;
    }
    let leader = cluster.leader().await;
    cluster.stop(leader).await;
    for n in 20..30 {
        cluster.write(n).await;
    }
    let others: Vec<_> = cluster.running.keys().copied().collect();
    for id in others {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    let leader = cluster.leader().await;
    let consensus = cluster.running[&leader].consensus.clone();
    until("a confirmed read", || async { consensus.linearizable().await.ok() }).await;
    assert_eq!(count(&consensus), 30);
    for member in cluster.running.values() {
        until("every member to catch up", || async { (count(&member.consensus) == 30).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, 50).await;
    cluster.write(0).await;
    let leader = cluster.leader().await;
    let away = (1..=3).find(|id| *id != leader).unwrap();
    cluster.stop(away).await;
    // More than the log keeps behind a snapshot.
    let batches = 1_500_u64;
    for n in 0..batches {
        cluster.write(n % 7).await;
    }
    cluster.restart(away).await;
    let behind = cluster.running[&away].consensus.clone();
    until("the member to catch up", || async { (count(&behind) == 7).then_some(()) }).await;
    until("the log's end to be applied", || async { (behind.applied_index() > batches).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged_or_read() {
    let mut cluster = Cluster::start(3, 1_000).await;
    cluster.write(0).await;
    let leader = cluster.leader().await;
    let others: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    for id in others {
        cluster.stop(id).await;
    }
    let consensus = cluster.running[&leader].consensus.clone();
    until("the leader to notice", || async {
        (!consensus.watch_leadership().borrow().is_leader).then_some(())
    })
    .await;
    let read = tokio::time::timeout(Duration::from_millis(500), consensus.linearizable()).await;
    assert!(!matches!(read, Ok(Ok(()))), "read without a quorum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_each_get_their_own_outcome() {
    let cluster = Cluster::start(1, 1_000).await;
    let leader = cluster.leader().await;
    let consensus = cluster.running[&leader].consensus.clone();
    let calls = (0..200).map(|n| {
        let consensus = consensus.clone();
        async move { (n, consensus.propose(vec![register(n), register(n)]).await.unwrap()) }
    });
    for (n, outcomes) in futures_util::future::join_all(calls).await {
        let text = format!("{outcomes:?}");
        assert!(
            outcomes.len() == 2 && outcomes.iter().all(Result::is_ok) && text.contains(&format!("\"n{n}\"")),
            "{text}"
        );
    }
    assert_eq!(count(&consensus), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_never_opened() {
    for (what, damage) in [("truncated", true), ("flipped", false)] {
        let mut cluster = Cluster::start(1, 10).await;
        for n in 0..60 {
            cluster.write(n).await;
        }
        cluster.stop(1).await;
        for store in ["raft-log", "state"] {
            let path = cluster.path(1).join(store).join("db");
            let bytes = until("the store to be released", || async { std::fs::read(&path).ok() }).await;
            let used = bytes.iter().rposition(|b| *b != 0).unwrap();
            let damaged = if damage {
                bytes[..used / 2].to_vec()
            } else {
                let mut copy = bytes.clone();
                copy[used / 4..used / 2].iter_mut().for_each(|b| *b ^= 0x5a);
                copy
            };
            let copy = TempDir::new().unwrap();
            for part in ["raft-log", "state"] {
                std::fs::create_dir(copy.path().join(part)).unwrap();
                for file in std::fs::read_dir(cluster.path(1).join(part)).unwrap().flatten() {
                    if file.file_type().unwrap().is_file() {
                        std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
                    }
                }
            }
            std::fs::write(copy.path().join(store).join("db"), damaged).unwrap();
            let config = ConsensusConfig::new(1, copy.path().to_owned(), cluster.members.clone());
            match Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false)).await {
                Err(fault) => assert_eq!(fault.code, "STORE_CORRUPT", "{what} {store}: {fault}"),
                // sled may have dropped a damaged tail that held nothing any more; what it kept must be whole.
                Ok((consensus, _)) => {
                    assert!(count(&consensus) <= 60, "{what} {store}");
                    consensus.shutdown().await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_belongs_to_one_member_and_one_process() {
    let mut cluster = Cluster::start(1, 1_000).await;
    cluster.write(0).await;
    let config = ConsensusConfig::new(1, cluster.path(1), cluster.members.clone());
    assert_eq!(
        Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false)).await.unwrap_err().code,
        "STORE_IN_USE"
    );
    cluster.stop(1).await;
    let refused = until("the store to be released", || async {
        let config = ConsensusConfig::new(2, cluster.path(1), cluster.members.clone());
        Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false))
            .await
            .err()
            .filter(|f| f.code != "STORE_IN_USE")
    })
    .await;
    assert_eq!(refused.code, "MEMBER_ID_MISMATCH");
}
