//! A change of the list: files verified and linked, Kong's part asked of the gateway, and what came of it remembered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kctl_shared::name::PluginName;
use kctl_shared::spec::{Failure, Grant, NodeSpec, StepWord};
use kctl_shared::time::Timestamp;

use super::{Agent, may_pass, send};
use crate::gateway::{EnactError, Wanted};
use crate::packages::Links;
use crate::reconcile::Observed;
use crate::status;

impl Agent {
    pub(super) async fn enact(
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
        self.meter.begin(plugins.values().copied().collect());
        let before = self.ledger.record().proven.clone();
        let (record, entities) = (self.ledger.record(), self.entities.borrow().clone());
        let names: Vec<PluginName> = plugins.keys().cloned().collect();
        let progress = |word: StepWord| {
            let mut status = status::compose(spec, observed, &record.attempts, Some((&names, word)));
            status.task = entities.clone();
            send(&self.status, status);
        };
        let outcome = self.gateway.enact(&wanted, &before, &progress).await;
        self.meter.done();
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

    fn give_up(&mut self, plugins: &BTreeMap<PluginName, Grant>, failure: &Failure) {
        let mut failed = false;
        self.ledger.update("ledger.failed", |r| failed = r.attempts.give_up(plugins, failure));
        tracing::warn!(?plugins, %failure, "{}", if failed { "given up" } else { "one by one now" });
    }

    pub(super) fn hold(&mut self, plugins: &BTreeMap<PluginName, Grant>, why: &Failure) {
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
}
