//! From who should belong to the control plane to who does: the next change, and why none is due.
//!
//! Pure; [`keeper`] carries the changes out on the leader, [`departure`] finds out on any member that it was taken out.
#![deny(clippy::disallowed_methods)]

pub mod departure;
pub mod join;
pub mod keeper;

use std::collections::BTreeMap;

use kctl_shared::fault::Fault;

use crate::raft::MemberInfo;
use crate::state::members::{Member, MemberAddress, Standing};

/// A learner within so many entries of the leader has the log.
pub const CAUGHT_UP: u64 = 100;

/// What a member has, as it last told the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    pub applied_index: u64,
    /// Artifacts of the catalogue that it lacks.
    pub artifacts_missing: u32,
}

/// Everything a change is decided on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub me: u64,
    /// Of the leader.
    pub applied_index: u64,
    pub wanted: &'a BTreeMap<u64, Member>,
    pub actual: &'a BTreeMap<u64, MemberInfo>,
    pub holdings: &'a BTreeMap<u64, Holdings>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddLearner(u64, MemberAddress),
    Promote(u64),
    /// This member is to go and leads: another one must lead first.
    HandOver(u64),
    TakeOut(u64),
}

/// The next change, if one is due; consensus takes one at a time.
pub fn next(view: View<'_>) -> Option<Change> {
    let leaving = |id: &u64| view.wanted.get(id).is_some_and(|m| !m.is_wanted());
    if let Some(id) = view.actual.keys().find(|id| **id != view.me && leaving(id)) {
        return Some(Change::TakeOut(*id));
    }
    if leaving(&view.me) && view.actual.contains_key(&view.me) {
        return successor(view).map(Change::HandOver);
    }
    let joining = || view.wanted.iter().filter(|(_, m)| m.standing == Standing::Joining);
    if let Some((id, member)) = joining().find(|(id, _)| !view.actual.contains_key(id)) {
        return Some(Change::AddLearner(*id, member.address.clone()));
    }
    joining().find(|(id, _)| is_ready(view, **id)).map(|(id, _)| Change::Promote(*id))
}

/// It has the log and every artifact that the catalogue names.
fn is_ready(view: View<'_>, id: u64) -> bool {
    let near = |index: u64| index + CAUGHT_UP >= view.applied_index;
    let log = view.actual.get(&id).and_then(|m| m.matched).is_some_and(near);
    log && view.holdings.get(&id).is_some_and(|h| near(h.applied_index) && h.artifacts_missing == 0)
}

/// The voter in reach that is furthest in the log and is to stay.
pub fn successor(view: View<'_>) -> Option<u64> {
    let stays = |id: &u64| view.wanted.get(id).is_none_or(Member::is_wanted);
    let fit = view
        .actual
        .iter()
        .filter(|(id, m)| **id != view.me && m.voter && m.reachable == Some(true) && stays(id));
    fit.max_by_key(|(id, m)| (m.matched, std::cmp::Reverse(**id))).map(|(id, _)| *id)
}

/// Whether a majority could still be reached without this member; the replicated state cannot know who is in reach.
///
/// # Errors
/// `MEMBER_QUORUM` when too few of the voters that would be left are in reach.
pub fn keeps_quorum(view: View<'_>, without: u64) -> Result<(), Fault> {
    let stays = |id: &u64| *id != without && view.wanted.get(id).is_none_or(Member::is_wanted);
    let left: Vec<_> = view.actual.iter().filter(|(id, m)| m.voter && stays(id)).collect();
    let reached = left.iter().filter(|(id, m)| **id == view.me || m.reachable == Some(true)).count();
    if reached > left.len() / 2 || left.is_empty() {
        return Ok(());
    }
    let message = format!(
        "without member {without} only {reached} of {} voters would be in reach, which is no majority",
        left.len()
    );
    Err(Fault::new("MEMBER_QUORUM", message)
        .hint("start the members that are down, or let another one in first: kctl cluster join URL"))
}

#[cfg(test)]
mod tests;
