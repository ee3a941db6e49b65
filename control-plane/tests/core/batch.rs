//! Operations that begin together, or not at all.

use kctl_control_plane::state::operation::{Operation, Phase};
use kctl_control_plane::state::{Command, LogStamp, apply};
use kctl_shared::name::PluginName;

use crate::world::World;

const BATCH: &str = "batch-1";

/// The world's present operation, as one of `plugin` in a batch that has not begun.
fn part(world: &World, plugin: &str) -> Operation {
    Operation {
        id: format!("op-{plugin}"),
        request_id: format!("request-{plugin}"),
        plugin: PluginName::parse(plugin).unwrap(),
        batch: Some(BATCH.into()),
        phase: Phase::Pending,
        ..world.operation().clone()
    }
}

/// A world in which an install has just begun, and the parts of a batch of other plugins with the same release.
fn world_and_parts(plugins: &[&str]) -> (World, Vec<Operation>) {
    let mut world = World::new(1, 4);
    world.install("1.0.0");
    let parts = plugins.iter().map(|plugin| part(&world, plugin)).collect();
    (world, parts)
}

#[test]
fn all_of_them_begin_with_a_record_each() {
    let (world, parts) = world_and_parts(&["a", "b", "c"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    let command = Command::StartBatch { operations: parts };
    assert_eq!(apply(&mut state, at, command.clone()).unwrap().len(), 3);
    assert_eq!(state.audit.count, world.state.audit.count + 3);
    let begun = state.live_operations().filter(|o| o.batch.as_deref() == Some(BATCH)).count();
    assert_eq!(begun, 3);
    // A retry is recognised and changes nothing.
    let before = state.clone();
    assert_eq!(apply(&mut state, at, command).unwrap().len(), 3);
    assert_eq!(state, before);
}

#[test]
fn one_that_is_refused_refuses_all_and_is_named() {
    let (mut world, parts) = world_and_parts(&["a", "golden"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    let refused = apply(&mut state, at, Command::StartBatch { operations: parts.clone() }).unwrap_err();
    assert_eq!(refused.code, "PLUGIN_BUSY");
    assert!(refused.message.contains("golden: operation ") && !refused.message.contains("a: "), "{refused}");
    assert_eq!(state, world.state);
    for wrong in [
        Vec::new(),
        vec![Operation { batch: None, ..parts[0].clone() }],
        vec![parts[0].clone(), Operation { batch: Some("other".into()), ..parts[0].clone() }],
        vec![parts[0].clone(); 33],
    ] {
        let command = Command::StartBatch { operations: wrong };
        assert_eq!(world.try_propose(command).unwrap_err(), "INVALID_OPERATION");
    }
    // The same plugin twice: the second finds the first.
    let twice = Command::StartBatch {
        operations: vec![
            parts[0].clone(),
            Operation { id: "x".into(), request_id: "x".into(), ..parts[0].clone() },
        ],
    };
    assert_eq!(world.try_propose(twice).unwrap_err(), "PLUGIN_BUSY");
}

#[test]
fn a_request_id_is_not_used_again_for_other_plugins() {
    let (world, parts) = world_and_parts(&["a", "b"]);
    let mut state = world.state.clone();
    let at = LogStamp { index: 1_000, offset: 0, proposed_at: world.now };
    apply(&mut state, at, Command::StartBatch { operations: vec![parts[0].clone()] }).unwrap();
    let more = Command::StartBatch { operations: parts };
    assert_eq!(apply(&mut state, at, more).unwrap_err().code, "REQUEST_ID_REUSED");
}
