//! The executables' own entry points in a simulated network: members and agents, cut off, delayed, crashed and started
//! again, while people install, upgrade, configure and remove plugins. One seed is one run.
//!
//! `KCTL_TURMOIL_SEED=N` plays that one alone and prints what happened (`KCTL_LOG` shows what the product logs);
//! `KCTL_TURMOIL_SEEDS=N` says how many, `KCTL_TURMOIL_FROM=N` from which on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kctl_turmoil::chaos::WANTED;
use kctl_turmoil::run::Outcome;

const SEEDS: u64 = 10;
/// How often a long run says how far it is.
const REPORT: u64 = 500;
/// What is expected to happen somewhere in so many runs.
const MANY: u64 = 100;
/// What people get done, besides the faults.
const DONE: [&str; 6] = [
    "installs succeeded",
    "upgrades succeeded",
    "removals succeeded",
    "installs and upgrades rolled back",
    "removals called off",
    "put back",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

/// Plays a seed in a process of its own; `shown`: with what happens.
fn run(seed: u64, shown: bool) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turmoil-run"));
    if shown && std::env::var_os("KCTL_LOG").is_none() {
        command.env("KCTL_LOG", "turmoil_trace=info");
    }
    let ended = command.arg(seed.to_string()).stderr(Stdio::inherit()).output().unwrap();
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|e| panic!("seed {seed}: {}: {e}", ended.status))
}

fn replay(seed: u64) -> String {
    format!(
        "KCTL_TURMOIL_SEED={seed} cargo nextest run -p kctl-turmoil -E 'test(everything_converges)' --no-capture"
    )
}

#[test]
fn whatever_happens_no_invariant_breaks_and_everything_converges() {
    let one = number("KCTL_TURMOIL_SEED");
    let from = one.or(number("KCTL_TURMOIL_FROM")).unwrap_or_default();
    let count = if one.is_some() { 1 } else { number("KCTL_TURMOIL_SEEDS").unwrap_or(SEEDS) };
    let (begun, seeds) = (Instant::now(), from..from + count);
    let next = AtomicU64::new(seeds.start);
    let counts = Mutex::new(BTreeMap::<String, u64>::new());
    let failed = Mutex::new(Vec::<(u64, Outcome)>::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if seed > seeds.start && (seed - seeds.start).is_multiple_of(REPORT) {
                println!("{} seeds, {:.0} s", seed - seeds.start, begun.elapsed().as_secs_f64());
            }
            let outcome = run(seed, one.is_some());
            {
                let mut counts = counts.lock().unwrap();
                outcome.counts.iter().for_each(|(what, n)| *counts.entry(what.clone()).or_default() += n);
                *counts.entry("seconds of the runs".into()).or_default() += outcome.lasted_ms / 1_000;
            }
            if let Some(violated) = &outcome.violated {
                // At once: a long run may be cut short.
                println!("seed {seed} violates {violated}");
                failed.lock().unwrap().push((seed, outcome));
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| (0..workers).for_each(|_| drop(threads.spawn(work))));
    let (counts, mut failed) = (counts.into_inner().unwrap(), failed.into_inner().unwrap());
    println!("{count} seeds in {:.1} s", begun.elapsed().as_secs_f64());
    counts.iter().for_each(|(what, n)| println!("{n:>9} {what}"));
    failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, outcome)) = failed.first() {
        let all: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        let last = outcome.trace.len().saturating_sub(60);
        panic!(
            "{}\n\nseed {seed} violates {}\nagain: {}\nall that failed: {all:?}",
            outcome.trace[last..].join("\n"),
            outcome.violated.as_deref().unwrap_or_default(),
            replay(*seed)
        );
    }
    if one.is_none() && count >= MANY {
        let missing: Vec<_> =
            WANTED.iter().chain(&DONE).filter(|what| !counts.contains_key(**what)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in [1_000_001, 1_000_002] {
        let (first, second) = (run(seed, false), run(seed, false));
        let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        assert_eq!(
            differs.map(|n| (&first.trace[n], &second.trace[n])),
            None,
            "seed {seed}, line {differs:?}"
        );
        assert_eq!(first.trace.len(), second.trace.len());
        assert!(first.trace.len() > 20, "something happened");
    }
}
