//! The decisions as a whole: `apply`, `node_spec` and `plan` driven against a small world of model agents, one seed a run.
//!
//! Chaos keeps the invariants; once faults stop, every operation ends and `plan` has nothing left to propose. A failure
//! prints its seed: `CORE_SEED=<n> cargo test -p kctl-control-plane --test core` replays just that run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "core/batch.rs"]
mod batch;
#[path = "core/details.rs"]
mod details;
#[path = "core/duty.rs"]
mod duty;
#[path = "core/errors.rs"]
mod errors;
#[path = "core/people.rs"]
mod people;
#[path = "core/policy.rs"]
mod policy;
#[path = "core/saga.rs"]
mod saga;
#[path = "core/steps.rs"]
mod steps;
#[path = "core/undo.rs"]
mod undo;
#[path = "core/world.rs"]
mod world;

use kctl_control_plane::state::operation::{OperationKind, Phase};
use kctl_shared::method::Method;
use world::World;

fn seeds() -> Vec<u64> {
    match std::env::var("CORE_SEED") {
        Ok(seed) => vec![seed.parse().expect("CORE_SEED is a number")],
        Err(_) => (0..400).collect(),
    }
}

#[test]
fn operations_end_well_under_chaos() {
    let mut wanted = [0_usize; 5];
    for seed in seeds() {
        let mut world = World::new(seed, 3 + (seed % 5) as usize);
        world.install("1.0.0");
        world.chaos(300);
        world.heal();
        assert!(world.phase().has_ended(), "seed {seed}: {:#?}", world.operation());
        if world.phase() == Phase::Succeeded {
            world.configure();
            world.remove();
            world.chaos(300);
            world.heal();
            assert_eq!(world.phase(), Phase::Succeeded, "seed {seed}: {:#?}", world.operation());
            assert_eq!(world.operation().kind, OperationKind::Remove);
        }
        world.assert_gone();
        for (sum, n) in wanted.iter_mut().zip(world.faults()) {
            *sum += n;
        }
    }
    if std::env::var("CORE_SEED").is_err() {
        assert!(wanted.iter().all(|n| *n > 50), "the wanted faults did not occur: {wanted:?}");
    }
}

#[test]
fn a_failing_node_takes_everything_back() {
    let mut world = World::new(7, 5);
    world.break_node(3);
    world.install("1.0.0");
    world.heal_but_broken();
    assert_eq!(world.phase(), Phase::Failed);
    assert_eq!(world.operation().error.as_ref().map(|e| e.code.as_str()), Some("BROKEN"));
    world.assert_gone();
}

#[test]
fn an_upgrade_that_fails_leaves_the_former_release() {
    let mut world = World::new(11, 4);
    world.install("1.0.0");
    world.heal();
    world.break_node(2);
    world.install("2.0.0");
    world.heal_but_broken();
    assert_eq!(world.phase(), Phase::Failed);
    world.assert_everywhere("1.0.0");
}

#[test]
fn a_missing_node_holds_the_removal_and_is_named() {
    let mut world = World::new(3, 4);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.freeze(2);
    world.remove();
    world.run(400);
    assert_eq!(world.phase(), Phase::Progressing);
    let waiting = world.waiting();
    assert!(waiting.iter().all(|w| w.node.as_ref().map(|n| n.as_str()) == Some("n2")), "{waiting:?}");
    assert!(waiting.iter().any(|w| w.reason == "AGENT_UNREACHABLE"), "{waiting:?}");
    world.assert_files_everywhere();
    world.thaw(2);
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_gone();
}

#[test]
fn an_entity_that_comes_back_is_found_and_deleted_before_files_go() {
    let mut world = World::new(5, 6);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.remove();
    world.run_until_disabling();
    world.configure();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    let detaches = world.operation().steps.iter().filter(|s| s.kind.as_str() == "detach").count();
    assert!(detaches >= 2, "{:#?}", world.operation());
    world.assert_gone();
}

#[test]
fn a_node_that_joins_is_part_of_what_runs() {
    let mut world = World::new(9, 3);
    world.install("1.0.0");
    world.run(20);
    world.join();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_everywhere("1.0.0");
    world.remove();
    world.run(5);
    world.join();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_gone();
}

fn luarocks(tree: Option<&str>) -> Method {
    Method::Luarocks { tree: tree.map(str::to_owned), make: false }
}

#[test]
fn each_release_keeps_the_way_it_was_placed() {
    let shared = luarocks(Some("/usr/local"));
    let mut world = World::new(21, 4);
    world.method = shared.clone();
    world.install("1.0.0");
    world.heal();
    world.assert_method_everywhere(&shared);
    // A failed upgrade by another method goes back to the former one.
    world.break_node(1);
    world.method = Method::Store;
    world.install("2.0.0");
    world.heal_but_broken();
    assert_eq!(world.phase(), Phase::Failed);
    world.assert_everywhere("1.0.0");
    world.assert_method_everywhere(&shared);
    // A good one leaves nothing of it.
    world.heal();
    world.method = Method::Path { dir: None };
    world.install("3.0.0");
    world.heal();
    world.assert_method_everywhere(&Method::Path { dir: None });
    world.remove();
    assert_eq!(world.operation().method, Method::Path { dir: None });
    world.heal();
    world.assert_gone();
}

#[test]
fn the_same_release_can_change_its_method() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        world.install("1.0.0");
        world.heal();
        world.method = luarocks(None);
        world.install("1.0.0");
        assert_eq!(world.operation().kind, OperationKind::Upgrade);
        world.chaos(100);
        world.heal();
        let wanted = if world.phase() == Phase::Succeeded { luarocks(None) } else { Method::Store };
        world.assert_method_everywhere(&wanted);
    }
}

#[test]
fn two_plugins_of_a_group_bring_the_same_module_or_none() {
    let mut world = World::new(1, 2);
    world.install("1.0.0");
    world.heal();
    let state = world.state_with_modules(&[("golden", "1.0.0", "resty/foo.lua", "a")]);
    for (module, content, refused) in [
        ("resty/foo.lua", "a", false),
        ("resty/foo.lua", "b", true),
        ("resty/bar.lua", "b", false),
        ("kong/plugins/golden/more.lua", "b", true),
        ("kong/plugins/golden-more/more.lua", "b", false),
    ] {
        let code = World::conflict(&state, "other", module, content);
        assert_eq!(code.as_deref(), refused.then_some("MODULE_CONFLICT"), "{module} {content}");
    }
    // The plugin's own former release is no conflict: it is going.
    assert_eq!(World::conflict(&state, "golden", "resty/foo.lua", "b"), None);
}

#[test]
fn a_node_that_joins_while_a_removal_turns_back_is_part_of_it() {
    let mut world = World::new(23, 4);
    world.install("1.0.0");
    world.run(200);
    world.remove();
    world.run_until_disabling();
    world.reroute_overtaken_by_a_join();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_gone();
}
