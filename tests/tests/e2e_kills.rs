//! Agents killed at random moments of install, upgrade and remove, while somebody watches what lies on the nodes.
//!
//! `KCTL_TEST_KILLS` says how many kills (40 without it) and `KCTL_TEST_SEED` which moments; both are printed, and a failure
//! is run again with them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kctl_tests::Cluster;
use kctl_tests::cluster::signal;
use kctl_tests::dice::{Dice, number};
use kctl_tests::plugins;
use kctl_tests::watched::Watched;

const NAME: &str = "tough";
/// An install on a quiet machine takes about as long.
const MOMENTS_MS: u64 = 1_800;

#[test]
fn random_kills_of_agents_leave_every_node_whole() {
    let kills = number("KCTL_TEST_KILLS", 40);
    let (mut dice, seed) = Dice::seeded();
    let again = format!(
        "KCTL_TEST_KILLS={kills} KCTL_TEST_SEED={seed} cargo nextest run -p kctl-tests --test e2e_kills"
    );
    println!("{again}");
    let cluster = Cluster::start(1, 2);
    let root = cluster.temp().to_owned();
    let (one, two) = (plugins::good(&root, NAME, "1.0.0"), plugins::good(&root, NAME, "2.0.0"));
    let releases = [plugins::files(&one, NAME), plugins::files(&two, NAME)];
    let watched: Vec<Watched> = cluster.nodes().iter().map(|n| Watched::new(n, NAME, &releases)).collect();
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for node in &watched {
                    node.look().unwrap_or_else(|wrong| panic!("{}: {wrong}\n{again}", node.conf.display()));
                }
                looks.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let killed = rounds(&cluster, &mut dice, kills, &[&one, &two], &again, &|| watcher.is_finished());
        done.store(true, Ordering::Relaxed);
        let told = watcher.join();
        assert!(told.is_ok() && looks.load(Ordering::Relaxed) > 100, "{again}");
        println!("{killed} kills while an operation went on, {} looks", looks.load(Ordering::Relaxed));
    });
}

/// Install, upgrade, remove and so on, until there were as many kills during operations.
fn rounds(
    cluster: &Cluster,
    dice: &mut Dice,
    kills: u64,
    sources: &[&Path; 2],
    again: &str,
    gone_wrong: &dyn Fn() -> bool,
) -> u64 {
    let mut killed = 0;
    for round in 0.. {
        let (args, version): (Vec<&str>, _) = match round % 3 {
            0 => (vec!["plugin", "install", sources[0].to_str().unwrap()], Some("1.0.0")),
            1 => (vec!["plugin", "install", sources[1].to_str().unwrap()], Some("2.0.0")),
            _ => (vec!["plugin", "remove", NAME, "--yes"], None),
        };
        let ran = cluster.kctl(&[&args[..], &["--all-nodes", "--detach"]].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}\n{again}");
        let id = ran.out.trim().to_owned();
        for _ in 0..=dice.below(3) {
            // The moment is the subject here, not a condition that is waited for.
            std::thread::sleep(Duration::from_millis(dice.below(MOMENTS_MS)));
            let nodes = cluster.nodes();
            let victim = dice.pick(&nodes);
            let goes_on = cluster.operation(&id)["finished_at"].is_null();
            if !goes_on {
                break;
            }
            signal(&victim["agent_pid"], "KILL");
            killed += 1;
            let pid = victim["agent_pid"].as_u64().unwrap();
            let id = victim["id"].as_str().unwrap().to_owned();
            kctl_tests::until("the agent to be started again", 30, || {
                cluster.node(&id)["agent_pid"].as_u64().filter(|now| *now > 0 && *now != pid)
            });
        }
        let view = cluster.wait_ended(&id, 180);
        assert!(!gone_wrong(), "{args:?}: see the watcher's words\n{again}");
        assert_eq!(view["phase"], "Succeeded", "{args:?}: {view:#}\n{again}");
        assert_eq!(cluster.loaded_on(NAME), vec![version.map(str::to_owned); 2], "{args:?}\n{again}");
        for node in cluster.nodes() {
            let files = cluster.files(&node, NAME);
            assert_eq!(version.is_some(), !files.is_empty(), "{args:?}: {files:?}\n{again}");
        }
        if killed >= kills && version.is_none() {
            break;
        }
    }
    killed
}
