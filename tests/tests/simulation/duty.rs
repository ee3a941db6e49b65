//! What people say of nodes and groups, and machines that go, come back, are set up again or set back.

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::state::Command;
use kctl_control_plane::state::duty::{GroupChange, NodeChange};
use kctl_shared::name::NodeId;
use rand::RngExt as _;

use super::agent::{Agent, in_use};
use super::control::group;
use super::laws::Law;
use super::machine::Machine;
use super::standing::is_empty;
use super::world::World;

/// Nodes that are never let go below, so that there is something to operate on.
const LEFT: usize = 2;

impl World {
    /// Somebody has something to say of a node or the group, or something happens to a machine.
    pub fn duty(&mut self, member: usize) -> Result<(), Law> {
        let id = self.anybody();
        match self.rng.random_range(0..16) {
            0 => {
                let drain = self.rng.random_bool(0.5);
                self.say_of(member, &id, "node held", NodeChange::Hold { drain });
            }
            1..4 => self.unhold(member),
            4 => {
                let always = "Mon 00:00-00:01".parse().unwrap();
                let (what, change) = match self.rng.random_bool(0.7) {
                    true => ("group held", GroupChange::Hold),
                    false => ("window closed", GroupChange::Windows(vec![always])),
                };
                self.say_of_group(member, what, change);
            }
            5 => self.say_of(member, &id, "tried again", NodeChange::Reconcile),
            6 | 7 if self.may_go(&id) => {
                self.say_of(member, &id, "decommissioned", NodeChange::Decommission { attested: false });
            }
            8 if self.may_go(&id) => self.lose_machine(&id),
            9 => self.attest(member, true),
            10 => self.set_up_anew(&id),
            11 => self.remember(&id),
            12 => self.set_back(&id),
            13.. => self.approve(member),
            _ => {}
        }
        Ok(())
    }

    fn say_of(&mut self, member: usize, node: &NodeId, what: &'static str, change: NodeChange) {
        if self.members[member].state.nodes.contains_key(node) {
            self.count(what);
            let command = Command::ChangeNode { node: node.clone(), change, reason: String::new() };
            self.propose(member, vec![command], None);
        }
    }

    fn say_of_group(&mut self, member: usize, what: &'static str, change: GroupChange) {
        if self.members[member].state.groups.contains_key(&group()) {
            self.count(what);
            let command = Command::ChangeGroup { group: group(), change, reason: String::new() };
            self.propose(member, vec![command], None);
        }
    }

    /// Whatever is held is let go again.
    pub fn unhold(&mut self, member: usize) {
        let state = &self.members[member].state;
        let held: Vec<_> =
            state.nodes.iter().filter(|(_, n)| n.hold.is_some()).map(|(id, _)| id.clone()).collect();
        let record = state.groups.get(&group());
        let (is_held, closed) = record.map_or((false, false), |g| (g.hold.is_some(), !g.windows.is_empty()));
        held.iter().for_each(|id| self.say_of(member, id, "node let go", NodeChange::Unhold));
        if is_held {
            self.say_of_group(member, "group let go", GroupChange::Unhold);
        }
        if closed {
            self.say_of_group(member, "window opened", GroupChange::Windows(Vec::new()));
        }
    }

    /// Whether there is enough without it: nodes, and somebody who reaches Kong's database.
    fn may_go(&self, id: &NodeId) -> bool {
        let stays = |n: &&NodeId| {
            *n != id && self.truth.nodes.get(*n).is_some_and(|n| n.leaving.is_none() && n.hold.is_none())
        };
        let rest: Vec<_> = self.nodes.keys().filter(stays).collect();
        rest.len() >= LEFT && rest.iter().any(|n| self.nodes[*n].machine.admin)
    }

    /// A machine is no more, whatever was on its way from it or to it.
    fn lose_machine(&mut self, id: &NodeId) {
        self.count("machine lost");
        self.cut_off(id);
        self.nodes.remove(id);
        self.buried.insert(id.clone());
    }

    /// Somebody says of a machine that is no more that it is no more; now and then of one that is only out of reach.
    pub fn attest(&mut self, member: usize, rashly: bool) {
        let state = &self.members[member].state;
        let absent = |id: &&NodeId| !self.members[member].inventory.is_connected(id);
        let dead = state.nodes.keys().filter(absent).find(|id| !self.nodes.contains_key(*id)).cloned();
        let change = NodeChange::Decommission { attested: true };
        if let Some(id) = dead {
            return self.say_of(member, &id, "attested", change);
        }
        let lives = state.nodes.keys().filter(absent).find(|id| self.may_go(id)).cloned();
        if let Some(id) = lives.filter(|_| rashly && self.rng.random_bool(0.3)) {
            self.say_of(member, &id, "attested rashly", change);
        }
    }

    /// Somebody lets an agent in that asks and is refused.
    pub fn approve(&mut self, member: usize) {
        let inventory = &self.members[member].inventory;
        let asks = inventory.with(|f| f.refused.iter().next().map(|(id, r)| (id.clone(), r.clone())));
        let Some((id, asks)) = asks else { return };
        let connected = inventory.is_connected(&id);
        // Whoever is no more does not wait.
        inventory.admit(&id);
        let present = self.nodes.get(&id).is_some_and(|n| n.agent.record.nonce == asks.nonce);
        if let Ok(command) = asks.admission(&self.members[member].state, id, connected, String::new())
            && present
        {
            self.count("approved");
            self.propose(member, vec![command], None);
        }
    }

    /// The machine is set up again from nothing, under the same name.
    pub fn set_up_anew(&mut self, id: &NodeId) {
        self.cut_off(id);
        let (serial, used) = (self.serial(), in_use(&self.entities));
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.machine = Machine::new(node.machine.admin);
        node.machine.is_strange = true;
        // With entities of what it lacks its Kong does not come up.
        node.machine.stop();
        node.machine.start(&used);
        node.agent = Agent::new(id, serial);
        node.memory = None;
        self.count("agent reinstalled");
    }

    /// Somebody makes an image of the machine, at rest.
    pub fn remember(&mut self, id: &NodeId) {
        let at_rest = self.truth.live_operations().next().is_none() && self.differs(id).is_none();
        let Some(node) = self.nodes.get_mut(id).filter(|n| at_rest && !n.machine.is_strange) else { return };
        if node.machine.up && node.agent.process.as_ref().is_some_and(super::agent::Process::is_at_rest) {
            node.memory = Some(Box::new((node.agent.record.clone(), node.machine.clone())));
        }
    }

    /// The machine is as it was when the image was made.
    fn set_back(&mut self, id: &NodeId) {
        // One that is rid of everything, and may have said so, is forgotten rightly whatever becomes of its disk.
        let leaves = self.truth.nodes.get(id).is_some_and(|n| n.leaving.is_some());
        if leaves && self.nodes.get(id).is_some_and(|n| is_empty(&n.machine, true)) {
            return;
        }
        let Some((record, machine)) = self.nodes.get_mut(id).and_then(|n| n.memory.take()).map(|m| *m) else {
            return;
        };
        self.cut_off(id);
        self.ghost.forget(&record.nonce);
        let used = in_use(&self.entities);
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.machine = machine;
        node.machine.is_strange = true;
        node.machine.may_have_more = true;
        node.machine.stop();
        node.machine.start(&used);
        node.agent.record = record;
        node.agent.start();
        self.count("agent set back");
    }

    /// Nothing of the machine as it was is on its way any more, and nothing will be decided on what it said: setting one
    /// up takes longer than an election, so that by then no former leader takes itself for one.
    fn cut_off(&mut self, id: &NodeId) {
        let streams: Vec<_> =
            self.streams.iter().filter(|(_, s)| s.who.node == *id).map(|(session, _)| *session).collect();
        streams.into_iter().for_each(|session| self.hang_up(session));
        if let Some(node) = self.nodes.get_mut(id) {
            node.session = None;
        }
        self.members.iter_mut().for_each(|member| member.close(id));
        self.down.retain(|(node, ..)| node != id);
        let leader = self.leader;
        (0..self.members.len()).filter(|n| *n != leader).for_each(|n| self.members[n].step_down());
        self.close_unserved();
        let says = |c: &Command| match c {
            Command::Settle { verdicts, .. } => verdicts.contains_key(id),
            Command::RegisterNode { node, .. } => node == id,
            _ => false,
        };
        while let Some(index) = self.proposals.iter().position(|p| p.commands.iter().any(says)) {
            self.lose(index);
        }
    }

    /// Something that was said of a node was committed.
    pub fn was_said(&mut self, command: &Command) {
        let Command::ChangeNode { node, change, .. } = command else { return };
        match change {
            NodeChange::Readmit { .. } => {
                self.count("let in again");
                if let Some(node) = self.nodes.get_mut(node) {
                    node.machine.may_have_more = true;
                }
            }
            NodeChange::Forget { .. } => {
                self.count("emptied and forgotten");
                // Most machines are switched off by then, some live on.
                if self.nodes.contains_key(node) && self.rng.random_bool(0.6) {
                    self.cut_off(node);
                    self.nodes.remove(node);
                    self.buried.insert(node.clone());
                }
            }
            _ => {}
        }
    }

    /// What somebody does now and then once the faults have stopped, for everything to come to an end.
    pub fn attend(&mut self) {
        let leader = self.leader;
        self.unhold(leader);
        self.attest(leader, false);
        self.approve(leader);
        if !self.nodes.values().any(|n| n.machine.admin) {
            self.join_as(true);
        }
        let nodes = &self.nodes;
        let failed = |id: &NodeId| {
            let process = nodes.get(id).and_then(|n| n.agent.process.as_ref());
            process.is_some_and(|p| {
                let spec = p.record.spec.iter().flat_map(|s| &s.plugins);
                let mut at_rest = spec.filter(|(_, s)| s.operation.is_empty());
                at_rest.any(|(name, s)| p.record.attempts.failure(name, s.grant).is_some())
            })
        };
        // What an operation asks for fails the operation; what a node should be at rest is for people to have tried again.
        let stuck: Vec<_> = self.truth.nodes.keys().filter(|id| failed(id)).cloned().collect();
        stuck.iter().for_each(|id| self.say_of(leader, id, "tried again", NodeChange::Reconcile));
        // What was removed meanwhile is in nobody's spec any more, so that no agent takes it away.
        let stale = |id: &NodeId, machine: &Machine| {
            let spec = node_spec(&self.truth, id).plugins;
            machine.stored.keys().any(|plugin| !spec.contains_key(plugin))
        };
        let suspects = self.nodes.iter().filter(|(_, n)| n.machine.may_have_more);
        let stale = suspects.filter(|(id, n)| self.truth.nodes.contains_key(*id) && stale(id, &n.machine));
        let stale: Vec<_> = stale.map(|(id, _)| id.clone()).collect();
        stale.iter().for_each(|id| self.set_up_anew(id));
    }
}
