//! The agent ended at every named point of every durable step: killed, refused by the disk, without power.
//!
//! One plugin goes round: install, upgrade, disable, delete. An undisturbed round tells which points there are and what each
//! change ends in; then every point of each change is met by a fault, the node is looked at, and an agent without a fault
//! must come to the same end. `KCTL_TEST_POINT=upgrade:conf.write.renamed` tries that one alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "crash_points/agent.rs"]
mod agent;
#[allow(dead_code, reason = "shared with the tests of the gateway")]
#[path = "gateway_kong/database.rs"]
mod database;
#[path = "crash_points/machine.rs"]
mod machine;
#[allow(dead_code, reason = "shared with the tests of the gateway")]
#[path = "gateway_kong/node.rs"]
mod node;

use std::collections::BTreeSet;

use kctl_node_agent::durable::{SELDOM, STEPS};

use machine::{Change, Machine};

/// The other process; does nothing when it is run as a test.
#[test]
fn child() {
    agent::run_if_asked();
}

#[test]
fn killed_anywhere() {
    everywhere("kill");
}

#[test]
fn refused_by_the_disk_anywhere() {
    everywhere("error");
}

#[test]
fn without_power_anywhere() {
    everywhere("power");
}

fn everywhere(fault: &str) {
    let mut machine = Machine::new();
    let only = std::env::var("KCTL_TEST_POINT").ok();
    let rounds: Vec<(Change, Vec<String>, machine::Look)> = Change::ALL
        .map(|change| {
            let mut points = machine.undisturbed(change);
            if let Some(only) = &only {
                points.retain(|point| *only == format!("{change:?}:{point}").to_lowercase());
            }
            (change, points, machine.look())
        })
        .into();
    if only.is_none() {
        all_are_known(rounds.iter().flat_map(|(_, points, _)| points));
    }
    let most = rounds.iter().map(|(_, points, _)| points.len()).max().unwrap_or(0);
    for turn in 0..most {
        for (change, points, end) in &rounds {
            match points.get(turn) {
                Some(point) => machine.disturbed(*change, point, fault, end),
                None => drop(machine.undisturbed(*change)),
            }
        }
    }
}

/// Nothing is durable without a name, and no name is without a use.
fn all_are_known<'a>(met: impl Iterator<Item = &'a String>) {
    let met: BTreeSet<&str> = met.map(String::as_str).collect();
    let known: BTreeSet<String> = STEPS
        .iter()
        .flat_map(|(step, points)| points.iter().map(move |point| format!("{step}.{point}")))
        .collect();
    let unknown: Vec<_> = met
        .iter()
        .filter(|p| !known.contains(**p) && !SELDOM.iter().any(|step| p.starts_with(step)))
        .collect();
    let unmet: Vec<_> = known.iter().filter(|p| !met.contains(p.as_str())).collect();
    assert!(unknown.is_empty() && unmet.is_empty(), "not in STEPS: {unknown:?}; never met: {unmet:?}");
}
