//! The whole product, simulated: the functions that the executables run, in a world that loses, repeats, reorders and
//! delays, kills and deposes. One seed is one run.
//!
//! `KCTL_SIM_SEED=N` runs that one alone and prints its last events; `KCTL_SIM_SCHEDULES=N` says how many,
//! `KCTL_SIM_FROM=N` from which seed on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "simulation/agent.rs"]
mod agent;
#[path = "simulation/applier.rs"]
mod applier;
#[path = "simulation/calm.rs"]
mod calm;
#[path = "simulation/chaos.rs"]
mod chaos;
#[path = "simulation/control.rs"]
mod control;
#[path = "simulation/duty.rs"]
mod duty;
#[path = "simulation/laws.rs"]
mod laws;
#[path = "simulation/machine.rs"]
mod machine;
#[cfg(feature = "mutants")]
#[path = "simulation/mutants.rs"]
mod mutants;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/requests.rs"]
mod requests;
#[path = "simulation/standing.rs"]
mod standing;
#[path = "simulation/world.rs"]
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kctl_control_plane::state::operation::{Operation, OperationKind, Phase};
use laws::Law;
use rand::RngExt as _;
use world::World;

/// Small things come and go a million times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SCHEDULES: u64 = 2_000;
/// Schedules that break a law until no more are looked for: a night's run tells of more than the first.
const ENOUGH: usize = 10;
/// How often a long run says how far it is.
const REPORT: u64 = 50_000;
/// Events before the faults stop.
const CHAOS: std::ops::Range<u64> = 250..700;

struct Run {
    violated: Option<Law>,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
    trace: Vec<String>,
}

fn run(seed: u64, traced: bool) -> Run {
    let mut world = match World::new(seed, traced) {
        Ok(world) => world,
        Err(law) => {
            return Run { violated: Some(law), events: 0, counts: BTreeMap::new(), trace: Vec::new() };
        }
    };
    let lived = panic::catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let violated = lived.unwrap_or_else(|told| Err(Law::new("goes on", said(&*told)))).err();
    for operation in world.truth.operations.values() {
        let what = match operation.phase {
            Phase::Succeeded => "operations that succeeded",
            Phase::Compensated => "removals compensated",
            _ => "operations that failed",
        };
        *world.counts.entry(what).or_default() += 1;
        if let Some(how) = how_together(operation) {
            *world.counts.entry(how).or_default() += 1;
        }
        if operation.undo_to.is_some() && what == "operations that succeeded" {
            *world.counts.entry("operations undone").or_default() += 1;
        }
    }
    let trace = world.trace.take().into_iter().flatten().collect();
    Run { violated, events: world.events, counts: world.counts, trace }
}

/// What a panic said, which the seed alone reproduces as well.
fn said(told: &(dyn Any + Send)) -> String {
    let text = told.downcast_ref::<String>().map(String::as_str);
    text.or(told.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// What became of an operation that began together with others.
fn how_together(operation: &Operation) -> Option<&'static str> {
    let followed = operation.error.as_ref().is_some_and(|e| e.code == "BATCH_WENT_BACK");
    match (operation.phase, operation.kind) {
        _ if operation.batch.is_none() => None,
        (Phase::Succeeded, OperationKind::Remove) => Some("removed together"),
        (Phase::Succeeded, _) => Some("in place together"),
        _ => followed.then_some("went back with another"),
    }
}

fn live(world: &mut World) -> Result<(), Law> {
    for _ in 0..world.rng.random_range(CHAOS) {
        world.event()?;
    }
    world.heal()?;
    world.serve_again()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap())
}

fn replay_command(seed: u64) -> String {
    format!("KCTL_SIM_SEED={seed} cargo nextest run -p kctl-tests -E 'binary(simulation)' --no-capture")
}

fn replay(seed: u64, law: &Law) -> String {
    let trace = run(seed, true).trace.join("\n");
    format!("{trace}\n\nseed {seed} violates {}: {}\nagain: {}", law.name, law.detail, replay_command(seed))
}

#[test]
fn nothing_that_happens_breaks_an_invariant_and_everything_converges() {
    let one = number("KCTL_SIM_SEED");
    let from = one.or(number("KCTL_SIM_FROM")).unwrap_or_default();
    let count = if one.is_some() { 1 } else { number("KCTL_SIM_SCHEDULES").unwrap_or(SCHEDULES) };
    let seeds = from..from + count;
    let (begun, schedules) = (Instant::now(), seeds.end - seeds.start);
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(BTreeMap::new());
    let work = || {
        let (mut events, mut least, mut counts) = (0, u64::MAX, BTreeMap::<&str, u64>::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (events, least, counts);
            }
            if seed > seeds.start && (seed - seeds.start).is_multiple_of(REPORT) {
                println!("{} schedules, {:.0} s", seed - seeds.start, begun.elapsed().as_secs_f64());
            }
            let run = run(seed, false);
            if let Some(law) = run.violated {
                // At once: a long run may be cut short.
                println!("seed {seed} violates {}: {}", law.name, law.detail);
                let mut failed = failed.lock().unwrap();
                failed.insert(seed, law);
                if failed.len() >= ENOUGH {
                    next.store(seeds.end, Ordering::Relaxed);
                }
            }
            events += run.events;
            least = least.min(run.events);
            run.counts.iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut events, mut least, mut counts) = (0, u64::MAX, BTreeMap::<&str, u64>::new());
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..workers).map(|_| threads.spawn(work)).collect();
        for worker in workers {
            let (more, fewest, seen) = worker.join().unwrap_or_else(|told| panic::resume_unwind(told));
            events += more;
            least = least.min(fewest);
            seen.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
        }
    });
    let failed = failed.into_inner().unwrap();
    if let Some((seed, law)) = failed.first_key_value() {
        let all: Vec<_> = failed.iter().map(|(seed, law)| format!("{seed} {}", law.name)).collect();
        panic!("{}\nall that failed: {}", replay(*seed, law), all.join(", "));
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{schedules} schedules in {seconds:.1} s ({:.0} a second), {} events each on average, {least} at least",
        schedules as f64 / seconds,
        events / schedules
    );
    counts.iter().for_each(|(what, n)| println!("{n:>9} {what}"));
    if one.is_none() && schedules >= 500 {
        let missing: Vec<_> = chaos::WANTED.iter().filter(|w| !counts.contains_key(*w)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}
