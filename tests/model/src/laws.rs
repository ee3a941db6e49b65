//! The invariants, by the names the design gives them. What is broken is kept in the state, so that the checker finds the
//! shortest way there.
//!
//! - **I1** files go only where nothing needs them, in the undoing of an install or after the second barrier, and by then no
//!   node of the group runs the plugin any more.
//! - **I2** the plugin leaves no directive before the first barrier, except in putting back what was never proven and in the
//!   undoing of an install; nodes without an Admin API lose it last; when the fences are passed no entity is there, and
//!   none comes after the second barrier.
//! - **I3** a directive lists the plugin only where its files are.
//! - **I4** what was committed is not taken back: steps that are over stay over, ended operations stay ended.
//! - **I6** one live operation, and the lock is its.
//! - **I7** no step begins before those before it are over, and what a barrier says is so on every node it names.
//! - **I8** an agent's fence never falls; one generation is one spec.
//! - **I9** only recorded entities are deleted.
//! - **I15** neither a former start of an agent nor a decommissioned node completes a barrier; nor is one on its way out let
//!   act, and one that is forgotten with proof has nothing left.
//! - **Stuck** no live operation is left that nothing moves any more; that each ends in time is not looked at.
//! - **End** what an operation ends as is true: gone, in place, or as before with every entity.
//!
//! Not here: I5, for there is no runner of migrations; I10 to I14 and I16 are about bytes, clocks and several plugins,
//! which the model does not have.

mod state;

use crate::cluster::{Cluster, Kind, Operation, Phase, StepKind, StepPhase};
use crate::command::Command;
use crate::mask::nodes;
use crate::world::World;

pub(crate) use state::{did, evidence, observe};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    I1,
    I2,
    I3,
    I4,
    I6,
    I7,
    I8,
    I9,
    I15,
    End,
}

impl Law {
    pub const ALL: [Self; 10] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I15,
        Self::End,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I6 => "I6",
            Self::I7 => "I7",
            Self::I8 => "I8",
            Self::I9 => "I9",
            Self::I15 => "I15",
            Self::End => "End",
        }
    }
}

/// What a path has seen that its last state does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// A bit for each law that is broken.
    pub broken: u16,
    /// An entity was created again after the first barrier.
    pub recreated: bool,
    /// A node joined while the plugin was being disabled.
    pub joined: bool,
}

impl Seen {
    pub fn hold(&mut self, law: Law, holds: bool) {
        if !holds {
            self.broken |= 1 << law as u16;
        }
    }
}

/// A command was committed and accepted; `world` is as it is after it.
pub fn committed(world: &mut World, before: &Cluster, command: &Command) {
    let cluster = world.cluster.clone();
    let mut seen = world.seen;
    seen.hold(Law::I4, keeps(before, &cluster));
    match command {
        Command::Register { node, boot } => seen.hold(Law::I15, *boot >= before.boots[*node]),
        Command::Dispatch { operation, step, nodes } => {
            seen.hold(Law::I15, *nodes & !cluster.staying() == 0);
            let operation = &cluster.operations[*operation];
            let before = &operation.steps[..*step];
            let over = before.iter().all(crate::cluster::Step::is_over) && operation.cursor == *step;
            let detached = operation.passed(StepKind::Detach);
            let dropped = operation.passed(StepKind::Disable);
            seen.hold(
                Law::I7,
                over && match operation.steps[*step].kind {
                    StepKind::Disable => detached,
                    StepKind::Purge => detached && dropped,
                    _ => true,
                },
            );
        }
        Command::Settle { verified, .. } => {
            seen.hold(Law::I15, *verified & !cluster.staying() == 0);
        }
        Command::Forget { node } => {
            let machine = &world.machines[*node];
            seen.hold(Law::I15, !machine.files && !machine.kong.needs_files());
        }
        Command::Advance { operation, from } => {
            passed(&mut seen, world, &cluster, &cluster.operations[*operation], *from);
        }
        Command::Finish { operation, .. } => {
            seen.hold(Law::End, kept_promise(world, &cluster, &cluster.operations[*operation]));
        }
        _ => {}
    }
    world.seen = seen;
}

fn keeps(before: &Cluster, after: &Cluster) -> bool {
    let mut pairs = before.operations.iter().zip(&after.operations);
    before.operations.len() <= after.operations.len()
        && before.generation <= after.generation
        && pairs.all(|(old, new)| {
            let mut steps = old.steps.iter().zip(&new.steps);
            (!old.phase.has_ended() || old.phase == new.phase)
                && old.recorded & !new.recorded == 0
                && steps.all(|(old, new)| !old.is_over() || old.phase == new.phase)
        })
}

fn passed(seen: &mut Seen, world: &World, cluster: &Cluster, operation: &Operation, from: usize) {
    let step = &operation.steps[from];
    let is_so = |n: usize| {
        let (kong, files) = (&world.machines[n].kong, world.machines[n].files);
        match step.kind {
            StepKind::Stage => files,
            StepKind::Enable => kong.loaded,
            StepKind::Restore => kong.loaded == (operation.kind == Kind::Remove),
            StepKind::Disable => !kong.loaded,
            StepKind::Purge | StepKind::Unstage => !kong.needs_files() && !files,
            StepKind::Detach | StepKind::Reattach => true,
        }
    };
    let here = step.verified & cluster.staying();
    seen.hold(Law::I7, nodes(here).all(is_so));
    if step.kind != StepKind::Disable {
        return;
    }
    let next = operation.steps.get(from + 1);
    let is_admin = |s: &crate::cluster::Step| s.members & cluster.admins != 0;
    // A node that joined since may take entities until its own step is over.
    let through = |n: usize| cluster.is_admin(n) && cluster.leaving[n] == 0 && world.machines[n].kong.loaded;
    let nobody_takes = !nodes(cluster.registered()).any(through);
    if next.is_some_and(|n| n.kind == StepKind::Purge) {
        seen.hold(Law::I2, world.entities == 0);
        let runs = |n: usize| world.machines[n].kong.runs();
        seen.hold(Law::I1, !nodes(cluster.staying() & operation.members()).any(runs));
    } else if is_admin(step) && next.is_some_and(|n| !is_admin(n)) {
        seen.hold(Law::I2, world.entities == 0 || !nobody_takes);
    }
}

fn kept_promise(world: &World, cluster: &Cluster, operation: &Operation) -> bool {
    let mut machines = nodes(cluster.staying()).map(|n| &world.machines[n]);
    match (operation.phase, operation.kind) {
        (Phase::Succeeded, Kind::Remove) => machines.all(|m| !m.files && !m.kong.needs_files()),
        // Who came when all was over is told at rest.
        (Phase::Succeeded, Kind::Install) => {
            nodes(operation.members() & cluster.staying()).all(|n| world.machines[n].kong.loaded)
        }
        (Phase::Failed | Phase::Aborted, Kind::Install) => {
            machines.all(|m| !m.files && !m.kong.needs_files())
        }
        (Phase::Compensated, _) => {
            let touched = operation.touched(&[StepKind::Disable]);
            let lost = operation.recorded & !world.entities;
            let back = |n: usize| world.machines[n].kong.loaded;
            lost == 0 && nodes(touched & cluster.staying()).all(back)
        }
        _ => true,
    }
}

/// The operation that explains what happens to the plugin now: the live one, or the one that ended last.
pub(crate) fn latest(cluster: &Cluster) -> Option<&Operation> {
    cluster.live().map(|(_, operation)| operation).or_else(|| cluster.operations.last())
}

pub(crate) fn detached_once(operation: &Operation) -> bool {
    operation.steps.iter().any(|s| s.kind == StepKind::Detach && s.phase == StepPhase::Done)
}
