//! The directives that list plugins: a set operation on their names, made in the text as it is written.

use std::collections::BTreeSet;
use std::ops::Range;

use super::grammar::{self, Entry};
use super::style::{CUSTOM, Lists, PLUGINS};
use super::{Change, ConfError, KongConf, unmanaged};

/// A name with its place in the joined line.
struct Token {
    name: String,
    at: Range<usize>,
    /// Of the comma after it, or the end of the value.
    end: usize,
}

fn tokens(conf: &KongConf, entry: &Entry) -> Vec<Token> {
    let joined = entry.line.joined(&conf.text);
    let mut tokens = Vec::new();
    let mut start = entry.raw.start;
    loop {
        let rest = &joined[start..entry.raw.end];
        let end = rest.iter().position(|b| *b == b',').map_or(entry.raw.end, |i| start + i);
        let text = grammar::trim(&joined[start..end]);
        let at = start + text.start..start + text.end;
        let name = String::from_utf8_lossy(&grammar::unescape(&joined[at.clone()])).into_owned();
        tokens.push(Token { name, at, end });
        if end == entry.raw.end {
            return tokens;
        }
        start = end + 1;
    }
}

/// In `plugins`, `off` as the first name switches everything off, elsewhere it means nothing.
fn effective(key: &str, tokens: &[Token]) -> Vec<String> {
    let switched = key == PLUGINS;
    match tokens {
        [] => Vec::new(),
        [only] if only.name.is_empty() => Vec::new(),
        [first, ..] if switched && first.name == "off" => Vec::new(),
        all => all.iter().filter(|t| !(switched && t.name == "off")).map(|t| t.name.clone()).collect(),
    }
}

fn names_in(conf: &KongConf, key: &str) -> Result<Vec<String>, ConfError> {
    if !conf.is_managed(key) {
        return Err(unmanaged(key));
    }
    Ok(match conf.entry(key) {
        Some(entry) => effective(key, &tokens(conf, entry)),
        None if key == PLUGINS => vec!["bundled".into()],
        None => Vec::new(),
    })
}

pub(super) fn names(conf: &KongConf) -> Result<Vec<String>, ConfError> {
    let mut names: Vec<String> = match conf.style.lists {
        Lists::Custom => vec!["bundled".into()],
        Lists::Plugins | Lists::PluginsAndCustom => Vec::new(),
    };
    for key in conf.style.lists.keys() {
        names.extend(names_in(conf, key)?);
    }
    Ok(names)
}

/// The set that the edit must give.
pub(super) fn expected(conf: &KongConf, change: &Change) -> Result<BTreeSet<String>, ConfError> {
    if change.add.is_empty() && change.remove.is_empty() {
        return Ok(names(conf).unwrap_or_default().into_iter().collect());
    }
    let mut set: BTreeSet<String> = names(conf)?.into_iter().collect();
    set.retain(|name| !change.remove.contains(name));
    set.extend(change.add.iter().cloned());
    Ok(set)
}

/// Names are taken out of every key that lists plugins and added to the one that is not deprecated.
pub(super) fn edit(conf: &KongConf, change: &Change) -> Result<KongConf, ConfError> {
    let listed: BTreeSet<String> = names(conf).unwrap_or_default().into_iter().collect();
    let add: BTreeSet<&str> =
        change.add.iter().map(String::as_str).filter(|name| !listed.contains(*name)).collect();
    let mut edited = conf.clone();
    for key in conf.style.lists.keys() {
        let add = if *key == conf.style.lists.key() { &add } else { &BTreeSet::new() };
        edited = edited.again(edit_key(&edited, key, add, &change.remove)?)?;
    }
    Ok(edited)
}

fn edit_key(
    conf: &KongConf,
    key: &str,
    add: &BTreeSet<&str>,
    remove: &BTreeSet<String>,
) -> Result<Vec<u8>, ConfError> {
    let added = add.iter().copied().collect::<Vec<_>>().join(",");
    let Some(entry) = conf.entry(key) else {
        if add.is_empty() {
            return Ok(conf.text.clone());
        }
        let bundled = if key == PLUGINS { "bundled," } else { "" };
        return Ok(conf.with_line(key, format!("{bundled}{added}").as_bytes()));
    };
    let tokens = tokens(conf, entry);
    let kept: Vec<usize> = (0..tokens.len()).filter(|i| !remove.contains(&tokens[*i].name)).collect();
    if add.is_empty() && kept.len() == tokens.len() {
        return Ok(conf.text.clone());
    }
    refuse(key, &tokens, &kept, !add.is_empty())?;

    let nothing_own = kept.iter().all(|i| key == PLUGINS && tokens[*i].name == "bundled");
    if add.is_empty() && nothing_own && conf.is_marked(entry) {
        return Ok(conf.without_line(entry));
    }
    let mut splices = Vec::new();
    let mut cut = |range: Range<usize>| {
        splices.extend(entry.line.ranges(&conf.text, range).into_iter().map(|place| (place, Vec::new())));
    };
    if kept.is_empty() && key == CUSTOM {
        // With the blanks before it, which come with the first name.
        let joined = entry.line.joined(&conf.text);
        let equals = joined.iter().position(|b| *b == b'=').unwrap_or(entry.raw.start);
        cut(equals + 1..entry.raw.end);
    } else {
        for i in (0..tokens.len()).filter(|i| !kept.contains(i)) {
            // With what separates it from the name before it, or from the one after it when nothing that stays is before it.
            cut(if kept.iter().any(|k| *k < i) {
                tokens[i - 1].at.end..tokens[i].at.end
            } else {
                tokens[i].at.start..tokens.get(i + 1).map_or(tokens[i].end, |next| next.at.start)
            });
        }
    }
    if !add.is_empty() {
        let at = entry.line.place(entry.raw.end - 1) + 1;
        let empty = kept.is_empty() || (tokens.len() == 1 && tokens[0].name.is_empty());
        let before = if empty && key == CUSTOM {
            " "
        } else if kept.is_empty() {
            ""
        } else {
            ","
        };
        splices.push((at..at, format!("{before}{added}").into_bytes()));
    }
    Ok(conf.spliced(splices))
}

/// What could only be edited by changing what the line means beyond the names asked for.
fn refuse(key: &str, tokens: &[Token], kept: &[usize], adding: bool) -> Result<(), ConfError> {
    let first_kept = kept.first().map(|i| tokens[*i].name.as_str());
    if key == PLUGINS {
        if effective(key, tokens).is_empty() && adding {
            return Err(match tokens.first() {
                Some(token) if token.name == "off" => ConfError::new(
                    "PLUGINS_OFF",
                    "`plugins` begins with `off`, so Kong loads none; take `off` away first if that is not meant",
                ),
                _ => ConfError::new(
                    "PLUGINS_EMPTY",
                    "`plugins` is set to nothing; write `bundled`, or take the line away, before plugins are added to it",
                ),
            });
        }
        if first_kept == Some("off") && tokens[0].name != "off" {
            let message = "without the name before it, `off` would switch all plugins off; take `off` out of `plugins` first";
            return Err(ConfError::new("PLUGINS_OFF", message));
        }
        if kept.is_empty() && !adding {
            let message = "nothing would be left in `plugins`, which Kong takes for its bundled plugins; write what it should load instead, or `off`";
            return Err(ConfError::new("PLUGINS_WOULD_BE_EMPTY", message));
        }
    }
    if tokens.iter().any(|t| t.name.contains(['"', '\''])) {
        let message = format!(
            "a name in `{key}` has a quotation mark, which Kong takes literally; write the names without"
        );
        return Err(ConfError::new("PLUGINS_QUOTED", message));
    }
    Ok(())
}
