//! What people, leaders and fate may do next.

use super::Action;
use crate::agent::accepts;
use crate::cluster::{Kind, Phase};
use crate::command::Command;
use crate::machine::Doing;
use crate::mask::{bit, has, lowest, nodes};
use crate::runbook;
use crate::setup::Setup;
use crate::world::World;

/// Proposals of leaders and wishes of people.
pub(super) fn decisions(setup: &Setup, world: &World, actions: &mut Vec<Action>) {
    let budget = world.budget;
    let may_be_late = |command: &Command| budget.late > 0 && !world.late.contains(command);
    if let Some(command) = world.plan(setup) {
        if may_be_late(&command) {
            actions.push(Action::Late(command.clone()));
        }
        actions.push(Action::Lead(command));
    }
    if budget.stale > 0
        && let Some(command) = world.stale_plan(setup)
    {
        actions.push(Action::Stale(command));
    }
    actions.extend((0..world.late.len()).map(Action::Land));
    if let Some(kind) = setup.asks.get(world.asked) {
        let steps = runbook::expand(setup, &world.cluster, *kind);
        let command = Command::Start { kind: *kind, steps };
        let fits = world.cluster.lock.is_none() && world.cluster.installed == (*kind == Kind::Remove);
        if fits {
            if may_be_late(&command) {
                actions.push(Action::Late(command.clone()));
            }
            actions.push(Action::Ask(command));
        }
    }
    if budget.aborts > 0
        && let Some(command) = abort(world)
    {
        if may_be_late(&command) {
            actions.push(Action::Late(command.clone()));
        }
        actions.push(Action::Ask(command));
    }
    if budget.depositions > 0 && world.cluster.lock.is_some() {
        actions.push(Action::Depose);
    }
}

fn abort(world: &World) -> Option<Command> {
    let (operation, live) = world.cluster.live()?;
    let possible = live.phase == Phase::Progressing && live.current().is_some();
    possible.then(|| {
        let steps = runbook::way_back(&world.cluster, live);
        Command::Abort { operation, from: live.cursor, steps }
    })
}

/// What may befall a node.
pub(super) fn faults(world: &World, node: usize, actions: &mut Vec<Action>) {
    let (budget, cluster) = (world.budget, &world.cluster);
    let machine = &world.machines[node];
    let live = cluster.lock.is_some();
    let registered = cluster.boots[node] != 0;
    if budget.crashes > 0 && registered && live {
        actions.push(Action::Crash(node));
    }
    // Nobody renews it for an applier that was replaced, or that has left.
    let replaced = world.applier().is_none_or(|a| a.node != node);
    if machine.lease && live && (replaced || !registered) {
        actions.push(Action::Lapse(node));
    }
    if budget.silences > 0 && registered && machine.lease && live {
        actions.push(Action::Silence(node));
    }
    if budget.unproven > 0
        && let Doing::Reloading(wanted) = machine.doing
        && machine.kong.coming.is_none()
        && machine.kong.loaded == wanted
    {
        actions.push(Action::Unproven(node));
    }
    let here = cluster.registered() | cluster.gone;
    if budget.joins > 0 && live && bit(node) == lowest(!here) {
        actions.push(Action::Join(node));
    }
    let admins = cluster.staying() & cluster.admins;
    let last = nodes(admins).count() == 1 && has(admins, node);
    if budget.decommissions > 0 && registered && live && !last {
        actions.push(Action::Decommission(node));
    }
    if budget.leaves > 0 && registered && live && !last {
        actions.push(Action::Leave(node));
    }
    // Nobody configures anything through a node on its way out.
    if budget.recreations > 0
        && has(cluster.staying(), node)
        && live
        && accepts(machine, cluster.admins, node)
    {
        actions.push(Action::Recreate(node));
    }
}
