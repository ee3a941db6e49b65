//! The whole world in one state.

use std::sync::Arc;

use crate::apply::apply;
use crate::cluster::{Applier, Cluster};
use crate::command::Command;
use crate::laws::{self, Law, Seen};
use crate::machine::{Machine, Report};
use crate::mask::{Mask, NODES, bit, has, nodes};
use crate::plan::{Inventory, Round};
use crate::setup::{Budget, Mutant, Setup};
use crate::spec::node_spec;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// After the whole log; the leader has seen all of it.
    pub cluster: Arc<Cluster>,
    pub inventory: Arc<Inventory>,
    pub deposed: Option<Arc<Deposed>>,
    /// Proposals on their way into the log.
    pub late: Vec<Command>,
    pub machines: [Machine; NODES],
    /// Plugin entities in the group's store.
    pub entities: Mask,
    /// What people have asked for so far.
    pub asked: usize,
    pub budget: Budget,
    pub seen: Seen,
}

/// A leader that does not know that it leads no more: what it last knew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deposed {
    pub cluster: Arc<Cluster>,
    pub inventory: Arc<Inventory>,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        let boots = std::array::from_fn(|n| u8::from(has(setup.members, n)));
        let cluster = Cluster {
            generation: 1,
            admins: setup.admins,
            boots,
            gone: 0,
            leaving: [0; crate::mask::NODES],
            installed: setup.installed,
            rest: 1,
            lock: None,
            operations: Vec::new(),
        };
        let machines = std::array::from_fn(|n| {
            let member = has(setup.members, n);
            let spec = if member { node_spec(setup, &cluster, n) } else { Default::default() };
            let mut machine = Machine::at_rest(member && setup.installed, spec);
            machine.boot = 1;
            machine.up = member.then(|| machine.report());
            machine
        });
        let reports = std::array::from_fn(|n| machines[n].up);
        Self {
            inventory: Arc::new(Inventory { reports, scanned: false }),
            cluster: Arc::new(cluster),
            deposed: None,
            late: Vec::new(),
            machines,
            entities: setup.entities,
            asked: 0,
            budget: setup.budget,
            seen: Seen::default(),
        }
    }

    /// A command is committed: guards decide now. Whether it changed anything.
    pub fn commit(&mut self, setup: &Setup, command: &Command) -> bool {
        let mut cluster = Cluster::clone(&self.cluster);
        if apply(setup, &mut cluster, command).is_err() {
            return false;
        }
        let before = std::mem::replace(&mut self.cluster, Arc::new(cluster));
        if matches!(command, Command::Settle { .. }) && self.inventory.scanned {
            Arc::make_mut(&mut self.inventory).scanned = false;
        }
        for node in nodes(self.cluster.registered()) {
            let spec = node_spec(setup, &self.cluster, node);
            self.machines[node].send(spec);
        }
        laws::committed(self, &before, command);
        *self.cluster != *before
    }

    /// What the leader would propose now.
    pub fn plan(&self, setup: &Setup) -> Option<Command> {
        let (cluster, inventory) = (&*self.cluster, &*self.inventory);
        Round { setup, cluster, inventory, lapsed: self.lapsed() }.plan()
    }

    /// What the deposed leader would propose now.
    pub fn stale_plan(&self, setup: &Setup) -> Option<Command> {
        let Deposed { cluster, inventory } = &**self.deposed.as_ref()?;
        Round { setup, cluster, inventory, lapsed: self.lapsed() }.plan()
    }

    fn lapsed(&self) -> Mask {
        (0..NODES).filter(|n| !self.machines[*n].lease).map(bit).sum()
    }

    /// A report arrives at the leader. Whether it changed anything.
    pub fn hear(&mut self, setup: &Setup, node: usize, before: bool) -> bool {
        let machine = &self.machines[node];
        let Some(report) = (if before { machine.up_before } else { machine.up }) else { return false };
        let unchecked = setup.is(Mutant::NoIncarnationCheck);
        let known = self.cluster.boots[node];
        if (known == 0 || report.boot < known) && !unchecked {
            return false;
        }
        let mut changed = false;
        if report.boot != known {
            changed |= self.commit(setup, &Command::Register { node, boot: report.boot });
            if !unchecked {
                // Nobody will believe it any more.
                self.machines[node].up_before = None;
            }
        }
        if !self.machines[node].lease && self.may_lease(setup, node, &report) {
            self.machines[node].lease = true;
            changed = true;
        }
        if self.inventory.reports[node] != Some(report) {
            let scan = |r: &Report| r.task.map(|t| (t.grant, t.turn));
            let former = self.inventory.reports[node].as_ref().and_then(scan);
            let arrived = report.task.is_some() && former != scan(&report);
            let inventory = Arc::make_mut(&mut self.inventory);
            inventory.reports[node] = Some(report);
            inventory.scanned |= arrived && setup.is(Mutant::FenceByArrival);
            changed = true;
        }
        changed
    }

    /// A lease is the applier's, for the task that it was given last: one that was taken from it is not renewed.
    fn may_lease(&self, setup: &Setup, node: usize, report: &Report) -> bool {
        let machine = &self.machines[node];
        let task = machine.disk.spec.task;
        let present =
            self.applier().is_some_and(|a| a.node == node && task.is_none_or(|t| t.grant == a.grant));
        report.boot == machine.boot && (present || setup.is(Mutant::LeaseOfTheStream))
    }

    pub fn applier(&self) -> Option<Applier> {
        self.cluster.live().and_then(|(_, operation)| operation.applier)
    }

    pub fn broke(&self, law: Law) -> bool {
        self.seen.broken & (1 << law as u16) != 0
    }
}
