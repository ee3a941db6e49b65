//! Members of a control plane in this process: real consensus over real TCP and real stores, and nothing around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kctl_control_plane::raft::{Consensus, ConsensusConfig, MemberAddress, Sled};
use kctl_shared::fault::Fault;
use kctl_shared::network::{Tcp, dialer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct Member {
    consensus: Consensus,
    stop: CancellationToken,
}

#[derive(Debug)]
pub struct Members {
    dir: PathBuf,
    addresses: BTreeMap<u64, MemberAddress>,
    running: BTreeMap<u64, Member>,
    /// Entries from one snapshot to the next.
    snapshot_every: u64,
}

impl Members {
    /// Members 1 to `addresses.len()` that are not started yet, with their stores below `dir`.
    pub fn at(dir: &Path, addresses: &[String], snapshot_every: u64) -> Self {
        let address =
            |url: &String| MemberAddress { raft: format!("http://{url}"), ..MemberAddress::default() };
        let addresses = (1..).zip(addresses.iter().map(address)).collect();
        Self { dir: dir.to_owned(), addresses, running: BTreeMap::new(), snapshot_every }
    }

    /// Addresses on loopback that were free a moment ago.
    pub fn free_addresses(count: usize) -> Vec<String> {
        let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        held.iter().map(|l| l.local_addr().unwrap().to_string()).collect()
    }

    /// # Errors
    /// What the store says.
    pub async fn start_all(&mut self) -> Result<(), Fault> {
        for id in self.addresses.clone().into_keys() {
            self.start(id).await?;
        }
        Ok(())
    }

    /// # Errors
    /// What the store says.
    pub async fn start(&mut self, id: u64) -> Result<(), Fault> {
        let dir = self.dir.join(id.to_string());
        let mut config = ConsensusConfig::new(id, dir, self.addresses.clone());
        config.snapshot_every = self.snapshot_every;
        // A member that was stopped a moment ago lets go of its store when its last task has ended.
        let (consensus, service) = loop {
            match Consensus::open(config.clone(), &Sled, dialer(Arc::new(Tcp), false)).await {
                Err(fault) if fault.code == "STORE_IN_USE" => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => break opened?,
            }
        };
        let address = self.addresses[&id].raft.trim_start_matches("http://").to_owned();
        let listener =
            until("the port to be free", || async { TcpListener::bind(&address).await.ok() }).await;
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpListenerStream::new(listener);
            let ended = token.cancelled_owned();
            // Connections of a member that stopped end at once, as those of a process that died.
            tokio::select! {
                () = ended => {}
                served = server.serve_with_incoming(incoming) => served.unwrap(),
            }
        });
        self.running.insert(id, Member { consensus, stop });
        Ok(())
    }

    /// Lets go of a member as if its process had ended.
    pub async fn stop(&mut self, id: u64) {
        let Some(member) = self.running.remove(&id) else { return };
        member.stop.cancel();
        member.consensus.shutdown().await;
    }

    pub fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    pub fn get(&self, id: u64) -> Option<&Consensus> {
        self.running.get(&id).map(|m| &m.consensus)
    }

    /// The member that leads now, if one does.
    pub fn leading(&self) -> Option<(u64, Consensus)> {
        let leads = |m: &Member| m.consensus.watch_leadership().borrow().is_leader;
        self.running.iter().find(|(_, m)| leads(m)).map(|(id, m)| (*id, m.consensus.clone()))
    }

    pub async fn leader(&self) -> Consensus {
        until("a leader", || async { self.leading() }).await.1
    }
}

/// Polls `probe` until it gives a value.
///
/// # Panics
/// After 30 s, naming `what` was waited for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
