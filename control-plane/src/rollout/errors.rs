//! Whether a node's Kong answers more of its requests with 5xx since it was reloaded for an operation than before.
//!
//! Kong counts answers, not causes: an upstream that breaks down during a bake looks like the plugin. What is asked is
//! therefore whether the share rose by more than a margin and more than chance explains; who is not sure bakes longer.
#![deny(clippy::disallowed_methods)]

use std::fmt::Write as _;

use kctl_shared::name::NodeId;
use kctl_shared::served::{Answers, Served};

use super::Round;
use crate::state::operation::{NodeStep, Phase, Step, StepKind};

pub(crate) const CODE: &str = "ERRORS_ROSE";

/// Fewer 5xx than this say nothing, whatever their share: a client that gave up, an upstream that was restarted.
const MIN_FAILED: u64 = 5;
/// What share of all answers more than before is taken as it is; two minutes are never quite alike.
const MARGIN: f64 = 0.01;
/// Standard deviations that two samples of the same traffic may differ by. A wave is looked at again and again, on many
/// nodes, and a false alarm rolls a cluster back: once in a thousand looks is often enough.
const CHANCE: f64 = 3.0;

/// What rose, in figures. `None`: nothing did, or nobody can tell. Asked only on the way there: a roll-back goes on
/// whatever Kong answers.
pub(crate) fn rose(round: &Round<'_>, step: &Step, node: &NodeId, entry: &NodeStep) -> Option<String> {
    let operation = round.operation;
    let forward = step.kind == StepKind::Enable && operation.phase == Phase::Progressing;
    if !forward || operation.policy.bake_ms == 0 {
        return None;
    }
    let served = round.heard(node)?.status.served.as_ref()?;
    // A reload for something else says nothing of this step.
    served.grants.contains(&entry.grant?).then_some(())?;
    is_worse(served.before, served.since).then(|| words(served))
}

/// At least [`MIN_FAILED`] since, and a share above that before by more than [`MARGIN`] and what chance explains. Before no
/// requests at all nothing failed, and nothing of that is chance.
fn is_worse(before: Answers, since: Answers) -> bool {
    since.failed >= MIN_FAILED && since.share() - before.share() > MARGIN + CHANCE * deviation(before, since)
}

/// Standard deviation of the difference of two shares, were both samples of the same traffic.
fn deviation(before: Answers, since: Answers) -> f64 {
    if before.all == 0 || since.all == 0 {
        return 0.0;
    }
    let mut both = before;
    both += since;
    let share = both.share().min(1.0);
    (share * (1.0 - share) * (1.0 / before.all as f64 + 1.0 / since.all as f64)).sqrt()
}

fn words(served: &Served) -> String {
    let Served { before, since, before_ms, .. } = served;
    let mut words = format!("{} of {} answers were 5xx since the reload, ", since.failed, since.all);
    // Nothing fails to be written to a text.
    let _ = write!(words, "{} of {} in the {} s before", before.failed, before.all, before_ms.div_ceil(1000));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worse((was_failed, was): (u64, u64), (failed, all): (u64, u64)) -> bool {
        is_worse(Answers { all: was, failed: was_failed }, Answers { all, failed })
    }

    #[test]
    fn a_share_that_rose_is_told_from_noise() {
        for (before, since, expected) in [
            ((0, 300), (12, 40), true),
            ((0, 300), (5, 20), true),
            ((0, 300), (4, 4), false),
            ((0, 300), (0, 40), false),
            // Nobody came before: whatever fails is new, but not a part of a thousand.
            ((0, 0), (5, 5), true),
            ((0, 0), (5, 20), true),
            ((0, 0), (5, 2_000), false),
            // It failed as much before.
            ((2, 100), (5, 200), false),
            ((20, 1_000), (25, 1_000), false),
            ((1, 50), (5, 100), false),
            ((300, 300), (40, 40), false),
            ((150, 300), (20, 40), false),
            // It failed before, and fails more.
            ((2, 100), (40, 100), true),
            ((200, 10_000), (600, 10_000), true),
            // Many requests make a small difference certain, and it is still a small one.
            ((20_000, 1_000_000), (29_000, 1_000_000), false),
            ((20_000, 1_000_000), (32_000, 1_000_000), true),
            // Of what was before too little was seen.
            ((0, 2), (5, 50), false),
            ((u64::MAX, u64::MAX), (u64::MAX, u64::MAX), false),
        ] {
            assert_eq!(worse(before, since), expected, "{before:?} {since:?}");
        }
    }

    #[test]
    fn fewer_failures_are_never_worse() {
        let some = [0, 1, 4, 5, 6, 20, 37, 100, 500, 3_000];
        for (of, all) in some.iter().flat_map(|of| some.map(|all| (*of, all))) {
            for (was, failed) in some.iter().flat_map(|was| some.map(|f| (*was.min(&of), f.min(all)))) {
                if worse((was, of), (failed, all)) {
                    assert!(
                        failed == all || worse((was, of), (failed + 1, all)),
                        "{was} {of} {failed} {all}"
                    );
                    assert!(was == 0 || worse((was - 1, of), (failed, all)), "{was} {of} {failed} {all}");
                }
                let times = |n: u64| worse((was, of), (was * n, of * n));
                assert!(of == 0 || !(times(1) || times(2) || times(100)), "{was} of {of} is what it was");
            }
        }
    }
}
