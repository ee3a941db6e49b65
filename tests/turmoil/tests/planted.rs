//! A net that catches nothing proves nothing: bugs, planted, that show outside of the product in a few runs.
//!
//! `KCTL_TURMOIL_MUTANT=name` plants one; `KCTL_TURMOIL_SEEDS=N` says within how many seeds each is to be caught.

#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kctl_turmoil::run::Outcome;

/// Seeds within which each is caught; a few are enough.
const WITHIN: u64 = 20;

/// The bug, and what it does. What lets an entity slip by (`skip-f2`) or believes a former start of an agent needs orders of
/// events that are too rare here; the simulation has them.
const MUTANTS: [(&str, &str); 3] = [
    ("applied-counts-as-verified", "an answer is taken for a proof"),
    ("old-workers-ignored", "files go under workers that still drain"),
    ("fence-forgotten", "an agent that restarts takes any spec"),
];

fn run(mutant: &str, seed: u64) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turmoil-run"));
    let ended = command.env("KCTL_MUTANT", mutant).arg(seed.to_string()).stderr(Stdio::null());
    serde_json::from_slice(&ended.output().unwrap().stdout).unwrap()
}

/// The first seed of those that were played that showed it, and what it showed.
fn caught(mutant: &str, within: u64) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= within {
                return;
            }
            if let Some(law) = run(mutant, seed).violated {
                next.store(within, Ordering::Relaxed);
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|(first, _)| seed < *first) {
                    *found = Some((seed, law));
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| (0..workers).for_each(|_| drop(threads.spawn(work))));
    found.into_inner().unwrap()
}

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("KCTL_TURMOIL_MUTANT").ok();
    let within = std::env::var("KCTL_TURMOIL_SEEDS").map_or(WITHIN, |n| n.parse().unwrap());
    let mut missed = Vec::new();
    println!("{:<28} {:>6}  what was seen", "bug", "seed");
    for (name, what) in MUTANTS.iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name)) {
        match caught(name, within) {
            Some((seed, law)) => {
                println!("{name:<28} {seed:>6}  {}", law.chars().take(150).collect::<String>());
            }
            None => {
                println!("{name:<28} {:>6}  {what}", "-");
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "not caught in {within} seeds: {missed:?}");
}
