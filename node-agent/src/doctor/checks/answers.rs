//! What the running Kong says, in its APIs and its log.

use crate::doctor::{Facts, Finding, Repair};
use crate::gateway::admin_api::Readiness;
use crate::gateway::words;

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if !facts.is_running() {
        return found;
    }
    found.extend(reload(facts));
    found.extend(workers(facts));
    found.extend(stale(facts));
    found.extend(admin(facts));
    found.extend(ready(facts));
    found
}

fn reload(facts: &Facts) -> Option<Finding> {
    let words = facts.log.refused.as_ref().or(facts.log.emergency.as_ref())?;
    let code = words::load_failure_code(words, "RELOAD_NOT_TAKEN");
    let mut finding =
        Finding::error("RELOAD_NOT_TAKEN", "the last reload was thrown away; Kong goes on with what it had")
            .says(words)
            .fix(format!("mend the cause, then: {}", facts.load_command()))
            .repair(Repair::Load);
    if code != "RELOAD_NOT_TAKEN" {
        finding = finding.detail(format!("its reason is {code}"));
    }
    Some(finding)
}

fn workers(facts: &Facts) -> Option<Finding> {
    let words = facts.log.worker_init.as_ref()?;
    if words.contains("is in use but not enabled") {
        let name = crate::doctor::gather::subject(words);
        let finding = Finding::error(
            "IN_USE_NOT_ENABLED",
            "a plugin is in use but not enabled, and every worker came up crippled",
        );
        let finding = match &name {
            Some(name) => finding.about(name),
            None => finding,
        };
        return Some(
            finding
                .says(words)
                .fix(format!(
                    "add it to `{}` in {}, then: {}",
                    facts.key(),
                    facts.conf_path.display(),
                    facts.load_command()
                ))
                .repair(match name {
                    Some(name) => Repair::List { add: vec![name], remove: Vec::new() },
                    None => Repair::Load,
                }),
        );
    }
    let finding =
        Finding::error("INIT_WORKER_FAILED", "the workers came up crippled: init_worker of a plugin failed")
            .says(words)
            .fix(format!("mend the plugin Kong names and reload, or take it out of `{}`", facts.key()));
    let finding = if loads_now(facts) { finding.repair(Repair::Load) } else { finding };
    Some(match crate::doctor::gather::subject(words) {
        Some(name) => finding.about(name),
        None => finding,
    })
}

/// What is on the disk by now is fine: it only has to be loaded.
fn loads_now(facts: &Facts) -> bool {
    facts.refused.as_ref().is_some_and(Vec::is_empty)
}

/// Nothing that is changed in Kong reaches this node's requests any more.
fn stale(facts: &Facts) -> Option<Finding> {
    let root = facts.root();
    let missing: Vec<&str> = root.map_or_else(Vec::new, |root| {
        root.enabled.iter().filter(|name| !root.available.contains_key(*name)).map(String::as_str).collect()
    });
    if missing.is_empty() && (facts.log.stale.is_none() || root.is_some()) {
        return None;
    }
    let what = if missing.is_empty() { "a plugin".to_owned() } else { missing.join(", ") };
    let finding = Finding::error(
        "STALE_ITERATOR",
        format!("this node takes no plugin change of any kind: {what} is in use and not loaded here"),
    )
    .says(facts.log.stale.clone().unwrap_or_default())
    .detail("what is configured in Kong from now on, for any plugin, is not enforced on this node")
    .fix(format!("enable {what} on this node, or delete the configurations that use it"));
    let listed = |name: &&str| facts.conf().is_some_and(|conf| conf.names.iter().any(|n| n == name));
    let finding =
        if loads_now(facts) && missing.iter().all(listed) { finding.repair(Repair::Load) } else { finding };
    Some(match missing.as_slice() {
        [one] => finding.about(*one),
        _ => finding,
    })
}

fn admin(facts: &Facts) -> Option<Finding> {
    let failure = facts.api.root.as_ref()?.as_ref().err()?;
    let mut finding = match failure.code.as_str() {
        "ADMIN_API_BROKEN" => {
            Finding::error(&failure.code, "the whole Admin API answers with an internal error").fix(format!(
                "mend the api.lua that Kong names and reload, or take the plugin out of `{}`",
                facts.key()
            ))
        }
        "ADMIN_API_REFUSED" => {
            Finding::warning(&failure.code, "the Admin API asks for credentials; much could not be looked at")
                .fix("give the node a listener on loopback without them")
        }
        _ => Finding::error(&failure.code, &failure.message)
            .fix("compare admin_listen with what is open: ss -ltnp"),
    };
    if failure.code == "ADMIN_API_BROKEN" {
        let words = facts.log.runtime.clone().unwrap_or_else(|| failure.message.clone());
        let tried = facts.refused.iter().flatten().find(|refused| refused.failure.code == failure.code);
        let name = tried.and_then(|refused| refused.plugin.clone());
        if let Some(name) = name.or_else(|| crate::doctor::gather::subject(&words)) {
            finding = finding.about(name);
        }
        finding = finding.says(words);
        if loads_now(facts) {
            finding = finding.repair(Repair::Load);
        }
    }
    Some(finding)
}

fn ready(facts: &Facts) -> Option<Finding> {
    let Some(Readiness::NotReady(reason)) = &facts.api.readiness else { return None };
    if reason.contains("draining") {
        return Some(
            Finding::warning("DRAINING", "the node is draining: load balancers that ask it send it nothing")
                .fix(format!("when that is over: {}", facts.reload_command()))
                .repair_if_allowed(Repair::Load),
        );
    }
    // A node without a database that was given nothing yet is as it should be.
    if reason.contains("no configuration available") {
        return None;
    }
    Some(
        Finding::error(
            "NOT_READY",
            "Kong says it is not ready, so load balancers that ask it send it nothing",
        )
        .says(reason)
        .detail("after a refused reload it stays so until a good one")
        .fix(format!("mend the cause, then: {}", facts.load_command()))
        .repair(Repair::Load),
    )
}
