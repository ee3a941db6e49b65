//! What a removal would do, and what refers to the plugin at present: an agent of the group is asked to look.

use std::collections::BTreeMap;
use std::time::Duration;

use kctl_shared::fault::Fault;
use kctl_shared::method::Method;
use kctl_shared::name::NodeId;
use kctl_shared::proto::agent::control_message::Body as Down;
use kctl_shared::proto::agent::{self as pb};
use kctl_shared::proto::v1;
use kctl_shared::time::Timestamp;
use tokio::sync::oneshot;

use super::Api;
use crate::inventory::Ask;
use crate::state::operation::Operation;

/// An agent answers within four seconds, and says so when it could not look.
const ANSWER: Duration = Duration::from_secs(5);
/// Nodes that are asked, one after the other, until one can tell.
const ASKED: usize = 2;
/// Entities of an answer that are handed on.
const LISTED: usize = 1_000;

/// Questions to one agent that it has not answered yet.
#[derive(Debug, Default)]
pub(super) struct Questions {
    next: u64,
    open: BTreeMap<u64, oneshot::Sender<pb::References>>,
}

impl Questions {
    /// What is to be sent.
    pub(super) fn put(&mut self, ask: Ask) -> Down {
        match ask {
            Ask::Collect { plugin, digest } => {
                Down::Collect(pb::Collect { plugin: plugin.to_string(), digest: digest.to_string() })
            }
            Ask::References { plugin, answer } => {
                // Whoever does not wait any longer needs no answer.
                self.open.retain(|_, answer| !answer.is_closed());
                self.next += 1;
                self.open.insert(self.next, answer);
                Down::FindReferences(pb::FindReferences { id: self.next, plugin: plugin.to_string() })
            }
        }
    }

    pub(super) fn answered(&mut self, found: pb::References) {
        if let Some(answer) = self.open.remove(&found.id) {
            let _gone = answer.send(found);
        }
    }
}

impl Api {
    pub(super) async fn preview(&self, operation: &Operation) -> v1::RemovePreview {
        let files = match operation.method {
            Method::Path { .. } => 0,
            Method::Store | Method::Luarocks { .. } => self.hub.consensus.with_state(|s| {
                s.releases.get(&operation.release).map_or(0, |l| l.files.len() + l.extras.len())
            }),
        };
        let mut preview = v1::RemovePreview {
            plugin: operation.plugin.to_string(),
            version: operation.version.clone(),
            group: operation.group.to_string(),
            files: u32::try_from(files).unwrap_or(u32::MAX),
            nodes: u32::try_from(operation.nodes().len()).unwrap_or(u32::MAX),
            waves: operation.policy.waves.clone(),
            ..v1::RemovePreview::default()
        };
        match self.references(operation).await {
            Ok((node, found)) => {
                preview.asked = node.to_string();
                preview.references = found.total;
                preview.entities = found.first.into_iter().take(LISTED).map(entity).collect();
            }
            Err(why) => preview.unknown = Some(v1::ErrorView { code: why.code, message: why.message }),
        }
        preview
    }

    /// What refers to the operation's plugin, as the first node could tell whose Admin API answers.
    ///
    /// # Errors
    /// Why none could.
    async fn references(&self, operation: &Operation) -> Result<(NodeId, pb::References), Fault> {
        let now = Timestamp::now();
        let able: Vec<NodeId> = self.hub.view(|s| {
            let nodes = s.state.nodes_of(&operation.group).map(|(node, _)| node);
            nodes.filter(|node| s.fleet.can_apply(node, now)).take(ASKED).cloned().collect()
        });
        let none = format!("no Admin API of group {} answers", operation.group);
        let mut why = Fault::new("ADMIN_API_UNREACHABLE", none.clone());
        for node in able {
            match self.ask(&node, operation).await {
                Ok(found) => return Ok((node, found)),
                Err(fault) => why = Fault::new(&fault.code, format!("{none}: {}", fault.message)),
            }
        }
        Err(why)
    }

    async fn ask(&self, node: &NodeId, operation: &Operation) -> Result<pb::References, Fault> {
        let (answer, answered) = oneshot::channel();
        self.hub.inventory.ask(node, Ask::References { plugin: operation.plugin.clone(), answer })?;
        let Ok(Ok(found)) = tokio::time::timeout(ANSWER, answered).await else {
            let message = format!("the agent of node {node} did not answer");
            return Err(Fault::new("AGENT_UNREACHABLE", message));
        };
        match found.failure {
            Some(failure) => Err(Fault::new(&failure.code, format!("{node}: {}", failure.message))),
            None => Ok(found),
        }
    }
}

fn entity(found: pb::Reference) -> v1::EntityView {
    let entity = found.entity.unwrap_or_default();
    v1::EntityView {
        id: entity.id,
        scope: entity.scope,
        target: entity.target,
        attached_to: found.attached_to,
        workspace: entity.workspace,
    }
}
