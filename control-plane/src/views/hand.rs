//! How an operation is meant to go, and what people did to it.

use kctl_shared::proto::v1;

use crate::state::operation::{Operation, Policy};

pub(super) fn policy(policy: &Policy) -> v1::RolloutView {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    v1::RolloutView {
        waves: policy.waves.clone(),
        max_parallel: count(policy.max_parallel),
        max_failures: count(policy.max_failures),
        bake_ms: policy.bake_ms,
        node_deadline_ms: policy.node_deadline_ms,
        progress_deadline_ms: policy.progress_deadline_ms,
        pause_after: policy.pause_after.iter().copied().collect(),
        on_failure: policy.on_failure.as_str().into(),
        stop_after: policy.stop_after.map(|step| step.as_str().to_owned()).unwrap_or_default(),
    }
}

pub(super) fn excused(operation: &Operation) -> Vec<v1::ExcuseView> {
    let excused = operation.interventions.excused.iter();
    let view = |(node, excuse): (&_, &crate::state::operation::Excuse)| v1::ExcuseView {
        node: kctl_shared::name::NodeId::to_string(node),
        reason: excuse.reason.clone(),
        created_at: Some(excuse.at.to_proto()),
    };
    excused.map(view).collect()
}

pub(super) fn notes(operation: &Operation) -> Vec<v1::NoteView> {
    let notes = operation.interventions.notes.iter().map(|note| v1::NoteView {
        created_at: Some(note.at.to_proto()),
        verb: note.verb.clone(),
        node: note.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: note.reason.clone(),
    });
    notes.collect()
}

pub(super) fn refused(operation: &Operation) -> Vec<v1::RefusedEntityView> {
    let view = |(id, why): (&String, &kctl_shared::spec::Failure)| v1::RefusedEntityView {
        id: id.clone(),
        what: operation.entities.get(id).cloned().unwrap_or_default(),
        code: why.code.clone(),
        message: why.message.clone(),
    };
    operation.refused.iter().map(view).collect()
}
