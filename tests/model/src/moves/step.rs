//! One thing after the other happens to the world.

use std::sync::Arc;

use super::Action;
use crate::agent;
use crate::cluster::{Kind, StepKind};
use crate::command::Command;
use crate::laws::{self, Law};
use crate::machine::{Doing, HISTORY, Kong};
use crate::mask::{bit, has};
use crate::plan::Inventory;
use crate::setup::{Mutant, Setup};
use crate::world::{Deposed, World};

/// What a node, its agent and the network around it may do next.
pub(super) fn steps(world: &World, node: usize, actions: &mut Vec<Action>) {
    let machine = &world.machines[node];
    if machine.kong.coming.is_some() {
        actions.push(Action::Swap(node));
    }
    if machine.kong.old {
        actions.push(Action::Drain(node));
    }
    if world.cluster.boots[node] == 0 && !has(world.cluster.gone, node) {
        return;
    }
    if machine.doing == Doing::Idle {
        let slots = (0..HISTORY).filter(|slot| machine.down[*slot].is_some());
        actions.extend(slots.map(|slot| Action::Deliver { node, slot }));
        if machine.up != Some(machine.report()) {
            actions.push(Action::Report(node));
        }
    }
    actions.push(Action::Act(node));
    if machine.disk.spec.task.is_some() && machine.scan.is_none() {
        actions.push(Action::BeginScan(node));
    }
    if machine.scan.is_some() {
        actions.push(Action::Work(node));
    }
    actions.extend([false, true].map(|before| Action::Hear { node, before }));
}

/// Whether it could happen.
pub(super) fn happen(setup: &Setup, world: &mut World, action: Action) -> bool {
    match action {
        Action::Lead(command) => {
            let (cluster, inventory) = (world.cluster.clone(), world.inventory.clone());
            laws::evidence(&mut world.seen, &command, &cluster, &inventory);
            return world.commit(setup, &command);
        }
        Action::Stale(command) => {
            let Some(deposed) = world.deposed.clone() else { return false };
            laws::evidence(&mut world.seen, &command, &deposed.cluster, &deposed.inventory);
            world.budget.stale -= 1;
            if world.budget.stale == 0 {
                world.deposed = None;
            }
            return world.commit(setup, &command);
        }
        Action::Late(command) => {
            world.budget.late -= 1;
            match &command {
                Command::Abort { .. } => world.budget.aborts -= 1,
                Command::Start { .. } => {}
                _ => {
                    let (cluster, inventory) = (world.cluster.clone(), world.inventory.clone());
                    laws::evidence(&mut world.seen, &command, &cluster, &inventory);
                }
            }
            world.late.push(command);
        }
        Action::Land(which) => {
            let command = world.late.remove(which);
            world.commit(setup, &command);
        }
        Action::Ask(command) => {
            match &command {
                Command::Abort { .. } => world.budget.aborts -= 1,
                _ => world.asked += 1,
            }
            return world.commit(setup, &command);
        }
        Action::Depose => {
            world.budget.depositions -= 1;
            let inventory = std::mem::replace(&mut world.inventory, Arc::new(Inventory::default()));
            world.deposed = Some(Arc::new(Deposed { cluster: world.cluster.clone(), inventory }));
        }
        Action::Deliver { node, slot } => {
            let machine = &mut world.machines[node];
            let Some(spec) = machine.down[slot] else { return false };
            let Some(law) = agent::follow(setup, machine, spec) else { return false };
            law.into_iter().for_each(|law: Law| world.seen.hold(law, false));
        }
        Action::Act(node) => {
            let (admin, in_use) = (has(world.cluster.admins, node), world.entities != 0);
            let proven = world.machines[node].disk.proven;
            let Some(fact) = agent::act(setup, &mut world.machines[node], admin, in_use) else {
                return false;
            };
            laws::did(setup, world, node, fact, proven);
            let machine = &mut world.machines[node];
            if world.budget.crashes == 0 && matches!(machine.doing, Doing::Wrote(_) | Doing::WroteBack) {
                // Nobody sees what lies between, and nobody interrupts it.
                agent::act(setup, machine, admin, in_use);
            }
        }
        Action::Report(node) => {
            let machine = &mut world.machines[node];
            machine.up = Some(machine.report());
        }
        Action::Hear { node, before } => return world.hear(setup, node, before),
        Action::BeginScan(node) => {
            return agent::begin_scan(setup, &mut world.machines[node], world.entities);
        }
        Action::Work(node) => {
            let Some(deleted) = agent::work(setup, &mut world.machines[node], &mut world.entities) else {
                return false;
            };
            let recorded = world.cluster.operations.iter().fold(0, |all, o| all | o.recorded);
            world.seen.hold(Law::I9, deleted & !recorded == 0);
        }
        other => return befall(setup, world, other),
    }
    true
}

/// What nobody decided.
fn befall(setup: &Setup, world: &mut World, action: Action) -> bool {
    match action {
        Action::Swap(node) => {
            let kong = &mut world.machines[node].kong;
            let Some(listed) = kong.coming.take() else { return false };
            kong.old |= kong.loaded;
            kong.loaded = listed;
        }
        Action::Drain(node) => world.machines[node].kong.old = false,
        Action::Unproven(node) => {
            world.budget.unproven -= 1;
            world.machines[node].doing = Doing::Back;
        }
        Action::Crash(node) => {
            world.budget.crashes -= 1;
            world.machines[node].crash(setup.is(Mutant::FenceForgotten));
        }
        Action::Silence(node) => {
            world.budget.silences -= 1;
            world.machines[node].lose_lease();
            Arc::make_mut(&mut world.inventory).reports[node] = None;
        }
        Action::Lapse(node) => world.machines[node].lose_lease(),
        Action::Join(node) => {
            world.budget.joins -= 1;
            let live = world.cluster.live().map(|(_, o)| o.clone());
            let disabling = live.is_some_and(|o| {
                o.kind == Kind::Remove && o.current().is_some_and(|s| s.kind == StepKind::Disable)
            });
            world.seen.joined |= disabling;
            let boot = world.machines[node].boot;
            world.commit(setup, &Command::Register { node, boot });
        }
        Action::Decommission(node) => {
            world.budget.decommissions -= 1;
            world.machines[node].kong = Kong::default();
            Arc::make_mut(&mut world.inventory).reports[node] = None;
            world.commit(setup, &Command::Decommission { node });
        }
        Action::Leave(node) => {
            world.budget.leaves -= 1;
            return world.commit(setup, &Command::Leave { node });
        }
        Action::Recreate(_) => {
            world.budget.recreations -= 1;
            let id = 2 + usize::from(world.budget.recreations);
            world.entities |= bit(id);
            let live = world.cluster.live().map(|(_, o)| o.clone());
            let past = live.is_some_and(|o| laws::detached_once(&o));
            world.seen.recreated |= past;
        }
        _ => return false,
    }
    true
}
