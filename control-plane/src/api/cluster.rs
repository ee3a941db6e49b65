//! The cluster as a whole.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use kctl_shared::proto::v1::{self, cluster_service_server::ClusterService};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn cluster(&self, _: Request<v1::ClusterRequest>) -> Result<Response<v1::ClusterView>, Status> {
        Ok(Response::new(self.hub.cluster()))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusView>, Status> {
        self.as_leader().await?;
        Ok(Response::new(self.hub.status()))
    }

    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<v1::StatusView, Status>> + Send>>;

    async fn watch_status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        if !self.hub.leads() {
            return Err(self.not_leader());
        }
        let (consensus, shutdown) = (self.hub.consensus.clone(), self.shutdown.clone());
        // Ends with the leadership, so that followers and clients look for the next leader.
        let over = async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = consensus.deposed() => {}
            }
        };
        let views = WatchStream::new(self.views.clone()).map(|view| Ok((*view).clone())).take_until(over);
        Ok(Response::new(Box::pin(views)))
    }

    async fn version(&self, _: Request<v1::VersionRequest>) -> Result<Response<v1::VersionView>, Status> {
        Ok(Response::new(v1::VersionView { version: env!("CARGO_PKG_VERSION").into(), feature_level: 1 }))
    }
}
