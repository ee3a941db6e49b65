//! An agent, cut into the smallest steps between which it can be killed. What it decides are the shipped functions:
//! `reconcile`, `Record::admits`, `Attempts`, `status::compose`, `is_due` and `tally`; here is only what they act on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kctl_node_agent::action::Action;
use kctl_node_agent::gateway::Wanted;
use kctl_node_agent::ledger::{Record, Traffic};
use kctl_node_agent::reconcile::{Observed, Policy, reconcile};
use kctl_node_agent::status;
use kctl_shared::name::{NodeId, PluginName};
use kctl_shared::spec::{EntityReport, Failure, Grant, NodeSpec, NodeStatus, Placement};
use kctl_shared::time::Timestamp;
use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::applier::Scan;
use super::machine::{Machine, Workers};

/// What an agent can touch beside its own node, for one step.
pub struct Surroundings<'a> {
    pub now: Timestamp,
    pub rng: &'a mut SmallRng,
    /// The group's store: id to plugin.
    pub entities: &'a mut BTreeMap<String, PluginName>,
    /// Entities whose service or route is gone.
    pub orphans: &'a BTreeSet<String>,
    /// Things may go wrong of themselves.
    pub chaos: bool,
    pub facts: Vec<Fact>,
}

/// Something a law has an opinion on.
#[derive(Clone, Debug)]
pub enum Fact {
    Reloaded {
        before: Workers,
        after: Workers,
        proven: Wanted,
        asked: Option<Box<NodeSpec>>,
    },
    Deleted {
        plugin: PluginName,
        placement: Placement,
    },
    EntityDeleted {
        id: String,
    },
    EntitiesSaved {
        ids: Vec<String>,
    },
    EntityAttached {
        id: String,
        plugin: PluginName,
    },
    /// A complete scan saw no entity of it.
    FoundNone(PluginName),
    Conflict(String),
    PutBack,
    Refused,
    Fetched(PluginName),
    /// Something was begun on a node that is held.
    BegunWhileHeld(Action),
}

#[derive(Debug)]
pub struct Agent {
    /// On the disk.
    pub record: Record,
    pub process: Option<Process>,
}

#[derive(Debug, Default)]
pub struct Process {
    pub record: Record,
    pub inbox: VecDeque<NodeSpec>,
    doing: Option<Doing>,
    pub scan: Option<Scan>,
    pub report: Option<EntityReport>,
    pub scanned_at: Timestamp,
    pub lease_until: Timestamp,
    /// Not told to the control plane yet.
    pub status: Option<NodeStatus>,
    pub told: Option<NodeStatus>,
    /// What was seen when the status was made, and whether anything else it says changed since.
    looked: Option<Observed>,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Write,
    Prepare,
    Hup,
    Prove,
    BackWrite,
    BackPrepare,
    BackHup,
}

#[derive(Debug)]
struct Doing {
    /// Empty: nothing is asked for, the former state is put back.
    plugins: BTreeMap<PluginName, Grant>,
    wanted: Wanted,
    at: At,
    unlucky: bool,
}

impl Agent {
    /// Another installation, the `serial`th thing there is.
    pub fn new(node: &NodeId, serial: u64) -> Self {
        let nonce = format!("nonce-{node}-{serial}");
        let record = Record { node: Some(node.clone()), nonce, ..Record::default() };
        let mut agent = Self { record, process: None };
        agent.start();
        agent
    }

    pub fn start(&mut self) {
        // What is not written is forgotten.
        let written = serde_json::to_vec(&self.record).unwrap();
        let mut record: Record = serde_json::from_slice(&written).unwrap();
        record.restart();
        self.record = record.clone();
        self.process = Some(Process { record, ..Process::default() });
    }

    /// One micro-step; whether there was anything to do.
    pub fn step(&mut self, machine: &mut Machine, around: &mut Surroundings<'_>) -> bool {
        let Self { record, process: Some(process) } = self else { return false };
        let entity_work = process.entity_step(machine, around);
        if let Some(doing) = process.doing.take() {
            process.doing = process.enact_step(doing, machine, around);
            *record = process.record.clone();
            process.changed = true;
            return true;
        }
        let accepted = !process.inbox.is_empty();
        process.changed |= accepted;
        while let Some(spec) = process.inbox.pop_front() {
            match process.record.admits(&spec) {
                Ok(true) => process.record.follow(spec),
                Ok(false) => {}
                Err(fault) if fault.code == "SPEC_CONFLICT" => {
                    around.facts.push(Fact::Conflict(fault.message))
                }
                Err(_) => around.facts.push(Fact::Refused),
            }
        }
        let in_use = in_use(around.entities);
        let observed = process.observe(machine, &in_use);
        let spec = process.record.spec.as_ref();
        if process.changed || entity_work || process.looked.as_ref() != Some(&observed) {
            let mut status = status::compose(spec, &observed, &process.record.attempts, None);
            status.task.clone_from(&process.report);
            if process.told.as_ref() != Some(&status) {
                process.status = Some(status);
            }
            process.looked = Some(observed.clone());
            process.changed = false;
        }
        let action = spec.and_then(|spec| {
            reconcile(spec, &observed, &process.record.attempts, around.now).into_iter().next()
        });
        let acts = action.is_some();
        if spec.is_some_and(|s| s.hold.is_some()) {
            let leaves = |a: &&Action| !matches!(a, Action::Drain { .. } | Action::Undrain | Action::PutBack);
            around.facts.extend(action.iter().find(leaves).cloned().map(Fact::BegunWhileHeld));
        }
        if let Some(action) = action {
            process.execute(action, &observed, machine, around);
            process.changed = true;
        }
        if process.changed || accepted {
            *record = process.record.clone();
        }
        acts || entity_work
    }
}

pub fn in_use(entities: &BTreeMap<String, PluginName>) -> BTreeSet<PluginName> {
    entities.values().cloned().collect()
}

impl Process {
    pub fn is_at_rest(&self) -> bool {
        self.doing.is_none() && !self.record.put_back_due
    }

    pub fn next_generation(&mut self) -> u64 {
        self.record.generation += 1;
        self.record.generation
    }

    fn observe(&self, machine: &Machine, in_use: &BTreeSet<PluginName>) -> Observed {
        let record = &self.record;
        let used = machine.used(&record.proven);
        Observed {
            kong: machine.observe(in_use),
            stored: machine.stored.clone(),
            proven: record.proven.clone(),
            proof_holds: machine.still_runs(&record.proven),
            put_back_due: record.put_back_due,
            managed: record.managed.clone(),
            idle_generations: machine.generations.keys().any(|g| !used.contains(g)),
            tainted: record.tainted.clone(),
            last_reload: record.last_reload,
            policy: Policy { reload_interval_ms: 300, drains: machine.drains, ..Policy::default() },
            traffic: record.traffic,
            ..Observed::default()
        }
    }

    fn execute(
        &mut self,
        action: Action,
        observed: &Observed,
        machine: &mut Machine,
        around: &mut Surroundings<'_>,
    ) {
        let attempts = &mut self.record.attempts;
        let unlucky = around.chaos && around.rng.random_bool(0.1);
        match action {
            Action::Fetch { plugin, grant, .. } if unlucky => {
                attempts.wait(&plugin, grant, Failure::new("FETCH_FAILED", "made up"), around.now)
            }
            Action::Fetch { plugin, grant, release } => {
                machine.stored.entry(plugin.clone()).or_default().insert(release.placement());
                attempts.succeed(&plugin, grant);
                around.facts.push(Fact::Fetched(plugin));
            }
            Action::Preflight { plugin, grant, release, wanted, how } => {
                // Loading alone does not show everything.
                if machine.tries(&wanted) || (around.chaos && around.rng.random_bool(0.3)) {
                    attempts.pass(&plugin, grant, release, how);
                } else {
                    attempts.fail(&plugin, grant, Failure::new("PREFLIGHT_FAILED", "made up"));
                }
            }
            Action::Enact { plugins, mut wanted } => {
                if !wanted.listed.iter().all(|(name, release)| machine.has(name, release)) {
                    return self.give_up(&plugins, "FILES_CHANGED");
                }
                let known = [&observed.kong.conf_generation, &observed.proven.generation];
                let known = known.into_iter().flatten().find(|g| machine.links_exactly(g, &wanted)).cloned();
                wanted.generation = known.or_else(|| machine.link(self.next_generation(), &wanted));
                self.record.managed.extend(plugins.keys().cloned());
                self.record.last_reload = Some(around.now);
                let unlucky = unlucky && around.rng.random_bool(0.4);
                self.doing = Some(Doing { plugins, wanted, at: At::Write, unlucky });
            }
            Action::PutBack => {
                self.doing = Some(Doing {
                    plugins: BTreeMap::new(),
                    wanted: self.way_back(),
                    at: At::BackWrite,
                    unlucky,
                });
            }
            Action::Delete { plugin, placement } => {
                let used = machine.used(&self.record.proven);
                machine.generations.retain(|g, _| used.contains(g));
                if let Some(stored) = machine.stored.get_mut(&plugin) {
                    stored.remove(&placement);
                    if stored.is_empty() {
                        machine.stored.remove(&plugin);
                    }
                }
                around.facts.push(Fact::Deleted { plugin, placement });
            }
            Action::Drain { .. } => {
                self.record.traffic = if unlucky { Traffic::Unsure } else { Traffic::Out }
            }
            Action::Undrain => self.record.traffic = if unlucky { Traffic::Unsure } else { Traffic::In },
            Action::CollectGenerations => {
                let used = machine.used(&self.record.proven);
                machine.generations.retain(|g, _| used.contains(g));
            }
        }
    }

    /// Everything of ours that was not proven goes, everything that was comes back.
    fn way_back(&self) -> Wanted {
        let mut back = self.record.proven.clone();
        let ours = self.record.managed.iter().filter(|n| !back.listed.contains_key(*n)).cloned();
        back.unlisted = ours.collect();
        back
    }

    /// The way of the gateway: write, prepare, reload, prove; and back when the proof fails.
    fn enact_step(
        &mut self,
        mut doing: Doing,
        machine: &mut Machine,
        around: &mut Surroundings<'_>,
    ) -> Option<Doing> {
        let used = in_use(around.entities);
        let back = self.way_back();
        let wait = |this: &mut Self, doing: &Doing, code: &str| {
            for (plugin, grant) in &doing.plugins {
                this.record.attempts.wait(plugin, *grant, Failure::new(code, "made up"), around.now);
            }
        };
        doing.at = match doing.at {
            At::Write => {
                if machine.proves(&doing.wanted) {
                    self.proven(doing);
                    return None;
                }
                if !machine.up {
                    wait(self, &doing, "KONG_DOWN");
                    return None;
                }
                let mut next = machine.conf.clone();
                next.edit(&doing.wanted);
                if machine.admin && !used.is_subset(&next.listed) {
                    wait(self, &doing, "IN_USE_NOT_ENABLED");
                    return None;
                }
                machine.conf = next;
                At::Prepare
            }
            At::Prepare => {
                machine.armed = machine.conf.clone();
                At::Hup
            }
            At::Hup if machine.proves(&doing.wanted) => At::Prove,
            At::Hup if !machine.up => {
                // No reload was sent: the files are as before again.
                machine.conf.edit(&back);
                machine.armed = machine.conf.clone();
                wait(self, &doing, "KONG_DOWN");
                return None;
            }
            At::Hup => {
                self.hup(machine, &used, around);
                At::Prove
            }
            At::Prove if machine.proves(&doing.wanted) && !doing.unlucky => {
                self.proven(doing);
                return None;
            }
            At::Prove => At::BackWrite,
            At::BackWrite => {
                if machine.proves(&back) {
                    around.facts.push(Fact::PutBack);
                    return self.was_put_back(&doing);
                }
                machine.conf.edit(&back);
                At::BackPrepare
            }
            At::BackPrepare => {
                machine.armed = machine.conf.clone();
                At::BackHup
            }
            At::BackHup => {
                let refused = machine.admin && !used.is_subset(&machine.armed.listed);
                if !refused && machine.up {
                    self.hup(machine, &used, around);
                }
                if machine.proves(&back) {
                    around.facts.push(Fact::PutBack);
                    return self.was_put_back(&doing);
                }
                self.record.put_back_due = true;
                self.give_up(&doing.plugins, "RELOAD_UNPROVEN");
                return None;
            }
        };
        Some(doing)
    }

    fn hup(&mut self, machine: &mut Machine, used: &BTreeSet<PluginName>, around: &mut Surroundings<'_>) {
        let before = machine.loaded.clone();
        if machine.hup(used) {
            let asked = self.record.spec.clone().map(Box::new);
            let proven = self.record.proven.clone();
            around.facts.push(Fact::Reloaded { before, after: machine.loaded.clone(), proven, asked });
        }
    }

    fn was_put_back(&mut self, doing: &Doing) -> Option<Doing> {
        self.record.put_back_due = false;
        self.give_up(&doing.plugins, "RELOAD_UNPROVEN");
        None
    }

    fn proven(&mut self, doing: Doing) {
        self.record.proven = doing.wanted;
        for (plugin, grant) in &doing.plugins {
            self.record.attempts.succeed(plugin, *grant);
        }
    }

    fn give_up(&mut self, plugins: &BTreeMap<PluginName, Grant>, code: &str) {
        self.record.attempts.give_up(plugins, &Failure::new(code, "made up"));
    }
}
