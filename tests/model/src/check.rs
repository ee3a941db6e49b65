//! One run of the checker, and what it found.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model as _};

use crate::laws::Law;
use crate::moves::STUCK;
use crate::setup::Setup;

/// Threads of a run.
const THREADS: usize = 2;

#[derive(Clone, Debug)]
pub struct Outcome {
    pub name: &'static str,
    /// Distinct states.
    pub states: usize,
    pub depth: usize,
    pub seconds: f64,
    /// All states within the bounds were looked at.
    pub complete: bool,
    /// The laws that were broken, each with the way there, an action a line.
    pub broken: Vec<(&'static str, String)>,
    /// Wanted states that were not reached.
    pub missing: Vec<&'static str>,
}

/// Looks at all states, nearest first; or at `most`, as deep as it goes, where there are too many for that. It ends at
/// the first broken law.
pub fn run(setup: Setup, most: Option<NonZeroUsize>) -> Outcome {
    let begun = Instant::now();
    let builder = setup.checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures);
    match most {
        None => outcome(setup, begun, true, &builder.spawn_bfs().join()),
        Some(most) => {
            let checker = builder.target_state_count(most.get()).spawn_dfs().join();
            let complete = checker.state_count() < most.get();
            outcome(setup, begun, complete, &checker)
        }
    }
}

fn outcome(setup: Setup, begun: Instant, complete: bool, checker: &impl Checker<Setup>) -> Outcome {
    let mut broken = Vec::new();
    for law in Law::ALL.map(Law::name).into_iter().chain([STUCK]) {
        if let Some(path) = checker.discovery(law) {
            let mut text = String::new();
            for (n, action) in path.into_actions().iter().enumerate() {
                let _written = writeln!(text, "{:>4} {action:?}", n + 1);
            }
            broken.push((law, text));
        }
    }
    let goals = setup.goals.iter().map(|goal| goal.name());
    let missing = goals.filter(|goal| checker.discovery(goal).is_none()).collect();
    Outcome {
        name: setup.name,
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: begun.elapsed().as_secs_f64(),
        complete,
        broken,
        missing,
    }
}
