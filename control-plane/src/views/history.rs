//! What a plugin was in a group.

use kctl_shared::name::{GroupName, PluginName};
use kctl_shared::proto::v1;
use kctl_shared::time::Timestamp;

use super::Sources;
use crate::state::history::Revision;

impl Sources<'_> {
    /// Oldest first.
    pub fn history(&self, group: &GroupName, plugin: &PluginName) -> Vec<v1::RevisionView> {
        let revisions = self.state.groups.get(group).and_then(|g| g.history.get(plugin));
        revisions.into_iter().flatten().map(|r| view(group, plugin, r)).collect()
    }
}

fn view(group: &GroupName, plugin: &PluginName, revision: &Revision) -> v1::RevisionView {
    let what = if revision.undo_to.is_some() { "undo" } else { revision.kind.as_str() };
    v1::RevisionView {
        revision: revision.number,
        what: what.into(),
        plugin: plugin.to_string(),
        group: group.to_string(),
        version: revision.version.clone(),
        digest: revision.release.to_string(),
        method: revision.method.name().into(),
        place: revision.method.place().into(),
        created_at: Some(Timestamp::to_proto(revision.at)),
        operation: revision.operation.clone(),
        reason: revision.reason.clone(),
        undo_to: revision.undo_to.unwrap_or_default(),
        entities: u32::try_from(revision.entities.len()).unwrap_or(u32::MAX),
    }
}
