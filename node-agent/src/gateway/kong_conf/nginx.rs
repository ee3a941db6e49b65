//! Settings that Kong hands on to nginx, for plugins that need them: lines of our own, below the user's.
//!
//! A key counts once, the last line of it. So a user's line is never touched: ours stands below it, says again what it
//! says and adds to it, and is taken away as a whole. Each line of ours carries the mark by which it is known again.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::nginx::{NginxSetting, contradiction, settings_of};

use super::grammar::{self, Entry};
use super::{ConfError, KongConf, has_reference, unmanaged};

/// Keys with a line of ours.
pub(super) fn own_keys(conf: &KongConf) -> BTreeSet<String> {
    let ours = conf.parsed.entries.iter().filter(|e| is_own(conf, e));
    ours.map(|e| e.key.clone()).collect()
}

fn is_own(conf: &KongConf, entry: &Entry) -> bool {
    !settings_of(&entry.key, "x").is_empty() && conf.is_marked(entry)
}

/// The user's line that would count without ours.
fn users<'a>(conf: &'a KongConf, key: &str) -> Option<&'a Entry> {
    conf.parsed.entries.iter().rev().find(|e| e.key == key && !is_own(conf, e))
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.value).trim().trim_end_matches([';', ' ', '\t']).to_owned()
}

fn of(entry: &Entry) -> BTreeSet<NginxSetting> {
    settings_of(&entry.key, &String::from_utf8_lossy(&entry.value))
}

fn keys(conf: &KongConf) -> BTreeSet<&str> {
    conf.parsed.entries.iter().map(|e| e.key.as_str()).collect()
}

/// What the user's own lines say.
pub(super) fn users_settings(conf: &KongConf) -> BTreeSet<NginxSetting> {
    keys(conf).into_iter().filter_map(|key| users(conf, key)).flat_map(of).collect()
}

/// What all lines together say. A line of ours that says something else again than the user's line above it, which was
/// edited meanwhile, hides it: then what it adds does not count, so that it is written anew.
pub(super) fn settings(conf: &KongConf) -> BTreeSet<NginxSetting> {
    let counts = |key: &str| {
        let last = conf.entry(key)?;
        let users = users(conf, key).filter(|_| is_own(conf, last));
        Some(users.filter(|users| !text(last).starts_with(&format!("{};", text(users)))).unwrap_or(last))
    };
    keys(conf).into_iter().filter_map(counts).flat_map(of).collect()
}

/// The file in which exactly `wanted` is set by lines of ours, as far as the user's do not say it already.
///
/// # Errors
/// `NGINX_CONFLICT`, `UNMANAGED_VALUE`.
pub(super) fn edit(conf: &KongConf, wanted: &BTreeSet<NginxSetting>) -> Result<KongConf, ConfError> {
    let theirs = users_settings(conf);
    let clash = wanted.iter().find_map(|s| Some((s, theirs.iter().find(|t| t.contradicts(s))?)));
    if let Some((ours, users)) = clash {
        let message = format!("a plugin needs `{ours}`, and this node's kong.conf says `{users}`");
        return Err(ConfError::new("NGINX_CONFLICT", message));
    }
    if let Some((one, other)) = contradiction(wanted.iter()) {
        let message = format!("two plugins of this node contradict each other: `{one}` and `{other}`");
        return Err(ConfError::new("NGINX_CONFLICT", message));
    }
    let mut lines: BTreeMap<String, Vec<&NginxSetting>> =
        own_keys(conf).into_iter().map(|key| (key, Vec::new())).collect();
    for setting in wanted.iter().filter(|s| !theirs.contains(s)) {
        lines.entry(setting.key.clone()).or_default().push(setting);
    }
    let mut edited = conf.clone();
    for (key, more) in lines {
        edited = line(&edited, &key, &more)?;
    }
    Ok(edited)
}

/// With one line of ours for `key` that adds `more`, or with none.
fn line(conf: &KongConf, key: &str, more: &[&NginxSetting]) -> Result<KongConf, ConfError> {
    let users_line = users(conf, key);
    if !more.is_empty()
        && users_line.is_some_and(|e| {
            e.transformed || has_reference(&e.value) || text(e).is_empty() || text(e) == "NONE"
        })
    {
        return Err(unmanaged(key));
    }
    let mut value = users_line.map(text).unwrap_or_default();
    for setting in more {
        match value.is_empty() {
            true => value.push_str(&setting.value),
            false => value.push_str(&format!("; {} {}", setting.directive(), setting.value)),
        }
    }
    let own: Vec<&Entry> = conf.parsed.entries.iter().filter(|e| e.key == key && is_own(conf, e)).collect();
    let last = conf.entry(key);
    let kept = |e: &&Entry| last.is_some_and(|l| l.line.span == e.line.span) && text(e) == value;
    match own.as_slice() {
        [only] if !more.is_empty() && kept(only) => return Ok(conf.clone()),
        [] if more.is_empty() => return Ok(conf.clone()),
        _ => {}
    }
    let mut bare = conf.clone();
    while let Some(entry) = bare.parsed.entries.iter().find(|e| e.key == key && is_own(&bare, e)) {
        bare = bare.again(bare.without_line(entry))?;
    }
    if more.is_empty() {
        return Ok(bare);
    }
    let value = grammar::escape(value.as_bytes());
    let text = match users(&bare, key) {
        Some(users) => bare.with_line_at(Some(users.line.span.end), key, &value),
        None => bare.with_line(key, &value),
    };
    bare.again(text)
}
