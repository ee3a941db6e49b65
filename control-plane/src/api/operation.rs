//! Read, watch and step into operations.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use kctl_shared::proto::v1::{self, operation_service_server::OperationService};
use tonic::{Request, Response, Status};

use super::Api;
use super::step_in::Wish;

/// Changes closer together than this are sent as one.
const MERGE: Duration = Duration::from_millis(50);
const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

impl Api {
    fn operation_view(&self, id: &str) -> Result<(v1::OperationView, bool), Status> {
        let view = self
            .hub
            .view(|s| s.state.operation(&id.to_owned()).map(|o| (s.operation(o), o.phase.has_ended())));
        view.map_err(|f| self.fail(&f))
    }
}

#[tonic::async_trait]
impl OperationService for Api {
    async fn get(&self, r: Request<v1::GetOperationRequest>) -> Result<Response<v1::OperationView>, Status> {
        self.as_leader().await?;
        Ok(Response::new(self.operation_view(&r.into_inner().id)?.0))
    }

    async fn list(
        &self,
        r: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let limit = if r.limit == 0 { DEFAULT_LIMIT } else { r.limit.min(MAX_LIMIT) };
        let operations = self.hub.view(|s| {
            let mut all: Vec<_> = s.state.operations.values().collect();
            all.retain(|o| !r.running || !o.phase.has_ended());
            all.retain(|o| r.batch.is_empty() || o.batch.as_ref() == Some(&r.batch));
            all.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.id.cmp(&a.id)));
            all.truncate(limit as usize);
            all.into_iter().map(|o| s.operation(o)).collect()
        });
        Ok(Response::new(v1::ListOperationsResponse { operations }))
    }

    async fn pause(&self, r: Request<v1::StepInRequest>) -> Result<Response<v1::OperationView>, Status> {
        self.step_in(r.into_inner(), Wish::Pause).await
    }

    async fn resume(&self, r: Request<v1::StepInRequest>) -> Result<Response<v1::OperationView>, Status> {
        self.step_in(r.into_inner(), Wish::Resume).await
    }

    async fn promote(&self, r: Request<v1::StepInRequest>) -> Result<Response<v1::OperationView>, Status> {
        self.step_in(r.into_inner(), Wish::Promote).await
    }

    async fn retry(&self, r: Request<v1::RetryRequest>) -> Result<Response<v1::OperationView>, Status> {
        let r = r.into_inner();
        let wish = Wish::Retry { failed_only: r.failed_only };
        self.step_in(r.step_in.unwrap_or_default(), wish).await
    }

    async fn excuse(&self, r: Request<v1::ExcuseRequest>) -> Result<Response<v1::OperationView>, Status> {
        let r = r.into_inner();
        self.step_in(r.step_in.unwrap_or_default(), Wish::Excuse { node: r.node }).await
    }

    async fn abort(&self, r: Request<v1::StepInRequest>) -> Result<Response<v1::OperationView>, Status> {
        self.step_in(r.into_inner(), Wish::Abort).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::OperationView, Status>> + Send>>;

    async fn watch(
        &self,
        r: Request<v1::GetOperationRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.as_leader().await?;
        let id = r.into_inner().id;
        let (first, mut ended) = self.operation_view(&id)?;
        let api = self.clone();
        let stream = async_stream::try_stream! {
            let mut applied = api.hub.consensus.watch_applied();
            let mut heard = api.hub.inventory.watch();
            let mut report = api.hub.report.clone();
            let mut last = first.clone();
            yield first;
            while !ended {
                // Every arm only waits for a change: whatever is dropped is looked at anew.
                let lost = tokio::select! {
                    () = api.shutdown.cancelled() => true,
                    () = api.hub.consensus.deposed() => true,
                    _ = applied.changed() => false,
                    _ = heard.changed() => false,
                    _ = report.changed() => false,
                };
                if lost {
                    Err(api.not_leader())?;
                }
                tokio::time::sleep(MERGE).await;
                applied.mark_unchanged();
                heard.mark_unchanged();
                report.mark_unchanged();
                let (view, over) = api.operation_view(&id)?;
                ended = over;
                if view != last {
                    last = view.clone();
                    yield view;
                }
            }
        };
        Ok(Response::new(Box::pin(stream)))
    }
}
