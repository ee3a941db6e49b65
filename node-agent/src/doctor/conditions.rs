//! The part of the diagnosis that costs nothing: made of what the agent observes anyway.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

use kctl_shared::spec::{Failure, KongState};

use super::facts::expanded;
use crate::gateway::KongObserved;

/// What a person should know of a node at rest; the same codes as [`super::diagnose`].
pub fn of(kong: &KongObserved) -> Vec<Failure> {
    let mut found = Vec::new();
    let mut say = |code: &str, message: String| found.push(Failure::new(code, message));
    let running = kong.facts.state == KongState::Running;
    match kong.facts.state {
        KongState::Down => say("KONG_DOWN", "no Kong runs on this node".into()),
        KongState::Stopped => say("KONG_STOPPED", "Kong's master is held (SIGSTOP or a debugger)".into()),
        KongState::Running | KongState::Unknown => {}
    }
    let written = kong.conf_plugins.as_deref().map(expanded);
    let armed = kong.armed_plugins.as_deref().map(expanded);
    let came = |name: &&String| {
        let bundled = kong.conf_plugins.iter().flatten().any(|n| n == "bundled");
        bundled
            && kong.loaded.as_ref().is_some_and(|l| l.contains_key(*name))
            && !armed.as_ref().is_some_and(|a| a.contains(*name))
    };
    if let (Some(used), Some(written)) = (&kong.enabled_in_cluster, &written) {
        let missing: Vec<&str> = used.difference(written).filter(|n| !came(n)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!(
                "{} is in use but not enabled in kong.conf: Kong will not start after the next restart",
                missing.join(", ")
            );
            say("IN_USE_NOT_ENABLED", message);
        }
    }
    if let (Some(used), Some(loaded)) = (&kong.enabled_in_cluster, &kong.loaded) {
        let missing: Vec<&str> =
            used.iter().filter(|n| !loaded.contains_key(*n)).map(String::as_str).collect();
        if !missing.is_empty() {
            let message = format!(
                "{} is in use and not loaded: this node takes no plugin change of any kind",
                missing.join(", ")
            );
            say("STALE_ITERATOR", message);
        }
    }
    if let (Some(written), Some(armed)) = (&written, &armed) {
        let names: BTreeSet<&String> = written.symmetric_difference(armed).collect();
        if !names.is_empty() {
            let names = names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            say("CONF_NOT_IN_EFFECT", format!("kong.conf and what the next reload loads differ in: {names}"));
        }
    }
    if running && !kong.facts.ready {
        say("NOT_READY", "Kong says it is not ready, or nothing of it answers".into());
    }
    found
}
