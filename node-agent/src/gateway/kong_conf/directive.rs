//! The `plugins` directive: a set operation on its names, made in the text as it is written.

use std::collections::BTreeSet;
use std::ops::Range;

use super::grammar::{self, Entry};
use super::{Change, ConfError, KongConf, unmanaged};

const KEY: &str = "plugins";

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

/// `off` as the first name switches everything off, elsewhere it means nothing.
fn effective(tokens: &[Token]) -> Vec<String> {
    match tokens {
        [] => Vec::new(),
        [only] if only.name.is_empty() => Vec::new(),
        [first, ..] if first.name == "off" => Vec::new(),
        all => all.iter().filter(|t| t.name != "off").map(|t| t.name.clone()).collect(),
    }
}

pub(super) fn names(conf: &KongConf) -> Result<Vec<String>, ConfError> {
    if !conf.is_managed(KEY) {
        return Err(unmanaged(KEY));
    }
    Ok(conf.entry(KEY).map_or_else(|| vec!["bundled".into()], |entry| effective(&tokens(conf, entry))))
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

pub(super) fn edit(conf: &KongConf, change: &Change) -> Result<Vec<u8>, ConfError> {
    let Some(entry) = conf.entry(KEY) else {
        if change.add.is_empty() {
            return Ok(conf.text.clone());
        }
        let names: Vec<&str> =
            std::iter::once("bundled").chain(change.add.iter().map(String::as_str)).collect();
        return Ok(conf.with_line(KEY, names.join(",").as_bytes()));
    };
    let tokens = tokens(conf, entry);
    let kept: Vec<usize> = (0..tokens.len()).filter(|i| !change.remove.contains(&tokens[*i].name)).collect();
    let added: Vec<&String> =
        change.add.iter().filter(|name| tokens.iter().all(|t| t.name != **name)).collect();
    if added.is_empty() && kept.len() == tokens.len() {
        return Ok(conf.text.clone());
    }
    refuse(&tokens, &kept, &added)?;

    let only_bundled = added.is_empty() && kept.iter().all(|i| tokens[*i].name == "bundled");
    if only_bundled && conf.is_marked(entry) {
        return Ok(conf.without_line(entry));
    }
    let mut splices = Vec::new();
    for i in (0..tokens.len()).filter(|i| !kept.contains(i)) {
        // With what separates it from the name before it, or from the one after it when nothing that stays is before it.
        let range = if kept.iter().any(|k| *k < i) {
            tokens[i - 1].at.end..tokens[i].at.end
        } else {
            tokens[i].at.start..tokens.get(i + 1).map_or(tokens[i].end, |next| next.at.start)
        };
        splices.extend(entry.line.ranges(&conf.text, range).into_iter().map(|place| (place, Vec::new())));
    }
    if !added.is_empty() {
        let at = entry.line.place(entry.raw.end - 1) + 1;
        let comma = if kept.is_empty() { "" } else { "," };
        let text = added.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(",");
        splices.push((at..at, format!("{comma}{text}").into_bytes()));
    }
    Ok(conf.spliced(splices))
}

/// What could only be edited by changing what the line means beyond the names asked for.
fn refuse(tokens: &[Token], kept: &[usize], added: &[&String]) -> Result<(), ConfError> {
    let first_kept = kept.first().map(|i| tokens[*i].name.as_str());
    if effective(tokens).is_empty() && !added.is_empty() {
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
    if kept.is_empty() && added.is_empty() {
        let message = "nothing would be left in `plugins`, which Kong takes for its bundled plugins; write what it should load instead, or `off`";
        return Err(ConfError::new("PLUGINS_WOULD_BE_EMPTY", message));
    }
    if tokens.iter().any(|t| t.name.contains(['"', '\''])) {
        let message =
            "a name in `plugins` has a quotation mark, which Kong takes literally; write the names without";
        return Err(ConfError::new("PLUGINS_QUOTED", message));
    }
    Ok(())
}
