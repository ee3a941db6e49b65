//! What can happen, and what comes of it: the model as the checker sees it.

use stateright::{Model, Property};

use crate::cluster::{Kind, Phase};
use crate::command::Command;
use crate::laws::Law;
use crate::mask::NODES;
use crate::setup::{Goal, Setup};
use crate::world::World;

mod faults;
mod step;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The leader decides, and it is committed at once.
    Lead(Command),
    /// The leader decides, or a person; when it is committed is open.
    Late(Command),
    /// One that was on its way is committed.
    Land(usize),
    /// The deposed leader's decision is committed.
    Stale(Command),
    /// A person's wish is committed.
    Ask(Command),
    Depose,
    /// A spec reaches an agent, the newest or the one before.
    Deliver {
        node: usize,
        slot: usize,
    },
    Act(usize),
    Report(usize),
    /// A report reaches the leader, the newest or one of the start before.
    Hear {
        node: usize,
        before: bool,
    },
    BeginScan(usize),
    /// The next request of a scan, or its end.
    Work(usize),
    /// New workers take over.
    Swap(usize),
    /// Old workers are gone.
    Drain(usize),
    Unproven(usize),
    Crash(usize),
    Silence(usize),
    /// The lease of a node that is not the applier any more ends: nobody renews it.
    Lapse(usize),
    Join(usize),
    Decommission(usize),
    Leave(usize),
    /// Somebody creates an entity through this node.
    Recreate(usize),
}

impl Model for Setup {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.seen.broken != 0 {
            return;
        }
        faults::decisions(self, world, actions);
        for node in 0..NODES {
            step::steps(world, node, actions);
            faults::faults(world, node, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let happened = step::happen(self, &mut next, action) && next != *world;
        happened.then(|| {
            crate::laws::observe(self, &mut next);
            next
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("I1", |_, w: &World| !w.broke(Law::I1)),
            Property::always("I2", |_, w: &World| !w.broke(Law::I2)),
            Property::always("I3", |_, w: &World| !w.broke(Law::I3)),
            Property::always("I4", |_, w: &World| !w.broke(Law::I4)),
            Property::always("I6", |_, w: &World| !w.broke(Law::I6)),
            Property::always("I7", |_, w: &World| !w.broke(Law::I7)),
            Property::always("I8", |_, w: &World| !w.broke(Law::I8)),
            Property::always("I9", |_, w: &World| !w.broke(Law::I9)),
            Property::always("I15", |_, w: &World| !w.broke(Law::I15)),
            Property::always("End", |_, w: &World| !w.broke(Law::End)),
            Property::always(STUCK, |setup: &Self, w: &World| !is_stuck(setup, w)),
        ];
        properties.extend(self.goals.iter().map(|goal| reached(*goal)));
        properties
    }
}

/// The name under which a live operation is reported that nothing can move any more.
pub const STUCK: &str = "Stuck";

fn is_stuck(setup: &Setup, world: &World) -> bool {
    if world.cluster.lock.is_none() || world.seen.broken != 0 {
        return false;
    }
    let mut actions = Vec::new();
    setup.actions(world, &mut actions);
    !actions.into_iter().any(|action| setup.next_state(world, action).is_some())
}

fn ended(world: &World, kind: Kind, phase: Phase) -> bool {
    world.cluster.operations.iter().any(|o| o.kind == kind && o.phase == phase)
}

fn reached(goal: Goal) -> Property<Setup> {
    let is_reached: fn(&Setup, &World) -> bool = match goal {
        Goal::Installed => |_, w| ended(w, Kind::Install, Phase::Succeeded),
        Goal::RolledBack => |_, w| ended(w, Kind::Install, Phase::Failed),
        Goal::Done => |_, w| ended(w, Kind::Remove, Phase::Succeeded),
        Goal::Aborted => {
            |_, w| ended(w, Kind::Remove, Phase::Aborted) || ended(w, Kind::Install, Phase::Aborted)
        }
        Goal::Compensated => |_, w| ended(w, Kind::Remove, Phase::Compensated),
        Goal::RecreatedThenDone => |_, w| w.seen.recreated && ended(w, Kind::Remove, Phase::Succeeded),
        Goal::LeftThenInstalled => |_, w| w.cluster.gone != 0 && ended(w, Kind::Install, Phase::Succeeded),
        Goal::LeftThenDone => |_, w| w.cluster.gone != 0 && ended(w, Kind::Remove, Phase::Succeeded),
        Goal::LeftThenCompensated => |_, w| w.cluster.gone != 0 && ended(w, Kind::Remove, Phase::Compensated),
        Goal::JoinedThenDone => |_, w| w.seen.joined && ended(w, Kind::Remove, Phase::Succeeded),
    };
    Property::sometimes(goal.name(), is_reached)
}
