//! What each node did in each step: shared where it is the same, dropped where nobody looks any more.
//!
//! An operation on all nodes of a large group names them in every step. The entries of most are equal, because one log
//! entry lets them act and one settles them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kctl_shared::name::NodeId;

use super::{NodeStep, Operation, Step, Verdict};

impl Step {
    /// Changes the entries of `nodes`; those that were one and become equal are one afterwards. Nodes that the step does
    /// not name are left out.
    pub fn edit<T: Clone + PartialEq>(
        &mut self,
        nodes: impl IntoIterator<Item = (NodeId, T)>,
        edit: impl Fn(&mut NodeStep, T),
    ) {
        // The former entry, what became of it, and by what.
        let mut last: Option<(Arc<NodeStep>, T, Arc<NodeStep>)> = None;
        for (node, change) in nodes {
            let Some(entry) = self.nodes.get_mut(&node) else { continue };
            match &last {
                Some((before, by, after)) if Arc::ptr_eq(before, entry) && *by == change => {
                    *entry = after.clone();
                }
                _ => {
                    let before = entry.clone();
                    edit(Arc::make_mut(entry), change.clone());
                    last = Some((before, change, entry.clone()));
                }
            }
        }
    }

    /// One copy of each name, that of `names`, and one of equal entries that stand side by side.
    pub fn share<V>(&mut self, names: &BTreeMap<NodeId, V>) {
        let mut last: Option<Arc<NodeStep>> = None;
        let shared = std::mem::take(&mut self.nodes).into_iter().map(|(node, entry)| {
            let entry = last.take().filter(|l| *l == entry).unwrap_or(entry);
            last = Some(entry.clone());
            (names.get_key_value(&node).map_or(node, |(known, _)| known.clone()), entry)
        });
        self.nodes = shared.collect();
    }
}

impl Operation {
    /// Drops the entries of nodes where nothing went wrong, and says in each step how many. What an operation came to
    /// ([`Operation::is_partial`], [`Operation::unserved`], its failures) is the same before and after.
    pub fn forget_details(&mut self) {
        let ill = |entry: &NodeStep| matches!(entry.verdict, Some(Verdict::Failed(_) | Verdict::Excused));
        let told = self.steps.iter().flat_map(Step::entries).filter(|(_, entry)| ill(entry));
        let told: BTreeSet<NodeId> = told.map(|(node, _)| node.clone()).collect();
        for step in &mut self.steps {
            let before = step.nodes.len();
            step.nodes.retain(|node, _| told.contains(node));
            step.forgotten += before - step.nodes.len();
        }
    }
}
