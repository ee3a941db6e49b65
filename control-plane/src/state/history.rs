//! What a plugin was in a group, operation by operation, so that it can be that again.

use std::collections::BTreeMap;

use kctl_shared::digest::Digest;
use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::LogStamp;
use super::model::{Group, Target};
use super::operation::{Operation, OperationId, OperationKind};

/// Revisions of one plugin that are kept; the oldest go first.
pub const KEPT_REVISIONS: usize = 20;
/// Plugins of a group that have a history; of those that are gone the one that went first is forgotten first.
pub const KEPT_HISTORIES: usize = 500;

/// What an operation that succeeded made of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1, never used again for the same plugin while any of its history is kept.
    pub number: u32,
    pub kind: OperationKind,
    /// The revision that it brought back.
    pub undo_to: Option<u32>,
    /// Of a removal: what was removed.
    pub release: Digest,
    pub version: String,
    pub method: Method,
    pub set_nginx: bool,
    pub target: Target,
    pub at: Timestamp,
    pub operation: OperationId,
    pub reason: String,
    /// Entities that the removal took away, id to "scope target", and the artifacts that hold them whole. Only as long as
    /// nothing came after it.
    pub entities: BTreeMap<String, String>,
    pub saved: Vec<Digest>,
}

impl Revision {
    pub fn is_removal(&self) -> bool {
        self.kind == OperationKind::Remove
    }
}

/// `operation` has succeeded.
pub(super) fn record(group: &mut Group, at: LogStamp, operation: &Operation) {
    let revisions = group.history.entry(operation.plugin.clone()).or_default();
    let number = revisions.last().map_or(0, |last| last.number) + 1;
    for former in revisions.iter_mut() {
        former.entities.clear();
        former.saved.clear();
    }
    let removes = operation.kind == OperationKind::Remove;
    let (entities, saved) =
        if removes { (operation.entities.clone(), operation.saved.clone()) } else { Default::default() };
    revisions.push(Revision {
        number,
        kind: operation.kind,
        undo_to: operation.undo_to,
        release: operation.release,
        version: operation.version.clone(),
        method: operation.method.clone(),
        set_nginx: operation.set_nginx,
        target: operation.target.clone(),
        at: at.proposed_at,
        operation: operation.id.clone(),
        reason: operation.reason.clone(),
        entities,
        saved,
    });
    if revisions.len() > KEPT_REVISIONS {
        revisions.remove(0);
    }
    while group.history.len() > KEPT_HISTORIES {
        let gone = group.history.iter().filter(|(name, _)| !group.plugins.contains_key(*name));
        let oldest = gone.min_by_key(|(name, revisions)| (revisions.last().map(|r| r.at), (*name).clone()));
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
        group.history.remove(&oldest);
    }
}

/// What the newest removal took away, if nothing came after it.
pub fn taken_away<'a>(group: &'a Group, plugin: &PluginName) -> Option<&'a Revision> {
    group.history.get(plugin)?.last().filter(|r| r.is_removal() && !r.entities.is_empty())
}
