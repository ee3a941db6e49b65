//! What is kept of operations that have ended, and that a state read back is the one that was written.

use std::collections::BTreeMap;

use kctl_control_plane::raft::{Captured, decode_state};
use kctl_control_plane::state::ClusterState;
use kctl_control_plane::state::model::DETAILED_OPERATIONS;
use kctl_control_plane::state::operation::{Operation, Phase};

use crate::world::World;

const NODES: usize = 4;

/// More upgrades than are kept whole, some of which fail; and each as it was when it ended.
fn lived() -> (World, BTreeMap<String, Operation>) {
    let (mut world, mut whole) = (World::new(13, NODES), BTreeMap::new());
    for n in 1..=DETAILED_OPERATIONS + 8 {
        if n % 4 == 3 {
            world.break_node(2);
        }
        world.install(&format!("{n}.0.0"));
        world.heal_but_broken();
        world.heal();
        assert!(world.phase().has_ended(), "{:#?}", world.operation());
        whole.insert(world.operation().id.clone(), world.operation().clone());
    }
    (world, whole)
}

fn again(state: &ClusterState) -> ClusterState {
    let captured = Captured { index: 1, state: state.clone() };
    decode_state(&captured.encoded().unwrap()).unwrap()
}

#[test]
fn the_latest_operations_keep_their_nodes_and_older_ones_what_went_wrong() {
    let (world, whole) = lived();
    let state = &world.state;
    let old = state.ended.len() - DETAILED_OPERATIONS;
    let mut failed = 0;
    for (n, id) in state.ended.iter().enumerate() {
        let (now, then) = (&state.operations[id], &whole[id]);
        if n >= old {
            assert_eq!(now, then);
            continue;
        }
        failed += usize::from(then.phase == Phase::Failed);
        assert_eq!((now.phase, &now.error), (then.phase, &then.error));
        assert_eq!((now.is_partial(), now.unserved()), (then.is_partial(), then.unserved()));
        for (now, then) in now.steps.iter().zip(&then.steps) {
            assert_eq!(now.nodes.len() + now.forgotten, then.nodes.len());
            assert!(now.failed_nodes().eq(then.failed_nodes()));
            assert!(now.nodes.iter().all(|(node, entry)| then.nodes[node] == *entry));
            assert_eq!((now.phase, &now.summary), (then.phase, &then.summary));
        }
        let named = now.steps.iter().flat_map(|s| s.nodes.keys());
        assert!(then.phase == Phase::Failed || named.count() == 0);
    }
    assert!(failed > 0, "no operation failed");
}

#[test]
fn a_state_that_was_read_back_is_the_one_that_was_written() {
    let (world, whole) = lived();
    assert_eq!(again(&world.state), world.state);
    // A member that keeps the details of all operations wrote it.
    let mut fuller = world.state.clone();
    for (id, operation) in whole {
        fuller.operations.insert(id, operation);
    }
    assert_ne!(fuller, world.state);
    assert_eq!(again(&fuller), world.state);
}

#[test]
fn a_step_of_an_older_member_is_read() {
    let (world, _) = lived();
    let step = world.operation().steps[0].clone();
    let mut written = serde_json::to_value(&step).unwrap();
    assert!(written.as_object_mut().unwrap().remove("forgotten").is_some());
    let read: kctl_control_plane::state::operation::Step = serde_json::from_value(written).unwrap();
    assert_eq!(read, step);
}
