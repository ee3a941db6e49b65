//! What people do to an operation while it runs, and what of it is kept.

use std::collections::BTreeMap;

use kctl_shared::name::NodeId;
use kctl_shared::spec::Failure;
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Step, StepKind};

/// Notes kept for one operation; beyond it somebody's script runs in a circle.
pub const MAX_NOTES: usize = 1_000;

/// What a person asks of a running operation. What needs steps brings them along, expanded by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intervention {
    /// Nodes that act finish; no other is let act.
    Pause,
    Resume,
    /// Ends the bake of the wave of this step, and the pause after it.
    Promote {
        step: usize,
    },
    /// Tries again from the step that is interrupted.
    Retry {
        from: usize,
        steps: Vec<Step>,
    },
    /// Lets every barrier pass without the node.
    Excuse {
        node: NodeId,
    },
    /// Back to what was before; a removal that took nothing away yet just ends, and brings no steps.
    Abort {
        from: usize,
        steps: Vec<Step>,
    },
}

impl Intervention {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote { .. } => "promote",
            Self::Retry { .. } => "retry",
            Self::Excuse { .. } => "excuse",
            Self::Abort { .. } => "abort",
        }
    }

    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Excuse { node } => Some(node),
            _ => None,
        }
    }
}

/// Makes a retry of a request find what the first try did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestKey {
    pub id: String,
    /// Hash over the request's body.
    pub body: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interventions {
    /// Set exactly while the operation is paused.
    pub hold: Option<Hold>,
    /// The step whose wave a person let pass without waiting longer.
    pub promoted: Option<usize>,
    pub excused: BTreeMap<NodeId, Excuse>,
    /// Called off: once everything is as before it ends `Aborted`, a removal that took anything away `Compensated`.
    pub aborted: bool,
    /// Who did what, oldest first.
    pub notes: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub cause: Cause,
    pub since: Timestamp,
}

/// Why an operation is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    Person {
        reason: String,
    },
    /// The policy asks for a person after this wave.
    Wave(u32),
    /// The policy asks for a person after this step of a removal; everything its barrier needs is there.
    Step(StepKind),
    Failure(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    pub reason: String,
    pub at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub at: Timestamp,
    /// The verb, or `hold` when the policy paused the operation by itself.
    pub verb: String,
    pub node: Option<NodeId>,
    pub reason: String,
}
