//! Counters, seen now and then, to what was answered before and since a reload.
//!
//! Times are milliseconds on any clock that only goes forward. Every two samples in a row give a *piece*; only pieces that
//! lie wholly on one side of a reload count, so what was answered while Kong was reloaded belongs to neither.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeSet, VecDeque};

use kctl_shared::served::{Answers, Served};
use kctl_shared::spec::Grant;

/// How far back "before a reload" reaches.
pub const BEFORE_MS: u64 = 60_000;
/// Pieces that are kept: one a second for as long as that.
const PIECES: usize = 64;
/// Samples further apart say nothing of when it was: the agent stood still, or Kong did not answer.
const MAX_PIECE_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
struct Piece {
    from: u64,
    to: u64,
    answers: Answers,
}

#[derive(Debug, Default)]
pub struct History {
    last: Option<(u64, Answers)>,
    pieces: VecDeque<Piece>,
    reload: Option<Reload>,
}

#[derive(Debug)]
struct Reload {
    grants: BTreeSet<Grant>,
    /// `None`: nothing was seen of what was before.
    before: Option<(Answers, u64)>,
    /// `None` while it is being made.
    done: Option<u64>,
    /// `None` until something was seen of what came after it.
    since: Option<Answers>,
}

impl History {
    /// What Kong's counters said when they were asked at `at`; `None`: nothing. Counters that go backwards are those of
    /// another Kong, which began at zero after the last sample.
    pub fn sample(&mut self, at: u64, counted: Option<Answers>) {
        if self.reload.as_ref().is_some_and(|r| r.done.is_none_or(|done| at < done)) {
            return;
        }
        let Some(now) = counted else {
            self.last = None;
            return;
        };
        let before = self.last.replace((at, now));
        let Some((from, was)) = before.filter(|(from, _)| *from < at && at - from <= MAX_PIECE_MS) else {
            return;
        };
        let answers = match (now.all.checked_sub(was.all), now.failed.checked_sub(was.failed)) {
            (Some(all), Some(failed)) if failed <= all => Answers { all, failed },
            _ => now,
        };
        if self.pieces.len() == PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back(Piece { from, to: at, answers });
        if let Some(reload) = &mut self.reload {
            *reload.since.get_or_insert_default() += answers;
        }
    }

    /// Kong is about to be reloaded for these grants.
    pub fn begin(&mut self, at: u64, grants: BTreeSet<Grant>) {
        let oldest = at.saturating_sub(BEFORE_MS);
        let mut before: Option<(Answers, u64)> = None;
        for piece in self.pieces.iter().filter(|p| p.from >= oldest && p.to <= at) {
            let (answers, ms) = before.get_or_insert_default();
            *answers += piece.answers;
            *ms += piece.to - piece.from;
        }
        self.last = None;
        self.reload = Some(Reload { grants, before, done: None, since: None });
    }

    /// The reload that was begun is over, however it ended.
    pub fn done(&mut self, at: u64) {
        if let Some(reload) = &mut self.reload {
            reload.done.get_or_insert(at);
        }
    }

    /// Nobody asks about the last reload any more.
    pub fn rest(&mut self) {
        self.reload = self.reload.take().filter(|r| r.done.is_none());
    }

    /// What there is to tell. Nothing while either side of the reload is unknown.
    pub fn served(&self) -> Option<Served> {
        let reload = self.reload.as_ref()?;
        let (before, before_ms) = reload.before?;
        Some(Served { grants: reload.grants.clone(), before, before_ms, since: reload.since? })
    }
}

/// Least growth of a count that is told, in requests.
const STEP: u64 = 5;

/// Whether what is known by now is worth a message to those who know `told`: each count has to grow by a quarter of itself,
/// so that a busy node sends some dozens of messages during an operation and not one a second.
pub fn matters(told: Option<&Served>, now: Option<&Served>) -> bool {
    let (Some(told), Some(now)) = (told, now) else { return told != now };
    let grown = |was: u64, is: u64| is >= was.saturating_add((was / 4).max(STEP));
    (&told.grants, told.before) != (&now.grants, now.before)
        || grown(told.since.all, now.since.all)
        || grown(told.since.failed, now.since.failed)
}

#[cfg(test)]
mod tests;
