//! Reading requests: strings become names, targets and policies, or a fault that says what was wrong.

use kctl_shared::fault::Fault;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::proto::v1;
use sha2::{Digest as _, Sha256};

use crate::state::grouping;
use crate::state::model::{ClusterState, Target};

const DEFAULT_GROUP: &str = "default";
const MAX_REASON: usize = 1_000;

pub(super) fn plugin(name: &str) -> Result<PluginName, Fault> {
    PluginName::parse(name).map_err(|e| Fault::new(e.code, e.message).hint("kctl plugin list"))
}

pub(super) fn group(name: &str) -> Result<GroupName, Fault> {
    let name = if name.is_empty() { DEFAULT_GROUP } else { name };
    GroupName::parse(name).map_err(|e| Fault::new(e.code, e.message).hint("kctl node list"))
}

pub(super) fn node(id: &str) -> Result<NodeId, Fault> {
    NodeId::parse(id).map_err(|e| Fault::new(e.code, e.message).hint("kctl node list"))
}

pub(super) fn target(target: Option<v1::Target>) -> Result<Target, Fault> {
    let target = target.unwrap_or_default();
    match (target.all_nodes, target.nodes.is_empty()) {
        (true, true) => Ok(Target::AllNodes),
        (false, false) => Ok(Target::Nodes(target.nodes.iter().map(|n| node(n)).collect::<Result<_, _>>()?)),
        _ => {
            Err(Fault::new("TARGET_REQUIRED", "a change needs exactly one target: all nodes, or named nodes")
                .hint("add --all-nodes or --node NODE"))
        }
    }
}

pub(super) fn request_id(id: &str) -> Result<String, Fault> {
    match uuid::Uuid::parse_str(id) {
        Ok(id) => Ok(id.to_string()),
        Err(_) => {
            Err(Fault::new("INVALID_REQUEST_ID", "a request id is a UUID").hint("leave --request-id out"))
        }
    }
}

pub(super) fn reason(text: &str) -> Result<String, Fault> {
    if text.len() > MAX_REASON || text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        let message = format!("a reason is at most {MAX_REASON} bytes without control characters");
        return Err(Fault::new("INVALID_REASON", message).hint("shorten it"));
    }
    Ok(text.to_owned())
}

/// The nodes a change is for, in order of their ids.
pub(super) fn resolve(
    state: &ClusterState,
    group: &GroupName,
    target: &Target,
) -> Result<Vec<NodeId>, Fault> {
    if let Target::Nodes(named) = target
        && let Some(stranger) = named.iter().find(|n| state.nodes.get(n).is_none_or(|r| &r.group != group))
    {
        return Err(Fault::new("NODE_NOT_FOUND", format!("there is no node {stranger} in group {group}"))
            .hint("kctl node list"));
    }
    let leaving = |n: &&NodeId| state.nodes.get(*n).is_some_and(|r| r.leaving.is_some());
    if let Target::Nodes(named) = target
        && let Some(leaving) = named.iter().find(leaving)
    {
        return Err(Fault::new("NODE_LEAVING", format!("node {leaving} is being decommissioned"))
            .hint("leave it out, or wait until it is gone: kctl node list"));
    }
    let nodes: Vec<_> =
        state.staying_in(group).filter(|(id, _)| target.includes(id)).map(|(id, _)| id.clone()).collect();
    if nodes.is_empty() {
        return Err(Fault::new("NO_NODES", format!("group {group} has no nodes")).hint("kctl node list"));
    }
    grouping::check(state, group)?;
    Ok(nodes)
}

/// Hash over what was asked for, to tell a retry from another request with the same id.
pub(super) fn body_hash(message: &impl prost::Message) -> String {
    hex::encode(Sha256::digest(message.encode_to_vec()))
}
