//! Read nodes, and take over what is found on them.

use std::time::Duration;

use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::NodeId;
use kctl_shared::proto::v1::{self, node_service_server::NodeService};
use tonic::{Request, Response, Status};

use super::{Api, request};
use crate::inventory::Ask;
use crate::rollout::fleet::{Refused, Why};
use crate::state::duty::unknown;

/// An agent packs and sends a plugin within this.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(20);

impl Api {
    fn node_view(&self, id: &NodeId) -> v1::NodeView {
        let mut view = self.hub.view(|s| s.node(id));
        view.agent_version = self.hub.inventory.agent_version(id);
        view
    }
}

impl Api {
    /// The nodes that are meant, and how each of them asks.
    fn asking(&self, r: &v1::ApproveRequest) -> Result<Vec<(NodeId, Refused)>, Fault> {
        let named: Vec<NodeId> = r.nodes.iter().map(|n| request::node(n)).collect::<Result<_, _>>()?;
        if named.is_empty() != r.all_nodes {
            return Err(Fault::new("TARGET_REQUIRED", "name nodes, or all of them, not both")
                .hint("kctl node approve NODE, or --all-nodes"));
        }
        let refused = self.hub.inventory.with(|fleet| fleet.refused.clone());
        if r.all_nodes {
            return Ok(refused.into_iter().filter(|(_, r)| r.why == Why::Epoch).collect());
        }
        let one = |node: NodeId| match refused.get(&node) {
            Some(r) => Ok((node, r.clone())),
            None => Err(Fault::new("NOTHING_TO_APPROVE", format!("node {node} does not ask to be let in"))
                .hint("kctl node list shows who is refused; an agent asks every few seconds")),
        };
        named.into_iter().map(one).collect()
    }

    /// Asks for what was found on the node, unless the catalogue has it, and waits for it.
    async fn collected(&self, node: &str, plugin: &str) -> Result<v1::CollectResponse, Fault> {
        let (node, plugin) = (request::node(node)?, request::plugin(plugin)?);
        let group = self.hub.consensus.with_state(|s| s.nodes.get(&node).map(|n| n.group.clone()));
        let group = group.ok_or_else(|| unknown(&node))?;
        let ids: Vec<NodeId> =
            self.hub.consensus.with_state(|s| s.nodes_of(&group).map(|(id, _)| id.clone()).collect());
        let found = |id: &NodeId| {
            self.hub
                .inventory
                .with(|fleet| fleet.status(id)?.found.iter().find(|f| f.plugin == plugin).cloned())
        };
        let here = found(&node).ok_or_else(|| {
            Fault::new(
                "NOTHING_TO_ADOPT",
                format!("nobody but kctl put {plugin} on node {node}, or it is not there"),
            )
            .hint(format!("kctl node get {node}"))
        })?;
        let Some(digest) = here.digest else {
            return Err(Fault::new(
                "PATH_NOT_FOUND",
                format!("the files of {plugin} were not found on node {node}"),
            )
            .hint(format!("kctl doctor --node {node}")));
        };
        let others: Vec<(NodeId, Option<Digest>)> =
            ids.iter().filter_map(|id| Some((id.clone(), found(id)?.digest))).collect();
        if let Some((other, _)) = others.iter().find(|(_, d)| *d != Some(digest)) {
            return Err(Fault::new(
                "ADOPT_DIFFERS",
                format!("{plugin} on {other} is not the same as on {node}"),
            )
            .hint("make them the same first, or install one release on both: kctl plugin install"));
        }
        let known = || self.hub.consensus.with_state(|s| s.releases.get(&digest).map(|r| r.version.clone()));
        if known().is_none() {
            self.hub.inventory.ask(&node, Ask::Collect { plugin: plugin.clone(), digest })?;
        }
        let mut applied = self.hub.consensus.watch_applied();
        let arrived = async {
            loop {
                applied.mark_unchanged();
                if let Some(version) = known() {
                    return Some(version);
                }
                applied.changed().await.ok()?;
            }
        };
        let version =
            tokio::time::timeout(COLLECT_TIMEOUT, arrived).await.ok().flatten().ok_or_else(|| {
                Fault::new(
                    "COLLECT_FAILED",
                    format!("the agent of {node} did not send {plugin} within {COLLECT_TIMEOUT:?}"),
                )
                .hint("its log says why; try again")
            })?;
        Ok(v1::CollectResponse {
            digest: digest.to_string(),
            version,
            group: group.to_string(),
            everywhere: others.len() == ids.len(),
            method: here.placed.as_ref().map(|m| m.name().to_owned()).unwrap_or_default(),
            place: here.placed.as_ref().map(|m| m.place().to_owned()).unwrap_or_default(),
            make: here.placed.as_ref().is_some_and(Method::makes),
            nodes: others.into_iter().map(|(id, _)| id.to_string()).collect(),
        })
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
        let ids = self.hub.view(|s| s.node_ids());
        let nodes = ids.iter().map(|id| self.node_view(id)).filter(|n| group.is_empty() || n.group == group);
        Ok(Response::new(v1::ListNodesResponse { nodes: nodes.collect() }))
    }

    async fn get(&self, r: Request<v1::GetNodeRequest>) -> Result<Response<v1::NodeView>, Status> {
        self.as_leader().await?;
        let id = request::node(&r.into_inner().id).map_err(|f| self.fail(&f))?;
        if !self.hub.consensus.with_state(|s| s.nodes.contains_key(&id)) {
            return Err(self.fail(&unknown(&id)));
        }
        Ok(Response::new(self.node_view(&id)))
    }

    async fn approve(&self, r: Request<v1::ApproveRequest>) -> Result<Response<v1::ApproveResponse>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let reason = request::reason(&r.reason).map_err(|f| self.fail(&f))?;
        let asking = self.asking(&r).map_err(|f| self.fail(&f))?;
        let nodes = asking.iter().map(|(node, _)| node.to_string()).collect();
        for (node, asks) in asking {
            let command = self.admission(node.clone(), asks, reason.clone()).map_err(|f| self.fail(&f))?;
            if !r.dry_run {
                self.propose(command).await?;
                self.hub.inventory.admit(&node);
            }
        }
        Ok(Response::new(v1::ApproveResponse { nodes }))
    }

    async fn hold(&self, r: Request<v1::HoldNodesRequest>) -> Result<Response<v1::NodesResponse>, Status> {
        self.as_leader().await?;
        self.hold_nodes(r.into_inner()).await
    }

    async fn reconcile(
        &self,
        r: Request<v1::ReconcileRequest>,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        self.as_leader().await?;
        self.reconcile_nodes(r.into_inner()).await
    }

    async fn decommission(
        &self,
        r: Request<v1::DecommissionRequest>,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        self.as_leader().await?;
        self.decommission_node(r.into_inner()).await
    }

    async fn collect(&self, r: Request<v1::CollectRequest>) -> Result<Response<v1::CollectResponse>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let collected = self.collected(&r.node, &r.plugin).await;
        collected.map(Response::new).map_err(|f| self.fail(&f))
    }
}
