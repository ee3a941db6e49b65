//! Errors that cross a boundary: a stable code, one sentence, and the next command to try.
//!
//! On the wire a [`Fault`] is a gRPC status with metadata; [`Fault::to_status`] and [`Fault::from_status`] are the only
//! places that know the keys.

use std::fmt;

use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const CODE: &str = "kctl-code";
const HINT: &str = "kctl-hint";
const LEADER: &str = "kctl-leader";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Stable, SCREAMING_SNAKE_CASE.
    pub code: String,
    /// What failed, where and why, in one sentence, lower case.
    pub message: String,
    /// The next command to try; may be empty.
    #[serde(default)]
    pub hint: String,
}

impl Fault {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: String::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The gRPC class that fits the code.
    pub fn class(&self) -> Code {
        match self.code.as_str() {
            "NOT_LEADER" | "NO_QUORUM" | "SHUTTING_DOWN" => Code::Unavailable,
            "NOT_FOUND"
            | "CODE_UNKNOWN"
            | "PLUGIN_NOT_INSTALLED"
            | "NODE_NOT_FOUND"
            | "OPERATION_NOT_FOUND"
            | "GROUP_NOT_FOUND"
            | "MEMBER_NOT_FOUND"
            | "BACKUP_NOT_FOUND"
            | "ARTIFACT_NOT_FOUND"
            | "REVISION_NOT_FOUND" => Code::NotFound,
            "PLUGIN_BUSY"
            | "PLUGIN_NOT_OURS"
            | "ADOPT_DIFFERS"
            | "VERSION_CONFLICT"
            | "MODULE_CONFLICT"
            | "REQUEST_ID_REUSED"
            | "IN_USE"
            | "DOWNGRADE"
            | "NO_ADMIN_API"
            | "PAST_POINT_OF_NO_RETURN"
            | "NODE_ID_IN_USE"
            | "NODE_DECOMMISSIONED"
            | "NODE_IS_LIVE"
            | "NODE_LEAVING"
            | "AGENT_ROLLED_BACK"
            | "NO_NODES"
            | "WRONG_GROUPING"
            | "UNEXPECTED_NODES"
            | "FEATURE_LEVEL"
            | "CLOCK_SKEW"
            | "ENTITIES_CHANGED"
            | "OPERATION_ENDED"
            | "OPERATION_PAUSED"
            | "OPERATION_NOT_PAUSED"
            | "OPERATION_ROLLING_BACK"
            | "FAILED_NODES"
            | "NOTHING_TO_PROMOTE"
            | "NOTHING_TO_RETRY"
            | "NOTHING_TO_EXCUSE"
            | "EXCUSE_LAST_NODE"
            | "STALE_GRANT"
            | "ATTACHING"
            | "NOTHING_TO_UNDO"
            | "PARTIAL_UNDO"
            | "PLUGIN_PINNED"
            | "UNDO_REMOVES"
            | "MEMBER_ID_REUSED"
            | "MEMBER_ADDRESS_IN_USE"
            | "MEMBER_NOT_WAITING"
            | "MEMBER_QUORUM"
            | "LAST_MEMBER"
            | "TOO_MANY_MEMBERS"
            | "NO_SUCCESSOR"
            | "TRANSFER_FAILED"
            | "CLUSTER_MISMATCH"
            | "NOTHING_TO_APPROVE"
            | "BACKUP_EXISTS"
            | "RESTORE_NOT_EMPTY"
            | "EPOCH_USED"
            | "SUPERSEDED" => Code::FailedPrecondition,
            "INTERNAL" | "STORE_CORRUPT" | "ARTIFACT_STORE" | "SEALING_KEY_WRONG" => Code::Internal,
            "RESOURCE_EXHAUSTED" | "TOO_MANY_RELEASES" | "ENTITIES_TOO_LARGE" => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        }
    }

    /// As a gRPC status; `leader` is the URL of the leader's gRPC endpoint when this member cannot answer itself.
    pub fn to_status(&self, leader: Option<&str>) -> Status {
        let mut status = Status::new(self.class(), self.message.clone());
        for (key, value) in [(CODE, self.code.as_str()), (HINT, &self.hint), (LEADER, leader.unwrap_or(""))] {
            // Metadata must be visible ASCII; a value that is not is dropped rather than turned into another error.
            if let (false, Ok(value)) = (value.is_empty(), MetadataValue::try_from(value)) {
                status.metadata_mut().insert(key, value);
            }
        }
        status
    }

    /// The fault a status carries, or one made of its gRPC class, and the leader it points to.
    pub fn from_status(status: &Status) -> (Self, Option<String>) {
        let text = |key| status.metadata().get(key).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let code = text(CODE).unwrap_or_else(|| match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => "UNREACHABLE".into(),
            // Only what happened on this side of the wire has a cause: the connection broke under the call.
            Code::Unknown if std::error::Error::source(status).is_some() => "UNREACHABLE".into(),
            Code::NotFound => "NOT_FOUND".into(),
            Code::Unauthenticated | Code::PermissionDenied => "NOT_ALLOWED".into(),
            _ => "INTERNAL".into(),
        });
        let fault = Self { code, message: status.message().into(), hint: text(HINT).unwrap_or_default() };
        (fault, text(LEADER))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = Fault::new("PLUGIN_BUSY", "busy").hint("kctl operation list");
        let status = fault.to_status(Some("http://127.0.0.1:1"));
        assert_eq!(Fault::from_status(&status), (fault, Some("http://127.0.0.1:1".into())));
    }
}
