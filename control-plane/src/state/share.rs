//! A state that was read from somewhere holds a copy of each name wherever it stands; here equal ones become one.
//!
//! Nothing that anybody can see changes but the memory it takes: equal states stay equal.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::name::NodeId;

use super::lifecycle;
use super::model::{ClusterState, Node, Target};
use super::operation::Step;

/// Names and entries of `steps`, as far as they are those of `nodes`.
pub(super) fn steps(nodes: &BTreeMap<NodeId, Node>, steps: &mut [Step]) {
    steps.iter_mut().for_each(|step| step.share(nodes));
}

pub(super) fn target(nodes: &BTreeMap<NodeId, Node>, target: &mut Target) {
    if let Target::Nodes(named) = target {
        let known = |node: NodeId| nodes.get_key_value(&node).map_or(node, |(known, _)| known.clone());
        *named = std::mem::take(named).into_iter().map(known).collect::<BTreeSet<_>>();
    }
}

impl ClusterState {
    /// To be called with a state that was decoded: as small as the one that was encoded, also if a member did that which
    /// kept the details of more operations.
    pub fn settle_in(&mut self) {
        let Self { nodes, groups, operations, audit, .. } = self;
        let known: BTreeMap<_, _> = groups.keys().map(|g| (g.clone(), ())).collect();
        for node in nodes.values_mut() {
            if let Some((group, ())) = known.get_key_value(&node.group) {
                node.group = group.clone();
            }
        }
        for operation in operations.values_mut() {
            steps(nodes, &mut operation.steps);
            target(nodes, &mut operation.target);
        }
        for group in groups.values_mut() {
            group.plugins.values_mut().for_each(|plugin| target(nodes, &mut plugin.target));
            group.history.values_mut().flatten().for_each(|revision| target(nodes, &mut revision.target));
        }
        audit.share();
        lifecycle::forget_details(self);
    }
}
