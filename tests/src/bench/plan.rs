//! What the pure functions cost with many nodes and plugins: `plan`, `node_spec`, `apply`, and a snapshot of the state.

mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::raft::{Consensus, ConsensusConfig, MemberAddress, Sled};
use kctl_control_plane::rollout;
use kctl_control_plane::state::operation::StepKind;
use kctl_shared::network::{Tcp, dialer};
use kctl_shared::time::Timestamp;

use super::figures::{median, millis, quantile, verdict};
use super::process::memory;
pub use world::kong;
use world::{PLUGINS, World};

/// Milliseconds of one `plan`.
const PLAN_MS: f64 = 10.0;
/// Microseconds of one `node_spec`.
const SPEC_US: f64 = 50.0;
/// MiB of the state.
const STATE_MIB: f64 = 200.0;
/// Milliseconds of one snapshot, encoded and on the disk.
const SNAPSHOT_MS: f64 = 2_000.0;
/// With how many nodes the targets are to be met.
const TARGET_NODES: usize = 10_000;

/// Measures with each number of nodes; whether the targets are met.
pub fn run(rounds: usize, nodes: &[usize]) -> bool {
    let met: Vec<bool> = nodes.iter().map(|nodes| one(rounds, *nodes)).collect();
    met.into_iter().all(|met| met)
}

fn one(rounds: usize, nodes: usize) -> bool {
    // Of 10,000 nodes at 10,000, of fewer as many times less; what is fixed weighs little.
    let part = nodes as f64 / TARGET_NODES as f64;
    println!("\nplan: {nodes} nodes, {PLUGINS} plugins");
    let mut met = true;
    let mut check = |what: &str, value: f64, most: f64, unit: &str| {
        met &= value <= most;
        println!("  {what:<58} {value:10.3} {unit}; at most {most:.1} {}", verdict(value <= most));
    };
    let before = memory("self");
    let mut world = World::new(nodes);
    let mib = memory("self").saturating_sub(before) as f64 / 1024.0;
    check("state, all plugins installed", mib, STATE_MIB * part.max(0.1), "MiB");
    for (command, took) in world.took() {
        println!("  apply {command:<52} {:10.3} ms, 99 % below {:.3}", median(took), quantile(took, 0.99));
    }
    snapshot(&world, rounds.min(5), &mut check, part);

    let before = memory("self");
    world.report();
    println!("  reports of all nodes {:48.1} MiB", memory("self").saturating_sub(before) as f64 / 1024.0);
    let plan = |world: &World| {
        let plans = times(rounds, || drop(black_box(rollout::plan(&world.state, &world.fleet, world.now))));
        median(&plans)
    };
    check("plan, no live operation", plan(&world), PLAN_MS * part.max(0.1), "ms");
    world.begin();
    check("plan, one live, its first step is to be dispatched", plan(&world), PLAN_MS * part.max(0.1), "ms");
    world.dispatch(StepKind::Stage);
    check("plan, one live, no node has answered", plan(&world), PLAN_MS * part.max(0.1), "ms");
    let ids: Vec<_> = world.state.nodes.keys().cloned().collect();
    let specs = |what: fn(&World, &kctl_shared::name::NodeId)| {
        let all = times(3, || ids.iter().for_each(|id| what(&world, id)));
        median(&all) * 1000.0 / ids.len() as f64
    };
    check("node_spec", specs(|w, id| drop(black_box(node_spec(&w.state, id)))), SPEC_US, "µs");
    let hashed = specs(|w, id| drop(black_box(node_spec(&w.state, id).hash())));
    println!("  node_spec and its hash {hashed:46.3} µs");
    world.answer(2);
    check("plan, one live, half of the nodes have answered", plan(&world), PLAN_MS * part.max(0.1), "ms");
    world.answer(1);
    check("plan, one live, all nodes have answered", plan(&world), PLAN_MS * part.max(0.1), "ms");
    met
}

/// Milliseconds of each call.
fn times(rounds: usize, mut what: impl FnMut()) -> Vec<f64> {
    let timed = |()| {
        let start = Instant::now();
        what();
        millis(start.elapsed())
    };
    std::iter::repeat_n((), rounds).map(timed).collect()
}

/// The same state in a member of its own, so that the snapshot is the product's.
fn snapshot(world: &World, rounds: usize, check: &mut impl FnMut(&str, f64, f64, &str), part: f64) {
    let temp = super::directory("kctl-bench-plan-");
    let took = super::runtime().block_on(async {
        let members = [(1, MemberAddress { raft: "http://127.0.0.1:1".into(), ..MemberAddress::default() })];
        let mut config = ConsensusConfig::new(1, temp.path().join("m"), members.into());
        config.snapshot_every = u64::MAX;
        let (consensus, _unserved) =
            Consensus::open(config, &Sled, dialer(Arc::new(Tcp), false)).await.unwrap();
        let mut led = consensus.watch_leadership();
        led.wait_for(|l| l.is_leader).await.unwrap();
        for commands in world::commands(world.nodes()) {
            for outcome in consensus.propose(commands).await.unwrap() {
                outcome.unwrap();
            }
        }
        let mut took = Vec::new();
        for round in 0..rounds {
            // A snapshot of what has one already would be none.
            consensus.propose(vec![world::release(PLUGINS + 1 + round)]).await.unwrap();
            let start = Instant::now();
            consensus.snapshot().await.unwrap();
            took.push(millis(start.elapsed()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        consensus.shutdown().await;
        took
    });
    check("snapshot, encoded and saved", median(&took), SNAPSHOT_MS * part.max(0.1), "ms");
}

/// When the world begins.
const EPOCH: Timestamp = Timestamp(1_000_000);
