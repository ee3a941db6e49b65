//! kong.conf itself: what Kong makes of it otherwise than it was meant.

use std::collections::BTreeSet;

use crate::doctor::facts::Conf;
use crate::doctor::lines::{Line, unquoted};
use crate::doctor::{Facts, Finding, Repair};

pub fn check(facts: &Facts) -> Vec<Finding> {
    let path = facts.conf_path.display();
    let conf = match &facts.conf {
        None => return Vec::new(),
        Some(Ok(conf)) => conf,
        Some(Err(failure)) => {
            let fix = match failure.code.as_str() {
                "CONF_MISSING" | "CONF_NOT_A_FILE" => {
                    "name the file that Kong is started with: --conf FILE".into()
                }
                "CONF_EMPTY" => {
                    format!("restore {path}; the agent keeps copies under backup/ in its state directory")
                }
                "CONF_UNREADABLE" => "run this as root".into(),
                _ => format!("mend {path} where the sentence says"),
            };
            return vec![Finding::of(failure).fix(fix)];
        }
    };
    let mut found = Vec::new();
    if let Some(failure) = &conf.unmanaged {
        found.push(
            Finding::warning(&failure.code, &failure.message)
                .detail("what it stands for was not looked at")
                .fix("change it where it is kept"),
        );
    }
    found.extend(section(facts, conf));
    found.extend(unknown(facts, conf));
    found.extend(twice(facts, conf));
    found.extend(value(facts, conf));
    found
}

/// Keys below a `[section]`, which Kong does not see.
fn section(facts: &Facts, conf: &Conf) -> Option<Finding> {
    let headers: Vec<&Line> = conf.lines.iter().filter(|l| l.key.is_empty() && l.section.is_some()).collect();
    let first = headers.first()?;
    let lost: Vec<&Line> = conf.lines.iter().filter(|l| !l.key.is_empty() && l.section.is_some()).collect();
    if lost.is_empty() {
        return None;
    }
    let keys = lost.iter().map(|l| format!("{} (line {})", l.key, l.number)).collect::<Vec<_>>().join(", ");
    let message = format!(
        "line {} of {} begins a section, [{}], and Kong ignores all keys below it: {keys}",
        first.number,
        facts.conf_path.display(),
        first.section.as_deref().unwrap_or_default()
    );
    let mut finding = Finding::warning("CONF_SECTION", message)
        .fix(format!(
            "delete line {} of {}, then: {}",
            first.number,
            facts.conf_path.display(),
            facts.load_command()
        ))
        .repair_if_allowed(Repair::Lines(headers.iter().map(|l| (l.number, None)).collect()));
    for line in lost.iter().filter(|l| l.key == facts.key()) {
        finding = finding.detail(format!("`{} = {}` is among them", facts.key(), line.value));
    }
    Some(finding)
}

/// Keys that Kong does not know.
fn unknown(facts: &Facts, conf: &Conf) -> Vec<Finding> {
    let Some(known) = facts.rendered().map(|r| &r.known) else {
        // Without a rendering only what is all but the list's key is told.
        let near =
            |l: &&Line| l.section.is_none() && l.key != facts.key() && distance(&l.key, facts.key()) <= 1;
        return conf
            .lines
            .iter()
            .filter(near)
            .map(|l| misspelt(facts, conf, l, Some(facts.key().into())))
            .collect();
    };
    let is_unknown = |l: &&Line| {
        l.section.is_none()
            && !l.key.is_empty()
            && !l.value.is_empty()
            && !known.contains(&l.key)
            && !is_family(&l.key)
    };
    conf.lines
        .iter()
        .filter(is_unknown)
        .map(|line| {
            let ours = [facts.key().to_owned(), "lua_package_path".into()];
            let candidates = known.iter().chain(&ours);
            let near = candidates
                .map(|k| (distance(&line.key, k), k))
                .filter(|(d, k)| *d <= 2 && *d * 3 <= k.len())
                .min();
            let near = near
                .map(|(_, key)| key.clone())
                .or_else(|| (line.key == "custom_plugins").then(|| facts.key().into()));
            misspelt(facts, conf, line, near)
        })
        .collect()
}

/// Key families whose members Kong takes as they come.
fn is_family(key: &str) -> bool {
    ["nginx_", "pluginserver_", "vault_"].iter().any(|family| key.starts_with(family))
}

fn misspelt(facts: &Facts, conf: &Conf, line: &Line, near: Option<String>) -> Finding {
    let path = facts.conf_path.display();
    let message =
        format!("Kong does not know the key `{}` (line {} of {path}) and ignores it", line.key, line.number);
    let finding = Finding::warning("CONF_KEY_UNKNOWN", message).about(&line.key).detail(format!(
        "`{} = {}` has no effect",
        line.key,
        shown(facts, line, near.as_deref())
    ));
    let Some(near) = near else {
        return finding.fix(format!("delete line {}, or correct its key", line.number));
    };
    let repair = Repair::Lines(vec![(line.number, Some(format!("{near} = {}", line.value)))]);
    let finding = finding.fix(format!(
        "write `{near}` in line {} of {path}, then: {}",
        line.number,
        facts.load_command()
    ));
    // Where the right key is set too, it is not sure which of the two is meant.
    if conf.values.contains_key(&near) { finding.repair_if_allowed(repair) } else { finding.repair(repair) }
}

/// A value may be a secret; lists of plugins are none.
fn shown(facts: &Facts, line: &Line, near: Option<&str>) -> String {
    if near == Some(facts.key()) { line.value.clone() } else { "…".into() }
}

/// Several `plugins` lines.
fn twice(facts: &Facts, conf: &Conf) -> Option<Finding> {
    let lines: Vec<&Line> =
        conf.lines.iter().filter(|l| l.section.is_none() && l.key == facts.key()).collect();
    let (last, earlier) = lines.split_last()?;
    let key = facts.key();
    let counted: BTreeSet<String> = last.names().into_iter().collect();
    let lost: Vec<String> =
        earlier.iter().flat_map(|l| l.names()).filter(|name| !counted.contains(name)).collect();
    if earlier.is_empty() {
        return None;
    }
    let numbers = lines.iter().map(|l| l.number.to_string()).collect::<Vec<_>>().join(", ");
    let path = facts.conf_path.display();
    let finding = Finding::warning(
        "CONF_KEY_TWICE",
        format!(
            "`{key}` stands in {path} more than once (lines {numbers}), and only line {} counts",
            last.number
        ),
    );
    let mut names = last.names();
    let mut edits: Vec<(usize, Option<String>)> = earlier.iter().map(|l| (l.number, None)).collect();
    if lost.is_empty() {
        return Some(finding.fix(format!("delete the earlier lines of {path}")).repair(Repair::Lines(edits)));
    }
    for name in &lost {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let all = names.join(",");
    edits.push((last.number, Some(format!("{key} = {all}"))));
    Some(
        finding
            .detail(format!("only in the lines that do not count: {}", lost.join(", ")))
            .fix(format!("keep one line: `{key} = {all}`, then: {}", facts.load_command()))
            .repair_if_allowed(Repair::Lines(edits)),
    )
}

/// The value that counts.
fn value(facts: &Facts, conf: &Conf) -> Option<Finding> {
    let line = conf.lines.iter().rfind(|l| l.section.is_none() && l.key == facts.key())?;
    let path = facts.conf_path.display();
    if conf.unmanaged.is_some() {
        return None;
    }
    let key = facts.key();
    let used: Vec<String> = facts.in_use().into_iter().flatten().cloned().collect();
    // A list that is added to Kong's own plugins may well be empty.
    let all = key == "plugins";
    if line.value.is_empty() && all {
        let mut names: Vec<String> = vec!["bundled".into()];
        names.extend(used.iter().filter(|name| !kctl_shared::name::is_bundled(name)).cloned());
        let text = format!("plugins = {}", names.join(","));
        return Some(
            Finding::error(
                "PLUGINS_EMPTY",
                format!(
                    "`plugins =` in line {} of {path} loads no plugin at all, not even Kong's own",
                    line.number
                ),
            )
            .fix(format!("write `{text}` there, then: {}", facts.load_command()))
            .repair_if_allowed(Repair::Lines(vec![(line.number, Some(text))])),
        );
    }
    if all && line.names().first().is_some_and(|name| name == "off") {
        return Some(
            Finding::warning(
                "PLUGINS_OFF",
                format!("`plugins` in line {} of {path} begins with `off`, so Kong loads none", line.number),
            )
            .fix(format!("take `off` away if plugins are to be loaded, then: {}", facts.load_command())),
        );
    }
    let quoted: Vec<&str> =
        line.value.split(',').map(str::trim).filter(|name| unquoted(name) != *name).collect();
    if quoted.is_empty() {
        return None;
    }
    let text = format!("{key} = {}", line.names().join(","));
    let names = quoted.join(", ");
    Some(
        Finding::error(
            "PLUGINS_QUOTED",
            format!(
                "quotation marks in line {} of {path} are part of the names for Kong: {names}",
                line.number
            ),
        )
        .fix(format!("write `{text}` there, then: {}", facts.load_command()))
        .repair(Repair::Lines(vec![(line.number, Some(text))])),
    )
}

fn distance(a: &str, b: &str) -> usize {
    strsim::damerau_levenshtein(a, b)
}
