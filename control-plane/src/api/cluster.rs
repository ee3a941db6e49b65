//! The cluster as a whole.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use kctl_shared::package::pieces;
use kctl_shared::proto::v1::{self, cluster_service_server::ClusterService};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::Api;
use crate::backup::write;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn cluster(&self, _: Request<v1::ClusterRequest>) -> Result<Response<v1::ClusterView>, Status> {
        let mut view = self.hub.cluster();
        // What members have, the leader asks them; the others follow what it shows.
        let shown = self.views.borrow().cluster.clone().filter(|_| view.leader.is_some()).unwrap_or_default();
        for member in view.members.iter_mut().filter(|m| m.artifacts_missing.is_none()) {
            let same = shown.members.iter().find(|m| m.id == member.id);
            member.artifacts_missing = same.and_then(|m| m.artifacts_missing);
        }
        Ok(Response::new(view))
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

    async fn identify(
        &self,
        _: Request<v1::IdentifyRequest>,
    ) -> Result<Response<v1::IdentifyResponse>, Status> {
        let consensus = &self.hub.consensus;
        let member = v1::MemberView {
            id: consensus.id(),
            address: self.address.grpc.clone(),
            http: self.address.http.clone(),
            raft: self.address.raft.clone(),
            ..v1::MemberView::default()
        };
        let waiting = consensus.is_waiting();
        Ok(Response::new(v1::IdentifyResponse { member: Some(member), waiting, epoch: consensus.epoch() }))
    }

    async fn join(&self, r: Request<v1::JoinRequest>) -> Result<Response<v1::MemberChange>, Status> {
        self.as_leader().await?;
        self.let_in(r.into_inner()).await.map(Response::new)
    }

    async fn remove_member(
        &self,
        r: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MemberChange>, Status> {
        self.as_leader().await?;
        self.take_out(r.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        r: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.as_leader().await?;
        self.hand_over(r.into_inner().id).await.map(Response::new)
    }

    async fn audit(&self, r: Request<v1::AuditRequest>) -> Result<Response<v1::AuditResponse>, Status> {
        self.as_leader().await?;
        let asked = r.into_inner();
        Ok(Response::new(self.hub.view(|s| s.audit(&asked))))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::Chunk, Status>> + Send>>;

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        self.as_leader().await?;
        let parts = write::stream(self.hub.consensus.capture(), self.artifacts.clone());
        let pieces = parts.flat_map(|part| {
            let pieces: Vec<_> = match part {
                Ok(part) => pieces(&part).map(|data| Ok(v1::Chunk { data: data.to_vec() })).collect(),
                Err(fault) => vec![Err(fault.to_status(None))],
            };
            tokio_stream::iter(pieces)
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn version(&self, _: Request<v1::VersionRequest>) -> Result<Response<v1::VersionView>, Status> {
        Ok(Response::new(v1::VersionView { version: env!("CARGO_PKG_VERSION").into(), feature_level: 1 }))
    }
}
