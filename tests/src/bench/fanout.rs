//! Thousands of agents on one leader: how fast all of them hear of a release, what they cost, and how fast they are back
//! when the leader is gone.

pub mod agent;
mod client;
mod members;

use std::time::{Duration, Instant};

use kctl_shared::package::{LoadOptions, Package, Unread, load};

use super::figures::{median, spread, verdict};
use super::plugin;
use agent::Agents;
use client::Client;
use members::Members;

/// Agents, and in how many seconds they have acknowledged a release, without and with its artifact.
const ANNOUNCED: [(usize, f64, f64); 2] = [(1_000, 0.3, 1.0), (10_000, 1.0, 5.0)];
/// KiB of the leader's memory for each agent.
const MEMORY: f64 = 64.0;
/// Percent of a core for the heartbeats of `MANY` agents.
const HEARTBEATS: f64 = 25.0;
/// Seconds until all of them are back.
const BACK: f64 = 30.0;
const MANY: usize = 10_000;
/// How long heartbeats are watched, in which nothing else happens.
const WATCHED: Duration = Duration::from_secs(20);

/// Measures with each number of agents; whether the targets are met.
pub fn run(rounds: usize, counts: &[usize]) -> bool {
    let open = super::process::raise_open_files();
    let runtime = super::runtime();
    let met: Vec<bool> = counts
        .iter()
        .map(|count| {
            assert!(open > 2 * *count as u64, "{count} agents need more than {open} open files: ulimit -Hn");
            runtime.block_on(one(rounds, *count))
        })
        .collect();
    met.into_iter().all(|met| met)
}

async fn one(rounds: usize, count: usize) -> bool {
    println!("\nfanout: {count} agents, 3 members");
    let mut met = true;
    let mut check = |what: &str, value: f64, most: Option<f64>, unit: &str| {
        let wanted =
            most.map(|most| format!("; at most {most} {}", verdict(value <= most))).unwrap_or_default();
        met &= most.is_none_or(|most| value <= most);
        println!("  {what:<50} {value:9.2} {unit}{wanted}");
    };
    let temp = super::directory("kctl-bench-fanout-");
    let mut members = Members::start(&temp.path().join("members"));
    let leader = members.leader().await;
    let before = members.get(&leader).memory();
    let start = Instant::now();
    let agents = Agents::start(count, &members.urls(), &temp.path().join("lua"));
    agents.are_with(|url| *url == leader).await;
    check("all have joined", start.elapsed().as_secs_f64(), None, "s");

    let mut client = Client::connect(&leader).await;
    for fetching in [false, true] {
        let (mut acknowledged, mut passed) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let version = format!("{}.{round}.0", 1 + u32::from(fetching));
            let package = package(temp.path(), &version);
            client.upload(&package).await;
            let expected = agents.expect(&package.digest(), fetching);
            let start = Instant::now();
            let operation = client.install(&package).await;
            acknowledged.push((expected.acknowledged(count).await - start).as_secs_f64());
            passed.push((expected.passed().await - start).as_secs_f64());
            client.ended(&operation).await;
        }
        let (with, most) = if fetching { ("with its artifact", 2) } else { ("without its artifact", 1) };
        let target = ANNOUNCED.iter().find(|(agents, ..)| *agents == count);
        let target = target.map(|(_, plain, artifact)| if most == 2 { *artifact } else { *plain });
        check(&format!("release announced → all acknowledged, {with}"), median(&passed), target, "s");
        println!(
            "    sent by the agents after {} s, barrier passed after {} s",
            spread(&acknowledged),
            spread(&passed)
        );
    }
    let memory = members.get(&leader).memory().saturating_sub(before) as f64 / count as f64;
    check("leader's memory for an agent", memory, Some(MEMORY), "KiB");

    let computed = members.get(&leader).computed();
    tokio::time::sleep(WATCHED).await;
    let percent = 100.0 * (members.get(&leader).computed() - computed).as_secs_f64() / WATCHED.as_secs_f64();
    check("heartbeats, of one core", percent, (count == MANY).then_some(HEARTBEATS), "%");

    let start = Instant::now();
    members.get_mut(&leader).kill();
    agents.are_with(|url| *url != leader).await;
    check("all are back after the leader was killed", start.elapsed().as_secs_f64(), Some(BACK), "s");
    agents.stop().await;
    met
}

fn package(root: &std::path::Path, version: &str) -> Package {
    load(&plugin::write(root, version), &LoadOptions::default(), &Unread).unwrap()
}
