//! Entries on one stream to each peer: the next ones are sent while earlier ones are on their way to its disk.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use kctl_shared::proto::raft as pb;
use kctl_shared::proto::raft::raft_service_client::RaftServiceClient;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::service::{RaftRpc, open};
use super::types::{FORMAT, TypeConfig, decode, encode};

const KIND: &str = "append";

/// What became of one request.
pub(super) type Appended = StreamAppendResult<TypeConfig>;
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<pb::Envelope, Status>> + Send>>;

fn envelope(payload: Vec<u8>, epoch: u64) -> pb::Envelope {
    pb::Envelope { kind: KIND.into(), version: FORMAT.into(), payload, epoch }
}

/// The sending end. A peer that vanished is found by the connection's keep-alive; it ends the answers with an error.
pub(super) async fn stream(
    mut client: RaftServiceClient<Channel>,
    epoch: u64,
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
    patience: Duration,
) -> Result<BoxStream<'static, Result<Appended, Status>>, Status> {
    // What cannot be encoded ends the stream: the rest must not be sent without it.
    let sent = requests
        .map(move |request| encode(&request).map(|payload| envelope(payload, epoch)))
        .take_while(|sent| std::future::ready(sent.is_ok()))
        .filter_map(|sent| std::future::ready(sent.ok()));
    let opened = tokio::time::timeout(patience, client.append(sent)).await;
    let opened = opened.map_err(|_| Status::deadline_exceeded("no stream for entries in time"))?;
    let answers = opened?.into_inner().map(|answer| {
        decode(&answer?.payload).map_err(|e| Status::internal(format!("an unreadable answer: {e}")))
    });
    Ok(answers.boxed())
}

/// The receiving end.
pub(super) fn answers(rpc: RaftRpc, incoming: Streaming<pb::Envelope>) -> Answers {
    // Why no further request is taken.
    let refused: Arc<Mutex<Option<Status>>> = Arc::default();
    let raft = rpc.raft.clone();
    let requests = stream::unfold((rpc, incoming, refused.clone()), |(rpc, mut incoming, refused)| async {
        // Both are cancel-safe; nothing is asked of the stream after the first.
        let message = tokio::select! {
            () = rpc.ended.cancelled() => {
                // Told as an error, so that the leader does not open the next one at once.
                let ended = Status::unavailable("this member ends");
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                return None;
            }
            message = incoming.message() => message.ok().flatten()?,
        };
        let request = rpc.same_cluster(&message).and_then(|()| open::<AppendEntriesRequest<_>>(&message));
        match request {
            Ok(request) => Some((request, (rpc, incoming, refused))),
            Err(status) => {
                *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                None
            }
        }
    });
    let answers = raft.stream_append(requests).map(|appended| {
        let appended = appended.map_err(|fatal| Status::unavailable(fatal.to_string()))?;
        let payload = encode(&appended).map_err(|e| Status::internal(e.to_string()))?;
        Ok(envelope(payload, 0))
    });
    let last = stream::once(async move { refused.lock().unwrap_or_else(PoisonError::into_inner).take() });
    Box::pin(answers.chain(last.filter_map(|why| std::future::ready(why.map(Err)))))
}
