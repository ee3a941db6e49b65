//! What a gRPC tool finds on a member without knowing kctl: health and reflection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_tests::cluster::Cluster;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

async fn reflect(channel: Channel, question: MessageRequest) -> ServerReflectionResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let asked = tokio_stream::iter([request]);
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(asked).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_member_tells_how_it_is_and_what_it_offers() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(3, 1)).await.unwrap();
    for member in cluster.members() {
        let url = member["grpc"].as_str().unwrap().to_owned();
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let asked = HealthCheckRequest { service: String::new() };
        let health = HealthClient::new(channel.clone()).check(asked).await.unwrap().into_inner();
        assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
        let listed = reflect(channel.clone(), MessageRequest::ListServices(String::new())).await;
        let Some(MessageResponse::ListServicesResponse(services)) = listed.message_response else {
            panic!("{listed:?}")
        };
        let names: Vec<_> = services.service.iter().map(|s| s.name.as_str()).collect();
        for service in ["PluginService", "OperationService", "NodeService", "ClusterService"] {
            let name = format!("kctl.v1.{service}");
            assert!(names.contains(&name.as_str()), "{name} is not in {names:?}");
            let found = reflect(channel.clone(), MessageRequest::FileContainingSymbol(name)).await;
            assert!(
                matches!(found.message_response, Some(MessageResponse::FileDescriptorResponse(_))),
                "{found:?}"
            );
        }
    }
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
}
