//! What one plugin needs next, whatever the others need.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use kctl_shared::method::Method;
use kctl_shared::mutant;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{KongState, Placement, PluginSpec, ReleaseRef};
use kctl_shared::time::Timestamp;

use super::{Observed, how, undone};
use crate::action::Action;
use crate::attempts::Attempts;
use crate::config::Preflight;
use crate::gateway::Wanted;

/// The next step for one plugin.
pub(super) enum Next {
    Now(Box<Action>),
    /// Everything is prepared; what is missing is a reload.
    Turn,
}

impl Next {
    fn now(action: Action) -> Self {
        Self::Now(Box::new(action))
    }
}

/// One plugin in one decision.
pub(super) struct Round<'a> {
    pub(super) plugin: &'a PluginName,
    pub(super) spec: &'a PluginSpec,
    pub(super) observed: &'a Observed,
    pub(super) attempts: &'a Attempts,
    pub(super) now: Timestamp,
}

impl Round<'_> {
    pub(super) fn next(&self) -> Option<Next> {
        if self.is_held() {
            // An operation may get ready for something else; what it finds stays.
            return if self.spec.operation.is_empty() { None } else { self.prepare() };
        }
        self.towards().or_else(|| self.delete().map(Next::now))
    }

    /// The next step towards what should be there and listed.
    fn towards(&self) -> Option<Next> {
        self.may_try().then(|| self.work().or_else(|| self.list()))?
    }

    fn prepare(&self) -> Option<Next> {
        self.may_try().then(|| self.work())?
    }

    fn may_try(&self) -> bool {
        self.attempts.may_try(self.plugin, self.spec.grant, self.now)
    }

    /// Files, and the preflight that is asked for.
    fn work(&self) -> Option<Next> {
        let (plugin, grant) = (self.plugin, self.spec.grant);
        if let Some(release) = self.spec.staged.iter().find(|r| !self.stored(r) || self.is_damaged(r)) {
            let release = release.clone();
            return Some(Next::now(Action::Fetch { plugin: plugin.clone(), grant, release }));
        }
        if let Some(release) = self.spec.preflight.as_ref().filter(|r| !self.passed(Some(r), how(self.spec)))
        {
            return Some(Next::now(self.preflight(Some(release), how(self.spec))));
        }
        None
    }

    fn list(&self) -> Option<Next> {
        // Nothing is asked of a Kong that does not run; why is part of the status.
        if self.observed.kong.facts.state != KongState::Running || self.is_as_wanted() || self.is_foreign() {
            return None;
        }
        let enabled = self.spec.enabled.as_ref();
        if !self.passed(enabled, Preflight::Parse) {
            return Some(Next::now(self.preflight(enabled, Preflight::Parse)));
        }
        Some(Next::Turn)
    }

    /// In use, ready to be listed, and not in the directive: without it Kong takes no list.
    pub(super) fn is_missed(&self) -> bool {
        let kong = &self.observed.kong;
        kong.enabled_in_cluster.as_ref().is_some_and(|used| used.contains(self.plugin.as_str()))
            && self.spec.enabled.is_some()
            && !self.is_named_in(&kong.conf_plugins)
            && !self.is_held()
            && self.attempts.failure(self.plugin, self.spec.grant).is_none()
            && self.work().is_none()
            && matches!(self.list(), Some(Next::Turn))
    }

    fn preflight(&self, release: Option<&ReleaseRef>, how: Preflight) -> Action {
        Action::Preflight {
            plugin: self.plugin.clone(),
            grant: self.spec.grant,
            release: release.cloned(),
            wanted: self.wanted(release),
            how,
        }
    }

    /// Others changed its files, and they are to be made good.
    fn is_damaged(&self, release: &ReleaseRef) -> bool {
        let damaged = self.observed.damaged.get(self.plugin);
        // What somebody else put there is not ours to make good.
        let ours = !matches!(release.method, Method::Path { .. });
        ours && self.observed.policy.heal && damaged.is_some_and(|d| d.contains(&release.placement()))
    }

    fn stored(&self, release: &ReleaseRef) -> bool {
        self.observed.stored.get(self.plugin).is_some_and(|s| s.contains(&release.placement()))
    }

    fn passed(&self, release: Option<&ReleaseRef>, how: Preflight) -> bool {
        self.attempts.has_passed(self.plugin, release, how)
    }

    /// The last proven configuration with only this plugin changed, so that a failure is blamed on the right one.
    fn wanted(&self, release: Option<&ReleaseRef>) -> Wanted {
        let mut wanted = self.observed.proven.clone();
        wanted.generation = None;
        self.change(&mut wanted, release);
        wanted
    }

    pub(super) fn change(&self, wanted: &mut Wanted, release: Option<&ReleaseRef>) {
        wanted.unlisted.remove(self.plugin);
        match release {
            Some(release) => {
                wanted.listed.insert(self.plugin.clone(), release.clone());
            }
            None => {
                wanted.listed.remove(self.plugin);
                wanted.unlisted.insert(self.plugin.clone());
            }
        }
    }

    fn is_as_wanted(&self) -> bool {
        let seen = self.observed;
        let listed = seen.proven.listed.get(self.plugin);
        match &self.spec.enabled {
            Some(release) => {
                let drifted = seen.policy.heal
                    && (seen.tainted.contains(self.plugin) || undone(seen).any(|p| p == self.plugin));
                seen.proof_holds && !drifted && listed.is_some_and(|l| l.is(release))
            }
            None => listed.is_none() && (self.is_foreign() || self.is_gone()),
        }
    }

    /// Nothing that the agent began may still bring the plugin in: neither the directive, nor an edit whose outcome is
    /// open, nor workers that took such an edit up.
    pub(super) fn is_gone(&self) -> bool {
        let kong = &self.observed.kong;
        let ours = self.observed.managed.contains(self.plugin);
        let runs = kong.loaded.as_ref().is_some_and(|l| l.contains_key(self.plugin.as_str()));
        let settled = kong.facts.old_workers == 0;
        !self.is_listed() && !(ours && (kong.unproven.contains(self.plugin.as_str()) || (runs && settled)))
    }

    /// The directive, on disk or armed, names the plugin.
    fn is_listed(&self) -> bool {
        let kong = &self.observed.kong;
        self.is_named_in(&kong.conf_plugins) || self.is_named_in(&kong.armed_plugins)
    }

    fn is_named_in(&self, list: &Option<Vec<String>>) -> bool {
        list.iter().flatten().any(|n| n == self.plugin.as_str())
    }

    /// Asked for by a cluster that was restored from a backup, and the node is otherwise: a person decides which is right.
    pub(super) fn is_held(&self) -> bool {
        let seen = self.observed;
        if seen.held.get(self.plugin) != Some(&self.spec.enabled) {
            return false;
        }
        let listed = match (seen.proven.listed.get(self.plugin), &self.spec.enabled) {
            (Some(listed), Some(enabled)) => listed.is(enabled),
            (listed, enabled) => listed.is_none() && enabled.is_none(),
        };
        let wanted: BTreeSet<Placement> = self.spec.staged.iter().map(ReleaseRef::placement).collect();
        let stored = seen.stored.get(self.plugin);
        !listed || stored.map_or(!wanted.is_empty(), |stored| *stored != wanted)
    }

    /// In the directive, but not by us.
    pub(super) fn is_foreign(&self) -> bool {
        !self.observed.managed.contains(self.plugin) && !self.spec.adopt && self.is_listed()
    }

    /// Files may go when nothing names or runs them: neither directive, nor proof, nor running workers of any age.
    fn delete(&self) -> Option<Action> {
        let keep: BTreeSet<_> = self.spec.staged.iter().map(ReleaseRef::placement).collect();
        let proven = self.observed.proven.listed.get(self.plugin).map(ReleaseRef::placement);
        let kong = &self.observed.kong;
        let old_workers = kong.facts.old_workers > 0 && !mutant::is("old-workers-ignored");
        if old_workers || self.attempts.is_pausing(self.plugin, self.spec.grant, self.now) {
            return None;
        }
        // What others listed is not loaded from files of ours: those were never linked.
        if self.spec.enabled.is_none() && !self.is_foreign() {
            // Nothing may go while the plugin could be loaded from anywhere.
            let running = kong.loaded.as_ref().is_none_or(|l| l.contains_key(self.plugin.as_str()));
            let unknown = kong.facts.state == KongState::Running && running;
            if self.is_listed() || unknown || proven.is_some() {
                return None;
            }
        } else if self.spec.enabled.is_some() && !self.is_as_wanted() {
            return None;
        }
        let stored = self.observed.stored.get(self.plugin)?;
        let placement = stored.iter().find(|p| !keep.contains(*p) && Some(*p) != proven.as_ref())?;
        Some(Action::Delete { plugin: self.plugin.clone(), placement: placement.clone() })
    }
}
