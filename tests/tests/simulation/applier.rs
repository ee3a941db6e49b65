//! The work of an agent on entities, one request at a time.

use std::collections::BTreeMap;

use kctl_node_agent::entities::{is_due, missing, tally, tally_attached, unknown};
use kctl_shared::digest::Digest;
use kctl_shared::spec::{Entity, EntityReport, Failure};

use super::agent::{Fact, Process, Surroundings};
use super::machine::Machine;

/// No request on an entity is begun that could outlive the lease.
const MARGIN_MS: u64 = 3_000;
const SCAN_EVERY_MS: u64 = 1_000;

#[derive(Debug)]
pub struct Scan {
    found: Vec<Entity>,
    next: usize,
    /// Still to be re-created.
    missing: Vec<String>,
    refused: BTreeMap<String, Failure>,
}

impl Process {
    /// One request of the entity worker under its lease.
    pub fn entity_step(&mut self, machine: &Machine, around: &mut Surroundings<'_>) -> bool {
        let Some(task) = self.record.spec.as_ref().and_then(|s| s.task.clone()) else {
            self.scan = None;
            return self.report.take().is_some();
        };
        let begun = EntityReport::of(&task);
        let mut report = self.report.take().filter(|r| r.is_of_same(&begun)).unwrap_or_else(|| {
            self.scan = None;
            begun
        });
        let leased = around.now.plus_ms(MARGIN_MS) < self.lease_until;
        if !leased || !machine.up {
            self.scan = None;
            report.waiting = Some(Failure::new("LEASE_LOST", "made up"));
            self.report = Some(report);
            return false;
        }
        let due = around.now.since(self.scanned_at) >= SCAN_EVERY_MS || report.scans == 0;
        match self.scan.take() {
            None if due => {
                let found = around.entities.iter().filter(|(_, plugin)| **plugin == task.plugin);
                let found: Vec<_> = found
                    .map(|(id, _)| Entity {
                        id: id.clone(),
                        scope: "route".into(),
                        target: String::new(),
                        body: String::new(),
                        workspace: String::new(),
                    })
                    .collect();
                let missing = missing(&task, &found).into_iter().collect();
                self.scan = Some(Scan { found, next: 0, missing, refused: BTreeMap::new() });
            }
            None => {
                self.report = Some(report);
                return false;
            }
            Some(mut scan) => {
                if let Some(id) = scan.missing.pop() {
                    if !machine.loaded.contains_key(&task.plugin) {
                        report.waiting = Some(Failure::new("ADMIN_API_BAD_ANSWER", "not enabled"));
                        self.report = Some(report);
                        return false;
                    }
                    if around.orphans.contains(&id) {
                        scan.refused.insert(id, Failure::new("ENTITY_REFUSED", "made up"));
                    } else {
                        around.entities.insert(id.clone(), task.plugin.clone());
                        around.facts.push(Fact::EntityAttached { id, plugin: task.plugin.clone() });
                    }
                    self.scan = Some(scan);
                    self.report = Some(report);
                    return true;
                }
                while let Some(entity) = scan.found.get(scan.next) {
                    scan.next += 1;
                    if is_due(&task, entity) {
                        if around.entities.remove(&entity.id).is_some() {
                            around.facts.push(Fact::EntityDeleted { id: entity.id.clone() });
                        }
                        self.scan = Some(scan);
                        self.report = Some(report);
                        return true;
                    }
                }
                report.waiting = None;
                if scan.found.is_empty() {
                    around.facts.push(Fact::FoundNone(task.plugin.clone()));
                }
                if task.attach.is_empty() {
                    let ids: Vec<_> = unknown(&task, &scan.found).map(|e| e.id.clone()).collect();
                    let saved = (!ids.is_empty()).then(|| Digest::of(ids.join(" ").as_bytes()));
                    around.facts.push(Fact::EntitiesSaved { ids });
                    tally(&mut report, scan.found, saved);
                } else {
                    tally_attached(&mut report, &task, scan.found, scan.refused);
                }
                self.scanned_at = around.now;
            }
        }
        self.report = Some(report);
        true
    }
}
