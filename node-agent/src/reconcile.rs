//! What the agent does next: a pure function of what the node should be and what it is.
//!
//! Level-triggered: no memory of how the node came to be as it is. The shell executes the first action, observes, and
//! asks again.
#![deny(clippy::disallowed_methods)]

mod round;

use std::collections::{BTreeMap, BTreeSet};

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
use round::{Next, Round};

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
    let rounds = spec.plugins.iter();
    let rounds: Vec<_> =
        rounds.map(|(plugin, spec)| Round { plugin, spec, observed, attempts, now }).collect();
    let mut actions = Vec::new();
    let mut turns = Vec::new();
    for round in &rounds {
        match round.next() {
            Some(Next::Now(action)) => actions.push(*action),
            Some(Next::Turn) => turns.push(round),
            None => {}
        }
    }
    match enact(&turns, &rounds, observed, now) {
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

/// One reload for all whose turn it is. Plugins that failed together go one by one; but Kong takes no list that lacks one
/// in use, so that several that are in use go together always, even those that were to wait a moment longer.
fn enact(turns: &[&Round<'_>], rounds: &[Round<'_>], observed: &Observed, now: Timestamp) -> Option<Action> {
    let too_soon = observed.last_reload.is_some_and(|at| now.since(at) < observed.policy.reload_interval_ms);
    if too_soon || turns.is_empty() {
        return None;
    }
    let missing = || rounds.iter().filter(|r| r.is_missed());
    let alone = || turns.iter().filter(|t| t.attempts.must_go_alone(t.plugin, t.spec.grant));
    let together: Vec<&Round<'_>> = match alone().find(|t| t.is_missed()).or_else(|| alone().next()) {
        Some(one) if one.is_missed() => missing().collect(),
        Some(one) => vec![one],
        None => turns.iter().copied().chain(missing()).collect(),
    };
    let mut wanted = observed.proven.clone();
    wanted.generation = None;
    together.iter().for_each(|turn| turn.change(&mut wanted, turn.spec.enabled.as_ref()));
    let plugins = together.iter().map(|t| (t.plugin.clone(), t.spec.grant)).collect();
    Some(Action::Enact { plugins, wanted })
}

/// How thorough a preflight the spec asks for.
pub fn how(spec: &PluginSpec) -> Preflight {
    if spec.boot { Preflight::Boot } else { Preflight::Parse }
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
