//! Artifacts of releases and sealed entities: a content-addressed store on every member, never in the log.
//!
//! An artifact counts as stored once the file and its directory are synced. An upload is on a majority of the voters
//! before its release is committed, and a member that lacks what the catalogue names fetches it from a peer.

mod lent;
mod peer;
pub(crate) mod sealed;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::network::Dialer;
use kctl_shared::proto::raft::peer_service_server::PeerServiceServer;
use kctl_shared::proto::raft::{HoldingsRequest, HoldingsResponse};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::membership::Holdings;
use crate::raft::{Consensus, MemberInfo};
use lent::Lent;
pub use lent::Loan;
pub use peer::PeerRpc;
use store::FileStore;
pub(crate) use store::{check, file_name};

/// How often a member looks for artifacts that the catalogue names and it lacks.
const REPAIR: Duration = Duration::from_secs(5);
/// How long sealed entities may be here before anything in the log names them; afterwards nothing ever will.
const UNNAMED: Duration = Duration::from_secs(3_600);
/// One copy to one peer.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<FileStore>,
    lent: Arc<Lent>,
    consensus: Consensus,
    dialer: Dialer,
}

impl Artifacts {
    /// # Errors
    /// `ARTIFACT_STORE` when the directory cannot be used.
    pub fn open(data_dir: &Path, consensus: Consensus, dialer: Dialer) -> Result<Self, Fault> {
        let store = Arc::new(FileStore::open(&data_dir.join("artifacts"))?);
        Ok(Self { store, lent: Arc::default(), consensus, dialer })
    }

    pub fn peer_service(&self) -> PeerServiceServer<PeerRpc> {
        PeerServiceServer::new(PeerRpc::new(self.store.clone(), self.consensus.clone()))
    }

    /// Stores it here, durably, after checking that the bytes are the artifact of `digest`.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH` and the package's codes, `ARTIFACT_STORE`.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), Fault> {
        store::put(self.store.clone(), *digest, bytes).await
    }

    /// # Errors
    /// `ARTIFACT_NOT_FOUND`, `ARTIFACT_STORE`.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, Fault> {
        store::get(self.store.clone(), *digest).await
    }

    /// A release's artifact for an agent or a person, fetched from a peer if it is not here.
    ///
    /// # Errors
    /// `ARTIFACT_NOT_FOUND`, also for saved entities, which go to nobody but the node that re-creates them;
    /// `ARTIFACT_STORE`.
    pub async fn lend(&self, digest: &Digest) -> Result<Loan, Fault> {
        let read = async {
            self.ensure(digest).await?;
            let bytes = self.get(digest).await?;
            if sealed::is_sealed(&bytes) {
                let fault = Fault::new("ARTIFACT_NOT_FOUND", format!("{digest} is no release"));
                return Err(fault.hint("kctl plugin list"));
            }
            Ok(bytes)
        };
        self.lent.lend(digest, read).await
    }

    fn peers(&self) -> Vec<(u64, MemberInfo)> {
        let me = self.consensus.id();
        self.consensus.members().into_iter().filter(|(id, _)| *id != me).collect()
    }

    /// What each of the other members has, as it says itself; those that do not answer are left out.
    pub fn ask_all(
        &self,
    ) -> impl Iterator<Item = impl Future<Output = Option<(u64, Holdings)>> + use<>> + use<> {
        self.asked(true).map(|asked| async move {
            let (id, answer) = asked.await?;
            let applied_index = answer.applied_index;
            Some((id, Holdings { applied_index, artifacts_missing: answer.artifacts_missing }))
        })
    }

    /// Whether other members say that this one was taken out of their cluster.
    pub fn ask_removed(&self) -> impl Iterator<Item = impl Future<Output = bool> + use<>> + use<> {
        let epoch = self.consensus.epoch();
        let same = move |answer: &HoldingsResponse| answer.removed && answer.epoch == epoch;
        self.asked(false)
            .map(move |asked| async move { asked.await.is_some_and(|(_, answer)| same(&answer)) })
    }

    fn asked(
        &self,
        artifacts: bool,
    ) -> impl Iterator<Item = impl Future<Output = Option<(u64, HoldingsResponse)>> + use<>> + use<> {
        let (me, dialer) = (self.consensus.id(), self.dialer.clone());
        self.peers().into_iter().map(move |(id, p)| {
            let dialer = dialer.clone();
            async move {
                let question = HoldingsRequest { member: me, artifacts };
                let asked = peer::holdings(&p.address.raft, &dialer, question);
                let answer = tokio::time::timeout(ASK_TIMEOUT, asked).await.ok()?;
                Some((id, answer.ok()?))
            }
        })
    }

    /// Artifacts that the state names and that are not here.
    pub fn missing(&self) -> u32 {
        self.store.missing(&self.consensus)
    }

    /// Copies what is stored here to the other members and returns as soon as a majority of the voters, this one
    /// included, holds it; the number of copies then. The rest fetch it by themselves.
    ///
    /// # Errors
    /// `NO_QUORUM` when a majority did not confirm.
    pub async fn replicate(&self, digest: &Digest) -> Result<usize, Fault> {
        let bytes = self.get(digest).await?;
        let peers = self.peers();
        let voters = 1 + peers.iter().filter(|(_, p)| p.voter).count();
        let majority = voters / 2 + 1;
        let mut copies = 1;
        let mut sending: FuturesUnordered<_> = peers
            .into_iter()
            .filter(|(_, p)| p.voter)
            .map(|(id, p)| {
                let (bytes, dialer, digest) = (bytes.clone(), self.dialer.clone(), *digest);
                async move {
                    let sent = tokio::time::timeout(
                        COPY_TIMEOUT,
                        peer::send(&p.address.raft, &dialer, digest, bytes),
                    );
                    let sent =
                        sent.await.unwrap_or_else(|_| Err(Fault::new("UNREACHABLE", "no answer in time")));
                    sent.map_err(|fault| tracing::warn!(member = id, %fault, "artifact not copied"))
                }
            })
            .collect();
        while copies < majority {
            match sending.next().await {
                Some(Ok(())) => copies += 1,
                Some(Err(())) => {}
                None => {
                    return Err(Fault::new(
                        "NO_QUORUM",
                        format!("{copies} of {voters} members hold the artifact"),
                    )
                    .hint("kctl cluster status"));
                }
            }
        }
        Ok(copies)
    }

    /// Fetches it from a peer if it is not here.
    ///
    /// # Errors
    /// `ARTIFACT_NOT_FOUND` when no member that can be reached has it.
    pub async fn ensure(&self, digest: &Digest) -> Result<(), Fault> {
        if self.store.has(digest) {
            return Ok(());
        }
        for (id, p) in self.peers() {
            let fetched =
                tokio::time::timeout(COPY_TIMEOUT, peer::fetch(&p.address.raft, &self.dialer, digest)).await;
            match fetched {
                Ok(Ok(bytes)) => match self.put(digest, bytes).await {
                    Ok(()) => return Ok(()),
                    Err(fault) => tracing::warn!(member = id, %digest, %fault, "a peer gave a bad artifact"),
                },
                Ok(Err(fault)) => tracing::debug!(member = id, %digest, %fault, "not there"),
                Err(_) => tracing::debug!(member = id, %digest, "no answer in time"),
            }
        }
        Err(Fault::new("ARTIFACT_NOT_FOUND", format!("no member that can be reached has {digest}"))
            .hint("kctl cluster status"))
    }

    /// Keeps this member's copies complete until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let begun = Instant::now();
        loop {
            let wanted = self.consensus.with_state(|s| s.artifacts());
            // A member that has just started has not applied again what names them.
            if begun.elapsed() > UNNAMED
                && let Err(fault) = store::forget_sealed(self.store.clone(), wanted.clone(), UNNAMED).await
            {
                tracing::warn!(%fault, "saved configurations that nobody wants are still here");
            }
            for digest in wanted.iter().filter(|d| !self.store.has(d)) {
                if let Err(fault) = self.ensure(digest).await {
                    tracing::warn!(%fault, "artifact is still missing here");
                }
            }
            // Both arms may be dropped at any time: nothing is half done.
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(REPAIR) => {}
            }
        }
    }
}
