//! What must hold after each step of an agent, and in every state whatever led there.

use super::{Law, Seen, detached_once, latest};
use crate::agent::Fact;
use crate::cluster::{Cluster, Kind, Operation, Phase};
use crate::command::Command;
use crate::mask::{has, nodes};
use crate::plan::Inventory;
use crate::setup::Setup;
use crate::spec::node_spec;
use crate::world::World;

/// The agent of `node` did something to it; `proven` as it was before.
pub fn did(setup: &Setup, world: &mut World, node: usize, fact: Fact, proven: bool) {
    let cluster = world.cluster.clone();
    if !has(cluster.staying(), node) {
        // It takes away what is its own, and nobody will want it back there.
        world.seen.hold(Law::I1, fact != Fact::Deleted || !world.machines[node].kong.needs_files());
        return;
    }
    let mut seen = world.seen;
    match (fact, latest(&cluster)) {
        (Fact::Unlisted { by_putting_back }, Some(operation)) => {
            let never_proven = by_putting_back && !proven;
            seen.hold(Law::I2, never_proven || may_leave(setup, world, &cluster, operation, node));
        }
        (Fact::Deleted, Some(operation)) => {
            seen.hold(Law::I1, may_go(world, &cluster, operation, node));
        }
        (Fact::Nothing, _) => {}
        (Fact::Unlisted { .. }, None) => seen.hold(Law::I2, false),
        (Fact::Deleted, None) => seen.hold(Law::I1, false),
    }
    world.seen = seen;
}

fn may_leave(setup: &Setup, world: &World, cluster: &Cluster, operation: &Operation, node: usize) -> bool {
    if operation.kind == Kind::Install {
        return matches!(operation.phase, Phase::RollingBack | Phase::Failed | Phase::Aborted);
    }
    // Who joined later comes in where the operation stands.
    let admins = setup.admins & setup.members & cluster.staying();
    let takes = nodes(admins).any(|n| world.machines[n].kong.loaded);
    detached_once(operation) && (has(setup.admins, node) || !takes)
}

fn may_go(world: &World, cluster: &Cluster, operation: &Operation, node: usize) -> bool {
    if world.machines[node].kong.needs_files() {
        return false;
    }
    if operation.kind == Kind::Install {
        return operation.phase != Phase::Succeeded;
    }
    let others = nodes(cluster.staying()).filter(|n| *n != node);
    operation.is_past_return() && others.into_iter().all(|n| !world.machines[n].kong.runs())
}

/// The verdicts of a proposal rest on what the registered start of each agent said.
pub fn evidence(seen: &mut Seen, command: &Command, cluster: &Cluster, inventory: &Inventory) {
    if let Command::Settle { verified, .. } = command {
        let sound = |n: usize| {
            inventory.reports[n].is_some_and(|r| r.boot == cluster.boots[n]) && cluster.boots[n] != 0
        };
        seen.hold(Law::I15, nodes(*verified).all(sound));
    }
}

/// What is wrong with the state as it is.
pub fn observe(setup: &Setup, world: &mut World) {
    let cluster = world.cluster.clone();
    let mut seen = world.seen;
    for machine in &world.machines {
        seen.hold(Law::I1, machine.files || !machine.kong.needs_files());
        seen.hold(Law::I3, machine.files || !machine.kong.conf);
    }
    let live = cluster.operations.iter().filter(|o| !o.phase.has_ended()).count();
    seen.hold(Law::I6, live <= 1 && (live == 1) == cluster.live().is_some_and(|(_, o)| !o.phase.has_ended()));
    if let Some((_, operation)) = cluster.live().filter(|(_, o)| o.kind == Kind::Remove) {
        let attached = !detached_once(operation);
        let enabled = |n| node_spec(setup, &cluster, n).enabled;
        seen.hold(Law::I2, !attached || nodes(cluster.staying()).all(enabled));
        seen.hold(Law::I2, !operation.is_past_return() || world.entities == 0);
    }
    world.seen = seen;
}
