//! Whether the list in kong.conf loads, and has everything in it that is in use: would the node survive a restart?

use std::collections::BTreeSet;

use crate::doctor::facts::{Refused, expanded};
use crate::doctor::origin::{Origin, origin};
use crate::doctor::{Facts, Finding, Repair, Severity};

pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        facts.refused.iter().flatten().map(|refused| plugin(facts, refused)).collect();
    if facts.refused.is_none() {
        found.extend(missing(facts));
    }
    found.extend(in_use(facts));
    found.extend(declarative(facts));
    let fatal = found.iter().any(|f| f.severity == Severity::Error);
    if fatal && facts.is_running() {
        found.push(
            Finding::error(
                "RESTART_WOULD_FAIL",
                "Kong runs, and would NOT come up again after a restart of this node",
            )
            .detail("what runs was loaded before this broke; a reload is thrown away")
            .fix("mend the cause before anybody restarts Kong"),
        );
    }
    found
}

/// The names that the next start loads.
fn listed(facts: &Facts) -> Option<BTreeSet<String>> {
    let conf = facts.conf().filter(|conf| conf.unmanaged.is_none());
    match (origin(facts), conf, facts.armed()) {
        (Origin::Environment | Origin::OtherConf(_), _, Some(armed)) => Some(expanded(&armed.names)),
        (_, Some(conf), _) => Some(expanded(&conf.names)),
        (_, None, armed) => armed.map(|armed| expanded(&armed.names)),
    }
}

fn plugin(facts: &Facts, refused: &Refused) -> Finding {
    let failure = &refused.failure;
    let name = refused.plugin.as_deref();
    let shown = name.unwrap_or("a plugin");
    let files = name.and_then(|name| facts.plugins.get(name));
    let message = match failure.code.as_str() {
        "NO_HANDLER" => format!("{shown} is enabled but not installed"),
        "NO_SCHEMA" => format!("no configuration schema found for {shown}"),
        "PLUGIN_SYNTAX_ERROR" => format!("a Lua file of {shown} does not compile"),
        "MISSING_DEPENDENCY" => format!("{shown} requires a module that is not on this node"),
        "BAD_SCHEMA" => format!("the schema of {shown} is refused"),
        "BAD_PRIORITY" => format!("the PRIORITY of {shown} is not a whole number"),
        "BAD_VERSION" => format!("the VERSION of {shown} is not of the form x.y.z"),
        "INIT_WORKER_FAILED" => format!("init_worker of {shown} fails"),
        "ADMIN_API_BROKEN" => format!("api.lua of {shown} fails, and the whole Admin API with it"),
        _ => "the list of plugins does not load".to_owned(),
    };
    let mut finding = Finding::error(&failure.code, message).says(&failure.message);
    if let Some(name) = name {
        finding = finding.about(name);
    }
    if let (Some(file), true) = (files.and_then(|f| f.handlers.first()), failure.code != "NO_HANDLER") {
        finding = finding.detail(format!("its files: {}", file.parent().unwrap_or(file).display()));
    }
    if failure.code == "NO_HANDLER" && files.is_some_and(|f| !f.schemas.is_empty()) {
        finding = finding.detail("schema.lua is there, handler.lua is not");
    }
    if survives(facts, &failure.code) {
        finding.severity = Severity::Warning;
        finding = finding
            .detail("the running Kong has it and is fine; it failed in a scratch Kong without a database");
    }
    let (key, conf) = (facts.key(), facts.conf_path.display());
    finding = finding.fix(match failure.code.as_str() {
        "NO_HANDLER" => {
            format!("install {shown}, or take it out of `{key}` in {conf}")
        }
        "NO_SCHEMA" => format!("add schema.lua beside its handler.lua, or take {shown} out of `{key}`"),
        "MISSING_DEPENDENCY" => {
            "install the module on this node (or correct lua_package_path), then reload".to_owned()
        }
        _ => {
            format!("mend what Kong names, or take {shown} out of `{key}` in {conf}")
        }
    });
    match name {
        Some(name) => dropped(facts, finding, name),
        None => finding,
    }
}

/// `init_worker` may need the database that a scratch Kong does not have.
fn survives(facts: &Facts, code: &str) -> bool {
    matches!(code, "INIT_WORKER_FAILED" | "ADMIN_API_BROKEN")
        && facts.database.used
        && facts.is_running()
        && facts.root().is_some()
        && facts.log.worker_init.is_none()
        && origin(facts) == Origin::Conf
}

/// Taking the name out of the list is a way, unless something uses the plugin or nobody knows.
fn dropped(facts: &Facts, finding: Finding, name: &str) -> Finding {
    if finding.severity == Severity::Warning {
        return finding;
    }
    let by_conf = facts.conf().is_some_and(|conf| conf.names.iter().any(|n| n == name));
    match facts.in_use() {
        _ if !by_conf => finding,
        Some(used) if used.contains(name) => {
            finding.detail(format!("{name} is in use: without it in the list Kong would not start either"))
        }
        None if facts.database.used => finding.detail("whether it is in use could not be asked"),
        used => {
            let repair = Repair::List { add: Vec::new(), remove: vec![name.to_owned()] };
            // What workers still run would be taken from them, unless they are crippled; and what cannot be asked may be
            // in use.
            let serves = facts.is_loaded(name) && facts.log.worker_init.is_none();
            let unknown = used.is_none() && facts.is_running();
            if serves || unknown { finding.repair_if_allowed(repair) } else { finding.repair(repair) }
        }
    }
}

/// What files alone tell, when no Kong could be asked.
fn missing(facts: &Facts) -> Vec<Finding> {
    let Some(listed) = listed(facts) else { return Vec::new() };
    let absent = |(name, _): &(&String, _)| listed.contains(*name);
    let files =
        facts.plugins.iter().filter(absent).filter(|(_, f)| f.closed.is_empty() && f.dangling.is_empty());
    files
        .filter_map(|(name, files)| match (files.handlers.first(), files.schemas.first()) {
            (None, _) => Some(("NO_HANDLER", name, format!("{name} is enabled but not installed"))),
            (_, None) => Some(("NO_SCHEMA", name, format!("no configuration schema found for {name}"))),
            _ => None,
        })
        .map(|(code, name, message)| {
            let finding = Finding::error(code, message)
                .about(name)
                .detail("no such file on lua_package_path or in the usual places")
                .fix(format!(
                    "install {name}, or take it out of `{}` in {}",
                    facts.key(),
                    facts.conf_path.display()
                ));
            dropped(facts, finding, name)
        })
        .collect()
}

fn in_use(facts: &Facts) -> Vec<Finding> {
    let (Some(used), Some(listed)) = (facts.in_use(), listed(facts)) else { return Vec::new() };
    let bundled = listed.iter().any(|name| kctl_shared::name::is_bundled(name));
    // Names that came with this Kong and that this program does not know.
    let came = |name: &str| {
        bundled
            && facts.root().is_some_and(|root| {
                let told = facts.told().unwrap_or_default();
                root.available.contains_key(name)
                    && told.contains(&"bundled".to_owned())
                    && !told.iter().any(|t| t == name)
            })
    };
    used.iter()
        .filter(|name| !listed.contains(*name) && !came(name))
        .map(|name| used_one(facts, name))
        .collect()
}

fn used_one(facts: &Facts, name: &str) -> Finding {
    let mut finding =
        Finding::error("IN_USE_NOT_ENABLED", format!("{name} is in use but not enabled")).about(name);
    let list = match (origin(facts), facts.conf(), facts.armed()) {
        (Origin::Environment | Origin::OtherConf(_), _, Some(armed)) => {
            format!("Kong has `{} = {}`", facts.key(), armed.names.join(","))
        }
        (_, Some(conf), _) => {
            format!("`{} = {}` in {}", facts.key(), conf.names.join(","), facts.conf_path.display())
        }
        _ => "the list lacks it".to_owned(),
    };
    finding = match facts.api.uses.get(name).map(Vec::as_slice) {
        Some(uses @ [first, ..]) => {
            let more = if uses.len() > 1 { format!(" and {} more", uses.len() - 1) } else { String::new() };
            finding.detail(format!("{} configuration(s) reference it ({first}{more}); {list}", uses.len()))
        }
        _ => finding.detail(format!("a configuration references it; {list}")),
    };
    if facts.is_running() {
        finding =
            finding.detail("Kong will NOT start on this node after the next restart, and takes no reload");
    }
    let there = kctl_shared::name::is_bundled(name)
        || facts.plugins.get(name).is_some_and(|f| !f.handlers.is_empty() && !f.schemas.is_empty());
    let managed = facts.conf().is_some_and(|conf| conf.unmanaged.is_none());
    if !there {
        return finding.detail(format!("the files of {name} are not on this node's Lua path")).fix(format!(
            "install {name} here and add it to `{}`, or delete its configurations in Kong",
            facts.key()
        ));
    }
    if origin(facts) == Origin::Environment {
        return finding.fix(format!("add {name} to KONG_PLUGINS where Kong is started, then restart Kong"));
    }
    let finding = finding.fix(format!(
        "add {name} to `{}` in {}, then: {}",
        facts.key(),
        facts.conf_path.display(),
        facts.load_command()
    ));
    if managed {
        finding.repair(Repair::List { add: vec![name.to_owned()], remove: Vec::new() })
    } else {
        finding
    }
}

fn declarative(facts: &Facts) -> Option<Finding> {
    let failure = facts.declarative.as_ref()?;
    let name = crate::doctor::gather::subject(&failure.message);
    if let (Some(name), true) = (name, failure.message.contains("not enabled")) {
        if facts.in_use().is_some_and(|used| used.contains(&name)) {
            return None;
        }
        let mut finding = used_one(facts, &name).says(&failure.message);
        finding.details.retain(|d| !d.contains("configuration references it"));
        return Some(finding.detail("the declarative configuration refers to it"));
    }
    Some(
        Finding::error(
            "DECLARATIVE_CONFIG_INVALID",
            "Kong refuses the declarative configuration of this node",
        )
        .says(&failure.message)
        .fix("mend the file that declarative_config names, then reload"),
    )
}
