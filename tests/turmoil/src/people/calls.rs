//! What a person asks of whoever leads, again and again until there is an answer.

use std::time::Duration;

use bytes::Bytes;
use kctl_shared::fault::Fault;
use kctl_shared::network::Patience;
use kctl_shared::package::Package;
use kctl_shared::proto::v1::artifact_service_client::ArtifactServiceClient;
use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::plugin_service_client::PluginServiceClient;
use kctl_shared::proto::v1::{InstallRequest, RemoveRequest, RetryRequest, StepInRequest, Target};
use kctl_shared::upload::messages;
use rand::RngExt as _;
use tonic::transport::Channel;

use super::{Broken, Person, uuid};
use crate::chaos::MEMBERS;
use crate::run::url;
use crate::world::now_ms;

const PATIENCE: Patience = Patience { connect: Duration::from_secs(1), keepalive: Duration::from_secs(2) };
/// For one call.
const CALL: Duration = Duration::from_secs(6);
/// How often somebody who is told no asks again before doing something else.
const TRIES: u32 = 25;

impl Person {
    /// One call to whoever may lead.
    pub(super) async fn call<T, F: Future<Output = Result<tonic::Response<T>, tonic::Status>>>(
        &mut self,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, Fault> {
        let leader = self.leader.clone();
        let answer = async {
            let channel = self.dialer.connect(&leader, PATIENCE).await.map_err(|f| (f, None))?;
            match tokio::time::timeout(CALL, call(channel)).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(Fault::from_status(&status)),
                Err(_) => Err((Fault::new("UNREACHABLE", "no answer in time"), None)),
            }
        };
        answer.await.map_err(|(fault, hint)| {
            self.turn += 1;
            self.leader = hint.unwrap_or_else(|| url(MEMBERS[self.turn % MEMBERS.len()]));
            fault
        })
    }

    /// Asks until there is an answer; `None` for a no that stays one.
    pub(super) async fn insist<T, F: Future<Output = Result<tonic::Response<T>, tonic::Status>>>(
        &mut self,
        call: impl Fn(Channel) -> F,
    ) -> Result<Option<T>, Broken> {
        let (since, mut told) = (now_ms(), 0);
        loop {
            let fault = match self.call(&call).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(fault) => fault,
            };
            if !matches!(fault.code.as_str(), "UNREACHABLE" | "NOT_LEADER" | "NO_QUORUM") {
                told += 1;
                self.world().say(format!("{}: told {fault}", self.plugin));
            }
            if told >= TRIES {
                return Ok(None);
            }
            if self.late(since) {
                return Err(format!("liveness: {} is not answered in calm: {fault}", self.plugin));
            }
            self.rest(100..1_000).await;
        }
    }

    pub(super) async fn install(
        &mut self,
        package: &Package,
        request_id: String,
        calm: bool,
    ) -> Result<Option<String>, Broken> {
        let bytes = Bytes::from(package.to_artifact());
        let upload = messages(package, &bytes);
        let sent = self.insist(move |c| {
            let sent = tokio_stream::iter(upload.clone());
            async move { ArtifactServiceClient::new(c).upload(sent).await }
        });
        if sent.await?.is_none() {
            return Ok(None);
        }
        let request = InstallRequest {
            request_id,
            plugin: self.plugin.to_string(),
            digest: package.digest().to_string(),
            version: package.version.clone(),
            group: "default".into(),
            target: Some(Target { all_nodes: true, nodes: Vec::new() }),
            policy: Some(self.policy(calm)),
            ..InstallRequest::default()
        };
        let accepted = self.insist(move |c| {
            let request = request.clone();
            async move { PluginServiceClient::new(c).install(request).await }
        });
        Ok(accepted.await?.and_then(|a| a.operation).map(|o| o.id))
    }

    pub(super) async fn remove(&mut self, request_id: String) -> Result<Option<String>, Broken> {
        let calm = self.world().calm;
        let request = RemoveRequest {
            request_id,
            plugin: self.plugin.to_string(),
            group: "default".into(),
            target: Some(Target { all_nodes: true, nodes: Vec::new() }),
            policy: Some(self.policy(calm)),
            ..RemoveRequest::default()
        };
        let accepted = self.insist(move |c| {
            let request = request.clone();
            async move { PluginServiceClient::new(c).remove(request).await }
        });
        Ok(accepted.await?.and_then(|a| a.operation).map(|o| o.id))
    }

    fn step_in(&mut self, id: &str) -> StepInRequest {
        StepInRequest { request_id: uuid(self.rng.random()), id: id.to_owned(), ..StepInRequest::default() }
    }

    /// What is paused because nodes failed is tried again.
    pub(super) async fn again(&mut self, id: &str) {
        let step_in = self.step_in(id);
        let request = RetryRequest { step_in: Some(step_in), failed_only: false };
        if let Err(fault) = self.call(|c| async { OperationServiceClient::new(c).retry(request).await }).await
        {
            self.world().say(format!("{}: no retry: {fault}", self.plugin));
        }
        self.world().count("operations tried again");
    }

    pub(super) async fn call_off(&mut self, id: &str) {
        let request = self.step_in(id);
        let answer = self.call(|c| async { OperationServiceClient::new(c).abort(request).await }).await;
        let told = answer.map_or_else(|f| f.code, |v| v.phase);
        self.world().say(format!("{}: call off: {told}", self.plugin));
    }
}
