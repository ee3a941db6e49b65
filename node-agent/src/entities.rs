//! Work on Kong's plugin entities, under a lease: delete the recorded ids or re-create them, then scan and keep scanning.
//!
//! What a task does not name yet is handed over whole before the log may name it, so that everything that is ever deleted
//! can be there again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kctl_shared::digest::Digest;
use kctl_shared::mutant;
use kctl_shared::spec::{Entity, EntityReport, EntityTask, Failure, NodeSpec};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bodies::Bodies;
use crate::gateway::Gateway;

const SCAN_EVERY: Duration = Duration::from_secs(1);
/// No request is begun that could outlive the lease.
const MARGIN: Duration = Duration::from_secs(3);
/// Kong's own no to an entity, which asking again does not change.
const REFUSED: &str = "ENTITY_REFUSED";

/// Until when the lease holds; `None` without one.
pub type Lease = watch::Receiver<Option<Instant>>;

/// Runs until `shutdown`.
pub async fn run(
    gateway: Arc<dyn Gateway>,
    bodies: Arc<dyn Bodies>,
    mut accepted: watch::Receiver<Option<NodeSpec>>,
    lease: Lease,
    report: watch::Sender<Option<EntityReport>>,
    shutdown: CancellationToken,
) {
    let mut worker = Worker { gateway, bodies, lease, saved: None, fetched: None };
    loop {
        let task = accepted.borrow_and_update().as_ref().and_then(|s| s.task.clone());
        match &task {
            None => {
                (worker.saved, worker.fetched) = (None, None);
                report.send_if_modified(|r| r.take().is_some());
            }
            Some(task) => {
                let begun = EntityReport::of(task);
                let before = report.borrow().clone().filter(|r| r.is_of_same(&begun));
                let mut next = before.unwrap_or(begun);
                next.waiting = worker.round(task, &mut next).await.err();
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

struct Worker {
    gateway: Arc<dyn Gateway>,
    bodies: Arc<dyn Bodies>,
    lease: Lease,
    /// What was handed over last, and the name it got: scanning goes on, and nothing is sent twice.
    saved: Option<(Vec<Entity>, Digest)>,
    /// What is to be re-created, by the task it was fetched for.
    fetched: Option<(EntityTask, BTreeMap<String, Entity>)>,
}

impl Worker {
    fn check(&self) -> Result<(), Failure> {
        match *self.lease.borrow() {
            Some(until) if Instant::now() + MARGIN < until => Ok(()),
            _ => {
                Err(Failure::new("LEASE_LOST", "the control plane has not been heard for too long to go on"))
            }
        }
    }

    async fn round(&mut self, task: &EntityTask, report: &mut EntityReport) -> Result<(), Failure> {
        self.check()?;
        let found = self.gateway.scan(&task.plugin).await?;
        if !task.attach.is_empty() {
            let refused = self.attach(task, &found).await?;
            tally_attached(report, task, found, refused);
            return Ok(());
        }
        let unknown: Vec<_> = unknown(task, &found).cloned().collect();
        let saved = if unknown.is_empty() { None } else { Some(self.save(task, unknown).await?) };
        for entity in found.iter().filter(|entity| is_due(task, entity)) {
            self.check()?;
            self.gateway.delete_entity(&entity.id).await?;
            tracing::info!(plugin = %task.plugin, id = %entity.id, "plugin configuration deleted");
        }
        tally(report, found, saved);
        Ok(())
    }

    async fn save(&mut self, task: &EntityTask, unknown: Vec<Entity>) -> Result<Digest, Failure> {
        if let Some((_, digest)) = self.saved.as_ref().filter(|(same, _)| *same == unknown) {
            return Ok(*digest);
        }
        let digest = self.bodies.save(task, &unknown).await?;
        self.saved = Some((unknown, digest));
        Ok(digest)
    }

    /// Re-creates what is missing; what Kong refuses is returned.
    async fn attach(
        &mut self,
        task: &EntityTask,
        found: &[Entity],
    ) -> Result<BTreeMap<String, Failure>, Failure> {
        let mut refused = BTreeMap::new();
        let missing = missing(task, found);
        if !missing.is_empty() && self.fetched.as_ref().is_none_or(|(of, _)| of != task) {
            let fetched = self.bodies.fetch(task).await?;
            let by_id = fetched.into_iter().map(|e| (e.id.clone(), e)).collect();
            self.fetched = Some((task.clone(), by_id));
        }
        let bodies = self.fetched.as_ref().map(|(_, bodies)| bodies);
        for id in missing {
            self.check()?;
            let Some(entity) = bodies.and_then(|b| b.get(&id)) else {
                let why = Failure::new("ENTITY_NOT_SAVED", "the control plane does not have it");
                refused.insert(id, why);
                continue;
            };
            match self.gateway.put_entity(entity).await {
                Ok(()) => tracing::info!(plugin = %task.plugin, %id, "plugin configuration re-created"),
                Err(why) if why.code == REFUSED => {
                    refused.insert(id, why);
                }
                Err(passing) => return Err(passing),
            }
        }
        Ok(refused)
    }
}

/// Whether the task lets this entity be deleted: only ids that the log recorded, whatever else the plugin has.
pub fn is_due(task: &EntityTask, entity: &Entity) -> bool {
    task.delete.contains(&entity.id) || mutant::is("delete-by-name")
}

/// What has to be handed over before the log can record it.
pub fn unknown<'a>(task: &'a EntityTask, found: &'a [Entity]) -> impl Iterator<Item = &'a Entity> {
    found.iter().filter(|e| !task.scan_only && !task.delete.contains(&e.id))
}

/// Ids to re-create. What is there under its id is left as it is, whoever made it.
pub fn missing(task: &EntityTask, found: &[Entity]) -> BTreeSet<String> {
    let there: BTreeSet<_> = found.iter().map(|e| e.id.as_str()).collect();
    task.attach.iter().filter(|id| !there.contains(id.as_str())).cloned().collect()
}

/// A scan is complete. What was deleted counts as found all the same: only a scan that sees nothing is an empty one.
pub fn tally(report: &mut EntityReport, found: Vec<Entity>, saved: Option<Digest>) {
    report.scans += 1;
    report.empty_in_a_row = if found.is_empty() { report.empty_in_a_row + 1 } else { 0 };
    report.saved = saved;
    report.entities = found.into_iter().map(|e| Entity { body: String::new(), ..e }).collect();
}

/// A scan is complete. What was just re-created was missing from it all the same: only the next one can show it.
pub fn tally_attached(
    report: &mut EntityReport,
    task: &EntityTask,
    found: Vec<Entity>,
    refused: BTreeMap<String, Failure>,
) {
    let over = missing(task, &found).iter().all(|id| refused.contains_key(id));
    tally(report, found, None);
    report.attached_in_a_row = if over { report.attached_in_a_row + 1 } else { 0 };
    report.refused = refused;
}
