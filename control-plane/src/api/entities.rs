//! Whole entities from the agent that may delete them, and back to the one that re-creates them.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kctl_shared::bodies::{check_size, decode, encode};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::package::pieces;
use kctl_shared::proto::agent::save_entities_message::Part;
use kctl_shared::proto::agent::{self as pb};
use kctl_shared::spec::Grant;
use tonic::{Response, Status, Streaming};

use super::Api;
use crate::state::operation::{EntityWork, Operation};

pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<pb::EntityChunk, Status>> + Send>>;

/// What saved entities are about, so that those of one plugin are not taken for another's.
fn about(operation: &Operation) -> String {
    format!("{}/{}", operation.group, operation.plugin)
}

impl Api {
    /// The asking node is the one that works on entities for the operation, by the task that it has now.
    fn task(&self, work: Option<pb::EntityWork>, wanted: EntityWork) -> Result<Operation, Fault> {
        let work = work.unwrap_or_default();
        let grant = work.grant.map_or_else(Grant::default, |g| Grant { index: g.index, offset: g.offset });
        let operation = self.hub.consensus.with_state(|s| s.operation(&work.operation).cloned())?;
        let applies = |a: &crate::state::operation::Applier| a.node.as_str() == work.node && a.grant == grant;
        if operation.entity_work() == Some(wanted) && operation.applier.as_ref().is_some_and(applies) {
            return Ok(operation);
        }
        let message = format!("node {} has no such work on entities for {} now", work.node, work.operation);
        Err(Fault::new("STALE_GRANT", message))
    }

    pub(super) async fn take_entities(
        &self,
        mut stream: Streaming<pb::SaveEntitiesMessage>,
    ) -> Result<Response<pb::SaveEntitiesResponse>, Status> {
        self.as_leader().await?;
        let bad = |message: &str| self.fail(&Fault::new("BAD_MESSAGE", message));
        let header = match stream.message().await?.and_then(|m| m.part) {
            Some(Part::Header(header)) => header,
            _ => return Err(bad("saving begins with its header")),
        };
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        check_size(size).map_err(|f| self.fail(&f))?;
        let operation = self.task(header.work, EntityWork::Detach).map_err(|f| self.fail(&f))?;
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else { return Err(bad("saving has one header")) };
            if bytes.len() + chunk.len() > size {
                return Err(bad("more bytes than announced"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() != size {
            return Err(bad("fewer bytes than announced"));
        }
        decode(&bytes).map_err(|f| self.fail(&f))?;
        let digest = self.vault.keep(&about(&operation), &bytes).await.map_err(|f| self.fail(&f))?;
        Ok(Response::new(pb::SaveEntitiesResponse { digest: digest.to_string() }))
    }

    pub(super) async fn give_entities(&self, work: pb::EntityWork) -> Result<Response<Chunks>, Status> {
        self.as_leader().await?;
        let operation = self.task(Some(work), EntityWork::Attach).map_err(|f| self.fail(&f))?;
        let bytes = self.saved(&operation).await.map_err(|f| self.fail(&f))?;
        let chunks: Vec<_> = pieces(&bytes).map(|data| Ok(pb::EntityChunk { data: data.to_vec() })).collect();
        Ok(Response::new(tokio_stream::iter(chunks).boxed()))
    }

    /// All that the operation recorded, each as it was saved last.
    async fn saved(&self, operation: &Operation) -> Result<Bytes, Fault> {
        let mut by_id = std::collections::BTreeMap::new();
        for digest in &operation.saved {
            let digest: &Digest = digest;
            let plain = self.vault.open(&about(operation), digest).await?;
            let recorded = decode(&plain)?.into_iter().filter(|e| operation.entities.contains_key(&e.id));
            by_id.extend(recorded.map(|e| (e.id.clone(), e)));
        }
        encode(&by_id.into_values().collect::<Vec<_>>())
    }
}
