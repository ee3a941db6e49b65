//! Which steps an operation has, as its proposer expands them.

use crate::cluster::{Cluster, Kind, Operation, Step, StepKind};
use crate::mask::{Mask, bit, nodes};
use crate::setup::{Mutant, Setup};

pub fn expand(setup: &Setup, cluster: &Cluster, kind: Kind) -> Vec<Step> {
    let all = cluster.staying();
    match kind {
        Kind::Install => {
            let stage = Step::new(StepKind::Stage, all);
            let [first, then] = waves(cluster, all, false);
            let enable = filled(StepKind::Enable, [first, then]);
            std::iter::once(stage).chain(enable).collect()
        }
        Kind::Remove => remove(setup, cluster, all),
    }
}

fn remove(setup: &Setup, cluster: &Cluster, all: Mask) -> Vec<Step> {
    let order = waves(cluster, all, !setup.is(Mutant::DisableOrderReversed));
    let disable = filled(StepKind::Disable, order);
    let detach = std::iter::once(Step::new(StepKind::Detach, 0));
    detach.chain(disable).chain([Step::new(StepKind::Purge, all)]).collect()
}

/// No wave mixes nodes with an Admin API and nodes without.
fn waves(cluster: &Cluster, all: Mask, admin_first: bool) -> [Mask; 2] {
    let admins = all & cluster.admins;
    if admin_first { [admins, all & !admins] } else { [all & !admins, admins] }
}

fn filled(kind: StepKind, waves: [Mask; 2]) -> impl Iterator<Item = Step> {
    waves.into_iter().filter(|wave| *wave != 0).map(move |wave| Step::new(kind, wave))
}

/// An entity turned up after the detach barrier: everything again.
pub fn detach_again(setup: &Setup, cluster: &Cluster, operation: &Operation) -> Vec<Step> {
    remove(setup, cluster, operation.members() & cluster.registered() | cluster.staying())
}

/// Back to what was before: what runs first, in the reverse of the order it was changed in.
pub fn way_back(cluster: &Cluster, operation: &Operation) -> Vec<Step> {
    let here: Mask = nodes(cluster.staying()).map(bit).sum();
    match operation.kind {
        Kind::Install => {
            let enabled = operation.touched(&[StepKind::Enable]) & here;
            let staged = operation.touched(&[StepKind::Stage, StepKind::Enable]) & here;
            let restore = filled(StepKind::Restore, [enabled, 0]);
            restore.chain([Step::new(StepKind::Unstage, staged)]).collect()
        }
        Kind::Remove if operation.is_untouched() => Vec::new(),
        Kind::Remove => {
            let dropped = operation.touched(&[StepKind::Disable]) & here;
            let restore = filled(StepKind::Restore, waves(cluster, dropped, false));
            restore.chain([Step::new(StepKind::Reattach, 0)]).collect()
        }
    }
}
