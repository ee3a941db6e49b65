//! From member to member: the library's messages as opaque, versioned bytes over gRPC.

use std::future::Future;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kctl_shared::network::{Dialer, Patience};
use kctl_shared::proto::raft as pb;
use kctl_shared::proto::raft::raft_service_client::RaftServiceClient;
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Code;
use tonic::transport::Channel;

use super::append::{self, Appended};
use super::machine::StateMachine;
use super::types::{FORMAT, MemberAddress, Snapshot, TypeConfig, Vote, decode, encode};

/// Bytes of one piece of a snapshot on its way.
const PIECE: usize = 256 * 1024;
/// One message of entries; entries are small, see `max_payload_entries`.
pub(super) const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Between members: a connection through a healed partition is found dead and replaced within two seconds.
pub(crate) const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(1), keepalive: Duration::from_secs(1) };

/// After no stream could be opened to a peer, before the next one is tried.
const REST: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Network {
    pub dialer: Dialer,
    pub machine: StateMachine,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, _target: u64, node: &MemberAddress) -> Peer {
        let client = self.dialer.channel(&node.raft, PATIENCE).map(|c| {
            RaftServiceClient::new(c)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE)
        });
        Peer { calls_only: false, client: client.map_err(|f| f.to_string()), machine: self.machine.clone() }
    }
}

pub(super) struct Peer {
    /// The peer is of a version that takes entries one call at a time only.
    calls_only: bool,
    client: Result<RaftServiceClient<Channel>, String>,
    machine: StateMachine,
}

fn unreachable(what: impl ToString) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(what.to_string())))
}

impl Peer {
    fn client(&self) -> Result<RaftServiceClient<Channel>, RPCError<TypeConfig>> {
        self.client.clone().map_err(unreachable)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: &str,
        request: &Q,
        ttl: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let network = |e: std::io::Error| RPCError::Network(NetworkError::new(&e));
        let mut client = self.client()?;
        let payload = encode(request).map_err(network)?;
        let epoch = self.machine.epoch();
        let envelope = pb::Envelope { kind: kind.into(), version: FORMAT.into(), payload, epoch };
        match tokio::time::timeout(ttl, client.call(envelope)).await {
            Ok(Ok(answer)) => decode(&answer.into_inner().payload).map_err(network),
            Ok(Err(status)) => Err(unreachable(status)),
            Err(_) => Err(unreachable(format!("no answer to {kind} within {} ms", ttl.as_millis()))),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call("append", &rpc, option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<Appended, RPCError<TypeConfig>>>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.calls_only {
                return stream_append_sequential(self, input, option).await;
            }
            let (client, epoch) = (self.client()?, self.machine.epoch());
            match append::stream(client, epoch, input, option.hard_ttl()).await {
                Err(status) if status.code() == Code::Unimplemented => {
                    self.calls_only = true;
                    Err(unreachable(status))
                }
                Err(status) => {
                    // The library rests in the stream of requests, which nobody asks for any where there is no connection.
                    tokio::time::sleep(REST).await;
                    Err(unreachable(status))
                }
                Ok(answers) => Ok(answers.map(|answer| answer.map_err(unreachable)).boxed()),
            }
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call("vote", &rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call("pre-vote", &rpc, option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call("transfer", &rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let network = |e: std::io::Error| StreamingError::from(NetworkError::new(&e));
        let lost = |e: String| StreamingError::from(Unreachable::new(&AnyError::error(e)));
        let mut client = self.client.clone().map_err(lost)?;
        let head = encode(&(vote, snapshot.meta)).map_err(network)?;
        let epoch = self.machine.epoch();
        let piece = |kind: &str, payload: Vec<u8>| pb::Envelope {
            kind: kind.into(),
            version: FORMAT.into(),
            payload,
            epoch,
        };
        let mut pieces = vec![piece("head", head)];
        pieces.extend(snapshot.snapshot.chunks(PIECE).map(|c| piece("piece", c.to_vec())));
        let sent = tokio::time::timeout(option.hard_ttl(), client.snapshot(tokio_stream::iter(pieces)));
        // Dropping the call cancels the stream at the peer, which keeps nothing of a snapshot that is not whole.
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = sent => match sent {
                Ok(Ok(answer)) => decode(&answer.into_inner().payload).map_err(network),
                Ok(Err(status)) => Err(lost(status.to_string())),
                Err(_) => Err(lost("no answer to a snapshot in time".into())),
            },
        }
    }
}
