//! The receiving end of [`super::network`].

use kctl_shared::fault::Fault;
use kctl_shared::proto::raft::{self as pb, raft_service_server::RaftService};
use openraft::Raft;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::append::{self, Answers};
use super::machine::{Epoch, StateMachine};
use super::types::{FORMAT, Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};

/// A snapshot larger than this is not taken into memory.
const MAX_SNAPSHOT: usize = 512 * 1024 * 1024;

#[derive(Clone)]
pub struct RaftRpc {
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) epoch: Epoch,
    /// The member ends: a stream of entries would hold on to its stores until the leader has something to send.
    pub(super) ended: CancellationToken,
}

impl RaftRpc {
    /// Two clusters that share addresses, one of them restored from a backup of the other, must not mix.
    pub(super) fn same_cluster(&self, envelope: &pb::Envelope) -> Result<(), Status> {
        let (theirs, ours) = (envelope.epoch, self.epoch.now());
        if theirs == 0 || ours == 0 || theirs == ours {
            return Ok(());
        }
        let message = format!("the sender's cluster is of epoch {theirs}, this one of epoch {ours}");
        Err(Fault::new("CLUSTER_MISMATCH", message)
            .hint("stop the members of the cluster that was replaced")
            .to_status(None))
    }
}

impl std::fmt::Debug for RaftRpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RaftRpc")
    }
}

pub(super) fn open<T: DeserializeOwned>(envelope: &pb::Envelope) -> Result<T, Status> {
    decode(&envelope.payload).map_err(|e| Status::invalid_argument(format!("{}: {e}", envelope.kind)))
}

fn seal<T: Serialize>(kind: &str, answer: &T) -> Result<Response<pb::Envelope>, Status> {
    let payload = encode(answer).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(pb::Envelope { kind: kind.into(), version: FORMAT.into(), payload, epoch: 0 }))
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl RaftService for RaftRpc {
    async fn call(&self, r: Request<pb::Envelope>) -> Result<Response<pb::Envelope>, Status> {
        let r = r.into_inner();
        self.same_cluster(&r)?;
        match r.kind.as_str() {
            "append" => seal(&r.kind, &self.raft.append_entries(open(&r)?).await.map_err(failed)?),
            "vote" => seal(&r.kind, &self.raft.vote(open(&r)?).await.map_err(failed)?),
            "pre-vote" => seal(&r.kind, &self.raft.pre_vote(open(&r)?).await.map_err(failed)?),
            "transfer" => seal(&r.kind, &self.raft.handle_transfer_leader(open(&r)?).await.map_err(failed)?),
            other => Err(Status::unimplemented(format!("{other} is not known here"))),
        }
    }

    type AppendStream = Answers;

    async fn append(&self, r: Request<Streaming<pb::Envelope>>) -> Result<Response<Answers>, Status> {
        Ok(Response::new(append::answers(self.clone(), r.into_inner())))
    }

    async fn snapshot(&self, r: Request<Streaming<pb::Envelope>>) -> Result<Response<pb::Envelope>, Status> {
        let mut stream = r.into_inner();
        let head = stream.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        self.same_cluster(&head)?;
        let (vote, meta): (Vote, SnapshotMeta) = open(&head)?;
        let mut body = Vec::new();
        while let Some(piece) = stream.message().await? {
            if body.len() + piece.payload.len() > MAX_SNAPSHOT {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
            body.extend_from_slice(&piece.payload);
        }
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: body }).await;
        seal("snapshot", &installed.map_err(failed)?)
    }
}
