//! What the agent tells: only what was observed or proven.

use std::collections::BTreeSet;
use std::sync::Arc;

use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{
    Failure, KongState, NodeSpec, NodeStatus, PluginSpec, PluginStatus, ReleaseRef, Stage, StepWord,
};

use crate::attempts::Attempts;
use crate::doctor::conditions;
use crate::ledger::Traffic;
use crate::reconcile::{self, Observed};

/// The report for `spec`; `doing` is what is being done at the moment, and to which plugins.
pub fn compose(
    spec: Option<&NodeSpec>,
    observed: &Observed,
    attempts: &Attempts,
    doing: Option<(&[PluginName], StepWord)>,
) -> NodeStatus {
    let mut status = NodeStatus { kong: observed.kong.facts.clone(), ..NodeStatus::default() };
    status.conditions.extend(observed.kong.trouble.clone());
    status.conditions.extend(observed.notices.iter().cloned());
    // What is being worked on is not at rest, and would only flicker.
    if doing.is_none() {
        for condition in conditions::of(&observed.kong) {
            if status.conditions.iter().all(|c| c.code != condition.code) {
                status.conditions.push(condition);
            }
        }
    }
    status.conditions.extend(observed.kong.limits.iter().cloned());
    status.conditions.extend(drift(observed));
    status.found.clone_from(&observed.found);
    if observed.put_back_due {
        status.conditions.push(Failure::new("PUT_BACK_DUE", "the former configuration is being put back"));
    }
    status.drained = observed.traffic != Traffic::In;
    status.conditions.extend(observed.hook_failure.clone());
    let Some(spec) = spec else { return status };
    if spec.hold.is_some_and(|h| h.drain) && !observed.policy.drains {
        let message = "this node has no commands for draining: [hooks] in its agent's configuration";
        status.conditions.push(Failure::new("NO_DRAIN_HOOK", message));
    }
    status.conditions.extend(missing(spec, observed));
    status.observed_generation = spec.generation;
    status.spec_hash = spec.hash();
    let foreign: BTreeSet<_> = reconcile::foreign(spec, observed).collect();
    let held: BTreeSet<_> = reconcile::held(spec, observed).collect();
    for (plugin, wanted) in &spec.plugins {
        let mut answer = plugin_status(plugin, wanted, observed, attempts);
        if let Some((_, word)) = doing.filter(|(p, _)| p.contains(plugin)) {
            answer.word = word;
            answer.waiting = None;
        } else if foreign.contains(plugin) {
            let message = format!("{plugin} stands in this node's `plugins` and was not put there by kctl");
            answer.failure = Some(Failure::new("PLUGIN_NOT_OURS", message));
            answer.word = StepWord::Failed;
        } else if wanted.operation.is_empty() && held.contains(plugin) {
            let message = format!(
                "{plugin} is not on this node as the restored control plane has it; it stays as it is until somebody decides"
            );
            answer.waiting = Some(Failure::new("HELD_AFTER_RESTORE", message));
            answer.word = StepWord::Held;
        }
        Arc::make_mut(&mut status.plugins).insert(plugin.clone(), answer);
    }
    status
}

/// What plugins need of nginx, that kctl was not asked to set and the node's owner did not. Whether Kong loads them all
/// the same is for the preflight to find.
fn missing(spec: &NodeSpec, observed: &Observed) -> impl Iterator<Item = Failure> {
    // Where Kong is started may say it too.
    let kong = &observed.kong;
    let nginx = kong.conf_nginx.as_ref().map(|conf| conf | &kong.armed_nginx);
    spec.plugins.iter().filter_map(move |(plugin, spec)| {
        let release = spec.preflight.as_ref().or(spec.enabled.as_ref()).filter(|r| !r.set_nginx)?;
        let lacks: Vec<String> = release.nginx.difference(nginx.as_ref()?).map(ToString::to_string).collect();
        let message = format!("{plugin} needs what nginx is not given: {}", lacks.join(", "));
        (!lacks.is_empty()).then(|| Failure::new("NGINX_MISSING", message))
    })
}

/// What others did to files and directives of ours.
fn drift(observed: &Observed) -> impl Iterator<Item = Failure> {
    let then = if observed.policy.heal { "it is made good" } else { "it is left so (drift = \"report\")" };
    let undone = reconcile::undone(observed).map(move |plugin| {
        let message = format!("kong.conf was edited so that its next reload drops {plugin}; {then}");
        Failure::new("DRIFT_CONF", message)
    });
    let damaged = observed.damaged.iter().flat_map(|(p, all)| all.iter().map(move |d| (p, d)));
    let damaged = damaged.map(move |(plugin, placement)| {
        let then =
            if let Method::Path { .. } = placement.method { "they are not kctl's to change" } else { then };
        let digest = placement.digest.short();
        Failure::new("DRIFT_FILES", format!("files of {plugin} ({digest}) were changed on this node; {then}"))
    });
    let tainted = observed.tainted.iter().map(|plugin| {
        let message = format!("files of {plugin} were changed on this node and made good; a reload follows");
        Failure::new("DRIFT_FILES", message)
    });
    undone.chain(damaged).chain(tainted)
}

fn plugin_status(
    plugin: &PluginName,
    wanted: &PluginSpec,
    observed: &Observed,
    attempts: &Attempts,
) -> PluginStatus {
    let kong = &observed.kong;
    let running = kong.facts.state == KongState::Running;
    // What is listed is as good as loaded: the next reload brings it in, and one may be under way.
    let coming =
        wanted.enabled.is_none() && (observed.put_back_due || !reconcile::is_gone(plugin, wanted, observed));
    let seen = coming || kong.loaded.as_ref().is_some_and(|l| l.contains_key(plugin.as_str()));
    // What was proven last counts as loaded until Kong itself says otherwise.
    let proven = observed.proven.listed.get(plugin).filter(|_| !running || seen || kong.loaded.is_none());
    let stored = observed.stored.get(plugin);
    let known = wanted.staged.iter().chain(&wanted.enabled).chain(observed.proven.listed.get(plugin));
    let mut staged: BTreeSet<ReleaseRef> =
        known.filter(|r| stored.is_some_and(|s| s.contains(&r.placement()))).cloned().collect();
    for placement in stored.into_iter().flatten() {
        if staged.iter().all(|r| r.placement() != *placement) {
            staged.insert(ReleaseRef::new("", placement.digest).by(placement.method.clone()));
        }
    }
    let stage = match (proven, staged.is_empty()) {
        (Some(_), _) => Stage::Enabled,
        (None, false) => Stage::Installed,
        // Not ours to have proven, but there.
        (None, true) if running && seen => Stage::Installed,
        (None, true) => Stage::Absent,
    };
    let failure = attempts.failure(plugin, wanted.grant).cloned();
    let mut waiting = attempts.waiting(plugin, wanted.grant).cloned();
    let as_wanted = match (proven, &wanted.enabled) {
        (Some(proven), Some(enabled)) => proven.is(enabled),
        (proven, enabled) => proven.is_none() && enabled.is_none(),
    };
    if as_wanted
        && staged.iter().map(ReleaseRef::placement).eq(wanted.staged.iter().map(ReleaseRef::placement))
    {
        // Whatever was in the way, nothing is left to do.
        waiting = None;
    }
    if !as_wanted && failure.is_none() {
        match kong.facts.state {
            KongState::Down => waiting = Some(Failure::new("KONG_DOWN", "Kong is not running")),
            KongState::Stopped => {
                waiting = Some(Failure::new("KONG_STOPPED", "Kong's master process is stopped"))
            }
            KongState::Running | KongState::Unknown => {}
        }
    }
    let word = match (&failure, stage) {
        (Some(_), _) => StepWord::Failed,
        (None, Stage::Enabled) if as_wanted => StepWord::Healthy,
        (None, Stage::Absent) if wanted.staged.is_empty() => StepWord::Absent,
        (None, Stage::Installed) if as_wanted => StepWord::Staged,
        _ => StepWord::Pending,
    };
    let drifted = observed.damaged.contains_key(plugin) || reconcile::undone(observed).any(|p| p == plugin);
    let word = if word == StepWord::Healthy && drifted { StepWord::Drifted } else { word };
    PluginStatus {
        grant: wanted.grant,
        stage,
        // A plugin that Kong runs although it was not proven must not count as gone either.
        loaded: proven
            .cloned()
            .or_else(|| (running && seen && wanted.enabled.is_none()).then(|| unknown(wanted)).flatten()),
        staged,
        preflighted: wanted
            .preflight
            .as_ref()
            .filter(|p| attempts.has_passed(plugin, Some(p), reconcile::how(wanted)))
            .cloned(),
        word,
        failure,
        waiting,
        old_workers: kong.facts.old_workers,
    }
}

fn unknown(wanted: &PluginSpec) -> Option<ReleaseRef> {
    wanted.staged.iter().next().cloned()
}
