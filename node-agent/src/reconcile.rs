//! What the agent does next: a pure function of what the node should be and what it is.
//!
//! Level-triggered: no memory of how the node came to be as it is. The shell executes the first action, observes, and
//! asks again.
#![deny(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::method::Method;
use kctl_shared::mutant;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{
    Failure, FoundPlugin, Grant, KongState, NodeSpec, Placement, PluginSpec, ReleaseRef,
};
use kctl_shared::time::Timestamp;

use crate::action::Action;
use crate::attempts::Attempts;
use crate::config::Preflight;
use crate::gateway::{KongObserved, Wanted};
use crate::ledger::Traffic;

/// The node as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub kong: KongObserved,
    /// Releases that are on the node, each with the method that placed it; re-hashed after they were synced.
    pub stored: BTreeMap<PluginName, BTreeSet<Placement>>,
    /// What was last proven, and put back when something else could not be.
    pub proven: Wanted,
    /// The running Kong is still as `proven` says.
    pub proof_holds: bool,
    /// A reload was not proven and its undoing has not succeeded yet.
    pub put_back_due: bool,
    /// Plugins this agent has ever listed; anything else in the directive is not ours to change.
    pub managed: BTreeSet<PluginName>,
    /// Generation directories on disk that neither the conf, nor the armed configuration, nor a proof names.
    pub idle_generations: bool,
    /// What the agent left behind because it was not its own.
    pub notices: Vec<Failure>,
    /// Placements whose files are not those of the release any more.
    pub damaged: BTreeMap<PluginName, BTreeSet<Placement>>,
    /// Files of these were changed by others and are made good; what Kong loaded meanwhile nobody knows.
    pub tainted: BTreeSet<PluginName>,
    pub last_reload: Option<Timestamp>,
    /// What is listed or loaded and was put there by others.
    pub found: Vec<FoundPlugin>,
    pub policy: Policy,
    pub traffic: Traffic,
    /// A hook failed a moment ago and why: it rests before it is run again.
    pub hook_failure: Option<Failure>,
    /// What a restored cluster had enabled, see the ledger's.
    pub held: BTreeMap<PluginName, Option<ReleaseRef>>,
}

/// What a node's own configuration says about how its agent goes to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Milliseconds from one reload to the next; putting back does not wait.
    pub reload_interval_ms: u64,
    /// Make good what others changed in files and directives of ours, or only tell of it.
    pub heal: bool,
    /// The node's owner has commands that take it out of a load balancer and bring it back.
    pub drains: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { reload_interval_ms: 0, heal: true, drains: false }
    }
}

pub fn reconcile(spec: &NodeSpec, observed: &Observed, attempts: &Attempts, now: Timestamp) -> Vec<Action> {
    if observed.put_back_due {
        return vec![Action::PutBack];
    }
    if let Some(hold) = &spec.hold {
        return drain(observed, hold.drain, None).into_iter().collect();
    }
    let mut actions = Vec::new();
    let mut turns = Vec::new();
    for (plugin, wanted) in &spec.plugins {
        let round = Round { plugin, spec: wanted, observed, attempts, now };
        match round.next() {
            Some(Next::Now(action)) => actions.push(*action),
            Some(Next::Turn) => turns.push(round),
            None => {}
        }
    }
    match enact(&turns, observed, now) {
        Some(Action::Enact { plugins, wanted }) => {
            let drained = drain(observed, true, Some(&plugins));
            let ready = observed.traffic == Traffic::Out || !observed.policy.drains;
            actions.extend(if ready { Some(Action::Enact { plugins, wanted }) } else { drained });
        }
        // Whoever else waits for a reload has it before the node is brought in again.
        _ if turns.is_empty() => actions.extend(drain(observed, false, None)),
        _ => {}
    }
    if actions.is_empty() && observed.idle_generations && observed.kong.facts.old_workers == 0 {
        actions.push(Action::CollectGenerations);
    }
    // Cheap and harmless things first, so that a reload in progress holds up as little as possible.
    actions.sort_by_key(|a| match a {
        Action::PutBack => 0,
        Action::Fetch { .. } => 1,
        Action::Preflight { .. } => 2,
        Action::Drain { .. } | Action::Enact { .. } => 3,
        Action::Undrain => 4,
        Action::Delete { .. } => 5,
        Action::CollectGenerations => 6,
    });
    actions
}

/// Out of the load balancer, or back in once Kong serves; nothing where nobody said how.
fn drain(observed: &Observed, out: bool, plugins: Option<&BTreeMap<PluginName, Grant>>) -> Option<Action> {
    let wanted = if out { Traffic::Out } else { Traffic::In };
    if !observed.policy.drains || observed.traffic == wanted || observed.hook_failure.is_some() {
        return None;
    }
    if out {
        return Some(Action::Drain { plugins: plugins.cloned().unwrap_or_default() });
    }
    let kong = &observed.kong.facts;
    let serves = kong.state == KongState::Running && (kong.ready || !kong.has_admin_api);
    serves.then_some(Action::Undrain)
}

/// One reload for all whose turn it is; a plugin that failed together with others gets one of its own.
fn enact(turns: &[Round<'_>], observed: &Observed, now: Timestamp) -> Option<Action> {
    let too_soon = observed.last_reload.is_some_and(|at| now.since(at) < observed.policy.reload_interval_ms);
    if too_soon {
        return None;
    }
    let alone = turns.iter().find(|t| t.attempts.must_go_alone(t.plugin, t.spec.grant));
    let together = alone.map_or(turns, std::slice::from_ref);
    let mut wanted = observed.proven.clone();
    wanted.generation = None;
    together.iter().for_each(|turn| turn.change(&mut wanted, turn.spec.enabled.as_ref()));
    let plugins: BTreeMap<_, _> = together.iter().map(|t| (t.plugin.clone(), t.spec.grant)).collect();
    (!plugins.is_empty()).then_some(Action::Enact { plugins, wanted })
}

/// The next step for one plugin.
enum Next {
    Now(Box<Action>),
    /// Everything is prepared; what is missing is a reload.
    Turn,
}

impl Next {
    fn now(action: Action) -> Self {
        Self::Now(Box::new(action))
    }
}

/// How thorough a preflight the spec asks for.
pub fn how(spec: &PluginSpec) -> Preflight {
    if spec.boot { Preflight::Boot } else { Preflight::Parse }
}

struct Round<'a> {
    plugin: &'a PluginName,
    spec: &'a PluginSpec,
    observed: &'a Observed,
    attempts: &'a Attempts,
    now: Timestamp,
}

impl Round<'_> {
    fn next(&self) -> Option<Next> {
        if self.is_held() {
            // An operation may get ready for something else; what it finds stays.
            return if self.spec.operation.is_empty() { None } else { self.prepare() };
        }
        self.towards().or_else(|| self.delete().map(Next::now))
    }

    /// The next step towards what should be there and listed.
    fn towards(&self) -> Option<Next> {
        if !self.attempts.may_try(self.plugin, self.spec.grant, self.now) {
            return None;
        }
        self.prepare().or_else(|| self.list())
    }

    /// Files, and the preflight that is asked for.
    fn prepare(&self) -> Option<Next> {
        let (plugin, grant) = (self.plugin, self.spec.grant);
        if !self.attempts.may_try(plugin, grant, self.now) {
            return None;
        }
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

    fn change(&self, wanted: &mut Wanted, release: Option<&ReleaseRef>) {
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
    fn is_gone(&self) -> bool {
        let kong = &self.observed.kong;
        let ours = self.observed.managed.contains(self.plugin);
        let runs = kong.loaded.as_ref().is_some_and(|l| l.contains_key(self.plugin.as_str()));
        let settled = kong.facts.old_workers == 0;
        !self.is_listed() && !(ours && (kong.unproven.contains(self.plugin.as_str()) || (runs && settled)))
    }

    /// The directive, on disk or armed, names the plugin.
    fn is_listed(&self) -> bool {
        let kong = &self.observed.kong;
        let names = |list: &Option<Vec<String>>| list.iter().flatten().any(|n| n == self.plugin.as_str());
        names(&kong.conf_plugins) || names(&kong.armed_plugins)
    }

    /// Asked for by a cluster that was restored from a backup, and the node is otherwise: a person decides which is right.
    fn is_held(&self) -> bool {
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
    pub(crate) fn is_foreign(&self) -> bool {
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

/// Plugins that were proven, and that somebody took out of kong.conf since, or what they need of nginx: the next reload
/// would drop them.
pub fn undone(observed: &Observed) -> impl Iterator<Item = &PluginName> {
    let kong = &observed.kong;
    let moved = kong.conf_generation != observed.proven.generation;
    let listed = |plugin: &PluginName| {
        kong.conf_plugins.as_ref().is_none_or(|names| names.iter().any(|n| n == plugin.as_str()))
    };
    let given = |release: &ReleaseRef| {
        kong.conf_nginx.as_ref().is_none_or(|nginx| release.sets().all(|s| nginx.contains(s)))
    };
    let readable = kong.conf_plugins.is_some();
    let proven = observed.proven.listed.iter();
    proven
        .filter(move |(plugin, release)| readable && (moved || !listed(plugin) || !given(release)))
        .map(|(plugin, _)| plugin)
}

/// Whether nothing of the plugin is listed or under way on the node, as far as it is the agent's.
pub fn is_gone(plugin: &PluginName, spec: &PluginSpec, observed: &Observed) -> bool {
    let attempts = Attempts::default();
    let round = Round { plugin, spec, observed, attempts: &attempts, now: Timestamp(0) };
    round.is_foreign() || round.is_gone()
}

/// Plugins of the spec that stand in the directive although this agent never put them there.
pub fn foreign<'a>(spec: &'a NodeSpec, observed: &'a Observed) -> impl Iterator<Item = &'a PluginName> {
    those(spec, observed, |round| round.is_foreign())
}

/// Plugins that stay as they are because the spec for them dates from before this node went over to this cluster.
pub fn held<'a>(spec: &'a NodeSpec, observed: &'a Observed) -> impl Iterator<Item = &'a PluginName> {
    those(spec, observed, |round| round.is_held())
}

fn those<'a>(
    spec: &'a NodeSpec,
    observed: &'a Observed,
    which: fn(&Round<'_>) -> bool,
) -> impl Iterator<Item = &'a PluginName> {
    let fits = move |(plugin, spec): &(&PluginName, &PluginSpec)| {
        let attempts = Attempts::default();
        which(&Round { plugin, spec, observed, attempts: &attempts, now: Timestamp(0) })
    };
    spec.plugins.iter().filter(fits).map(|(plugin, _)| plugin)
}
