//! One record for each change, made where the change is made: whoever applies an entry has its record, and nobody has one
//! without it.
//!
//! The state keeps the newest [`KEPT`] and the head of the chain, so that they survive whatever the state survives
//! (restarts, snapshots, a backup) and do not grow without end. Older ones are for whoever keeps archives: `kctl audit -o
//! jsonl` writes them, `kctl audit verify --file` proves that an archive is unbroken.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use kctl_shared::audit::{GENESIS, Record, Subject};
use kctl_shared::digest::Digest;
use serde::{Deserialize, Serialize};

use super::command::{Command, LogStamp};
use super::model::{ClusterState, Node};
use super::operation::Operation;

/// Records in the state; about as much as a person reads back.
pub const KEPT: usize = 2_000;
/// What the control plane decides by itself.
pub const CONTROL_PLANE: &str = "control-plane";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// Records there ever were.
    pub count: u64,
    /// Hash of the newest one.
    pub head: Digest,
    /// Oldest first, at most [`KEPT`].
    pub recent: VecDeque<Arc<Record>>,
}

impl Default for Audit {
    fn default() -> Self {
        Self { count: 0, head: GENESIS, recent: VecDeque::new() }
    }
}

/// What a record says beside where and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub who: Option<String>,
    pub verb: &'static str,
    pub subject: Subject,
    pub reason: String,
    pub request_id: String,
    pub detail: String,
}

/// Texts below this length are not worth looking for.
const WORTH_SHARING: usize = 256;

impl Audit {
    /// The same text of a record that is there already, if there is one: what names all nodes is said of each operation.
    fn shared(&self, detail: Arc<str>) -> Arc<str> {
        let same = |r: &&Arc<Record>| r.detail.len() == detail.len() && r.detail == detail;
        let known = self.recent.iter().rev().filter(|_| detail.len() >= WORTH_SHARING).find(same);
        known.map_or(detail, |r| r.detail.clone())
    }

    /// Gives records that were read from somewhere one copy of each text.
    pub(super) fn share(&mut self) {
        let mut texts = BTreeSet::new();
        for record in self.recent.iter_mut().filter(|r| r.detail.len() >= WORTH_SHARING) {
            match texts.get(&record.detail) {
                Some(text) => Arc::make_mut(record).detail = Arc::clone(text),
                None => drop(texts.insert(record.detail.clone())),
            }
        }
    }

    pub(super) fn append(&mut self, at: LogStamp, who: &str, draft: Draft) {
        self.count += 1;
        let mut record = Record {
            seq: self.count,
            index: at.index,
            offset: at.offset,
            at: at.proposed_at,
            who: draft.who.unwrap_or_else(|| who.to_owned()),
            verb: draft.verb.into(),
            subject: draft.subject,
            reason: draft.reason,
            request_id: draft.request_id,
            detail: self.shared(draft.detail.into()),
            previous: self.head,
            hash: GENESIS,
        };
        record.hash = record.computed();
        self.head = record.hash;
        self.recent.push_back(Arc::new(record));
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
    }
}

fn on(operation: &str) -> Subject {
    Subject { operation: operation.to_owned(), ..Subject::default() }
}

pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

/// What is recorded of a command, if it is accepted: one record for each change, so one for each operation of a batch.
pub(super) fn drafts(state: &ClusterState, command: &Command) -> Vec<Draft> {
    let Command::StartBatch { operations } = command else {
        return draft(state, command).into_iter().collect();
    };
    let new = operations.iter().filter(|o| !state.requests.contains_key(&o.request_id));
    new.map(started).collect()
}

/// What is recorded of a command that makes one change, if it is accepted; nothing of one that was carried out before and changes nothing more.
fn draft(state: &ClusterState, command: &Command) -> Option<Draft> {
    if is_repeated(state, command) {
        return None;
    }
    let mut draft = of(command);
    let operation = state.operations.get(&draft.subject.operation);
    if let Some(operation) = operation.filter(|_| draft.subject.plugin.is_empty()) {
        draft.subject.plugin = operation.plugin.to_string();
        draft.subject.group = operation.group.to_string();
    }
    Some(draft)
}

/// A retry finds what the first try did: that is an answer, not a change.
fn is_repeated(state: &ClusterState, command: &Command) -> bool {
    match command {
        Command::StartOperation { operation } => state.requests.contains_key(&operation.request_id),
        Command::Intervene { request, .. } => state.requests.contains_key(&request.id),
        Command::RegisterRelease { release } => state.releases.contains_key(&release.digest),
        Command::RegisterNode { node, group, nonce, boot, facts } => {
            // What mostly differs comes first.
            let same = |n: &Node| (n.boot, &n.facts, &n.nonce, &n.group) == (*boot, facts, nonce, group);
            state.nodes.get(node).is_some_and(same)
        }
        Command::Pin { group, plugin, version } => {
            state.plugin(group, plugin).is_some_and(|p| p.pinned == *version)
        }
        Command::AdmitMember { id, .. } => state.members.contains_key(id),
        Command::DismissMember { id, .. } => state.members.get(id).is_some_and(|m| !m.is_wanted()),
        Command::ApproveNode { node, epoch, .. } => state.approved.get(node) == Some(epoch),
        Command::ChangeNode { node, change, .. } => super::duty::is_so(state, node, change),
        Command::ChangeGroup { group, change, .. } => super::duty::is_group_so(state, group, change),
        _ => false,
    }
}

fn started(o: &Operation) -> Draft {
    Draft {
        verb: o.kind.as_str(),
        subject: Subject { group: o.group.to_string(), plugin: o.plugin.to_string(), ..on(&o.id) },
        reason: o.reason.clone(),
        request_id: o.batch.clone().unwrap_or_else(|| o.request_id.clone()),
        detail: format!("{} {}", o.version, o.release),
        who: None,
    }
}

fn of(command: &Command) -> Draft {
    let plain = |verb, subject, detail: String| Draft { verb, subject, detail, ..Draft::default() };
    match command {
        Command::RegisterNode { node, group, boot, .. } => Draft {
            who: Some(["node/", node.as_str()].concat()),
            ..plain(
                "node.register",
                Subject {
                    node: node.as_str().to_owned(),
                    group: group.as_str().to_owned(),
                    ..Subject::default()
                },
                format!("start {boot}"),
            )
        },
        Command::RegisterRelease { release } => plain(
            "release.register",
            Subject { plugin: release.plugin.to_string(), ..Subject::default() },
            format!("{} {}", release.version, release.digest),
        ),
        Command::StartOperation { operation } => started(operation),
        // A record for each of them: see `drafts`.
        Command::StartBatch { .. } => Draft::default(),
        Command::Dispatch { operation, step, nodes } => {
            plain("operation.dispatch", on(operation), format!("step {step}: {}", list(nodes)))
        }
        Command::Settle { operation, step, verdicts, .. } => {
            plain("operation.settle", on(operation), format!("step {step}: {}", list(verdicts.keys())))
        }
        Command::AdvanceCursor { operation, from, summary, .. } => {
            plain("operation.advance", on(operation), format!("step {from} is over {summary}"))
        }
        Command::Reroute { operation, from, phase, error, .. } => {
            let why = error.as_ref().map(|e| format!(": {}", e.code)).unwrap_or_default();
            plain("operation.reroute", on(operation), format!("at step {from}, {}{why}", phase.as_str()))
        }
        Command::AssignApplier { operation, node, .. } => {
            plain("operation.applier", Subject { node: node.to_string(), ..on(operation) }, String::new())
        }
        Command::RecordEntities { operation, step, entities, .. } => plain(
            "operation.record-entities",
            on(operation),
            format!("step {step}: {}", list(entities.keys())),
        ),
        Command::ConcludeAttach { operation, from, refused, summary } => {
            let without =
                if refused.is_empty() { String::new() } else { format!(" without {}", list(refused.keys())) };
            plain("operation.attached", on(operation), format!("step {from}: {summary}{without}"))
        }
        Command::Pin { group, plugin, version } => plain(
            if version.is_some() { "plugin.pin" } else { "plugin.unpin" },
            Subject { group: group.to_string(), plugin: plugin.to_string(), ..Subject::default() },
            version.clone().unwrap_or_default(),
        ),
        Command::MintSealingKey { .. } => plain("cluster.sealing-key", Subject::default(), String::new()),
        Command::FinishOperation { operation, phase } => {
            plain("operation.finish", on(operation), phase.as_str().into())
        }
        Command::Relapse { operation, step, failures } => {
            plain("operation.relapse", on(operation), format!("step {step}: {}", list(failures.keys())))
        }
        Command::Hold { operation, from, .. } => {
            plain("operation.hold", on(operation), format!("at step {from}"))
        }
        Command::Intervene { operation, request, reason, what } => Draft {
            verb: "operation.step-in",
            subject: Subject {
                node: what.node().map(ToString::to_string).unwrap_or_default(),
                ..on(operation)
            },
            reason: reason.clone(),
            request_id: request.id.clone(),
            detail: what.as_str().into(),
            who: None,
        },
        Command::ForgetLeftover { group, plugin, node } => plain(
            "leftover.forget",
            Subject {
                group: group.to_string(),
                plugin: plugin.to_string(),
                node: node.to_string(),
                ..Subject::default()
            },
            String::new(),
        ),
        Command::AdmitMember { id, address, reason } => {
            Draft { reason: reason.clone(), ..plain("member.admit", member(*id), address.grpc.clone()) }
        }
        Command::DismissMember { id, reason } => {
            Draft { reason: reason.clone(), ..plain("member.dismiss", member(*id), String::new()) }
        }
        Command::ChangeNode { node, change, reason } => Draft {
            reason: reason.clone(),
            ..plain(change.verb(), Subject { node: node.to_string(), ..Subject::default() }, change.detail())
        },
        Command::ChangeGroup { group, change, reason } => Draft {
            reason: reason.clone(),
            ..plain(
                change.verb(),
                Subject { group: group.to_string(), ..Subject::default() },
                change.detail(),
            )
        },
        Command::ApproveNode { node, epoch, reason } => Draft {
            reason: reason.clone(),
            ..plain(
                "node.approve",
                Subject { node: node.to_string(), ..Subject::default() },
                format!("from epoch {epoch}"),
            )
        },
    }
}

fn member(id: u64) -> Subject {
    Subject { member: id.to_string(), ..Subject::default() }
}
