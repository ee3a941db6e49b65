//! What the consensus library is told about our data, and how it is written down.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use super::batch::{CommandBatch, Commands};
use crate::state::command::{Event, Rejection};
pub use crate::state::members::MemberAddress;

/// Format of everything this module writes to disk or sends to a peer. Raised on an incompatible change.
pub(super) const FORMAT: u8 = 1;

/// What became of one command.
pub type Outcome = Result<Vec<Event>, Rejection>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Outcome>);

openraft::declare_raft_types!(
    pub TypeConfig:
        D = CommandBatch,
        R = Outcomes,
        NodeId = u64,
        Node = MemberAddress,
);

pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Vec<u8>>;

/// Version byte, then MessagePack with field names.
pub(super) fn encode<T: Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    rmp_serde::encode::write_named(&mut bytes, value).map_err(std::io::Error::other)?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> std::io::Result<T> {
    match bytes.split_first() {
        Some((&FORMAT, body)) => rmp_serde::from_slice(body).map_err(std::io::Error::other),
        Some((other, _)) => Err(std::io::Error::other(format!("format {other} is not known here"))),
        None => Err(std::io::Error::other("empty record")),
    }
}
