//! One event at random, and the faults among them.

use kctl_control_plane::state::operation::{Operation, OperationKind};
use kctl_shared::name::NodeId;
use rand::RngExt as _;

use super::laws::Law;
use super::requests::{PLUGINS, digest, plugin};
use super::world::{Node, World};

/// Faults that a batch must have had, or it proves nothing.
pub const WANTED: [&str; 48] = [
    "stream cut",
    "spec duplicated",
    "spec reordered",
    "late message of a former stream",
    "stale spec refused",
    "partition",
    "leader crashed",
    "leader deposed unawares",
    "entry of a deposed leader",
    "proposal lost",
    "rejected by apply",
    "agent killed",
    "node joined",
    "entity created",
    "clock jumped",
    "Kong stopped",
    "release broken on a node",
    "put back",
    "removed by hand",
    "agent ahead of a deposed leader",
    "removal called off",
    "removals compensated",
    "route deleted",
    "node held",
    "node let go",
    "group held",
    "group let go",
    "window closed",
    "window opened",
    "tried again",
    "decommissioned",
    "emptied and forgotten",
    "machine lost",
    "attested",
    "attested rashly",
    "agent reinstalled",
    "agent set back",
    "another installation refused",
    "decommissioned one refused",
    "one that was set back refused",
    "approved",
    "new machine under a former name",
    "let in again",
    "operations undone",
    "begun together",
    "in place together",
    "removed together",
    "went back with another",
];

impl World {
    pub fn anybody(&mut self) -> NodeId {
        let n = self.rng.random_range(0..self.nodes.len());
        self.nodes.keys().nth(n).cloned().unwrap()
    }

    pub fn event(&mut self) -> Result<(), Law> {
        self.events += 1;
        let ms = if self.rng.random_bool(0.02) { 3_000 } else { self.rng.random_range(0..120) };
        self.now = self.now.plus_ms(ms);
        if self.nodes.is_empty() {
            // Decided while there were more, and all of them left since.
            self.join();
        }
        match self.rng.random_range(0..1000) {
            0..315 => {
                let id = self.anybody();
                if self.nodes[&id].session.is_none() {
                    let member =
                        if self.rng.random_bool(0.6) { self.leader } else { self.rng.random_range(0..3) };
                    if !self.cut.contains(&(id.clone(), member)) {
                        self.connect(&id, member);
                    }
                }
                for _ in 0..self.rng.random_range(1..4) {
                    if !self.step_agent(&id)? {
                        break;
                    }
                }
            }
            315..330 => {
                let member = self.somebody_leading();
                self.duty(member)?;
            }
            330..560 => self.some_up(),
            560..730 => self.some_down(),
            730..840 => {
                let member = self.somebody_leading();
                self.plan(member)?;
                self.serve(member);
            }
            840..930 if !self.proposals.is_empty() => {
                let index = if self.rng.random_bool(0.8) {
                    0
                } else {
                    self.rng.random_range(0..self.proposals.len())
                };
                self.commit(index)?;
            }
            930..955 => {
                let member = self.somebody_leading();
                // Most tellingly when it is too late.
                let late = self.truth.live_operations().any(Operation::is_past_return);
                if self.rng.random_bool(if late { 0.9 } else { 0.3 }) && self.call_off(member) {
                    return Ok(());
                }
                if self.request(member).is_some() {
                    self.count("requested");
                }
            }
            955..965 => {
                let member = self.rng.random_range(0..3);
                let upto = self.log.len();
                self.members[member].catch_up(&self.log, upto);
            }
            965..970 => {
                let id = self.anybody();
                if let Some(node) = self.nodes.get_mut(&id)
                    && !node.machine.old.is_empty()
                {
                    node.machine.old.remove(0);
                }
            }
            970..977 => self.create_entity(),
            977.. => self.fault()?,
            _ => {}
        }
        Ok(())
    }

    fn somebody_leading(&mut self) -> usize {
        let member = self.rng.random_range(0..3);
        if self.members[member].leads { member } else { self.leader }
    }

    fn some_up(&mut self) {
        let ready: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, s)| {
                !s.blocked && !s.queue.is_empty() && !self.cut.contains(&(s.who.node.clone(), s.to))
            })
            .map(|(id, _)| *id)
            .collect();
        if !ready.is_empty() {
            let session = ready[self.rng.random_range(0..ready.len())];
            for _ in 0..self.rng.random_range(1..4) {
                self.deliver_up(session);
            }
        }
    }

    fn some_down(&mut self) {
        if self.down.is_empty() {
            return;
        }
        let any = self.rng.random_range(0..self.down.len());
        let index = if self.rng.random_bool(0.7) { 0 } else { any };
        let (id, session, _) = &self.down[index];
        let member = self.streams.get(session).map(|s| s.to);
        if member.is_some_and(|m| self.cut.contains(&(id.clone(), m))) {
            return;
        }
        let keep = self.rng.random_bool(0.1);
        if index > 0 {
            self.count("spec reordered");
        }
        if keep {
            self.count("spec duplicated");
        }
        self.deliver_down(index, keep);
    }

    fn fault(&mut self) -> Result<(), Law> {
        let id = self.anybody();
        match self.rng.random_range(0..17) {
            0 => {
                if let Some((session, _)) = self.nodes[&id].session {
                    self.count("stream cut");
                    // What was under way may arrive yet, or not.
                    if self.rng.random_bool(0.5) {
                        self.hang_up(session);
                    } else if let Some(node) = self.nodes.get_mut(&id) {
                        node.session = None;
                    }
                }
            }
            1 => {
                let member = self.rng.random_range(0..3);
                self.count("partition");
                self.cut.insert((id, member));
            }
            2 | 3 => self.cut.clear(),
            4 => self.elect("leader crashed", false)?,
            5 => self.elect("leader deposed unawares", true)?,
            6 => {
                let leader = self.leader;
                for (n, member) in self.members.iter_mut().enumerate() {
                    if n != leader {
                        member.step_down();
                    }
                }
                self.close_unserved();
            }
            7 if !self.proposals.is_empty() => {
                self.count("proposal lost");
                let index = self.rng.random_range(0..self.proposals.len());
                self.lose(index);
            }
            8 | 9 => {
                self.count("agent killed");
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.agent.process = None;
                    node.agent.start();
                    node.session = None;
                }
            }
            10 if self.nodes.len() < 4 => {
                self.count("node joined");
                self.join();
            }
            11 | 12 => self.create_entity(),
            13 => {
                let member = self.rng.random_range(0..3);
                self.count("clock jumped");
                self.members[member].ahead_ms = self.rng.random_range(0..40_000);
            }
            14 => {
                let used = super::agent::in_use(&self.entities);
                let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
                if node.machine.up {
                    node.machine.stop();
                    self.count("Kong stopped");
                } else {
                    node.machine.start(&used);
                }
            }
            15 => {
                let used = super::agent::in_use(&self.entities);
                self.nodes.values_mut().filter(|n| !n.machine.up).for_each(|n| n.machine.start(&used));
                if self.rng.random_bool(0.3) {
                    let (name, version) =
                        (plugin(self.rng.random_range(0..PLUGINS.len())), self.rng.random_range(1..=3));
                    let digest = digest(&name, version);
                    let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
                    // A release that runs does not break by itself.
                    let runs = |m: &super::machine::Machine| {
                        m.loaded.get(&name).is_some_and(|l| l.as_ref().is_some_and(|p| p.digest == digest))
                    };
                    if !runs(&node.machine)
                        && node.agent.record.proven.listed.get(&name).is_none_or(|r| r.digest != digest)
                    {
                        node.machine.broken.insert(digest);
                        self.count("release broken on a node");
                    }
                }
            }
            16 if self.rng.random_bool(0.5) => {
                if let Some(first) = self.entities.keys().next().cloned() {
                    self.remove_by_hand(|id, _| *id == first);
                    self.count("removed by hand");
                }
            }
            16 => {
                // Kong deletes what belongs to it too.
                if let Some(first) = self.entities.keys().next().cloned() {
                    self.remove_by_hand(|id, _| *id == first);
                    self.orphans.insert(first);
                    self.count("route deleted");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Kong's Admin API takes an entity of whatever that node has loaded; most tellingly of what is being removed.
    fn create_entity(&mut self) {
        let live = self.truth.live_operations().filter(|o| o.kind == OperationKind::Remove);
        let removed: Vec<_> = live.filter(|o| o.cursor > 0).map(|o| o.plugin.clone()).collect();
        let any = plugin(self.rng.random_range(0..PLUGINS.len()));
        let name = removed.into_iter().next().filter(|_| self.rng.random_bool(0.8)).unwrap_or(any);
        // Nobody configures anything through a node that is out of the cluster, or on its way out.
        let takes = |(id, n): (&NodeId, &Node)| {
            let m = &n.machine;
            let stays = self.truth.stays(id) && !m.is_strange;
            stays && m.admin && m.up && m.loaded.contains_key(&name)
        };
        if self.nodes.iter().any(takes) {
            let serial = self.serial();
            self.count("entity created");
            self.say(|| format!("entity e{serial} of {name}"));
            self.entities.insert(format!("e{serial}"), name);
        }
    }

    pub fn lose(&mut self, index: usize) {
        let proposal = self.proposals.remove(index);
        let member = &mut self.members[proposal.from];
        if member.planning == Some(proposal.id) {
            member.planning = None;
        }
        if let Some((who, ..)) = proposal.then {
            self.hang_up(who.session);
        }
    }

    fn elect(&mut self, how: &'static str, unawares: bool) -> Result<(), Law> {
        self.count(how);
        let former = self.leader;
        self.leader = (former + self.rng.random_range(1..3)) % 3;
        if unawares {
            self.members[former].deposed_at.get_or_insert(self.now);
        } else {
            self.members[former].step_down();
        }
        let (upto, now) = (self.log.len(), self.now);
        let leader = self.leader;
        self.members[leader].catch_up(&self.log, upto);
        if self.members[leader].state != self.truth {
            return Err(Law::new("I10", format!("member {leader} has another state")));
        }
        self.members[leader].lead(now);
        self.close_unserved();
        Ok(())
    }

    pub fn close_unserved(&mut self) {
        let gone: Vec<u64> =
            self.streams.iter().filter(|(_, s)| !self.members[s.to].leads).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|session| self.hang_up(session));
    }
}
