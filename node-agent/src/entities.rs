//! Work on Kong's plugin entities, under a lease: delete the recorded ids, then scan and keep scanning.

use std::sync::Arc;
use std::time::Duration;

use kctl_shared::mutant;
use kctl_shared::spec::{Entity, EntityReport, EntityTask, Failure, NodeSpec};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::Gateway;

const SCAN_EVERY: Duration = Duration::from_secs(1);
/// No request is begun that could outlive the lease.
const MARGIN: Duration = Duration::from_secs(3);

/// Until when the lease holds; `None` without one.
pub type Lease = watch::Receiver<Option<Instant>>;

/// Runs until `shutdown`.
pub async fn run(
    gateway: Arc<dyn Gateway>,
    mut accepted: watch::Receiver<Option<NodeSpec>>,
    lease: Lease,
    report: watch::Sender<Option<EntityReport>>,
    shutdown: CancellationToken,
) {
    loop {
        let task = accepted.borrow_and_update().as_ref().and_then(|s| s.task.clone());
        match &task {
            None => {
                report.send_if_modified(|r| r.take().is_some());
            }
            Some(task) => {
                let before = report.borrow().clone().filter(|r| r.grant == task.grant);
                let mut next = before.unwrap_or_else(|| EntityReport {
                    grant: task.grant,
                    operation: task.operation.clone(),
                    plugin: Some(task.plugin.clone()),
                    ..EntityReport::default()
                });
                next.waiting = round(&*gateway, task, &lease, &mut next).await.err();
                report.send_replace(Some(next));
            }
        }
        // A dropped sleep or a dropped look at the spec is made again.
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = accepted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(SCAN_EVERY), if task.is_some() => {}
        }
    }
}

fn check(lease: &Lease) -> Result<(), Failure> {
    match *lease.borrow() {
        Some(until) if Instant::now() + MARGIN < until => Ok(()),
        _ => Err(Failure::new("LEASE_LOST", "the control plane has not been heard for too long to go on")),
    }
}

async fn round(
    gateway: &dyn Gateway,
    task: &EntityTask,
    lease: &Lease,
    report: &mut EntityReport,
) -> Result<(), Failure> {
    check(lease)?;
    let found = gateway.scan(&task.plugin).await?;
    for entity in found.iter().filter(|entity| is_due(task, entity)) {
        check(lease)?;
        gateway.delete_entity(&entity.id).await?;
        tracing::info!(plugin = %task.plugin, id = %entity.id, "plugin configuration deleted");
    }
    tally(report, found);
    Ok(())
}

/// Whether the task lets this entity be deleted: only ids that the log recorded, whatever else the plugin has.
pub fn is_due(task: &EntityTask, entity: &Entity) -> bool {
    task.delete.contains(&entity.id) || mutant::is("delete-by-name")
}

/// A scan is complete. What was deleted counts as found all the same: only a scan that sees nothing is an empty one.
pub fn tally(report: &mut EntityReport, found: Vec<Entity>) {
    report.scans += 1;
    report.empty_in_a_row = if found.is_empty() { report.empty_in_a_row + 1 } else { 0 };
    report.entities = found;
}
