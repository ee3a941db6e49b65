//! What must hold after every event. Each law has the name of the invariant it is an instance of.
//!
//! - **I1** files go only where no directive, proof or worker needs them, and those of a removed plugin only when no node
//!   runs it; **B2** deleting begins with no old worker that runs it and no entity of it.
//! - **I2** a proven plugin leaves a reload only after two empty scans were committed, or in the undoing of an install;
//!   nodes without an Admin API lose it last, and by then a later scan than their last reload saw no entity (**F2**).
//! - **I6** lock and live operation are one (`state::invariants`); **I7** no step begins before those before it are over.
//! - **I8** an agent's fence never falls, across its restarts too; one generation is one spec.
//! - **I9** only ids that the log recorded, of entities that were saved, are deleted; a removal that was called off ends
//!   with all of them under their ids, but for what Kong refused or people deleted themselves. **I10** members with the same log have the same state, and a
//!   rejection changes nothing.
//! - **I14** what was listed by hand stays listed and loaded.
//! - **I15** evidence of a former start of an agent is no evidence. **I16** what a reload brings in was asked for by the
//!   node's spec, or was proven before.
//!
//! Not here: I4 is consensus (`control-plane/tests/raft_cluster.rs`), I13 `control-plane/tests/core`, I5 migrations that do not exist
//! yet, I11 the editor of kong.conf (`node-agent/tests/gateway_kong_conf.rs`, `tests/tests/crash_points.rs`). I3 and I12
//! are about hashes and half-written trees: files here are whole or absent, and a Kong refuses a list that lacks some. What
//! concerns nodes that are held, leave or come back is in `standing.rs`.

use std::collections::{BTreeMap, BTreeSet};

use kctl_control_plane::state::duty::NodeChange;
use kctl_control_plane::state::operation::{
    NodeStep, Operation, OperationKind, Phase, Step, StepKind, StepPhase, Verdict,
};
use kctl_control_plane::state::{ClusterState, Command, invariants};
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::ReleaseRef;

use super::agent::Fact;
use super::control::group;
use super::machine::{FOREIGN, Machine};
use super::standing::Standing;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Law {
    pub name: &'static str,
    pub detail: String,
}

impl Law {
    pub fn new(name: &'static str, detail: String) -> Self {
        Self { name, detail }
    }
}

pub type Judged = Result<(), Law>;

pub fn hold(name: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(Law::new(name, detail())) }
}

/// What was seen so far, beside the world itself.
#[derive(Debug, Default)]
pub struct Ghost {
    recorded: BTreeSet<String>,
    saved: BTreeSet<String>,
    /// Entities that people deleted with their own hands.
    pub by_hand: BTreeSet<String>,
    /// By installation.
    fences: BTreeMap<String, (u64, u64)>,
    boots: BTreeMap<String, u64>,
    standing: Standing,
    /// The order in which things happened: a reload without the plugin, a scan that saw no entity of it.
    moment: u64,
    dropped: BTreeMap<PluginName, u64>,
    found_none: BTreeMap<PluginName, u64>,
    /// Nodes whose Admin API was known when an operation was asked for, which its order goes by.
    pub admins: BTreeMap<String, BTreeSet<NodeId>>,
}

pub struct Seen<'a> {
    pub truth: &'a ClusterState,
    pub machines: BTreeMap<&'a NodeId, &'a Machine>,
    pub entities: &'a BTreeMap<String, PluginName>,
}

impl Seen<'_> {
    fn latest(&self, plugin: &PluginName) -> Option<&Operation> {
        if let Some(live) = self.truth.operation_on(&group(), plugin) {
            return Some(live);
        }
        let ended = self.truth.ended.iter().rev().filter_map(|id| self.truth.operations.get(id));
        ended.into_iter().find(|o| &o.plugin == plugin)
    }
}

impl Ghost {
    pub fn fence(&mut self, node: &NodeId, nonce: &str, fence: (u64, u64)) -> Judged {
        let former = self.fences.insert(nonce.to_owned(), fence).unwrap_or_default();
        hold("I8", former <= fence, || format!("{node} went from generation {former:?} back to {fence:?}"))?;
        self.standing.follows(node, nonce, fence.1)
    }

    /// The memory of this installation was set back.
    pub fn forget(&mut self, nonce: &str) {
        self.fences.remove(nonce);
    }

    /// A command that was accepted; `truth` is the state after it, `machines` the nodes at that moment.
    pub fn accepted(&mut self, command: &Command, seen: &Seen<'_>) -> Judged {
        if let Some(violation) = invariants::check(seen.truth).first() {
            return Err(Law::new("I6", format!("{}: {}", violation.law, violation.detail)));
        }
        if let Some(newcomer) = self.standing.newcomer(command) {
            // It comes in where operations stand, whatever was known of a former one.
            self.admins.values_mut().for_each(|nodes| {
                let _was = nodes.remove(newcomer);
            });
        }
        self.standing.accepted(command, seen)?;
        match command {
            Command::ChangeNode { change: NodeChange::Readmit { nonce, boot, .. }, .. } => {
                self.boots.insert(nonce.clone(), *boot);
            }
            Command::RegisterNode { node, nonce, boot, .. } => {
                let former = self.boots.insert(nonce.clone(), *boot).unwrap_or_default();
                hold("I15", former <= *boot, || {
                    format!("{node}: start {boot} of its agent came after {former}")
                })?;
            }
            Command::RecordEntities { entities, .. } => self.recorded.extend(entities.keys().cloned()),
            Command::Dispatch { operation, step, .. } => {
                let operation = &seen.truth.operations[operation];
                let before = &operation.steps[..*step];
                hold("I7", before.iter().all(Step::is_over), || {
                    format!("{} step {step} before the barrier", operation.id)
                })?;
                hold("I7", operation.cursor == *step, || {
                    format!("{} step {step} is not where it stands", operation.id)
                })?;
                let kind = operation.steps[*step].kind;
                if matches!(kind, StepKind::Disable | StepKind::Purge) {
                    let done = |k| before.iter().rev().find(|s| s.kind == k).map(|s| s.phase);
                    let detached = done(StepKind::Detach) == Some(StepPhase::Done);
                    hold("I7", detached, || format!("{} {} while attached", operation.id, kind.as_str()))?;
                }
            }
            Command::AdvanceCursor { operation, from, .. } => {
                let operation = &seen.truth.operations[operation];
                let (dropped, scan) =
                    (self.dropped.get(&operation.plugin), self.found_none.get(&operation.plugin));
                passed(operation, *from, dropped <= scan, seen)?
            }
            Command::Intervene { operation, .. } => {
                let operation = &seen.truth.operations[operation];
                let back = operation.kind == OperationKind::Remove && operation.phase == Phase::RollingBack;
                hold("B2", !(back && operation.is_past_return()), || {
                    format!("{} goes back although files go", operation.id)
                })?;
            }
            Command::ConcludeAttach { operation, refused, .. } => {
                let operation = &seen.truth.operations[operation];
                let told = |id: &&String| refused.contains_key(*id) || self.by_hand.contains(*id);
                let lost = operation.entities.keys().find(|id| !seen.entities.contains_key(*id) && !told(id));
                hold("I9", lost.is_none(), || format!("{} ends without {lost:?}", operation.id))?;
            }
            Command::FinishOperation { operation, .. } => finished(&seen.truth.operations[operation], seen)?,
            _ => {}
        }
        Ok(())
    }

    /// Something an agent did to its node.
    /// `following`: the generation of its agent's spec.
    pub fn did(
        &mut self,
        node: &NodeId,
        nonce: &str,
        following: u64,
        fact: &Fact,
        seen: &Seen<'_>,
    ) -> Judged {
        let machine = seen.machines[node];
        self.standing.did(node, nonce, fact)?;
        let is_member = seen.is_member(node, following);
        self.moment += 1;
        match fact {
            Fact::FoundNone(plugin) => {
                self.found_none.insert(plugin.clone(), self.moment);
                Ok(())
            }
            Fact::EntitiesSaved { ids } => {
                self.saved.extend(ids.iter().cloned());
                Ok(())
            }
            Fact::EntityAttached { id, plugin } => {
                hold("I9", self.recorded.contains(id) && self.saved.contains(id), || {
                    format!("{node} re-created {id}, which was never taken away")
                })?;
                attached(plugin, seen)
            }
            Fact::EntityDeleted { id } => {
                hold("I9", self.recorded.contains(id) && self.saved.contains(id), || {
                    format!("{node} deleted {id}, which nobody recorded and saved")
                })
            }
            Fact::Conflict(message) => Err(Law::new("I8", format!("{node}: {message}"))),
            Fact::Deleted { plugin, placement } => {
                let needs = |w: &super::machine::Workers| w.get(plugin) == Some(&Some(placement.clone()));
                let runs = needs(&machine.loaded) || machine.old.iter().any(needs);
                hold("I1", !runs, || format!("{node} deleted files of {plugin} under its workers"))?;
                let rest = seen.truth.plugin(&group(), plugin).and_then(|p| p.operation.as_ref());
                let live = rest.and_then(|id| seen.truth.operations.get(id));
                let removed =
                    |o: &&Operation| o.kind == OperationKind::Remove && o.release == placement.digest;
                if let Some(live) = live.filter(removed).filter(|_| is_member) {
                    let on = |m: &Machine| {
                        m.loaded.get(plugin).is_some_and(|l| l.as_ref() == Some(placement))
                            || m.old.iter().any(needs)
                    };
                    // Who was let in again since files go runs it until its turn comes.
                    let purge = live.steps.iter().filter(|s| s.kind == StepKind::Purge && !s.is_over());
                    let begun = purge.flat_map(|s| s.nodes.values()).filter_map(|n| n.grant).min();
                    let late = |n: &NodeId| seen.truth.nodes.get(n).is_some_and(|r| Some(r.since) > begun);
                    let known = seen.machines.iter().filter(|(n, m)| seen.is_known(n, m) && !late(n));
                    let other = known.into_iter().find(|(_, m)| on(m)).map(|(n, _)| *n);
                    hold("I1", other.is_none(), || {
                        format!("{node} deleted files of {plugin} while {other:?} runs it")
                    })?;
                    let back = live.phase == Phase::RollingBack;
                    hold("I1", !back, || {
                        format!("{node} deleted files of {plugin} while its removal is called off")
                    })?;
                    hold("I1", live.is_past_return(), || {
                        format!("{node} deleted files of {plugin} before B2")
                    })?;
                }
                Ok(())
            }
            Fact::Reloaded { before, after, proven, asked } => {
                let foreign = after.keys().any(|n| n.as_str() == FOREIGN);
                hold("I14", foreign, || format!("{node} lost what was listed by hand"))?;
                for (plugin, placement) in after {
                    let Some(placement) = placement else { continue };
                    let is = |r: &ReleaseRef| r.placement() == *placement;
                    let spec = asked.as_ref().and_then(|s| s.plugins.get(plugin));
                    let wanted = spec.is_some_and(|s| s.enabled.as_ref().is_some_and(is));
                    let was = proven.listed.get(plugin).is_some_and(is);
                    hold("I16", wanted || was, || format!("{node} runs a {plugin} that nobody asked for"))?;
                }
                for plugin in after.keys().filter(|p| !before.contains_key(*p)) {
                    restored(node, plugin, &self.admins, seen)?;
                }
                for plugin in before.keys().filter(|p| is_member && !after.contains_key(*p)) {
                    if machine.admin {
                        self.dropped.insert(plugin.clone(), self.moment);
                    }
                    if proven.listed.contains_key(plugin) {
                        dropped(node, plugin, following, &self.admins, seen)?;
                    }
                }
                Ok(())
            }
            Fact::PutBack | Fact::Refused | Fact::Fetched(_) | Fact::BegunWhileHeld(_) => Ok(()),
        }
    }
}

/// A plugin that was proven to run is not loaded any more after a reload that `following` asked for, the generation of
/// the agent's spec.
fn dropped(
    node: &NodeId,
    plugin: &PluginName,
    following: u64,
    admins: &BTreeMap<String, BTreeSet<NodeId>>,
    seen: &Seen<'_>,
) -> Judged {
    let operation = seen.latest(plugin);
    let detached =
        |o: &Operation| o.steps.iter().any(|s| s.kind == StepKind::Detach && s.phase == StepPhase::Done);
    // What its predecessor proved is asked for again: until it hears of that it is as before the operation.
    let anew = |n: &NodeStep| n.grant.is_none_or(|g| g.index > following);
    let withdrawn = |s: &Step| s.kind == StepKind::Enable && s.nodes.get(node).is_some_and(|n| anew(n));
    let allowed = operation.is_none_or(|o| match o.kind {
        OperationKind::Remove => detached(o) && o.phase != Phase::Compensated,
        _ => matches!(o.phase, Phase::RollingBack | Phase::Failed) || o.steps.iter().any(withdrawn),
    });
    hold("I2", allowed, || format!("{node} dropped {plugin} before B1"))?;
    let Some(operation) = operation.filter(|o| o.kind == OperationKind::Remove) else { return Ok(()) };
    if seen.machines[node].admin {
        return Ok(());
    }
    // Whose Admin API became known later comes in where the operation stands.
    let late =
        admins.get(&operation.id).into_iter().flatten().find(|n| {
            seen.machines.get(n).is_some_and(|m| seen.is_known(n, m) && m.loaded.contains_key(plugin))
        });
    hold("I2", late.is_none(), || {
        format!("{node} dropped {plugin} before {late:?}, whose Admin API takes entities of it")
    })
}

/// Nodes of a live removal that may have dropped it, or that were let enable it, and whose Kong runs without it.
fn lacking<'a>(operation: &Operation, seen: &'a Seen<'_>) -> impl Iterator<Item = &'a NodeId> {
    let kinds = [StepKind::Disable, StepKind::Enable];
    let (touched, plugin) = (operation.touched(&kinds), operation.plugin.clone());
    let lacks = move |m: &Machine| m.up && !m.loaded.contains_key(&plugin);
    // Who is let in when no step is left that would wait for it is given the plugin while entities come back.
    let late = move |n: &NodeId| {
        let entries = || operation.steps.iter().filter_map(|s| Some((s, s.nodes.get(n)?)));
        let since = seen.truth.nodes.get(n).map(|record| record.since);
        since > entries().filter_map(|(_, entry)| entry.grant).max() && entries().all(|(s, _)| s.is_over())
    };
    let known = seen.machines.iter().filter(|(n, m)| seen.is_known(n, m));
    known.filter(move |(n, m)| touched.contains(**n) && lacks(m) && !late(n)).map(|(n, _)| *n)
}

/// An entity is there again: a node without the plugin would take no change of any plugin from here on.
fn attached(plugin: &PluginName, seen: &Seen<'_>) -> Judged {
    let operation = seen.truth.operation_on(&group(), plugin);
    let frozen = operation.and_then(|o| lacking(o, seen).next());
    hold("I2", frozen.is_none(), || format!("an entity of {plugin} is there again and {frozen:?} lacks it"))
}

/// A plugin is loaded that was not: in the undoing of a removal, Admin APIs take entities of it last.
fn restored(
    node: &NodeId,
    plugin: &PluginName,
    admins: &BTreeMap<String, BTreeSet<NodeId>>,
    seen: &Seen<'_>,
) -> Judged {
    let Some(operation) = seen.truth.operation_on(&group(), plugin) else { return Ok(()) };
    let known = admins.get(&operation.id).is_some_and(|a| a.contains(node));
    if operation.kind != OperationKind::Remove || operation.phase != Phase::RollingBack || !known {
        return Ok(());
    }
    let late = lacking(operation, seen).find(|n| !seen.machines[n].admin);
    hold("I2", late.is_none(), || format!("{node} takes entities of {plugin} again before {late:?} has it"))
}

/// A barrier was passed.
fn passed(operation: &Operation, from: usize, scanned: bool, seen: &Seen<'_>) -> Judged {
    let step = &operation.steps[from];
    if step.kind != StepKind::Disable {
        return Ok(());
    }
    let plugin = &operation.plugin;
    let runs = |node: &NodeId| {
        seen.machines.get(node).is_some_and(|m| seen.is_known(node, m) && m.loaded.contains_key(plugin))
    };
    let verified = step.nodes.iter().filter(|(_, s)| s.verdict == Some(Verdict::Verified));
    let lied = verified.map(|(n, _)| n).find(|n| runs(n));
    hold("I7", lied.is_none(), || format!("the barrier was passed while {lied:?} runs {plugin}"))?;
    let next = operation.steps.get(from + 1);
    // Of a machine that is no more its facts still count, also when another one that has its name was not let in yet.
    let is_admin = |n: &NodeId| {
        let facts = seen.truth.nodes.get(n).is_some_and(|r| r.facts.has_admin_api);
        facts || seen.machines.get(n).is_some_and(|m| m.admin)
    };
    let admin = |s: &Step| s.nodes.keys().any(is_admin);
    let purges = next.is_some_and(|s| s.kind == StepKind::Purge);
    if purges || next.is_some_and(|n| n.kind == StepKind::Disable && !admin(n)) {
        let law = if purges { "B2" } else { "F2" };
        hold(law, scanned, || format!("no scan since the last Admin API dropped {plugin}"))?;
        let id = seen.entities.iter().find(|(_, p)| *p == plugin).map(|(id, _)| id);
        hold(law, id.is_none(), || format!("{id:?} refers to {plugin}, which nodes do not have any more"))?;
    }
    if purges {
        let old = seen.machines.iter().find(|(node, m)| {
            seen.is_known(node, m)
                && operation.nodes().contains(**node)
                && m.old.iter().any(|w| w.contains_key(plugin))
        });
        hold("B2", old.is_none(), || format!("old workers run {plugin} on {:?}", old.map(|o| o.0)))?;
    }
    Ok(())
}

/// An operation ended: after a removal no node has anything of the plugin, however late it joined.
fn finished(operation: &Operation, seen: &Seen<'_>) -> Judged {
    let plugin = &operation.plugin;
    if operation.kind != OperationKind::Remove || operation.phase != Phase::Succeeded {
        return Ok(());
    }
    let has = |m: &Machine| m.runs(plugin) || m.stored.contains_key(plugin);
    let left = seen.machines.iter().find(|(node, m)| seen.is_known(node, m) && has(m));
    hold("B3", left.is_none(), || {
        format!("{} ended and {:?} still has {plugin}", operation.id, left.map(|(node, _)| node))
    })
}
