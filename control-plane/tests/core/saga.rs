//! Each step fails once, everything happens twice, each undoing fails once: a table of how it ends.

use kctl_control_plane::state::operation::{OnFailure, Phase, Policy, StepKind};
use kctl_shared::name::NodeId;
use kctl_shared::spec::{Grant, NodeSpec};

use crate::world::World;

impl World {
    /// The next node that is let act in a step of this kind fails at it.
    fn stumble(&mut self, kind: StepKind) {
        self.stumbles.push((kind, 1));
    }

    /// The grant that the node fails at now.
    pub(crate) fn stumbles_at(&mut self, node: &NodeId, spec: &Option<NodeSpec>) -> Option<Grant> {
        let operation = self.state.operations.get(&self.current)?;
        let grant = spec.as_ref()?.plugins.get(&operation.plugin)?.grant;
        let of = |step: &&kctl_control_plane::state::operation::Step| {
            step.nodes.get(node).is_some_and(|entry| entry.grant == Some(grant) && entry.verdict.is_none())
        };
        let kind = operation.steps.iter().find(of)?.kind;
        let left = self.stumbles.iter_mut().find(|(at, left)| *at == kind && *left > 0)?;
        left.1 -= 1;
        Some(grant)
    }

    fn stumbled(&self) -> bool {
        self.stumbles.iter().all(|(_, left)| *left == 0)
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Install,
    Upgrade,
    Remove,
    /// A removal that is called off once nodes have dropped the plugin.
    CalledOff,
}

fn world(way: Way, on_failure: OnFailure, twice: bool) -> World {
    let mut world = World::new(5, 4);
    if !matches!(way, Way::Install) {
        world.install("1.0.0");
        world.heal();
        (0..3).for_each(|_| world.configure());
    }
    world.policy = Policy { on_failure, ..Policy::default() };
    world.twice = twice;
    world
}

fn begin(world: &mut World, way: Way) {
    match way {
        Way::Install => world.install("1.0.0"),
        Way::Upgrade => world.install("2.0.0"),
        Way::Remove => world.remove(),
        Way::CalledOff => {
            world.remove();
            world.run_until_disabling();
            world.abort().unwrap();
        }
    }
}

/// Nothing of an attempt that failed is left, and everything that was before is there.
fn is_as_before(world: &World, way: Way) {
    match way {
        Way::Install => world.assert_gone(),
        Way::Upgrade | Way::Remove | Way::CalledOff => world.assert_everywhere("1.0.0"),
    }
}

fn is_done(world: &World, way: Way) {
    match way {
        Way::Install => world.assert_everywhere("1.0.0"),
        Way::Upgrade => world.assert_everywhere("2.0.0"),
        Way::Remove => world.assert_gone(),
        Way::CalledOff => {
            world.assert_everywhere("1.0.0");
            world.assert_attached();
        }
    }
}

const FORWARD: [StepKind; 3] = [StepKind::Stage, StepKind::Preflight, StepKind::Enable];

/// What runs, the steps that fail once in it, and how it ends when failing takes everything back.
const TABLE: &[(Way, &[StepKind], Phase)] = &[
    (Way::Install, &[StepKind::Stage], Phase::Failed),
    (Way::Install, &[StepKind::Preflight], Phase::Failed),
    (Way::Install, &[StepKind::Enable], Phase::Failed),
    (Way::Install, &[StepKind::Enable, StepKind::Restore], Phase::Failed),
    (Way::Install, &[StepKind::Enable, StepKind::Unstage], Phase::Failed),
    (Way::Install, &[StepKind::Stage, StepKind::Unstage], Phase::Failed),
    (Way::Upgrade, &[StepKind::Stage], Phase::Failed),
    (Way::Upgrade, &[StepKind::Preflight], Phase::Failed),
    (Way::Upgrade, &[StepKind::Enable], Phase::Failed),
    (Way::Upgrade, &[StepKind::Enable, StepKind::Restore], Phase::Failed),
    (Way::Upgrade, &[StepKind::Enable, StepKind::Unstage], Phase::Failed),
    (Way::Remove, &[StepKind::Disable], Phase::Succeeded),
    (Way::Remove, &[StepKind::Purge], Phase::Succeeded),
    (Way::Remove, &[StepKind::Disable, StepKind::Purge], Phase::Succeeded),
    (Way::CalledOff, &[StepKind::Restore], Phase::Compensated),
    (Way::CalledOff, &[StepKind::Restore, StepKind::Restore], Phase::Compensated),
];

#[test]
fn each_step_and_each_undoing_fails_once() {
    for (way, kinds, phase) in TABLE {
        for twice in [false, true] {
            let mut world = world(*way, OnFailure::Rollback, twice);
            kinds.iter().for_each(|kind| world.stumble(*kind));
            begin(&mut world, *way);
            world.heal();
            let row = format!("{way:?} failing at {kinds:?}, twice: {twice}");
            assert!(world.stumbled(), "{row}: it never came to that");
            assert_eq!(world.phase(), *phase, "{row}");
            if *phase == Phase::Failed { is_as_before(&world, *way) } else { is_done(&world, *way) }
        }
    }
}

#[test]
fn what_failed_once_succeeds_when_it_is_tried_again() {
    for way in [Way::Install, Way::Upgrade] {
        for kind in FORWARD {
            let mut world = world(way, OnFailure::Pause, false);
            world.stumble(kind);
            begin(&mut world, way);
            for _ in 0..2_000 {
                if world.phase() == Phase::Paused {
                    break;
                }
                world.run(1);
            }
            assert_eq!(world.phase(), Phase::Paused, "{way:?} failing at {kind:?}");
            world.retry(true).unwrap();
            world.heal();
            assert_eq!(world.phase(), Phase::Succeeded, "{way:?} failing at {kind:?}");
            is_done(&world, way);
        }
    }
}

#[test]
fn everything_happens_twice() {
    for way in [Way::Install, Way::Upgrade, Way::Remove, Way::CalledOff] {
        let mut world = world(way, OnFailure::Rollback, true);
        begin(&mut world, way);
        world.heal();
        let phase = if matches!(way, Way::CalledOff) { Phase::Compensated } else { Phase::Succeeded };
        assert_eq!(world.phase(), phase, "{way:?}");
        is_done(&world, way);
    }
}

/// The applier is the one who detaches and attaches: what can fail of it is that it is gone.
#[test]
fn an_applier_that_goes_away_is_replaced_in_either_direction() {
    for way in [Way::Remove, Way::CalledOff] {
        let mut world = world(way, OnFailure::Rollback, false);
        begin(&mut world, way);
        world.run(3);
        let applier = world.operation().applier.as_ref().map(|a| a.node.to_string()).unwrap();
        world.freeze(applier.trim_start_matches('n').parse().unwrap());
        world.run(120);
        let other = world.operation().applier.as_ref().map(|a| a.node.to_string());
        assert_ne!(other, Some(applier), "{way:?}");
        world.heal();
        is_done(&world, way);
    }
}
