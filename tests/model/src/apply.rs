//! `apply` of the model: each guard of the product's, in the same place, with the planted bugs.

mod progress;
pub mod way;

use crate::cluster::{Cluster, Kind, Operation, Phase, Step, StepKind};
use crate::command::Command;
use crate::mask::{Mask, bit, has};
use crate::setup::{Mutant, Setup};

/// Why a command changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

type Applied = Result<(), Rejected>;

fn guard(holds: bool) -> Applied {
    if holds { Ok(()) } else { Err(Rejected) }
}

/// Applies a committed command.
///
/// # Errors
/// [`Rejected`]; the state is unchanged.
pub fn apply(setup: &Setup, cluster: &mut Cluster, command: &Command) -> Applied {
    match command {
        Command::Register { node, boot } => register(setup, cluster, *node, *boot),
        Command::Decommission { node } => decommission(cluster, *node),
        Command::Leave { node } => leave(cluster, *node),
        Command::Forget { node } => forget(cluster, *node),
        Command::Start { kind, steps } => start(setup, cluster, *kind, steps),
        Command::Dispatch { operation, step, nodes } => {
            progress::dispatch(setup, cluster, *operation, *step, *nodes)
        }
        Command::Settle { operation, step, verified, failed } => {
            progress::settle(setup, cluster, *operation, *step, (*verified, *failed))
        }
        Command::Advance { operation, from } => progress::advance(setup, cluster, *operation, *from),
        Command::Assign { operation, node, former } => {
            progress::assign(setup, cluster, *operation, *node, *former)
        }
        Command::Record { operation, step, entities } => {
            progress::record(setup, cluster, *operation, *step, *entities)
        }
        Command::Reroute { operation, from, back, steps } => {
            way::reroute(setup, cluster, *operation, *from, *back, steps)
        }
        Command::Abort { operation, from, steps } => way::abort(setup, cluster, *operation, *from, steps),
        Command::Finish { operation, phase } => way::finish(cluster, *operation, *phase),
    }
}

fn register(setup: &Setup, cluster: &mut Cluster, node: usize, boot: u8) -> Applied {
    let known = cluster.boots[node];
    let unchecked = setup.is(Mutant::NoIncarnationCheck);
    guard(unchecked || (boot >= known && !has(cluster.gone, node)))?;
    cluster.boots[node] = boot;
    if known == 0 {
        cluster.generation += 1;
        if let Some(live) = cluster.lock.and_then(|id| cluster.operations.get_mut(id)) {
            include(setup, live, node);
        }
    }
    Ok(())
}

/// A node that joins during an operation becomes a member of it at the phase it is in.
fn include(setup: &Setup, operation: &mut Operation, node: usize) {
    let named = operation.steps.iter().any(|s| !s.is_over() && has(s.members, node));
    let kinds: &[StepKind] = match operation.kind {
        _ if named || setup.is(Mutant::FrozenMembers) => &[],
        Kind::Remove if setup.is(Mutant::JoinerStraightToActive) => &[],
        Kind::Install => &[StepKind::Enable],
        Kind::Remove => &[StepKind::Disable, StepKind::Purge],
    };
    for kind in kinds {
        if let Some(step) = operation.steps.iter_mut().rev().find(|s| s.kind == *kind && !s.is_over()) {
            step.members |= bit(node);
        }
    }
}

/// The node is taken out of the group for good: nothing waits for it any more.
fn decommission(cluster: &mut Cluster, node: usize) -> Applied {
    may_go(cluster, node)?;
    remove(cluster, node);
    Ok(())
}

/// The node is on its way out: nothing waits for it, and its spec asks it to take everything away.
fn leave(cluster: &mut Cluster, node: usize) -> Applied {
    guard(cluster.leaving[node] == 0)?;
    may_go(cluster, node)?;
    cluster.generation += 1;
    cluster.leaving[node] = cluster.generation;
    release(cluster, node);
    Ok(())
}

fn forget(cluster: &mut Cluster, node: usize) -> Applied {
    guard(cluster.boots[node] != 0 && cluster.leaving[node] != 0)?;
    remove(cluster, node);
    Ok(())
}

/// Not the last one of the live operation.
fn may_go(cluster: &Cluster, node: usize) -> Applied {
    guard(cluster.boots[node] != 0)?;
    let rest = cluster.staying() & !bit(node);
    let ends = |o: &Operation| o.phase == Phase::RollingBack || o.is_past_return();
    guard(cluster.live().is_none_or(|(_, o)| ends(o) || !has(o.members(), node) || o.members() & rest != 0))
}

fn remove(cluster: &mut Cluster, node: usize) {
    cluster.boots[node] = 0;
    cluster.leaving[node] = 0;
    cluster.gone |= bit(node);
    cluster.generation += 1;
    release(cluster, node);
    if let Some(live) = cluster.lock.and_then(|id| cluster.operations.get_mut(id)) {
        live.steps.iter_mut().filter(|s| !s.is_over()).for_each(|step| step.members &= !bit(node));
    }
}

/// Barriers no longer ask for the node.
fn release(cluster: &mut Cluster, node: usize) {
    if let Some(live) = cluster.lock.and_then(|id| cluster.operations.get_mut(id)) {
        let waited_for = live.current().is_some_and(|s| has(s.members, node));
        for step in live.steps.iter_mut().filter(|s| !s.is_over()) {
            step.members &= !bit(node) | step.verified;
        }
        let dropped = live.current().is_some_and(|s| s.kind == StepKind::Disable && s.open() == 0);
        if let Some(applier) = live.applier.as_mut().filter(|_| waited_for && dropped) {
            // Until now somebody could configure the plugin through it.
            applier.grant = cluster.generation;
        }
    }
}

/// Steps were composed of what nodes did, or on what somebody knew: those that left meanwhile are asked for nothing more.
fn leave_out(setup: &Setup, staying: Mask, operation: &mut Operation) {
    if !setup.is(Mutant::LeaverAskedAgain) {
        operation.steps.iter_mut().filter(|s| !s.is_over()).for_each(|step| step.members &= staying);
    }
}

fn start(setup: &Setup, cluster: &mut Cluster, kind: Kind, steps: &[Step]) -> Applied {
    guard(cluster.lock.is_none())?;
    guard(cluster.installed == (kind == Kind::Remove))?;
    guard(steps.iter().all(|s| s.members & !cluster.registered() == 0))?;
    let mut operation = Operation {
        kind,
        phase: Phase::Progressing,
        aborted: false,
        steps: steps.to_vec(),
        cursor: 0,
        applier: None,
        appliers: 0,
        recorded: 0,
    };
    for node in crate::mask::nodes(cluster.staying()) {
        include(setup, &mut operation, node);
    }
    leave_out(setup, cluster.staying(), &mut operation);
    cluster.lock = Some(cluster.operations.len());
    cluster.operations.push(operation);
    Ok(())
}
