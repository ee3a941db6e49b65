//! A net that catches nothing proves nothing: each bug, planted, is caught.

use kctl_shared::mutant;

use super::{replay_command, run};

/// Schedules within which each is caught; a few are enough for most.
const WITHIN: u64 = 8_000;

/// The bug, and what it does.
const MUTANTS: [(&str, &str); 17] = [
    ("guard-only-at-propose", "apply believes its proposer"),
    ("skip-f2", "no scan after the last node with an Admin API dropped the plugin"),
    ("disable-order-reversed", "nodes without an Admin API drop a plugin first"),
    ("applied-counts-as-verified", "an answer is taken for a proof"),
    ("old-workers-ignored", "files go under workers that still drain"),
    ("fence-off-by-one", "an agent takes the spec before its own"),
    ("fence-forgotten", "an agent that restarts takes any spec"),
    ("no-incarnation-check", "a former start of an agent is believed"),
    ("delete-by-name", "entities go that nobody recorded"),
    ("frozen-members", "nodes that join are in no live operation"),
    ("abort-allowed-after-B2", "a removal is called off while files go"),
    ("joiner-straight-to-active", "nodes that join are in no live removal"),
    ("held-let-act", "a decision that comes late lets a held node act"),
    ("leavers-keep", "a leaving node is not told of what was removed from the others meanwhile"),
    ("leaver-waited-for", "a leaving node that is set up anew is waited for"),
    ("set-back-taken-in", "an agent whose memory was set back is not found out"),
    ("batch-in-halves", "of what began together one goes back and the other does not"),
];

#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("KCTL_SIM_MUTANT").ok();
    let mut missed = Vec::new();
    println!("{:<28} {:>6}  {:<10} what was seen", "bug", "seed", "invariant");
    for (name, what) in MUTANTS.iter().filter(|(name, _)| only.as_ref().is_none_or(|o| o == name)) {
        let caught = mutant::with(name, || {
            (0..WITHIN).find_map(|seed| run(seed, false).violated.map(|law| (seed, law)))
        });
        match caught {
            Some((seed, law)) => {
                let detail: String = law.detail.chars().take(150).collect();
                println!("{name:<28} {seed:>6}  {:<10} {detail}", law.name);
            }
            None => {
                println!("{name:<28} {:>6}  {what}", "-");
                missed.push(name);
            }
        }
    }
    assert!(missed.is_empty(), "not caught in {WITHIN} schedules: {missed:?}; {}", replay_command(0));
}
