//! Plugin entities that were taken out of Kong, whole: sealed, on a majority of members, named by what operations record.

use bytes::Bytes;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;

use crate::artifacts::{Artifacts, sealed};
use crate::raft::Consensus;
use crate::state::{Command, SealingKey};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    /// The member's own; else the cluster's.
    key: Option<SealingKey>,
    artifacts: Artifacts,
    consensus: Consensus,
}

impl Vault {
    pub fn new(key: Option<SealingKey>, artifacts: Artifacts, consensus: Consensus) -> Self {
        Self { key, artifacts, consensus }
    }

    /// Returns once a majority of members holds it; `about` is needed to open it again.
    ///
    /// # Errors
    /// `NO_QUORUM`, `ARTIFACT_STORE`.
    pub async fn keep(&self, about: &str, plain: &[u8]) -> Result<Digest, Fault> {
        let bytes = Bytes::from(sealed::seal(&self.key().await?, about, plain)?);
        let digest = Digest::of(&bytes);
        self.artifacts.put(&digest, bytes).await?;
        self.artifacts.replicate(&digest).await?;
        Ok(digest)
    }

    /// # Errors
    /// `ARTIFACT_NOT_FOUND`, `SEALING_KEY_WRONG`, `ARTIFACT_STORE`.
    pub async fn open(&self, about: &str, digest: &Digest) -> Result<Vec<u8>, Fault> {
        self.artifacts.ensure(digest).await?;
        let bytes = self.artifacts.get(digest).await?;
        sealed::open(&self.key().await?, about, &bytes)
    }

    async fn key(&self) -> Result<SealingKey, Fault> {
        if let Some(key) = &self.key {
            return Ok(key.clone());
        }
        let minted = || self.consensus.with_state(|s| s.sealing_key.clone());
        if minted().is_none() {
            let command = Command::MintSealingKey { key: SealingKey(rand::random()) };
            // Somebody else's was first when it is refused.
            let proposed = self.consensus.propose(vec![command]).await;
            proposed.map_err(|e| Fault::new("NO_QUORUM", e.to_string()).hint("kctl cluster status"))?;
        }
        minted()
            .ok_or_else(|| Fault::new("NO_QUORUM", "the cluster has no key yet").hint("kctl cluster status"))
    }
}
