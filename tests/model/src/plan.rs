//! What a leader proposes, on what it knows: the agreed state as it last saw it, and what the agents told it.

mod detach;

pub use detach::SCANS;

use crate::apply::way::outcome;
use crate::cluster::{Cluster, Kind, Operation, Phase, Step, StepKind};
use crate::command::Command;
use crate::machine::Report;
use crate::mask::{Mask, NODES, bit, lowest, nodes};
use crate::runbook;
use crate::setup::{Mutant, Setup};

/// A leader's soft state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inventory {
    pub reports: [Option<Report>; NODES],
    /// The result of a scan came in after the last verdict; only told apart for [`Mutant::FenceByArrival`].
    pub scanned: bool,
}

/// One round of one leader.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    pub setup: &'a Setup,
    pub cluster: &'a Cluster,
    pub inventory: &'a Inventory,
    /// Nodes that hold no lease any more, by everyone's clock.
    pub lapsed: Mask,
}

enum Next {
    Propose(Command),
    Wait,
    /// Nothing to do about this; on with the rest.
    Go,
}

impl Round<'_> {
    /// At most one command for the live operation.
    pub fn plan(&self) -> Option<Command> {
        if let Some(node) = nodes(self.cluster.registered()).find(|n| self.has_left(*n)) {
            return Some(Command::Forget { node });
        }
        let (id, operation) = self.cluster.live()?;
        let Some(step) = operation.current() else {
            return Some(Command::Finish { operation: id, phase: outcome(operation) });
        };
        match self.watch(id, operation, step) {
            Next::Propose(command) => return Some(command),
            Next::Wait => return None,
            Next::Go => {}
        }
        match step.kind {
            StepKind::Detach => return self.detach(id, operation),
            StepKind::Reattach => return self.reattach(id, operation),
            _ => {}
        }
        self.settle(id, operation, step).or_else(|| {
            if step.failed != 0 && operation.kind == Kind::Install && operation.phase == Phase::Progressing {
                let steps = runbook::way_back(self.cluster, operation);
                return Some(Command::Reroute { operation: id, from: operation.cursor, back: true, steps });
            }
            if step.open() == 0 {
                return self.pass(id, operation, step);
            }
            self.dispatch(id, operation, step)
        })
    }

    /// The node's report, if the registered start of its agent made it: an earlier one proves nothing.
    pub fn heard(&self, node: usize) -> Option<&Report> {
        let unchecked = self.setup.is(Mutant::NoIncarnationCheck);
        let report = self.inventory.reports[node].as_ref()?;
        (report.boot == self.cluster.boots[node] || unchecked).then_some(report)
    }

    /// The node is to leave, and its agent says under that grant that nothing is left.
    fn has_left(&self, node: usize) -> bool {
        let grant = self.cluster.leaving[node];
        let empty = |r: &Report| !r.enabled && !r.loaded && !r.listed && !r.files;
        let unproven = self.setup.is(Mutant::ForgottenUnproven);
        grant != 0 && self.answer(node, grant).is_some_and(|r| empty(r) || unproven)
    }

    fn answer(&self, node: usize, grant: u8) -> Option<&Report> {
        self.heard(node).filter(|r| r.grant == grant)
    }

    fn settle(&self, id: usize, operation: &Operation, step: &Step) -> Option<Command> {
        let (mut verified, mut failed) = (0, 0);
        for node in nodes(step.open() & step.granted()) {
            let Some(answer) = self.answer(node, step.grants[node]) else { continue };
            if self.is_proven(operation.kind, step.kind, answer)
                || self.setup.is(Mutant::AppliedCountsAsVerified)
            {
                verified |= bit(node);
            } else if answer.failed && !step.kind.waits_for_ever() {
                failed |= bit(node);
            }
        }
        let step = operation.cursor;
        (verified | failed != 0).then_some(Command::Settle { operation: id, step, verified, failed })
    }

    fn pass(&self, id: usize, operation: &Operation, step: &Step) -> Option<Command> {
        if step.kind == StepKind::Disable && !self.may_pass(operation, step) {
            return None;
        }
        Some(Command::Advance { operation: id, from: operation.cursor })
    }

    /// The fence after the last node with an Admin API, and before files go; then no worker that could need them lives.
    fn may_pass(&self, operation: &Operation, step: &Step) -> bool {
        let next = operation.steps.get(operation.cursor + 1);
        let purges = next.is_some_and(|n| n.kind == StepKind::Purge);
        let admin = |s: &Step| s.members & self.cluster.admins != 0;
        let leaves_admins = (admin(step) || step.members == 0) && next.is_some_and(|n| !admin(n));
        if (purges || leaves_admins) && !self.fence(operation) && !self.setup.is(Mutant::SkipF2) {
            return false;
        }
        let here = self.cluster.registered();
        let drained = |n| self.heard(n).is_some_and(|r| !r.old || self.setup.is(Mutant::OldWorkersIgnored));
        !purges || nodes(operation.touched(&[StepKind::Disable]) & here).all(drained)
    }

    /// One node at a time reloads; who gave up in a step that must end well tries again.
    fn dispatch(&self, id: usize, operation: &Operation, step: &Step) -> Option<Command> {
        let acting = step.open() & step.granted();
        let gave_up = |n: &usize| self.answer(*n, step.grants[*n]).is_some_and(|r| r.failed);
        let again = nodes(acting).filter(gave_up).map(bit).sum::<Mask>();
        let again = if step.kind.waits_for_ever() { again } else { 0 };
        let waiting = step.open() & !acting;
        let free = match (step.kind.reloads(), acting) {
            (true, 0) => lowest(waiting),
            (true, _) => 0,
            (false, _) => waiting,
        };
        let nodes = again | free;
        (nodes != 0).then_some(Command::Dispatch { operation: id, step: operation.cursor, nodes })
    }

    fn is_proven(&self, kind: Kind, step: StepKind, answer: &Report) -> bool {
        let listed = answer.listed && !self.setup.is(Mutant::ListedCountsAsGone);
        let gone = !answer.enabled && !answer.loaded && !listed;
        match step {
            StepKind::Stage => answer.files,
            StepKind::Enable => answer.enabled,
            StepKind::Restore if kind == Kind::Remove => answer.enabled,
            StepKind::Disable | StepKind::Restore => gone,
            StepKind::Purge | StepKind::Unstage => gone && !answer.files,
            StepKind::Detach | StepKind::Reattach => false,
        }
    }
}
