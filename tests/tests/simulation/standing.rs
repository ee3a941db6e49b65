//! What holds of nodes that are held, are to leave, have left, or are not taken in.
//!
//! - **Held**: no operation lets a held node act, or any node of a held group; its agent begins nothing by itself.
//! - **Left** (of I15): a node that is to leave or has left is never let act, and nobody waits for it (`state::invariants`, as
//!   I6); one that was forgotten with proof has nothing of kctl's, and gets nothing; one that is out hears nothing that was decided after.

use std::collections::BTreeMap;

use kctl_control_plane::state::Command;
use kctl_control_plane::state::duty::NodeChange;
use kctl_shared::name::{NodeId, PluginName};

use super::agent::Fact;
use super::control::group;
use super::laws::{Judged, Seen, hold};
use super::machine::{FOREIGN, Machine};

/// What was seen of nodes so far.
#[derive(Debug, Default)]
pub struct Standing {
    /// By installation: the generation with which it was put out, and whether it had proven that it is empty.
    out: BTreeMap<String, (u64, bool)>,
    /// The installation that each node is known with.
    known: BTreeMap<NodeId, String>,
}

impl Standing {
    /// The node that is there anew, if so.
    pub fn newcomer<'a>(&self, command: &'a Command) -> Option<&'a NodeId> {
        match command {
            Command::RegisterNode { node, nonce, .. } => {
                (self.known.get(node) != Some(nonce)).then_some(node)
            }
            Command::ChangeNode { node, change: NodeChange::Readmit { .. }, .. } => Some(node),
            _ => None,
        }
    }

    /// A command was accepted.
    pub fn accepted(&mut self, command: &Command, seen: &Seen<'_>) -> Judged {
        let truth = seen.truth;
        match command {
            Command::RegisterNode { node, nonce, .. } => {
                self.out.remove(nonce);
                self.known.insert(node.clone(), nonce.clone());
            }
            Command::Dispatch { operation, nodes, .. } => {
                let of_group = truth.groups.get(&group()).is_some_and(|g| g.hold.is_some());
                hold("Held", !of_group, || format!("{operation} goes on although its group is held"))?;
                for id in nodes {
                    let record = truth.nodes.get(id);
                    let held = record.is_some_and(|r| r.hold.is_some());
                    hold("Held", !held, || format!("{operation} lets {id} act, which is held"))?;
                    hold("Left", truth.stays(id), || {
                        format!("{operation} lets {id} act, which is on its way out")
                    })?;
                }
            }
            Command::ChangeNode { node, change: NodeChange::Readmit { nonce, .. }, .. } => {
                self.out.remove(nonce);
                if truth.nodes.contains_key(node) {
                    self.known.insert(node.clone(), nonce.clone());
                }
            }
            Command::ChangeNode { node, change, .. } if !truth.nodes.contains_key(node) => {
                let proven =
                    matches!(change, NodeChange::Forget { proof, .. } if proof.starts_with("nothing"));
                let machine = seen.machines.get(node);
                // Files of what was removed while a machine was out are in nobody's spec, and not found there.
                let empty = machine.is_none_or(|m| m.is_strange || is_empty(m, !m.may_have_more));
                hold("Left", !proven || empty, || {
                    format!("{node} was forgotten as empty and has {:?}", machine.map(|m| &m.stored))
                })?;
                if let Some(nonce) = self.known.remove(node) {
                    self.out.insert(nonce, (truth.generation, proven));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An agent follows a spec of this generation.
    pub fn follows(&self, node: &NodeId, nonce: &str, generation: u64) -> Judged {
        let heard = self.out.get(nonce).is_some_and(|(since, _)| generation > *since);
        hold("Left", !heard, || format!("{node} heard of generation {generation} after it had left"))
    }

    /// An agent did something to its node.
    pub fn did(&self, node: &NodeId, nonce: &str, fact: &Fact) -> Judged {
        let empty = self.out.get(nonce).is_some_and(|(_, proven)| *proven);
        match fact {
            Fact::Fetched(plugin) => {
                hold("Left", !empty, || format!("{node} fetched {plugin} after it had left"))
            }
            Fact::Deleted { plugin, .. } => {
                hold("Left", !empty, || format!("{node} deleted files of {plugin} after it had left"))
            }
            Fact::BegunWhileHeld(action) => {
                hold("Held", false, || format!("{node} began {action:?} although it is held"))
            }
            _ => Ok(()),
        }
    }
}

/// Nothing is loaded or listed there but what was listed by hand, and no files are there either if they count.
pub fn is_empty(machine: &Machine, files: bool) -> bool {
    let ours = |name: &PluginName| name.as_str() != FOREIGN;
    (!files || machine.stored.is_empty())
        && !machine.loaded.keys().any(ours)
        && !machine.armed.listed.iter().any(ours)
}

impl Seen<'_> {
    /// Whether the machine is one of the cluster's, and as the cluster knows it.
    pub fn is_known(&self, node: &NodeId, machine: &Machine) -> bool {
        !machine.is_strange && self.truth.stays(node)
    }

    /// Whether what the agent does is what the cluster wants of one of its own: not on its way out, and with a spec of the
    /// time since it was let in.
    pub fn is_member(&self, node: &NodeId, generation: u64) -> bool {
        let record = self.truth.nodes.get(node);
        record.is_some_and(|r| r.leaving.is_none() && r.since.index <= generation)
    }
}
