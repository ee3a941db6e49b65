//! What was looked at and is in order.
#![deny(clippy::disallowed_methods)]

use super::facts::State;
use super::{Facts, Finding};
use crate::gateway::admin_api::Readiness;

/// A sentence for each thing that is as it should be.
pub fn passed(facts: &Facts, findings: &[Finding]) -> Vec<String> {
    let none = |codes: &[&str]| findings.iter().all(|f| !codes.iter().any(|code| f.code.starts_with(code)));
    let mut passed = Vec::new();
    let mut say = |is: bool, sentence: String| passed.extend(is.then_some(sentence));
    if let Some(Ok(version)) = &facts.version {
        say(true, format!("Kong {version} can be run"));
    }
    let conf = facts.conf_path.display();
    let read = facts.rendered().is_some() && none(&["CONF_KEY_", "CONF_SECTION", "PLUGINS_", "UNMANAGED"]);
    say(read, format!("Kong reads {conf} as it is written"));
    let effect =
        ["WRONG_CONF", "ENV_OVERRIDES_", "CONF_NOT_", "PREPARED_NOT_", "LUA_PATH_LEAKED", "NGINX_DIRECTIVE_"];
    say(
        facts.armed().is_some() && facts.conf().is_some() && none(&effect),
        "what is prepared is what it says".into(),
    );
    if let (Some(refused), Some(conf)) = (&facts.refused, facts.conf()) {
        let count = conf.names.iter().filter(|name| *name != "bundled").count();
        say(
            refused.is_empty() && none(&["PLUGINS_EMPTY", "PLUGINS_OFF"]),
            format!("its list loads in a scratch Kong ({count} named beside the bundled ones)"),
        );
    }
    say(
        facts.in_use().is_some() && none(&["IN_USE", "STALE_ITERATOR"]),
        "everything in use is enabled".into(),
    );
    let files = ["FILES_", "LINK_", "NO_HANDLER", "NO_SCHEMA", "OLD_STYLE_"];
    say(
        !facts.plugins.is_empty() && none(&files),
        "the plugins' files are there once, and workers can read them".into(),
    );
    say(
        facts.database.used && none(&["DATABASE_", "MIGRATIONS_"]) && facts.refused.is_some(),
        "the database answers and has all migrations".into(),
    );
    let processes = &facts.processes;
    let sound = processes.state == State::Running
        && processes.serving > 0
        && none(&["RELOAD_NOT_", "INIT_WORKER_", "OLD_WORKERS", "ORPHAN"]);
    say(sound, format!("Kong runs with {} workers of one configuration", processes.serving));
    say(facts.root().is_some(), "the Admin API answers".into());
    say(facts.api.readiness == Some(Readiness::Ready), "Kong says it is ready".into());
    let empty =
        matches!(&facts.api.readiness, Some(Readiness::NotReady(why)) if why.contains("no configuration"));
    say(empty, "Kong waits for its first configuration".into());
    passed
}
