//! What a plugin was, and is again.

use kctl_control_plane::state::history::KEPT_REVISIONS;
use kctl_control_plane::state::operation::{OperationKind, Phase};

use crate::world::World;

fn removed(seed: u64) -> World {
    let mut world = World::new(seed, 3 + (seed % 4) as usize);
    world.install("1.0.0");
    world.heal();
    world.configure();
    world.configure();
    world.remove();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded, "seed {seed}");
    world.assert_gone();
    world
}

#[test]
fn an_undone_removal_brings_the_plugin_back_and_then_its_entities() {
    let mut ended = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..60 {
        let mut world = removed(seed);
        assert_eq!(world.state.saved_entities().len(), 1);
        world.undo();
        let mut taken = [0; 6];
        world.chaos_and_people(150, 3, &mut taken);
        world.heal();
        *ended.entry(world.phase().as_str()).or_default() += 1;
        match world.phase() {
            Phase::Succeeded => {
                world.assert_converged("1.0.0");
                world.assert_attached();
                assert_eq!(world.history().len(), 3);
                assert!(
                    world.history().iter().all(|r| r.entities.is_empty()),
                    "nothing is left to bring back"
                );
            }
            // Called off, or a node failed, before anything was re-created: it can be tried again.
            _ => {
                world.assert_gone();
                assert_eq!(world.history().last().unwrap().entities.len(), 2);
            }
        }
    }
    assert!(ended["Succeeded"] > 20, "{ended:?}");
}

#[test]
fn once_entities_are_re_created_an_undo_is_not_called_off() {
    let mut world = removed(3);
    world.undo();
    for _ in 0..2_000 {
        if world.operation().has_begun_to_attach() {
            break;
        }
        world.run(1);
    }
    assert_eq!(world.abort().unwrap_err(), "ATTACHING");
    world.join();
    world.heal();
    assert_eq!(world.phase(), Phase::Succeeded);
    world.assert_attached();
    world.assert_everywhere("1.0.0");
}

#[test]
fn only_what_was_taken_away_is_re_created() {
    let mut world = removed(4);
    assert_eq!(world.undo_of_others(), "SUPERSEDED");
}

#[test]
fn history_is_numbered_bounded_and_outlives_the_plugin() {
    let mut world = World::new(1, 2);
    for n in 0..KEPT_REVISIONS + 3 {
        world.install(&format!("1.0.{n}"));
        world.heal();
    }
    world.remove();
    world.heal();
    let history = world.history();
    assert_eq!(history.len(), KEPT_REVISIONS);
    let numbers: Vec<_> = history.iter().map(|r| r.number as usize).collect();
    assert_eq!(numbers, (5..=KEPT_REVISIONS + 4).collect::<Vec<_>>());
    assert_eq!(history.last().unwrap().kind, OperationKind::Remove);
}

#[test]
fn a_pinned_plugin_keeps_its_version_and_a_lower_one_has_to_be_meant() {
    let mut world = World::new(2, 3);
    assert_eq!(world.pin(Some("1.0.0")).unwrap_err(), "PLUGIN_NOT_INSTALLED");
    world.install("1.0.0");
    assert_eq!(world.pin(Some("1.0.0")).unwrap_err(), "PLUGIN_NOT_INSTALLED");
    world.heal();
    let refused =
        |world: &mut World, version, lower| world.refused_install(version, lower).unwrap_or_default();
    assert_eq!(refused(&mut world, "0.9.0", false), "DOWNGRADE");
    assert_eq!(refused(&mut world, "1.0.0-rc.1", false), "DOWNGRADE");
    assert_eq!(refused(&mut world, "0.9.0", true), "");
    assert_eq!(refused(&mut world, "1.0.0-1", false), "");
    world.pin(Some("1.0.0")).unwrap();
    assert_eq!(refused(&mut world, "2.0.0", false), "PLUGIN_PINNED");
    assert_eq!(refused(&mut world, "0.9.0", true), "PLUGIN_PINNED");
    world.pin(None).unwrap();
    assert_eq!(refused(&mut world, "2.0.0", false), "");
    world.remove();
    assert_eq!(world.pin(None).unwrap_err(), "PLUGIN_BUSY");
}
