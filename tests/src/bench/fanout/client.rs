//! What a person asks of the leader.

use std::time::Duration;

use bytes::Bytes;
use kctl_shared::package::Package;
use kctl_shared::proto::v1::artifact_service_client::ArtifactServiceClient;
use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{GetOperationRequest, InstallRequest, RolloutPolicy, Target};
use kctl_shared::upload::messages;
use tonic::transport::{Channel, Endpoint};

/// The view of an operation names every node in every step.
const MAX_MESSAGE: usize = 64 << 20;

#[derive(Debug)]
pub struct Client(Channel);

impl Client {
    pub async fn connect(url: &str) -> Self {
        Self(Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap())
    }

    pub async fn upload(&self, package: &Package) {
        let bytes = Bytes::from(package.to_artifact());
        let sent = tokio_stream::iter(messages(package, &bytes));
        ArtifactServiceClient::new(self.0.clone()).upload(sent).await.unwrap();
    }

    /// Installs on all nodes, all of them at once; returns the operation.
    pub async fn install(&mut self, package: &Package) -> String {
        let all = || "100%".to_owned();
        let request = InstallRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            plugin: package.plugin.to_string(),
            digest: package.digest().to_string(),
            version: package.version.clone(),
            group: "default".into(),
            target: Some(Target { all_nodes: true, nodes: Vec::new() }),
            policy: Some(RolloutPolicy {
                waves: vec![all()],
                max_parallel: all(),
                ..RolloutPolicy::default()
            }),
            ..InstallRequest::default()
        };
        let mut client = PluginServiceClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE);
        client.install(request).await.unwrap().into_inner().operation.unwrap().id
    }

    /// Waits until the operation ends well.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub async fn ended(&self, id: &str) {
        let mut client = OperationServiceClient::new(self.0.clone()).max_decoding_message_size(MAX_MESSAGE);
        loop {
            let view = client.get(GetOperationRequest { id: id.into() }).await.unwrap().into_inner();
            match view.phase.as_str() {
                "Succeeded" => return,
                "Failed" | "Aborted" | "Paused" => panic!("{view:?}"),
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
}
