//! What is done in each round, and what is measured of it.

use std::time::Duration;

use super::commands::{Kind, Ran};
use super::figures::{median, millis, quantile, verdict};

/// Milliseconds that the agent may need beyond the bare loop, as a median.
const TARGET: f64 = 50.0;
/// Commands that the bare loop runs.
const NEEDED: [Kind; 3] = [Kind::Parse, Kind::Prepare, Kind::Reload];
/// What lies before the first, between them and behind the last.
const GAPS: [&str; 4] =
    ["before the trial (files)", "trial → prepare (edit)", "prepare → reload", "after reload (proof)"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Install,
    Upgrade,
    Remove,
}

impl Change {
    pub const ALL: [Self; 3] = [Self::Install, Self::Upgrade, Self::Remove];

    /// What is loaded afterwards.
    pub fn version(self) -> Option<&'static str> {
        match self {
            Self::Install => Some("1.0.0"),
            Self::Upgrade => Some("2.0.0"),
            Self::Remove => None,
        }
    }
}

/// One change, by the agent or bare.
#[derive(Clone, Debug)]
pub struct Measured {
    pub total: f64,
    /// Kong's own commands that are needed, one each.
    commands: f64,
    gaps: [f64; 4],
    /// Commands beyond those.
    more: Vec<Kind>,
}

impl Measured {
    /// # Panics
    /// When a needed command is missing.
    pub fn new(from: Duration, to: Duration, ran: &[Ran]) -> Self {
        let mut gaps = [0.0; 4];
        let mut needed = NEEDED.iter().peekable();
        let (mut since, mut commands, mut more) = (from, 0.0, Vec::new());
        for command in ran {
            // Whatever else runs is work beyond the bare loop, and counts where it stands.
            if needed.peek() != Some(&&command.kind) {
                more.push(command.kind);
                continue;
            }
            needed.next();
            gaps[NEEDED.len() - 1 - needed.len()] = millis(command.from.saturating_sub(since));
            commands += millis(command.to - command.from);
            since = command.to;
        }
        assert_eq!(needed.len(), 0, "{ran:?}");
        gaps[NEEDED.len()] = millis(to.saturating_sub(since));
        Self { total: millis(to - from), commands, gaps, more }
    }

    fn beyond(&self) -> f64 {
        self.total - self.commands
    }
}

/// Prints what all rounds of one change took; whether the target is met.
pub fn report(change: Change, rounds: &[(Measured, Measured)]) -> bool {
    let all = |of: &dyn Fn(&(Measured, Measured)) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
    let middle = |of: &dyn Fn(&(Measured, Measured)) -> f64| median(&all(of));
    let beyond = all(&|(agent, bare)| agent.beyond() - bare.beyond());
    let met = median(&beyond) <= TARGET;
    println!("\n{change:?} ({} rounds), medians in ms            agent      bare      more", rounds.len());
    println!(
        "  whole                                       {:9.1} {:9.1} {:9.1}",
        middle(&|(a, _)| a.total),
        middle(&|(_, b)| b.total),
        middle(&|(a, b)| a.total - b.total)
    );
    println!(
        "  Kong's commands                             {:9.1} {:9.1}",
        middle(&|(a, _)| a.commands),
        middle(&|(_, b)| b.commands)
    );
    for (n, gap) in GAPS.iter().enumerate() {
        println!(
            "  {gap:<43} {:9.1} {:9.1} {:9.1}",
            middle(&|(a, _)| a.gaps[n]),
            middle(&|(_, b)| b.gaps[n]),
            middle(&|(a, b)| a.gaps[n] - b.gaps[n])
        );
    }
    let more: Vec<Kind> = rounds.iter().flat_map(|(agent, _)| agent.more.clone()).collect();
    if !more.is_empty() {
        println!("  the agent also ran, in {} rounds: {more:?}", rounds.len());
    }
    println!(
        "  beyond commands and turnover: median {:.1}, 90 % below {:.1}; at most {TARGET} {}",
        median(&beyond),
        quantile(&beyond, 0.9),
        verdict(met)
    );
    met
}
