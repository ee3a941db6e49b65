//! Read nodes.

use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::{self, node_service_server::NodeService};
use tonic::{Request, Response, Status};

use super::{Api, request};

impl Api {
    fn node_view(&self, id: &kctl_shared::name::NodeId) -> v1::NodeView {
        let mut view = self.hub.view(|s| s.node(id));
        view.agent_version = self.hub.inventory.agent_version(id);
        view
    }
}

#[tonic::async_trait]
impl NodeService for Api {
    async fn list(
        &self,
        r: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        self.as_leader().await?;
        let group = r.into_inner().group;
        let ids: Vec<_> = self.hub.consensus.with_state(|s| s.nodes.keys().cloned().collect());
        let nodes = ids.iter().map(|id| self.node_view(id)).filter(|n| group.is_empty() || n.group == group);
        Ok(Response::new(v1::ListNodesResponse { nodes: nodes.collect() }))
    }

    async fn get(&self, r: Request<v1::GetNodeRequest>) -> Result<Response<v1::NodeView>, Status> {
        self.as_leader().await?;
        let id = request::node(&r.into_inner().id).map_err(|f| self.fail(&f))?;
        if !self.hub.consensus.with_state(|s| s.nodes.contains_key(&id)) {
            let fault = Fault::new("NODE_NOT_FOUND", format!("there is no node {id}")).hint("kctl node list");
            return Err(self.fail(&fault));
        }
        Ok(Response::new(self.node_view(&id)))
    }
}
