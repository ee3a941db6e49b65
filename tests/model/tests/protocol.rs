//! Every order of events within the bounds of each configuration, at least 200,000 distinct states in all.
//!
//! `KCTL_MODEL_STATES=5000000` asks for more; `KCTL_MODEL_ONLY="abort, late"` looks at one configuration alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::time::Instant;

use kctl_model::check::{Outcome, run};
use kctl_model::scenario;

/// Distinct states that are looked at, in all, unless more is asked for.
const STATES: usize = 200_000;
/// About how often a state is met again for each time it is new: the checker counts both.
const MET: usize = 6;

fn judge(outcome: &Outcome) {
    println!(
        "{:<26} {:>9} states, {:>3} deep, {:>6.1} s, {:>7.0} a second{}",
        outcome.name,
        outcome.states,
        outcome.depth,
        outcome.seconds,
        outcome.states as f64 / outcome.seconds,
        if outcome.complete { "" } else { ", not all" }
    );
    for (law, path) in &outcome.broken {
        println!("{law} is broken:\n{path}");
    }
    let laws: Vec<_> = outcome.broken.iter().map(|(law, _)| law).collect();
    assert!(laws.is_empty(), "{}: {laws:?} broken, the way there is above", outcome.name);
    assert!(outcome.missing.is_empty(), "{}: never reached: {:?}", outcome.name, outcome.missing);
}

#[test]
fn no_order_of_events_breaks_an_invariant_and_every_end_is_reached() {
    let begun = Instant::now();
    let wanted = std::env::var("KCTL_MODEL_STATES").map_or(STATES, |n| n.parse().unwrap()).max(STATES);
    let only = std::env::var("KCTL_MODEL_ONLY").ok();
    let mut states = 0;
    for setup in scenario::ALL.iter().chain(scenario::LARGE) {
        let chosen = only.as_deref().is_none_or(|name| name == setup.name);
        let large = scenario::LARGE.iter().any(|s| s.name == setup.name);
        if chosen && (!large || states < wanted) {
            let outcome = run(*setup, None);
            judge(&outcome);
            states += outcome.states;
        }
    }
    for setup in scenario::ENDLESS {
        if states < wanted && only.as_deref().is_none_or(|name| name == setup.name) {
            let outcome = run(*setup, NonZeroUsize::new((wanted - states) * MET));
            judge(&outcome);
            states += outcome.states;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{states} states in {seconds:.1} s, {:.0} a second", states as f64 / seconds);
    assert!(states > 0, "there is no such configuration");
    assert!(only.is_some() || states >= wanted, "{states} states, at least {wanted} were wanted");
}
