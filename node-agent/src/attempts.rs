//! What was tried for which grant, and when it may be tried again.

use std::collections::BTreeMap;

use crate::config::Preflight;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{Failure, Grant, ReleaseRef};
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Shortest and longest pause before something that must change by itself is looked at again.
const PAUSE_MS: (u64, u64) = (500, 5_000);

const KEPT_PASSES: usize = 2;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attempts {
    plugins: BTreeMap<PluginName, Attempt>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Attempt {
    grant: Grant,
    /// Final for the grant.
    failure: Option<Failure>,
    /// Passed the preflight, newest last; `None`: the list without the plugin passed. Two are kept: what is asked for
    /// and what should run may differ, and neither must push the other out.
    passed: Vec<Option<ReleaseRef>>,
    /// Those among them that a started Kong took.
    #[serde(default)]
    booted: Vec<Option<ReleaseRef>>,
    /// A reload together with others was not proven: the next one is for as few as can be, so that the right one is blamed.
    #[serde(default)]
    alone: bool,
    #[serde(skip)]
    waiting: Option<Failure>,
    #[serde(skip)]
    pauses: u32,
    #[serde(skip)]
    not_before: Timestamp,
}

impl Attempts {
    fn of(&self, plugin: &PluginName, grant: Grant) -> Option<&Attempt> {
        self.plugins.get(plugin).filter(|a| a.grant == grant)
    }

    /// A new grant forgets what was tried under the former one, except that a preflight passed.
    fn edit(&mut self, plugin: &PluginName, grant: Grant) -> &mut Attempt {
        let attempt = self.plugins.entry(plugin.clone()).or_default();
        if attempt.grant != grant {
            let (passed, booted) = (std::mem::take(&mut attempt.passed), std::mem::take(&mut attempt.booted));
            *attempt = Attempt { grant, passed, booted, ..Attempt::default() };
        }
        attempt
    }

    pub fn failure(&self, plugin: &PluginName, grant: Grant) -> Option<&Failure> {
        self.of(plugin, grant)?.failure.as_ref()
    }

    pub fn waiting(&self, plugin: &PluginName, grant: Grant) -> Option<&Failure> {
        self.of(plugin, grant)?.waiting.as_ref()
    }

    /// Whether the list with this release, or without the plugin, passed the preflight lately, whatever the grant was:
    /// files do not change.
    pub fn has_passed(&self, plugin: &PluginName, release: Option<&ReleaseRef>, how: Preflight) -> bool {
        self.plugins.get(plugin).is_some_and(|a| {
            let passed = if how == Preflight::Boot { &a.booted } else { &a.passed };
            passed.iter().any(|p| p.as_ref() == release)
        })
    }

    /// Whether the plugin may be worked on under this grant now.
    pub fn may_try(&self, plugin: &PluginName, grant: Grant, now: Timestamp) -> bool {
        self.of(plugin, grant).is_none_or(|a| a.failure.is_none() && now >= a.not_before)
    }

    /// Whether something is given the time to change by itself.
    pub fn is_pausing(&self, plugin: &PluginName, grant: Grant, now: Timestamp) -> bool {
        self.of(plugin, grant).is_some_and(|a| now < a.not_before)
    }

    pub fn must_go_alone(&self, plugin: &PluginName, grant: Grant) -> bool {
        self.of(plugin, grant).is_some_and(|a| a.alone)
    }

    /// A change of these failed for good; whether all of them have failed with it. Of several, nobody knows over which:
    /// each is tried by itself then, unless that is what was tried, as far as it can be.
    pub fn give_up(&mut self, plugins: &BTreeMap<PluginName, Grant>, failure: &Failure) -> bool {
        let parted = plugins.iter().all(|(plugin, grant)| self.must_go_alone(plugin, *grant));
        let failed = parted || plugins.len() == 1;
        for (plugin, grant) in plugins {
            if failed {
                self.fail(plugin, *grant, failure.clone());
            } else {
                self.edit(plugin, *grant).alone = true;
            }
        }
        failed
    }

    pub fn fail(&mut self, plugin: &PluginName, grant: Grant, failure: Failure) {
        let attempt = self.edit(plugin, grant);
        attempt.failure = Some(failure);
        attempt.waiting = None;
    }

    pub fn wait(&mut self, plugin: &PluginName, grant: Grant, why: Failure, now: Timestamp) {
        let attempt = self.edit(plugin, grant);
        attempt.waiting = Some(why);
        let pause = (PAUSE_MS.0 << attempt.pauses.min(10)).min(PAUSE_MS.1);
        attempt.pauses += 1;
        attempt.not_before = now.plus_ms(pause);
    }

    /// Something worked: nothing is waited for any more.
    pub fn succeed(&mut self, plugin: &PluginName, grant: Grant) {
        let attempt = self.edit(plugin, grant);
        (attempt.waiting, attempt.pauses, attempt.not_before) = (None, 0, Timestamp(0));
    }

    pub fn pass(&mut self, plugin: &PluginName, grant: Grant, release: Option<ReleaseRef>, how: Preflight) {
        self.succeed(plugin, grant);
        let attempt = self.edit(plugin, grant);
        attempt.passed.retain(|p| *p != release);
        attempt.passed.push(release.clone());
        if attempt.passed.len() > KEPT_PASSES {
            attempt.passed.remove(0);
        }
        if how == Preflight::Boot {
            attempt.booted.retain(|b| *b != release);
            attempt.booted.push(release);
        }
        let Attempt { passed, booted, .. } = attempt;
        booted.retain(|b| passed.contains(b));
    }

    /// Forgets plugins the spec does not name any more.
    pub fn retain(&mut self, keep: impl Fn(&PluginName) -> bool) {
        self.plugins.retain(|p, _| keep(p));
    }
}
