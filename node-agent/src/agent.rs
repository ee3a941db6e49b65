//! The agent's loop: take the newest spec, observe, reconcile, execute one action, report, again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{EntityReport, Failure, Grant, NodeSpec, NodeStatus, Placement, StepWord};
use kctl_shared::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::config::Preflight;
use crate::gateway::{EnactError, Gateway, Wanted};
use crate::ledger::Ledger;
use crate::packages::{Links, Packages};
use crate::reconcile::{Observed, Policy, reconcile};
use crate::status;

/// Kong is looked at this often while nothing changes, so that what others do to it shows.
const IDLE: Duration = Duration::from_secs(1);
/// The first looks after something was done follow sooner: what is left waits for old workers, which mostly go at once.
const SOON: Duration = Duration::from_millis(10);

/// Where artifacts come from.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// # Errors
    /// Whatever kept the artifact from being fetched; it is tried again.
    async fn fetch(&self, digest: &Digest) -> Result<Bytes, Fault>;
}

/// What the loop works on; made by [`crate::entry`], or by a test with other ports.
#[expect(missing_debug_implementations, reason = "ports have none")]
pub struct Agent {
    pub gateway: Arc<dyn Gateway>,
    pub artifacts: Arc<dyn ArtifactSource>,
    pub packages: Packages,
    pub ledger: Ledger,
    /// Specs from the control plane, newest last.
    pub specs: mpsc::Receiver<NodeSpec>,
    pub status: watch::Sender<NodeStatus>,
    pub entities: watch::Receiver<Option<EntityReport>>,
    pub policy: Policy,
    /// The accepted spec, for the entity worker.
    pub accepted: watch::Sender<Option<NodeSpec>>,
}

impl Agent {
    /// Runs until `shutdown`. May be dropped at any await: every durable step can be repeated.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.accepted.send_replace(self.ledger.record().spec.clone());
        let mut verified = Verified::default();
        let mut pause = IDLE;
        loop {
            while let Ok(spec) = self.specs.try_recv() {
                self.accept(spec);
            }
            let observed = self.observe(&mut verified).await;
            let spec = self.ledger.record().spec.clone();
            self.publish(spec.as_ref(), &observed, None);
            let record = self.ledger.record();
            let action = spec
                .as_ref()
                .and_then(|s| reconcile(s, &observed, &record.attempts, Timestamp::now()).into_iter().next());
            if let Some(action) = action {
                tracing::info!(?action, "acting");
                let enacts = matches!(action, Action::Enact { .. });
                self.execute(action, spec.as_ref(), &observed).await;
                if enacts && self.ledger.record().proven != observed.proven {
                    verified.just_proven(&observed.kong, self.ledger.record().proven.clone());
                }
                pause = SOON;
                continue;
            }
            // All arms only wait: whatever is dropped is looked at anew.
            tokio::select! {
                () = shutdown.cancelled() => return,
                spec = self.specs.recv() => match spec {
                    Some(spec) => self.accept(spec),
                    None => return,
                },
                _ = self.entities.changed() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(IDLE),
            }
        }
    }

    fn accept(&mut self, spec: NodeSpec) {
        match self.ledger.accept(spec) {
            Ok(true) => {
                let spec = self.ledger.record().spec.clone();
                self.accepted.send_replace(spec);
            }
            Ok(false) => {}
            Err(fault) => tracing::warn!(%fault, "spec refused"),
        }
    }

    async fn observe(&self, verified: &mut Verified) -> Observed {
        let kong = self.gateway.observe().await;
        let record = self.ledger.record();
        let proof_holds = verified.check(&*self.gateway, &record.proven, &kong).await;
        let mut observed = Observed {
            stored: self.packages.stored(),
            proven: record.proven.clone(),
            proof_holds,
            put_back_due: record.put_back_due || kong.stopped_by_us,
            managed: record.managed.clone(),
            idle_generations: false,
            notices: self.packages.notices(),
            found: self.packages.found(&kong, &record.proven),
            kong,
            damaged: self.packages.damaged(),
            tainted: record.tainted.clone(),
            last_reload: record.last_reload,
            policy: self.policy,
        };
        observed.idle_generations = !self.packages.idle_generations(&used(&observed)).is_empty();
        observed
    }

    fn publish(
        &self,
        spec: Option<&NodeSpec>,
        observed: &Observed,
        doing: Option<(&[PluginName], StepWord)>,
    ) {
        let record = self.ledger.record();
        let mut status = status::compose(spec, observed, &record.attempts, doing);
        status.task = self.entities.borrow().clone();
        send(&self.status, status);
    }

    async fn execute(&mut self, action: Action, spec: Option<&NodeSpec>, observed: &Observed) {
        match action {
            Action::Fetch { plugin, grant, release } => {
                self.publish(spec, observed, Some((std::slice::from_ref(&plugin), StepWord::Fetching)));
                let placed = match self.artifacts.fetch(&release.digest).await {
                    Ok(bytes) => {
                        let lua_path = observed.kong.lua_path.as_deref();
                        self.packages.stage(&plugin, &release, bytes, lua_path).await
                    }
                    Err(fault) => Err(Failure::new("FETCH_FAILED", fault.to_string())),
                };
                let damaged = observed.damaged.get(&plugin).is_some_and(|d| d.contains(&release.placement()));
                match placed {
                    Ok(()) => self.ledger.update("ledger.worked", |r| {
                        r.attempts.succeed(&plugin, grant);
                        if damaged {
                            r.tainted.insert(plugin.clone());
                        }
                    }),
                    // The network and the disk get better by themselves; wrong bytes do not.
                    Err(f) if may_pass(&f) => self.wait(&plugin, grant, f),
                    Err(f) => self.fail(&plugin, grant, f),
                }
            }
            Action::Preflight { plugin, grant, release, wanted, how } => {
                self.publish(spec, observed, Some((std::slice::from_ref(&plugin), StepWord::Preflight)));
                match self.preflight(wanted, how).await {
                    // Forgotten with the power, it is tried again.
                    Ok(()) => self.ledger.remember(|r| r.attempts.pass(&plugin, grant, release, how)),
                    Err(f) if may_pass(&f) => self.wait(&plugin, grant, f),
                    Err(f) => self.fail(&plugin, grant, f),
                }
            }
            Action::Enact { plugins, wanted } => {
                let names: Vec<PluginName> = plugins.keys().cloned().collect();
                self.publish(spec, observed, Some((&names, StepWord::Linking)));
                self.enact(&plugins, wanted, spec, observed).await;
            }
            Action::PutBack => {
                let before = self.ledger.record().proven.clone();
                match self.gateway.put_back(&before, &|_| {}).await {
                    Ok(()) => self.ledger.update("ledger.put-back", |r| r.put_back_due = false),
                    Err(failure) => {
                        tracing::warn!(%failure, "not put back yet");
                        tokio::time::sleep(IDLE).await;
                    }
                }
            }
            Action::Delete { plugin, placement } => {
                self.publish(spec, observed, Some((std::slice::from_ref(&plugin), StepWord::Purging)));
                let wanted = spec.and_then(|s| s.plugins.get(&plugin));
                let (grant, stays) = wanted.map(|p| (p.grant, p.enabled.is_some())).unwrap_or_default();
                if let Err(failure) = self.delete(&plugin, &placement, stays, observed).await {
                    self.wait(&plugin, grant, failure);
                }
            }
            Action::CollectGenerations => {
                if let Err(failure) = self.packages.collect(&used(observed)) {
                    tracing::warn!(%failure, "old generations stay");
                    tokio::time::sleep(IDLE).await;
                }
            }
        }
    }

    /// A generation of its own for the list, tried in a scratch Kong, gone afterwards unless it is enacted.
    async fn preflight(&mut self, mut wanted: Wanted, how: Preflight) -> Result<(), Failure> {
        wanted.generation = self.link(&wanted, Links::Tried)?;
        let tried = self.gateway.preflight(&wanted, how).await;
        if let Some(generation) = &wanted.generation
            && let Err(error) = std::fs::remove_dir_all(generation)
        {
            tracing::warn!(%error, "a scratch generation stays");
        }
        tried
    }

    fn link(&mut self, wanted: &Wanted, links: Links) -> Result<Option<PathBuf>, Failure> {
        self.packages.link(self.ledger.next_generation(), wanted, links)
    }

    /// Undoes a placement; `stays`: another release of the plugin remains.
    async fn delete(
        &mut self,
        plugin: &PluginName,
        placement: &Placement,
        stays: bool,
        observed: &Observed,
    ) -> Result<(), Failure> {
        // A generation that still links the files would be a path to nowhere.
        self.packages.collect(&used(observed))?;
        if !stays && self.packages.is_reachable(plugin, placement) {
            self.nobody_requires(plugin, placement, observed).await?;
        }
        self.packages.remove(plugin, placement).await
    }

    /// Modules in a tree that is on the Lua path anyway were still there when the list without the plugin was tried: now it
    /// is tried as it will be.
    async fn nobody_requires(
        &mut self,
        plugin: &PluginName,
        placement: &Placement,
        observed: &Observed,
    ) -> Result<(), Failure> {
        let mut wanted = observed.proven.clone();
        wanted.unlisted.insert(plugin.clone());
        let number = self.ledger.next_generation();
        let generation = self.packages.link_without(number, &wanted, plugin, placement)?;
        wanted.generation = Some(generation.clone());
        let tried = self.gateway.preflight(&wanted, Preflight::Parse).await;
        if let Err(error) = std::fs::remove_dir_all(&generation) {
            tracing::warn!(%error, "a scratch generation stays");
        }
        tried.map_err(|failure| {
            let message =
                format!("without the files of {plugin} this node's Kong does not load: {}", failure.message);
            Failure::new("STILL_REQUIRED", message)
        })
    }

    async fn enact(
        &mut self,
        plugins: &BTreeMap<PluginName, Grant>,
        mut wanted: Wanted,
        spec: Option<&NodeSpec>,
        observed: &Observed,
    ) {
        // The files are what the digest says at the moment they are put on a path, not only when they were placed.
        for (name, release) in &wanted.listed {
            if !self.packages.verify(name, &release.placement()) {
                let message = format!("the files of {name} {} are not what was placed", release.version);
                return self.give_up(plugins, &Failure::new("FILES_CHANGED", message));
            }
        }
        if let Err(failure) = self.deploy(&wanted).await {
            return if may_pass(&failure) {
                self.hold(plugins, &failure)
            } else {
                self.give_up(plugins, &failure)
            };
        }
        // What an interrupted try left in the conf may be just this: then nothing new is made.
        wanted.generation = match self.reusable(&wanted, observed) {
            Some(generation) => Some(generation),
            None => match self.link(&wanted, Links::Placed) {
                Ok(generation) => generation,
                Err(failure) => return self.hold(plugins, &failure),
            },
        };
        self.ledger.update("ledger.managed", |r| {
            r.managed.extend(plugins.keys().cloned());
            r.last_reload = Some(Timestamp::now());
        });
        let before = self.ledger.record().proven.clone();
        let (record, entities) = (self.ledger.record(), self.entities.borrow().clone());
        let names: Vec<PluginName> = plugins.keys().cloned().collect();
        let progress = |word: StepWord| {
            let mut status = status::compose(spec, observed, &record.attempts, Some((&names, word)));
            status.task = entities.clone();
            send(&self.status, status);
        };
        let outcome = self.gateway.enact(&wanted, &before, &progress).await;
        if outcome.is_err()
            && let Err(failure) = self.packages.deploy(&before).await
        {
            tracing::warn!(%failure, "a tree does not hold the former release yet");
        }
        match outcome {
            Ok(()) => self.ledger.update("ledger.proven", |r| {
                r.proven = wanted;
                r.tainted.retain(|p| !plugins.contains_key(p));
                plugins.iter().for_each(|(plugin, grant)| r.attempts.succeed(plugin, *grant));
            }),
            Err(EnactError::Waiting(failure)) => self.hold(plugins, &failure),
            Err(EnactError::Refused(failure) | EnactError::PutBack(failure)) => {
                self.give_up(plugins, &failure)
            }
            Err(EnactError::NotPutBack(failure)) => {
                self.ledger.update("ledger.put-back-due", |r| r.put_back_due = true);
                self.give_up(plugins, &failure);
            }
        }
    }

    /// A change of one plugin failed for good; of a change of several, each is tried by itself.
    fn give_up(&mut self, plugins: &BTreeMap<PluginName, Grant>, failure: &Failure) {
        if let (1, Some((plugin, grant))) = (plugins.len(), plugins.iter().next()) {
            return self.fail(plugin, *grant, failure.clone());
        }
        tracing::warn!(?plugins, %failure, "one by one now");
        self.ledger.update("ledger.failed", |r| {
            plugins.iter().for_each(|(plugin, grant)| r.attempts.separate(plugin, *grant));
        });
    }

    fn hold(&mut self, plugins: &BTreeMap<PluginName, Grant>, why: &Failure) {
        plugins.iter().for_each(|(plugin, grant)| self.wait(plugin, *grant, why.clone()));
    }

    /// Puts files into the trees that others use too. A tree holds one copy: before another release replaces the one that
    /// runs, what would be put back is linked to copies that stay as they are.
    async fn deploy(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let before = self.ledger.record().proven.clone();
        if self.packages.replaces(wanted, &before) {
            let kept = self.link(&before, Links::Kept)?;
            self.ledger.update("ledger.kept", |r| r.proven.generation = kept);
        }
        let deployed = self.packages.deploy(wanted).await;
        if deployed.is_err()
            && let Err(failure) = self.packages.deploy(&before).await
        {
            tracing::warn!(%failure, "a tree does not hold the former release yet");
        }
        deployed
    }

    /// The generation that the conf names already, if it links exactly what is wanted.
    fn reusable(&self, wanted: &Wanted, observed: &Observed) -> Option<PathBuf> {
        // What was loaded from it meanwhile nobody knows.
        if wanted.listed.keys().any(|plugin| observed.tainted.contains(plugin)) {
            return None;
        }
        // The proven one may have been edited out of the conf while Kong still runs it.
        let known = [&observed.kong.conf_generation, &observed.proven.generation];
        known.into_iter().flatten().find(|g| self.packages.links_exactly(g, wanted)).cloned()
    }

    fn fail(&mut self, plugin: &PluginName, grant: Grant, failure: Failure) {
        tracing::warn!(%plugin, %grant, %failure, "given up");
        self.ledger.update("ledger.failed", |r| r.attempts.fail(plugin, grant, failure));
    }

    fn wait(&mut self, plugin: &PluginName, grant: Grant, why: Failure) {
        tracing::info!(%plugin, %grant, %why, "waiting");
        self.ledger.update("ledger.waits", |r| r.attempts.wait(plugin, grant, why, Timestamp::now()));
    }
}

/// Whether it may get better by itself.
fn may_pass(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "FETCH_FAILED" | "DISK_FULL" | "TREE_BUSY")
}

/// Generation directories that something may still read.
fn used(observed: &Observed) -> BTreeSet<PathBuf> {
    let kong = &observed.kong;
    let named = [&kong.conf_generation, &kong.armed_generation, &observed.proven.generation];
    let mut used: BTreeSet<_> = named.into_iter().flatten().cloned().collect();
    used.extend(kong.old_generations.iter().cloned());
    used
}

fn send(status: &watch::Sender<NodeStatus>, new: NodeStatus) {
    status.send_if_modified(|old| {
        let changed = *old != new;
        if changed {
            *old = new;
        }
        changed
    });
}

/// Remembers for which Kong process the proof was checked in full; between that a look at what is loaded is enough.
#[derive(Default)]
struct Verified {
    checked: Option<(u32, Wanted)>,
}

impl Verified {
    /// What was enacted a moment ago was proven in doing so; a restarted Kong is another process.
    fn just_proven(&mut self, before: &crate::gateway::KongObserved, proven: Wanted) {
        self.checked = Some((before.facts.master_pid, proven));
    }

    async fn check(
        &mut self,
        gateway: &dyn Gateway,
        proven: &Wanted,
        kong: &crate::gateway::KongObserved,
    ) -> bool {
        if proven.listed.is_empty() {
            return true;
        }
        let Some(loaded) = &kong.loaded else { return false };
        if proven.listed.keys().any(|p| !loaded.contains_key(p.as_str())) {
            self.checked = None;
            return false;
        }
        let key = (kong.facts.master_pid, proven.clone());
        if self.checked.as_ref() == Some(&key) {
            return true;
        }
        match gateway.proven(proven).await {
            Ok(()) => {
                self.checked = Some(key);
                true
            }
            Err(failure) => {
                tracing::debug!(%failure, "the former proof does not hold");
                false
            }
        }
    }
}
