//! Whether a group is what it has to be: all the nodes of one database, and no others.
//!
//! What is configured in a database is configured on every node that uses it. A node outside the group, or one that kctl does
//! not know of, would refuse to reload when a plugin in use is missing there.

use kctl_shared::fault::Fault;
use kctl_shared::name::GroupName;

use super::model::{ClusterState, Node};

/// # Errors
/// `WRONG_GROUPING` when nodes of the group use different databases, or another group's nodes the same one and nobody
/// said that they are meant to; `UNEXPECTED_NODES` when there are more or fewer than somebody said there are.
pub(crate) fn check(state: &ClusterState, group: &GroupName) -> Result<(), Fault> {
    let wrong = |message: String| Fault::new("WRONG_GROUPING", message);
    let known = |n: &Node| !n.facts.datastore.is_empty();
    let mut stores = state.nodes_of(group).filter(|(_, n)| known(n));
    let record = state.groups.get(group);
    if let Some((first, node)) = stores.next() {
        let same = |n: &Node| n.facts.datastore == node.facts.datastore;
        if let Some((other, _)) = stores.find(|(_, n)| !same(n)) {
            let message = format!("nodes {first} and {other} of group {group} use different databases");
            return Err(wrong(message).hint("put nodes that share a database in one group"));
        }
        let shares = record.is_some_and(|g| g.shares_database);
        let mut others = state.nodes.iter().filter(|(_, n)| !shares && &n.group != group);
        if let Some((other, there)) = others.find(|(_, n)| same(n)) {
            let message = format!(
                "node {first} of group {group} and node {other} of group {} use the same database, so what is configured for \
                 one is configured for both",
                there.group
            );
            return Err(wrong(message).hint(format!(
                "put them in one group; if it is meant: kctl group set {group} --shared-database"
            )));
        }
    }
    let present = state.staying_in(group).count();
    match record.and_then(|g| g.expected_nodes) {
        Some(expected) if present != expected as usize => {
            let message = format!("group {group} has {present} nodes, and {expected} are expected");
            Err(Fault::new("UNEXPECTED_NODES", message).hint(format!(
                "kctl node list; or say how many there are: kctl group set {group} --expect-nodes {present}"
            )))
        }
        _ => Ok(()),
    }
}
