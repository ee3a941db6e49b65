//! Looks for an order in which the calls, one after the other, would have had the results that were told (Wing and Gong's
//! search, with Lowe's memory of what was tried).

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kctl_control_plane::state::ClusterState;

use super::call::{Call, Told};
use super::events::{Event, Kind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The calls' lines, 1-based, in an order that explains the results.
    Linearizable(Vec<usize>),
    /// The longest order that could be found, and the lines of the calls that no order goes on with.
    NotLinearizable { longest: Vec<usize>, stuck: Vec<usize> },
}

#[derive(Debug)]
struct Span {
    call: Call,
    begin: usize,
    /// End and result; `None` when nobody knows whether it happened.
    end: Option<(usize, Told)>,
}

/// # Errors
/// A history that no clients could have had: an end without a begin, two calls of a process at once.
pub fn check(history: &[Event]) -> Result<Verdict, String> {
    let spans = spans(history)?;
    let mut search = Search { spans: &spans, tried: HashSet::new(), longest: Vec::new() };
    let found = search.run();
    let lines = |order: &[usize]| order.iter().map(|n| spans[*n].begin + 1).collect();
    if let Some(order) = found {
        return Ok(Verdict::Linearizable(lines(&order)));
    }
    let longest = std::mem::take(&mut search.longest);
    let done: HashSet<_> = longest.iter().copied().collect();
    let stuck: Vec<_> = search.next(&done).into_iter().filter(|n| spans[*n].end.is_some()).collect();
    Ok(Verdict::NotLinearizable { longest: lines(&longest), stuck: lines(&stuck) })
}

fn spans(history: &[Event]) -> Result<Vec<Span>, String> {
    let mut spans: Vec<Option<Span>> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut unknown = HashSet::new();
    for (line, event) in history.iter().enumerate() {
        let wrong = |what: &str| format!("line {}: process {} {what}", line + 1, event.process);
        if let Kind::Invoke { call } = &event.kind {
            if unknown.contains(&event.process) || open.insert(event.process, spans.len()).is_some() {
                return Err(wrong("has a call already"));
            }
            spans.push(Some(Span { call: call.clone(), begin: line, end: None }));
            continue;
        }
        let at = open.remove(&event.process).ok_or_else(|| wrong("has no call"))?;
        match &event.kind {
            // It takes part in no order.
            Kind::Fail => spans[at] = None,
            Kind::Info => drop(unknown.insert(event.process)),
            Kind::Ok { told } => {
                if let Some(span) = &mut spans[at] {
                    span.end = Some((line, told.clone()));
                }
            }
            Kind::Invoke { .. } => {}
        }
    }
    // A read that nobody has an answer to says nothing.
    let says = |s: &Span| s.end.is_some() || s.call.command().is_some();
    Ok(spans.into_iter().flatten().filter(says).collect())
}

struct Search<'a> {
    spans: &'a [Span],
    /// Which calls were done, and the state after them.
    tried: HashSet<u64>,
    longest: Vec<usize>,
}

/// A place of the search: the state before the next call, and the calls that may come next.
struct Place {
    state: ClusterState,
    candidates: Vec<usize>,
}

impl Search<'_> {
    fn run(&mut self) -> Option<Vec<usize>> {
        let wanted = self.spans.iter().filter(|s| s.end.is_some()).count();
        let (mut order, mut done, mut told) = (Vec::new(), HashSet::new(), 0);
        let mut places = vec![Place { state: ClusterState::default(), candidates: self.next(&done) }];
        loop {
            if told == wanted {
                return Some(order);
            }
            let place = places.last_mut()?;
            let Some(n) = place.candidates.pop() else {
                places.pop();
                let back: usize = order.pop()?;
                done.remove(&back);
                told -= usize::from(self.spans[back].end.is_some());
                continue;
            };
            let mut state = place.state.clone();
            let result = self.spans[n].call.perform(&mut state);
            if self.spans[n].end.as_ref().is_some_and(|(_, told)| *told != result) {
                continue;
            }
            done.insert(n);
            if !self.tried.insert(self.fingerprint(&done, &state)) {
                done.remove(&n);
                continue;
            }
            order.push(n);
            told += usize::from(self.spans[n].end.is_some());
            if order.len() > self.longest.len() {
                self.longest.clone_from(&order);
            }
            places.push(Place { state, candidates: self.next(&done) });
        }
    }

    /// Calls that may be next: those that began before any that is not done ended. The likeliest is last.
    fn next(&self, done: &HashSet<usize>) -> Vec<usize> {
        let open = || self.spans.iter().enumerate().filter(|(n, _)| !done.contains(n));
        let first_end = open().filter_map(|(_, s)| Some(s.end.as_ref()?.0)).min().unwrap_or(usize::MAX);
        let mut next: Vec<_> = open().take_while(|(_, s)| s.begin < first_end).map(|(n, _)| n).collect();
        // Whoever ended first most likely happened first; whoever never ended most likely did not happen.
        next.sort_by_key(|n| std::cmp::Reverse(self.spans[*n].end.as_ref().map_or(usize::MAX, |e| e.0)));
        next
    }

    fn fingerprint(&self, done: &HashSet<usize>, state: &ClusterState) -> u64 {
        let mut hasher = DefaultHasher::new();
        (0..self.spans.len()).for_each(|n| done.contains(&n).hash(&mut hasher));
        serde_json::to_vec(state).unwrap().hash(&mut hasher);
        hasher.finish()
    }
}
