//! The nodes of a step beside what is known of them.
//!
//! State, step and reports are ordered by node id, so one walk along all three finds what belongs together; with thousands of
//! nodes that costs a fraction of looking each of them up.

use std::cmp::Ordering;
use std::collections::btree_map;
use std::iter::Peekable;

use kctl_shared::mutant;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{Grant, PluginStatus};

use super::Round;
use super::fleet::Report;
use crate::state::model::Node;
use crate::state::operation::NodeStep;

/// Below one node in this many, looking up is cheaper than walking by.
const SPARSE: usize = 16;

/// A node of a step.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub node: &'a NodeId,
    pub entry: &'a NodeStep,
    pub record: Option<&'a Node>,
    /// Whatever its agent said last.
    pub report: Option<&'a Report>,
    /// That, if the start of its agent that is registered said it: an earlier one proves nothing.
    heard: Option<&'a Report>,
}

impl<'a> Place<'a> {
    fn new(
        node: &'a NodeId,
        entry: &'a NodeStep,
        record: Option<&'a Node>,
        report: Option<&'a Report>,
    ) -> Self {
        Self { node, entry, record, report, heard: present(record, report) }
    }

    /// What the node's agent says of `plugin` in answer to `grant`.
    pub fn answer(&self, plugin: &PluginName, grant: Grant) -> Option<&'a PluginStatus> {
        self.heard?.status.plugins.get(plugin).filter(|p| p.grant == grant)
    }
}

/// `report`, if the present start of the agent made it.
pub(crate) fn present<'a>(record: Option<&Node>, report: Option<&'a Report>) -> Option<&'a Report> {
    let boot = record?.boot;
    report.filter(|r| r.boot == boot || mutant::is("no-incarnation-check"))
}

/// `entries` in order of node ids, `of` so many of which the step has.
pub(crate) fn walk<'a>(
    round: &Round<'a>,
    of: usize,
    entries: impl Iterator<Item = (&'a NodeId, &'a NodeStep)>,
) -> impl Iterator<Item = Place<'a>> {
    let (state, fleet) = (round.state, round.fleet);
    let sparse = of < state.nodes.len().max(fleet.reports.len()) / SPARSE;
    let mut records = Seek { rest: state.nodes.iter().peekable() };
    let mut reports = Seek { rest: fleet.reports.iter().peekable() };
    entries.map(move |(node, entry)| {
        if sparse {
            Place::new(node, entry, state.nodes.get(node), fleet.reports.get(node))
        } else {
            Place::new(node, entry, records.to(node), reports.to(node))
        }
    })
}

/// Goes only forward.
struct Seek<'a, V> {
    rest: Peekable<btree_map::Iter<'a, NodeId, V>>,
}

impl<'a, V> Seek<'a, V> {
    fn to(&mut self, node: &NodeId) -> Option<&'a V> {
        loop {
            let (id, value) = *self.rest.peek()?;
            match id.cmp(node) {
                Ordering::Less => drop(self.rest.next()),
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
    }
}
