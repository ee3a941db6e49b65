//! The agent's loop: take the newest spec, observe, reconcile, execute one action, report, again.

mod drain;
mod enact;
mod verified;

use std::collections::BTreeSet;
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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::Action;
use crate::answers::meter::Meter;
use crate::config::Preflight;
use crate::gateway::{Gateway, KongObserved, Wanted};
use crate::ledger::Ledger;
use crate::packages::{Links, Packages};
use crate::reconcile::{Observed, Policy, reconcile};
use crate::status;
pub use drain::Balancer;
use verified::Verified;

/// Kong is looked at this often while nothing changes, so that what others do to it shows.
const IDLE: Duration = Duration::from_secs(1);
/// The first looks after something was done follow sooner: what is left waits for old workers, which mostly go at once.
const SOON: Duration = Duration::from_millis(10);
/// During such a pause the old workers are looked for as many times.
const LOOKS: u32 = 20;

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
    pub balancer: Balancer,
    pub meter: Meter,
    /// The accepted spec, for the entity worker.
    pub accepted: watch::Sender<Option<NodeSpec>>,
}

impl Agent {
    /// Runs until `shutdown`. May be dropped at any await: every durable step can be repeated.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.accepted.send_replace(self.ledger.record().spec.clone());
        let mut verified = Verified::default();
        let mut pause = IDLE;
        // How Kong looked before an action that left it alone.
        let mut untouched: Option<(Instant, KongObserved)> = None;
        loop {
            while let Ok(spec) = self.specs.try_recv() {
                self.accept(spec);
            }
            let known = untouched.take().filter(|(seen, _)| seen.elapsed() < IDLE);
            let reused = known.is_some();
            let (seen, kong) = match known {
                Some(known) => known,
                None => (Instant::now(), self.gateway.observe().await),
            };
            let observed = self.observed(&mut verified, kong).await;
            let spec = self.ledger.record().spec.clone();
            self.meter.turn(&self.gateway, spec.as_ref());
            self.publish(spec.as_ref(), &observed, None);
            let record = self.ledger.record();
            let action = spec
                .as_ref()
                .and_then(|s| reconcile(s, &observed, &record.attempts, Timestamp::now()).into_iter().next());
            let prepares = matches!(action, Some(Action::Fetch { .. } | Action::Preflight { .. }));
            // An enactment asks Kong again before it touches it; nothing else goes by a look that is not fresh.
            if reused && !prepares && !matches!(action, Some(Action::Enact { .. })) {
                continue;
            }
            if let Some(action) = action {
                tracing::info!(?action, "acting");
                let enacts = matches!(action, Action::Enact { .. });
                self.execute(action, spec.as_ref(), &observed).await;
                if enacts && self.ledger.record().proven != observed.proven {
                    verified.just_proven(&observed.kong, self.ledger.record().proven.clone());
                }
                untouched = prepares.then_some((seen, observed.kong));
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
                () = rest(&*self.gateway, pause, observed.kong.facts.old_workers) => pause = (pause * 2).min(IDLE),
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

    async fn observed(&self, verified: &mut Verified, kong: KongObserved) -> Observed {
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
            found: self.packages.found(&kong, record),
            held: record.held.clone(),
            kong,
            damaged: self.packages.damaged(),
            tainted: record.tainted.clone(),
            last_reload: record.last_reload,
            policy: self.policy,
            traffic: record.traffic,
            hook_failure: self.balancer.failure(),
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
        status.served = self.meter.told().cloned();
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
            Action::Drain { plugins } => {
                let names: Vec<PluginName> = plugins.keys().cloned().collect();
                self.publish(spec, observed, Some((&names, StepWord::Draining)));
                self.drain(&plugins).await;
            }
            Action::Undrain => self.undrain().await,
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

    fn fail(&mut self, plugin: &PluginName, grant: Grant, failure: Failure) {
        tracing::warn!(%plugin, %grant, %failure, "given up");
        self.ledger.update("ledger.failed", |r| r.attempts.fail(plugin, grant, failure));
    }

    fn wait(&mut self, plugin: &PluginName, grant: Grant, why: Failure) {
        tracing::info!(%plugin, %grant, %why, "waiting");
        self.ledger.update("ledger.waits", |r| r.attempts.wait(plugin, grant, why, Timestamp::now()));
    }
}

/// Until `pause` is over, or fewer than `old_workers` old workers of Kong are left.
async fn rest(gateway: &dyn Gateway, pause: Duration, old_workers: u32) {
    if old_workers == 0 {
        return tokio::time::sleep(pause).await;
    }
    for _ in 0..LOOKS {
        tokio::time::sleep(pause / LOOKS).await;
        if gateway.old_workers() < old_workers {
            return;
        }
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
