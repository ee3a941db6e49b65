//! What a plugin was before, read and brought back; and what keeps it as it is.

use kctl_shared::fault::Fault;
use kctl_shared::package::{MAX_VERSION, is_version};
use kctl_shared::proto::v1;
use kctl_shared::version;

use super::plugin::{Decision, decide_install};
use super::{Api, request};
use crate::state::Command;
use crate::state::history::{Revision, taken_away};
use crate::state::model::{ClusterState, Group, Target};
use crate::state::operation::{Operation, Step, StepKind};

/// Which revision is meant: the one that was asked for, or the one before the newest. What the newest removal removed
/// stands in the removal itself.
fn meant<'a>(history: &'a [Revision], plugin: &str, to: u32) -> Result<&'a Revision, Fault> {
    let newest = history.last().ok_or_else(|| {
        Fault::new("NOTHING_TO_UNDO", format!("{plugin} has no history")).hint("kctl plugin list")
    })?;
    let found = match to {
        0 if newest.is_removal() => return Ok(newest),
        0 => history.iter().rev().nth(1).ok_or_else(|| {
            Fault::new(
                "NOTHING_TO_UNDO",
                format!("nothing is known of {plugin} before revision {}", newest.number),
            )
            .hint(format!("kctl plugin history {plugin}"))
        })?,
        to => history.iter().find(|r| r.number == to).ok_or_else(|| {
            Fault::new("REVISION_NOT_FOUND", format!("{plugin} has no revision {to}, or none that is kept"))
                .hint(format!("kctl plugin history {plugin}"))
        })?,
    };
    if found.is_removal() && found.number != newest.number {
        let message = format!("in revision {} {plugin} was not there: that is a removal", found.number);
        return Err(
            Fault::new("UNDO_REMOVES", message).hint(format!("kctl plugin remove {plugin} --all-nodes"))
        );
    }
    Ok(found)
}

/// An install or upgrade like any other, to what the revision had; behind it, what the newest removal took away.
pub(super) fn decide_undo(state: &ClusterState, r: &v1::UndoRequest) -> Result<Decision, Fault> {
    let body = request::body_hash(r);
    let id = request::request_id(&r.request_id)?;
    if let Some(record) = state.requests.get(&id) {
        return super::plugin::repeated(record, &body, &id);
    }
    let (plugin, group) = (request::plugin(&r.plugin)?, request::group(&r.group)?);
    let record = state.groups.get(&group).cloned().unwrap_or_default();
    let history = record.history.get(&plugin).map(Vec::as_slice).unwrap_or_default();
    let wanted = meant(history, &r.plugin, r.to)?;
    let request = v1::InstallRequest {
        request_id: r.request_id.clone(),
        plugin: r.plugin.clone(),
        digest: wanted.release.to_string(),
        version: wanted.version.clone(),
        group: r.group.clone(),
        target: r.target.clone(),
        policy: r.policy.clone(),
        reason: r.reason.clone(),
        // Going back is what was asked for, and what ran before was permitted before.
        allow_downgrade: true,
        allow_shadow: true,
        dry_run: r.dry_run,
        method: wanted.method.name().into(),
        place: wanted.method.place().into(),
        make: wanted.method.makes(),
        adopt: false,
        set_nginx: Some(wanted.set_nginx),
    };
    let decision = decide_install(state, &request)?;
    let Decision::Start(mut operation) = decision else { return Ok(decision) };
    operation.request_body = body;
    operation.undo_to = Some(wanted.number);
    attach(state, &record, &mut operation)?;
    Ok(Decision::Start(operation))
}

fn attach(state: &ClusterState, group: &Group, operation: &mut Operation) -> Result<(), Fault> {
    let Some(removal) = taken_away(group, &operation.plugin) else { return Ok(()) };
    operation.entities.clone_from(&removal.entities);
    operation.saved.clone_from(&removal.saved);
    if !state.has_to_attach(operation) {
        operation.entities.clear();
        operation.saved.clear();
        return Ok(());
    }
    let covers = |target: &Target| state.staying_in(&operation.group).all(|(node, _)| target.includes(node));
    if !covers(&operation.target) {
        let message = format!(
            "{} configurations of {} come back with it, for which every node of group {} has to have it",
            operation.entities.len(),
            operation.plugin,
            operation.group
        );
        return Err(Fault::new("PARTIAL_UNDO", message).hint("--all-nodes"));
    }
    operation.steps.push(Step::new(StepKind::Attach, 0, []));
    Ok(())
}

impl Api {
    pub(super) fn history_of(&self, r: &v1::HistoryRequest) -> Result<v1::HistoryResponse, Fault> {
        let (plugin, group) = (request::plugin(&r.name)?, request::group(&r.group)?);
        let revisions = self.hub.view(|s| s.history(&group, &plugin));
        if revisions.is_empty() {
            let message = format!("{plugin} was never installed in group {group}, or that is forgotten");
            return Err(Fault::new("PLUGIN_NOT_INSTALLED", message).hint("kctl plugin list"));
        }
        Ok(v1::HistoryResponse { revisions })
    }

    pub(super) fn decide_pin(&self, r: &v1::PinRequest) -> Result<Command, Fault> {
        let (plugin, group) = (request::plugin(&r.name)?, request::group(&r.group)?);
        let installed = self.hub.consensus.with_state(|s| {
            let release = s.plugin(&group, &plugin).and_then(|p| p.release);
            release.and_then(|d| s.releases.get(&d)).map(|l| l.version.clone())
        });
        let version = match (r.unpin, r.version.as_str()) {
            (true, _) => None,
            (false, "") => Some(installed.unwrap_or_default()),
            (false, version) if is_version(version) => Some(version.to_owned()),
            (false, version) => {
                return Err(Fault::new("VERSION_INVALID", format!("{version:?} is not a version"))
                    .hint(format!("1 to {MAX_VERSION} letters, digits, `.`, `_`, `+`, `-`")));
            }
        };
        Ok(Command::Pin { group, plugin, version })
    }
}

/// Whether `new` is lower than `old`; false when the two cannot be compared.
pub(super) fn is_lower(new: &str, old: &str) -> bool {
    version::compare(new, old) == Some(std::cmp::Ordering::Less)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::operation::OperationKind;
    use kctl_shared::digest::Digest;

    fn revision(number: u32, kind: OperationKind) -> Revision {
        Revision {
            number,
            kind,
            undo_to: None,
            release: Digest::of(&number.to_be_bytes()),
            version: format!("{number}.0.0"),
            method: Default::default(),
            set_nginx: false,
            target: Target::AllNodes,
            at: Default::default(),
            operation: String::new(),
            reason: String::new(),
            entities: Default::default(),
            saved: Vec::new(),
        }
    }

    #[test]
    fn the_one_before_is_meant_unless_another_is_named() {
        use OperationKind::{Install, Remove, Upgrade};
        let of = |kinds: &[OperationKind]| -> Vec<_> {
            kinds.iter().zip(4..).map(|(k, n)| revision(n, *k)).collect()
        };
        for (kinds, to, expected) in [
            (&[Install, Upgrade][..], 0, Ok(4)),
            (&[Install, Upgrade, Upgrade], 0, Ok(5)),
            (&[Install, Upgrade, Upgrade], 4, Ok(4)),
            (&[Install, Remove], 0, Ok(5)),
            (&[Remove], 0, Ok(4)),
            (&[Install, Remove], 4, Ok(4)),
            (&[Install], 0, Err("NOTHING_TO_UNDO")),
            (&[], 0, Err("NOTHING_TO_UNDO")),
            (&[Install, Upgrade], 3, Err("REVISION_NOT_FOUND")),
            (&[Install, Remove, Install], 0, Err("UNDO_REMOVES")),
            (&[Install, Remove, Install], 5, Err("UNDO_REMOVES")),
        ] {
            let history = of(kinds);
            let found = meant(&history, "golden", to);
            let found = found.as_ref().map(|r| r.number).map_err(|f| f.code.as_str());
            assert_eq!(found, expected, "{kinds:?} {to}");
        }
    }
}
