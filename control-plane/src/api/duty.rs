//! What people say of nodes and groups: holds, departures, approvals, maintenance windows.

use kctl_shared::fault::Fault;
use kctl_shared::name::NodeId;
use kctl_shared::proto::agent as pb;
use kctl_shared::proto::v1::{self, group_service_server::GroupService};
use tonic::{Request, Response, Status};

use super::{Api, request};
use crate::rollout::fleet::{Refused, Why, stranger};
use crate::state::Command;
use crate::state::duty::{GroupChange, NodeChange, unknown};
use crate::state::window::Window;

impl Api {
    /// Why the agent that presents itself is not taken for the one that is known, if so.
    pub(super) fn stranger(&self, node: &NodeId, hello: &pb::Hello) -> Option<(Why, Fault)> {
        let (connected, heard) = (self.hub.inventory.is_connected(node), self.hub.inventory.followed(node));
        self.hub.consensus.with_state(|s| {
            let (nonce, boot) = (&hello.install_nonce, hello.boot_counter);
            let why = stranger(s, node, nonce, boot, hello.generation, heard, connected)?;
            let message = match why {
                Why::Decommissioned => format!("node {node} was decommissioned"),
                Why::RolledBack => format!(
                    "the agent of node {node} knows less than what it was verified with: its memory was set back"
                ),
                Why::Installation | Why::Epoch => {
                    format!("node {node} is known with another installation of its agent")
                }
            };
            let hint = format!("if this is the right one, let it in: kctl node approve {node}");
            Some((why, Fault::new(why.code(), format!("{message}; {hint}")).hint(hint)))
        })
    }

    /// What lets an agent in that asks and is refused.
    pub(super) fn admission(&self, node: NodeId, asks: Refused, reason: String) -> Result<Command, Fault> {
        let connected = self.hub.inventory.is_connected(&node);
        self.hub.consensus.with_state(|s| asks.admission(s, node, connected, reason))
    }

    /// The named nodes, all of which are known.
    fn known(&self, names: &[String]) -> Result<Vec<NodeId>, Fault> {
        if names.is_empty() {
            return Err(Fault::new("TARGET_REQUIRED", "name at least one node").hint("kctl node list"));
        }
        let nodes: Vec<NodeId> = names.iter().map(|n| request::node(n)).collect::<Result<_, _>>()?;
        let stranger =
            self.hub.consensus.with_state(|s| nodes.iter().find(|n| !s.nodes.contains_key(*n)).cloned());
        match stranger {
            Some(node) => Err(unknown(&node)),
            None => Ok(nodes),
        }
    }

    async fn change_nodes(
        &self,
        nodes: Vec<NodeId>,
        change: NodeChange,
        reason: &str,
        dry_run: bool,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let reason = request::reason(reason).map_err(|f| self.fail(&f))?;
        let names = nodes.iter().map(ToString::to_string).collect();
        for node in nodes.into_iter().filter(|_| !dry_run) {
            let (change, reason) = (change.clone(), reason.clone());
            self.propose(Command::ChangeNode { node, change, reason }).await?;
        }
        Ok(Response::new(v1::NodesResponse { nodes: names }))
    }

    pub(super) async fn hold_nodes(
        &self,
        r: v1::HoldNodesRequest,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let change = match r.what.as_str() {
            "hold" => NodeChange::Hold { drain: false },
            "drain" => NodeChange::Hold { drain: true },
            "unhold" => NodeChange::Unhold,
            other => return Err(self.fail(&unknown_hold(other))),
        };
        let nodes = self.known(&r.nodes).map_err(|f| self.fail(&f))?;
        self.change_nodes(nodes, change, &r.reason, r.dry_run).await
    }

    pub(super) async fn reconcile_nodes(
        &self,
        r: v1::ReconcileRequest,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let nodes = self.known(&r.nodes).map_err(|f| self.fail(&f))?;
        self.change_nodes(nodes, NodeChange::Reconcile, &r.reason, r.dry_run).await
    }

    pub(super) async fn decommission_node(
        &self,
        r: v1::DecommissionRequest,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let nodes = self.known(std::slice::from_ref(&r.node)).map_err(|f| self.fail(&f))?;
        if r.attested && nodes.iter().any(|n| self.hub.inventory.is_connected(n)) {
            let message = format!("the agent of node {} is connected: the node is not gone", r.node);
            return Err(self.fail(
                &Fault::new("NODE_IS_LIVE", message)
                    .hint(format!("kctl node decommission {}, without --attest", r.node)),
            ));
        }
        let change = NodeChange::Decommission { attested: r.attested };
        self.change_nodes(nodes, change, &r.reason, r.dry_run).await
    }

    /// What a request to change a group asks for.
    fn group_changes(r: &v1::SetGroupRequest) -> Result<Vec<GroupChange>, Fault> {
        let mut changes = match r.hold.as_str() {
            "" => Vec::new(),
            "hold" => vec![GroupChange::Hold],
            "unhold" => vec![GroupChange::Unhold],
            other => return Err(unknown_hold(other)),
        };
        if r.no_windows && !r.windows.is_empty() {
            return Err(Fault::new("WINDOW_INVALID", "either windows or none").hint("kctl group set --help"));
        }
        if r.no_windows || !r.windows.is_empty() {
            let windows = r.windows.iter().map(|w| w.parse()).collect::<Result<Vec<Window>, _>>()?;
            changes.push(GroupChange::Windows(windows));
        }
        changes.extend(r.expected_nodes.map(|n| GroupChange::Expect((n > 0).then_some(n))));
        changes.extend(r.shares_database.map(GroupChange::SharesDatabase));
        if changes.is_empty() {
            return Err(Fault::new("NOTHING_TO_CHANGE", "nothing was asked to be changed")
                .hint("kctl group set GROUP --window \"Mon-Fri 22:00-04:00\""));
        }
        Ok(changes)
    }
}

fn unknown_hold(what: &str) -> Fault {
    Fault::new("INVALID_REQUEST", format!("{what:?} is neither hold nor drain nor unhold"))
        .hint("kctl node --help")
}

#[tonic::async_trait]
impl GroupService for Api {
    async fn list(
        &self,
        _r: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        self.as_leader().await?;
        Ok(Response::new(v1::ListGroupsResponse { groups: self.hub.view(|s| s.groups()) }))
    }

    async fn set(&self, r: Request<v1::SetGroupRequest>) -> Result<Response<v1::GroupView>, Status> {
        self.as_leader().await?;
        let r = r.into_inner();
        let read = || Ok((request::group(&r.group)?, request::reason(&r.reason)?, Self::group_changes(&r)?));
        let (group, reason, changes) = read().map_err(|f| self.fail(&f))?;
        let missing = || {
            let fault = Fault::new("GROUP_NOT_FOUND", format!("there is no group {group}"));
            self.fail(&fault.hint("kctl group list"))
        };
        let view = || self.hub.view(|s| s.group(&group)).ok_or_else(missing);
        view()?;
        for change in changes.into_iter().filter(|_| !r.dry_run) {
            let (group, reason) = (group.clone(), reason.clone());
            self.propose(Command::ChangeGroup { group, change, reason }).await?;
        }
        Ok(Response::new(view()?))
    }
}
