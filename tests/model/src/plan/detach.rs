//! The part of a removal that is about entities: who works on them, when none is left, what happens when one comes back,
//! and how a removal that was called off brings them back.

use super::{Next, Round};
use crate::cluster::{Operation, Phase, Step, StepKind};
use crate::command::Command;
use crate::machine::TaskReport;
use crate::mask::{bit, has, nodes};
use crate::runbook;
use crate::setup::Mutant;

/// Complete scans in sequence that must say the same.
pub const SCANS: u8 = 2;

impl Round<'_> {
    /// Keeps an applier at work, and goes back to detaching when an entity turns up after that barrier.
    pub(super) fn watch(&self, id: usize, operation: &Operation, step: &Step) -> Next {
        let scanning = match step.kind {
            StepKind::Detach | StepKind::Disable | StepKind::Purge => !operation.is_past_return(),
            StepKind::Reattach => true,
            _ => false,
        };
        if !scanning {
            return Next::Go;
        }
        match self.keep_applier(id, operation, step) {
            Next::Go => {}
            other => return other,
        }
        let found = self.scan(operation).map_or(0, |task| task.found);
        let late = matches!(step.kind, StepKind::Disable | StepKind::Purge);
        if !late || found == 0 || operation.phase != Phase::Progressing {
            return Next::Go;
        }
        let steps = runbook::detach_again(self.setup, self.cluster, operation);
        Next::Propose(Command::Reroute { operation: id, from: operation.cursor, back: false, steps })
    }

    fn keep_applier(&self, id: usize, operation: &Operation, step: &Step) -> Next {
        let reachable = |n: usize| self.cluster.is_admin(n) && self.inventory.reports[n].is_some();
        let waits_to_begin = step.kind == StepKind::Reattach && step.is_pending();
        if let Some(applier) = operation.applier {
            if reachable(applier.node) {
                let former = applier.grant;
                let node = applier.node;
                // Whoever deleted before may still hold a lease: what is brought back would go again.
                let others = operation.appliers & !bit(node) & !self.lapsed;
                return if waits_to_begin && others != 0 && !self.setup.is(Mutant::LeaseIgnored) {
                    Next::Wait
                } else if waits_to_begin {
                    Next::Propose(Command::Assign { operation: id, node, former })
                } else {
                    Next::Go
                };
            }
            if !has(self.lapsed, applier.node) && !self.setup.is(Mutant::LeaseIgnored) {
                return Next::Wait;
            }
        }
        let former = operation.applier.map_or(0, |a| a.grant);
        match nodes(self.cluster.admins).find(|n| reachable(*n)) {
            Some(node) => Next::Propose(Command::Assign { operation: id, node, former }),
            None => Next::Wait,
        }
    }

    /// The applier's answer to its present grant.
    fn scan(&self, operation: &Operation) -> Option<TaskReport> {
        let applier = operation.applier?;
        self.heard(applier.node)?.task.filter(|t| t.grant == applier.grant)
    }

    pub(super) fn detach(&self, id: usize, operation: &Operation) -> Option<Command> {
        let task = self.scan(operation)?;
        let entities = task.found & !operation.recorded;
        if entities != 0 {
            return Some(Command::Record { operation: id, step: operation.cursor, entities });
        }
        (task.same >= SCANS).then_some(Command::Advance { operation: id, from: operation.cursor })
    }

    /// Two scans that show every recorded id.
    pub(super) fn reattach(&self, id: usize, operation: &Operation) -> Option<Command> {
        let task = self.scan(operation)?;
        (task.same >= SCANS).then_some(Command::Advance { operation: id, from: operation.cursor })
    }

    /// A scan that began after the last verdict and found nothing.
    pub(super) fn fence(&self, operation: &Operation) -> bool {
        let arrived = !self.setup.is(Mutant::FenceByArrival) || self.inventory.scanned;
        arrived && self.scan(operation).is_some_and(|task| task.found == 0)
    }
}
