//! What a client may ask of the control plane's state, and what it may be told.

use kctl_control_plane::state::model::{NodeFacts, Release};
use kctl_control_plane::state::operation::{Operation, Step, StepKind};
use kctl_control_plane::state::{ClusterState, Command, LogStamp, apply};
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::{GroupName, NodeId, PluginName};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// In a history: `"f"` names the variant, `"value"` holds its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "lowercase")]
pub enum Call {
    /// A node presents itself. Accepted unless a later boot of it is known (`SUPERSEDED`).
    Register { node: NodeId, boot: u64 },
    /// The latest boot of a node, or null.
    Read { node: NodeId },
    /// Makes a release of a plugin known.
    Release { plugin: PluginName },
    /// Starts an operation, which holds the plugin from then on (`PLUGIN_BUSY` for others). The same request again is
    /// accepted and does nothing.
    Start { operation: String, plugin: PluginName, request: String },
    /// The operation that holds a plugin, or null.
    Holder { plugin: PluginName },
    /// Any command as it stands in the log.
    Propose(Box<Command>),
}

/// `"accepted"`, a rejection's code, or what was read.
pub type Told = Value;

fn group() -> GroupName {
    GroupName::parse("default").unwrap()
}

fn digest(plugin: &PluginName) -> Digest {
    Digest::of(plugin.as_str().as_bytes())
}

impl Call {
    /// What is proposed; `None` for a read.
    pub fn command(&self) -> Option<Command> {
        match self {
            Self::Register { node, boot } => Some(Command::RegisterNode {
                node: node.clone(),
                group: group(),
                nonce: "history".into(),
                boot: *boot,
                facts: NodeFacts::default(),
            }),
            Self::Release { plugin } => Some(Command::RegisterRelease { release: release(plugin) }),
            Self::Start { operation, plugin, request } => {
                let operation = Box::new(start(operation, plugin, request));
                Some(Command::StartOperation { operation })
            }
            Self::Propose(command) => Some((**command).clone()),
            Self::Read { .. } | Self::Holder { .. } => None,
        }
    }

    /// What a read finds.
    pub fn find(&self, state: &ClusterState) -> Told {
        match self {
            Self::Read { node } => json!(state.nodes.get(node).map(|n| n.boot)),
            Self::Holder { plugin } => {
                json!(state.plugin(&group(), plugin).and_then(|p| p.operation.clone()))
            }
            _ => Value::Null,
        }
    }

    /// The call alone, on `state`.
    pub fn perform(&self, state: &mut ClusterState) -> Told {
        let Some(command) = self.command() else { return self.find(state) };
        // Where an entry stands in the log is no result that a client sees.
        let at = LogStamp { index: 1, offset: 0, proposed_at: Timestamp(1) };
        told(&apply(state, at, command))
    }
}

/// What a client is told of a proposal.
pub fn told<T>(outcome: &Result<T, Fault>) -> Told {
    match outcome {
        Ok(_) => json!("accepted"),
        Err(fault) => json!(fault.code),
    }
}

fn release(plugin: &PluginName) -> Release {
    Release {
        plugin: plugin.clone(),
        version: "1.0.0".into(),
        digest: digest(plugin),
        files: Vec::new(),
        registered_at: Timestamp(1),
        retained: false,
        extras: Vec::new(),
        nginx: Vec::new(),
    }
}

/// An install without nodes.
fn start(id: &str, plugin: &PluginName, request: &str) -> Operation {
    let operation = json!({
        "id": id, "kind": "Install", "plugin": plugin, "group": group(), "target": "AllNodes",
        "release": digest(plugin), "version": "1.0.0", "previous_version": "", "previous": null,
        "policy": {"waves": [], "max_parallel": 1, "max_failures": 0, "node_deadline_ms": 1000},
        "request_id": request, "request_body": id, "reason": "", "created_at": Timestamp(1), "finished_at": null,
        "phase": "Pending", "error": null, "steps": [Step::new(StepKind::Stage, 0, [])], "cursor": 0,
        "applier": null, "entities": {}, "rerecorded": 0,
    });
    serde_json::from_value(operation).unwrap()
}
