//! A net that catches nothing proves nothing: each bug, planted, breaks an invariant within a configuration that keeps
//! them all without it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kctl_model::check::{Outcome, run};
use kctl_model::scenario;
use kctl_model::setup::Mutant;

/// The bug, where it shows, and what it does.
type Row = (Mutant, &'static str, &'static str);

fn plant(mutant: Mutant, name: &str) -> Outcome {
    let all = [scenario::ALL, scenario::LARGE, scenario::ENDLESS].concat();
    let setup = all.iter().find(|s| s.name == name).unwrap();
    run(setup.with(mutant), None)
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident in $name:literal, $what:literal;)*) => {
        const MUTANTS: &[Row] = &[$((Mutant::$mutant, $name, $what)),*];
        $(
            #[test]
            fn $test() {
                let outcome = plant(Mutant::$mutant, $name);
                assert!(!outcome.broken.is_empty(), "nothing showed that {}", $what);
            }
        )*
    };
}

mutants! {
    guard_only_at_propose: GuardOnlyAtPropose in "abort, late", "apply believes its proposer";
    skip_f2: SkipF2 in "re-create", "no scan after the last node with an Admin API dropped the plugin";
    disable_order_reversed: DisableOrderReversed in "remove", "nodes without an Admin API drop it first";
    applied_counts_as_verified: AppliedCountsAsVerified in "remove", "an answer is taken for a proof";
    old_workers_ignored: OldWorkersIgnored in "remove", "files go under workers that still drain";
    fence_off_by_one: FenceOffByOne in "remove", "an agent takes the spec before its own";
    fence_forgotten: FenceForgotten in "remove, crash", "an agent that restarts takes any spec";
    no_incarnation_check: NoIncarnationCheck in "remove, crash", "a former start of an agent is believed";
    decommissioned_believed: NoIncarnationCheck in "decommission", "a node that was taken out is believed";
    leaver_asked_again: LeaverAskedAgain in "leave, abort, late", "who left is waited for again";
    forgotten_unproven: ForgottenUnproven in "leave", "who is to leave is forgotten as it is";
    delete_by_name: DeleteByName in "remove", "entities go that nobody recorded";
    frozen_members: FrozenMembers in "join", "nodes that join are in no live operation";
    joiner_straight_to_active: JoinerStraightToActive in "join", "nodes that join are in no live removal";
    abort_after_b2: AbortAfterB2 in "abort", "a removal is called off while files go";
    fence_by_arrival: FenceByArrival in "re-create", "a scan counts that began before the last drop";
    joiner_enabled_after_b2: JoinerEnabledAfterB2 in "join", "who joins last begins with the plugin";
    way_back_unchecked: WayBackUnchecked in "install, join", "a node that was let act is not on the way back";
    listed_counts_as_gone: ListedCountsAsGone in "install, faults", "a node is rid of what it still lists";
    unlisted_left_running: UnlistedLeftRunning in "install, faults", "a node leaves running what it does not list";
    lease_of_the_stream: LeaseOfTheStream in "abort, silence", "a former applier's lease is renewed";
    assign_unchecked: AssignUnchecked in "abort, silence, late", "an applier is replaced who is none any more";
    lease_ignored: LeaseIgnored in "depose, abort, two admins", "an applier begins under another's lease";
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    println!("{:<24} {:<20} {:<9} {:>7}  what it does", "bug", "configuration", "invariant", "actions");
    for (mutant, name, what) in MUTANTS {
        let outcome = plant(*mutant, name);
        let laws: Vec<_> = outcome.broken.iter().map(|(law, _)| *law).collect();
        let actions = outcome.broken.first().map_or(0, |(_, path)| path.lines().count());
        println!("{:<24} {name:<20} {:<9} {actions:>7}  {what}", format!("{mutant:?}"), laws.join(" "));
        if laws.is_empty() {
            missed.push(mutant);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
