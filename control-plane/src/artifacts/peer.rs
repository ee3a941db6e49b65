//! Artifacts from member to member.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::network::Dialer;
use kctl_shared::package::{Limits, pieces};
use kctl_shared::proto::raft::peer_service_client::PeerServiceClient;
use kctl_shared::proto::raft::{self as pb, peer_service_server::PeerService};
use tonic::{Request, Response, Status, Streaming};

use super::store::{self, FileStore};
use crate::raft::{Consensus, PATIENCE};
use crate::state::members::Standing;

fn limit() -> usize {
    usize::try_from(Limits::default().max_artifact()).unwrap_or(usize::MAX)
}

pub(super) async fn send(url: &str, dialer: &Dialer, digest: Digest, bytes: Bytes) -> Result<(), Fault> {
    let mut client = PeerServiceClient::new(dialer.channel(url, PATIENCE)?);
    let size = bytes.len() as u64;
    let part = move |data: Bytes| pb::ArtifactPart { digest: digest.to_string(), size, data: data.to_vec() };
    let parts: Vec<_> = pieces(&bytes).map(part).collect();
    let answer =
        client.store_artifact(tokio_stream::iter(parts)).await.map_err(|s| Fault::from_status(&s).0)?;
    if answer.into_inner().present {
        Ok(())
    } else {
        Err(Fault::new("ARTIFACT_STORE", "the peer did not keep it"))
    }
}

pub(super) async fn fetch(url: &str, dialer: &Dialer, digest: &Digest) -> Result<Bytes, Fault> {
    let mut client = PeerServiceClient::new(dialer.channel(url, PATIENCE)?);
    let request = pb::FetchArtifactRequest { digest: digest.to_string() };
    let stream = client.fetch_artifact(request).await.map_err(|s| Fault::from_status(&s).0)?;
    let mut stream = stream.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await.map_err(|s| Fault::from_status(&s).0)? {
        if bytes.len() + chunk.data.len() > limit() {
            return Err(Fault::new("ARCHIVE_TOO_LARGE", "the peer sends more than an artifact may hold"));
        }
        bytes.extend_from_slice(&chunk.data);
    }
    Ok(bytes.into())
}

pub(super) async fn holdings(
    url: &str,
    dialer: &Dialer,
    asked: pb::HoldingsRequest,
) -> Result<pb::HoldingsResponse, Fault> {
    let mut client = PeerServiceClient::new(dialer.channel(url, PATIENCE)?);
    let answer = client.holdings(asked).await;
    answer.map(Response::into_inner).map_err(|s| Fault::from_status(&s).0)
}

#[derive(Clone, Debug)]
pub struct PeerRpc {
    store: Arc<FileStore>,
    consensus: Consensus,
}

impl PeerRpc {
    pub(super) fn new(store: Arc<FileStore>, consensus: Consensus) -> Self {
        Self { store, consensus }
    }
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest.parse().map_err(|e| Fault::new("INVALID_DIGEST", format!("{e}")).to_status(None))
}

#[tonic::async_trait]
impl PeerService for PeerRpc {
    async fn store_artifact(
        &self,
        r: Request<Streaming<pb::ArtifactPart>>,
    ) -> Result<Response<pb::StoreArtifactResponse>, Status> {
        let mut stream = r.into_inner();
        let mut digest = None;
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            if bytes.len() + part.data.len() > limit() {
                return Err(Status::resource_exhausted("more than an artifact may hold"));
            }
            digest = Some(parse(&part.digest)?);
            bytes.extend_from_slice(&part.data);
        }
        let digest = digest.ok_or_else(|| Status::invalid_argument("an empty upload"))?;
        store::put(self.store.clone(), digest, bytes.into()).await.map_err(|f| f.to_status(None))?;
        Ok(Response::new(pb::StoreArtifactResponse { present: true }))
    }

    type FetchArtifactStream = Pin<Box<dyn Stream<Item = Result<pb::ArtifactChunk, Status>> + Send>>;

    async fn fetch_artifact(
        &self,
        r: Request<pb::FetchArtifactRequest>,
    ) -> Result<Response<Self::FetchArtifactStream>, Status> {
        let digest = parse(&r.into_inner().digest)?;
        let bytes = store::get(self.store.clone(), digest).await.map_err(|f| f.to_status(None))?;
        let chunks: Vec<_> =
            pieces(&bytes).map(|data| Ok(pb::ArtifactChunk { data: data.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn has_artifact(
        &self,
        r: Request<pb::FetchArtifactRequest>,
    ) -> Result<Response<pb::StoreArtifactResponse>, Status> {
        let digest = parse(&r.into_inner().digest)?;
        Ok(Response::new(pb::StoreArtifactResponse { present: self.store.has(&digest) }))
    }

    async fn holdings(
        &self,
        r: Request<pb::HoldingsRequest>,
    ) -> Result<Response<pb::HoldingsResponse>, Status> {
        let pb::HoldingsRequest { member: asks, artifacts } = r.into_inner();
        let removed = |m: &crate::state::members::Member| m.standing == Standing::Removed;
        Ok(Response::new(pb::HoldingsResponse {
            // Read first: what is missing may belong to a later index, never to an earlier one.
            applied_index: self.consensus.applied_index(),
            artifacts_missing: if artifacts { self.store.missing(&self.consensus) } else { 0 },
            removed: self.consensus.with_state(|s| s.members.get(&asks).is_some_and(removed)),
            epoch: self.consensus.epoch(),
        }))
    }
}
