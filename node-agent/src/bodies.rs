//! Where whole plugin entities go before they may be deleted, and come from when they are to be there again.

use async_trait::async_trait;
use bytes::Bytes;
use kctl_shared::bodies::{check_size, decode, encode};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::NodeId;
use kctl_shared::network::Dialer;
use kctl_shared::package::pieces;
use kctl_shared::proto::agent::agent_service_client::AgentServiceClient;
use kctl_shared::proto::agent::save_entities_message::Part;
use kctl_shared::proto::agent::{EntityWork, SaveEntitiesHeader, SaveEntitiesMessage};
use kctl_shared::spec::{Entity, EntityTask, Failure};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::session::{Home, PATIENCE};

#[async_trait]
pub trait Bodies: Send + Sync {
    /// Returns once they outlive any minority of the members.
    async fn save(&self, task: &EntityTask, entities: &[Entity]) -> Result<Digest, Failure>;

    /// Those that the task re-creates.
    async fn fetch(&self, task: &EntityTask) -> Result<Vec<Entity>, Failure>;
}

/// The control plane, by the member of the present session.
#[derive(Clone, Debug)]
pub struct Leader {
    pub node: NodeId,
    pub current: watch::Receiver<Home>,
    pub dialer: Dialer,
}

impl Leader {
    fn work(&self, task: &EntityTask) -> EntityWork {
        EntityWork {
            node: self.node.to_string(),
            operation: task.operation.clone(),
            plugin: task.plugin.to_string(),
            grant: Some(task.grant.into()),
        }
    }

    async fn client(&self) -> Result<AgentServiceClient<Channel>, Fault> {
        let url = self.current.borrow().grpc.clone();
        Ok(AgentServiceClient::new(self.dialer.connect(&url, PATIENCE).await?))
    }

    async fn hand_over(&self, task: &EntityTask, entities: &[Entity]) -> Result<Digest, Fault> {
        let bytes: Bytes = encode(entities)?;
        let header = SaveEntitiesHeader { work: Some(self.work(task)), size: bytes.len() as u64 };
        let chunks = pieces(&bytes).map(|chunk| Part::Chunk(chunk.to_vec()));
        let parts: Vec<_> = std::iter::once(Part::Header(header)).chain(chunks).collect();
        let messages = parts.into_iter().map(|part| SaveEntitiesMessage { part: Some(part) });
        let sent = self.client().await?.save_entities(tokio_stream::iter(messages)).await;
        let digest = sent.map_err(|status| Fault::from_status(&status).0)?.into_inner().digest;
        digest.parse().map_err(|e| Fault::new("BAD_MESSAGE", format!("digest: {e}")))
    }

    async fn take_back(&self, task: &EntityTask) -> Result<Vec<Entity>, Fault> {
        let fault = |status: tonic::Status| Fault::from_status(&status).0;
        let mut client = self.client().await?;
        let mut stream = client.fetch_entities(self.work(task)).await.map_err(fault)?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await.map_err(fault)? {
            check_size(bytes.len() + chunk.data.len())?;
            bytes.extend_from_slice(&chunk.data);
        }
        decode(&bytes)
    }
}

#[async_trait]
impl Bodies for Leader {
    async fn save(&self, task: &EntityTask, entities: &[Entity]) -> Result<Digest, Failure> {
        self.hand_over(task, entities).await.map_err(|f| Failure::new(&f.code, f.message))
    }

    async fn fetch(&self, task: &EntityTask) -> Result<Vec<Entity>, Failure> {
        self.take_back(task).await.map_err(|f| Failure::new(&f.code, f.message))
    }
}
