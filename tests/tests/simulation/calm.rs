//! Faults are over: everything converges, and goes on serving.

use kctl_control_plane::desired::node_spec;
use kctl_control_plane::state::operation::{Operation, Phase};
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::PluginSpec;
use rand::RngExt as _;

use super::agent::in_use;
use super::control::group;
use super::laws::Law;
use super::world::World;

/// More rounds than any way out of trouble takes: pauses, retries, leases and graces are all below 40 s.
const ROUNDS: usize = 1_200;
/// Every so many rounds an operator looks at what is waited for.
const PATIENCE: usize = 100;
/// Every so many rounds somebody looks at what nodes wait for.
const ATTENTION: usize = 10;
const ROUND_MS: u64 = 500;

impl World {
    pub fn heal(&mut self) -> Result<(), Law> {
        self.chaos = false;
        self.cut.clear();
        for (n, member) in self.members.iter_mut().enumerate() {
            if n != self.leader {
                member.step_down();
            }
        }
        self.close_unserved();
        self.nodes.values_mut().for_each(|node| node.machine.broken.clear());
        self.unhold(self.leader);
        self.fickle = true;
        let converged = self.converge();
        self.fickle = false;
        converged
    }

    /// Until every operation has ended and every node is as its spec says.
    pub fn converge(&mut self) -> Result<(), Law> {
        for round in 1..=ROUNDS {
            let late = self.truth.live_operations().any(Operation::is_past_return);
            if self.fickle && self.rng.random_bool(if late { 0.3 } else { 0.01 }) {
                self.call_off(self.leader);
            }
            let busy = self.calm_round()?;
            if !busy && self.truth.live_operations().next().is_none() && self.settled() {
                return self.agree();
            }
            if round.is_multiple_of(ATTENTION) {
                self.attend();
            }
            if round.is_multiple_of(PATIENCE) {
                // Held for somebody who creates entities again and again, or will not have an install undone.
                let live: Vec<_> = self.truth.live_operations().map(|o| o.plugin.clone()).collect();
                // A put-back that would leave out what an entity refers to waits for the entity to go.
                let stuck = self.nodes.values().any(|n| n.agent.record.put_back_due);
                // So does a node that joined in vain: what it could not load and is in use keeps it from any reload.
                let lacks = |id: &NodeId, plugin: &PluginName| {
                    let spec = node_spec(&self.truth, id).plugins.remove(plugin);
                    let failed = |p: PluginSpec| {
                        self.nodes[id].agent.record.attempts.failure(plugin, p.grant).is_some()
                    };
                    spec.is_some_and(failed)
                };
                let frozen: Vec<_> = in_use(&self.entities)
                    .into_iter()
                    .filter(|plugin| self.nodes.keys().any(|id| lacks(id, plugin)))
                    .collect();
                // And one that is to leave keeps what is in use.
                let leaving = self.truth.nodes.values().any(|n| n.leaving.is_some());
                let stuck = stuck || leaving;
                // No Kong starts with an entity of what no node is to have, whoever had it being no more.
                let plugins = self.truth.groups.get(&group()).map(|g| g.plugins.clone()).unwrap_or_default();
                let unloadable =
                    |plugin: &PluginName| frozen.contains(plugin) || !plugins.contains_key(plugin);
                self.remove_by_hand(|_, plugin| stuck || live.contains(plugin) || unloadable(plugin));
            }
        }
        let live: Vec<_> =
            self.truth.live_operations().map(|o| (o.id.clone(), o.kind, o.phase, o.cursor)).collect();
        let differs: Vec<_> = self.nodes.keys().filter_map(|n| self.differs(n)).collect();
        let waiting = &self.members[self.leader].waiting;
        let says = self.members[self.leader].inventory.with(|fleet| {
            let each =
                fleet.reports.iter().flat_map(|(node, r)| r.status.plugins.iter().map(move |p| (node, p)));
            let why = each.filter_map(|(node, (plugin, s))| {
                Some(format!("{node} {plugin} {}", s.waiting.as_ref().or(s.failure.as_ref())?.code))
            });
            why.collect::<Vec<_>>()
        });
        let down =
            self.nodes.iter().filter(|(_, n)| !n.machine.up).map(|(id, n)| format!("{id}: {:?}", n.machine));
        let down: Vec<_> = down.collect();
        Err(Law::new(
            "converges",
            format!("live {live:?}, waiting on {waiting:?}, nodes wait {says:?}, {differs:?}, down {down:?}"),
        ))
    }

    fn settled(&self) -> bool {
        let known = |id: &NodeId| {
            let record = self.truth.nodes.get(id);
            record.is_some_and(|r| r.hold.is_none() && r.leaving.is_none())
        };
        self.proposals.is_empty()
            && self.truth.nodes.len() == self.nodes.len()
            && self.nodes.keys().all(|n| known(n) && self.follows(n) && self.differs(n).is_none())
    }

    pub fn follows(&self, id: &NodeId) -> bool {
        let process = self.nodes[id].agent.process.as_ref();
        process
            .and_then(|p| p.record.spec.as_ref())
            .is_some_and(|s| s.plugins == node_spec(&self.truth, id).plugins)
    }

    /// Everybody does what there is to do, and hears what was said.
    pub fn calm_round(&mut self) -> Result<bool, Law> {
        self.now = self.now.plus_ms(ROUND_MS);
        self.events += 1;
        let mut busy = false;
        let used = in_use(&self.entities);
        let ids: Vec<_> = self.nodes.keys().cloned().collect();
        for id in &ids {
            if let Some(node) = self.nodes.get_mut(id) {
                node.machine.old.clear();
                if !node.machine.up {
                    node.machine.start(&used);
                }
                if !node.machine.up && node.session.is_some() && !node.machine.is_strange {
                    // A Kong that joined a group with entities does not start without what they refer to; whoever is
                    // refused is not told what that is.
                    node.boot_gate(&node_spec(&self.truth, id));
                    node.machine.start(&used);
                }
            }
            if self.nodes[id].session.is_none() {
                self.connect(id, self.leader);
            }
            for _ in 0..16 {
                if !self.step_agent(id)? {
                    break;
                }
                self.events += 1;
                busy = true;
            }
        }
        let sessions: Vec<_> = self.streams.keys().copied().collect();
        for session in sessions {
            while self.streams.get(&session).is_some_and(|s| !s.blocked && !s.queue.is_empty()) {
                self.deliver_up(session);
                self.events += 1;
            }
        }
        for _ in 0..8 {
            while !self.proposals.is_empty() {
                self.commit(0)?;
                busy = true;
            }
            if !self.plan(self.leader)? {
                break;
            }
        }
        self.serve(self.leader);
        while !self.down.is_empty() {
            self.deliver_down(0, false);
            self.events += 1;
        }
        Ok(busy)
    }

    /// One more operation, undisturbed.
    pub fn serve_again(&mut self) -> Result<(), Law> {
        if !self.nodes.values().any(|n| n.machine.admin) {
            // The last of them left at the very end.
            self.join_as(true);
            self.converge()?;
        }
        self.thaw();
        let mut id = None;
        for _ in 0..100 {
            id = self.request(self.leader);
            if id.is_some() {
                break;
            }
        }
        let Some(id) = id else { return Err(Law::new("serves", "nothing could be asked for".into())) };
        self.commit(0)?;
        self.converge()?;
        let phase = self.truth.operations.get(&id).map(|o| o.phase);
        if phase == Some(Phase::Succeeded) {
            return Ok(());
        }
        Err(Law::new(
            "serves",
            format!("{id} ended as {phase:?}: {:?}", self.truth.operations.get(&id).map(|o| &o.error)),
        ))
    }

    /// A node takes no change while something is in use that it does not run: one that joined in vain, or one outside the
    /// part of the group that the plugin was given to. Whoever attached it has to detach it first.
    fn thaw(&mut self) {
        let runs_everywhere = |p: &PluginName| self.nodes.values().all(|n| n.machine.loaded.contains_key(p));
        let frozen: Vec<_> = in_use(&self.entities).into_iter().filter(|p| !runs_everywhere(p)).collect();
        self.remove_by_hand(|_, plugin| frozen.contains(plugin));
    }
}
