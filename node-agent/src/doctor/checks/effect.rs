//! Whether what kong.conf says is what runs, and where the rest comes from.

use std::collections::BTreeSet;

use crate::doctor::facts::expanded;
use crate::doctor::origin::{Difference, Origin, difference, origin};
use crate::doctor::{Facts, Finding, Repair};

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = refused(facts);
    let difference = difference(facts);
    found.extend(match origin(facts) {
        Origin::Conf => None,
        Origin::OtherConf(other) => Some(wrong(facts, &difference, other.as_deref())),
        Origin::Unloaded => Some(unloaded(facts, &difference)),
        Origin::Environment => environment(facts, &difference),
    });
    found.extend(leaked(facts));
    found.extend(waiting(facts));
    found
}

/// Values that Kong does not take at all.
fn refused(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(Err(failure)) = facts.rendered.as_ref().filter(|_| facts.conf().is_some()) {
        let injected = failure.message.contains("[emerg]") || failure.message.contains("unknown directive");
        let code = if injected && failure.code == "CONF_REFUSED" {
            "NGINX_DIRECTIVE_INVALID"
        } else {
            &failure.code
        };
        if !code.starts_with("KONG_") {
            found.push(
                Finding::error(code, format!("Kong refuses {}", facts.conf_path.display()))
                    .says(&failure.message)
                    .fix(format!("correct it there, then: {}", facts.load_command())),
            );
        }
    }
    let armed = facts.armed().and_then(|armed| armed.refused.as_ref());
    if let (Some(words), true) = (armed, facts.rendered().is_some()) {
        found.push(
            Finding::error(
                "NGINX_DIRECTIVE_INVALID",
                "the prepared configuration has a setting that Kong refuses and kong.conf does not have any more",
            )
            .says(words)
            .detail("`kong reload` keeps it, whether with `-c` or without, until the prefix is prepared anew")
            .fix(facts.load_command())
            .repair(Repair::Load),
        );
    }
    found
}

fn wrong(facts: &Facts, difference: &Difference, other: Option<&std::path::Path>) -> Finding {
    let path = facts.conf_path.display();
    let message = match other {
        Some(other) => {
            format!("Kong in {} runs with {}, not with {path}", facts.prefix.display(), other.display())
        }
        None => format!("Kong in {} was not prepared from {path}", facts.prefix.display()),
    };
    let finding = Finding::error("WRONG_CONF", message);
    let finding = match difference.keys() {
        keys if keys.is_empty() => finding.detail("its `prefix` is another one"),
        keys => finding.detail(format!("it says otherwise than what runs: {}", keys.join(", "))),
    };
    let load = facts.load_command();
    match other {
        Some(other) => finding.fix(format!(
            "kctl doctor --local --conf {}; or, if {path} is the right one: {load}",
            other.display()
        )),
        None => finding
            .fix(format!("name the file Kong was started with; or, if {path} is the right one: {load}")),
    }
    .repair_if_allowed(Repair::Load)
}

fn unloaded(facts: &Facts, difference: &Difference) -> Finding {
    let message = format!(
        "{} was edited and Kong has not read it since: {}",
        facts.conf_path.display(),
        difference.keys().join(", ")
    );
    let mut finding = Finding::warning("CONF_NOT_PREPARED", message)
        .detail("`kong reload` without `-c` does not read the file; the next restart does")
        .fix(facts.load_command());
    if let (Some(conf), Some(armed)) = (facts.conf(), facts.armed()) {
        let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let (written, armed) = (set(&conf.names), set(&armed.names));
        finding = listed(finding, "not loaded yet", written.difference(&armed));
        finding = listed(finding, "still loaded", armed.difference(&written));
    }
    let ours_only = difference.contradicted.is_empty();
    // A port or a database that changes on the way may be more than was meant.
    if ours_only { finding.repair(Repair::Load) } else { finding.repair_if_allowed(Repair::Load) }
}

fn listed<'a>(finding: Finding, what: &str, names: impl Iterator<Item = &'a String>) -> Finding {
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        return finding;
    }
    let names: Vec<&str> = names.into_iter().collect();
    finding.detail(format!("{what}: {}", names.join(", ")))
}

fn environment(facts: &Facts, difference: &Difference) -> Option<Finding> {
    if difference.plugins || difference.lua_path {
        let key = if difference.plugins { "KONG_PLUGINS" } else { "KONG_LUA_PACKAGE_PATH" };
        let (conf, armed) = (facts.conf()?, facts.armed()?);
        let mut finding = Finding::error(
            "ENV_OVERRIDES_CONF",
            format!("{key} in the environment that starts Kong wins over {}", facts.conf_path.display()),
        );
        if difference.plugins {
            finding = finding.detail(format!(
                "the file says `{} = {}`, and Kong has `{}`",
                facts.key(),
                conf.names.join(","),
                armed.names.join(",")
            ));
        }
        let seen = facts.environment.contains_key(key);
        let proof = if seen {
            "it is set where this command looked"
        } else {
            "neither the file nor Kong's defaults explain what runs"
        };
        return Some(finding.detail(format!("{proof}; editing the file has no effect")).fix(format!(
            "take {key} out of the container, unit or shell that starts Kong (or add the plugin to it), then restart Kong"
        )));
    }
    let keys = difference.contradicted.iter().cloned().collect::<Vec<_>>().join(", ");
    (!keys.is_empty()).then(|| {
        let message = format!("{} says otherwise than what runs: {keys}", facts.conf_path.display());
        Finding::warning("CONF_NOT_IN_EFFECT", message)
            .detail("the environment that starts Kong sets it")
            .fix("change it there, or take the line out of the file")
    })
}

fn leaked(facts: &Facts) -> Option<Finding> {
    let tail = facts.armed()?.leaked.join(";");
    if tail.is_empty() {
        return None;
    }
    if let Some((name, directory)) = only_there(facts, &tail) {
        let sentence = format!("{name} is found only through a LUA_PATH of whoever ran Kong's command last");
        return Some(
            Finding::error("LUA_PATH_LEAKED", sentence)
                .about(name)
                .detail(format!("its files are in {directory}, to which {tail} leads; the next command without it loses them"))
                .fix(format!(
                    "add {tail} to lua_package_path in {}, then without LUA_PATH: {}",
                    facts.conf_path.display(),
                    facts.load_command()
                )),
        );
    }
    Some(
        Finding::warning(
            "LUA_PATH_LEAKED",
            "a LUA_PATH of whoever ran Kong's command is part of Kong's Lua path",
        )
        .detail(format!("it adds {tail}; the next command without it loses it"))
        .fix(format!(
            "put what is needed of it into lua_package_path, then without LUA_PATH: {}",
            facts.load_command()
        ))
        .repair_if_allowed(Repair::Load),
    )
}

/// A plugin that the next start refuses for want of files that only the stray path leads to, and where they are.
fn only_there<'a>(facts: &'a Facts, tail: &str) -> Option<(&'a str, String)> {
    let refused = facts.refused.iter().flatten().filter(|r| r.failure.code == "NO_HANDLER");
    let file = |name: &str| facts.plugins.get(name)?.handlers.first().cloned();
    let roots: Vec<&str> = tail.split(';').filter_map(|e| e.split_once('?')).map(|(root, _)| root).collect();
    refused.filter_map(|r| r.plugin.as_deref()).find_map(|name| {
        let file = file(name)?;
        let through = roots.iter().any(|root| !root.is_empty() && file.starts_with(root));
        through.then(|| (name, file.parent().unwrap_or(&file).display().to_string()))
    })
}

/// Prepared, and the workers do not have it.
fn waiting(facts: &Facts) -> Option<Finding> {
    let (armed, root) = (facts.armed()?, facts.root());
    if !facts.is_running() || facts.log.refused.is_some() {
        return None;
    }
    let asked = root.and_then(|root| {
        let plugins = facts.told().map(|names| expanded(&names) != expanded(&armed.names));
        let path = root.lua_package_path.as_ref().map(|path| *path != armed.lua_path);
        plugins.or(path).map(|_| plugins == Some(true) || path == Some(true))
    });
    let differs = asked.unwrap_or(facts.processes.older_than_armed);
    if !differs {
        return None;
    }
    let mut finding = Finding::warning(
        "PREPARED_NOT_RELOADED",
        "the prefix was prepared with other plugins than Kong runs, and not reloaded",
    );
    if let Some(names) = facts.told() {
        finding = finding.detail(format!(
            "Kong runs `{}`, and the next reload loads `{}`",
            names.join(","),
            armed.names.join(",")
        ));
    }
    Some(finding.fix(facts.reload_command()).repair(Repair::Load))
}
