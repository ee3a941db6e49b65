//! The set operation on a list of names, as it is written.

use std::collections::BTreeSet;
use std::ops::Range;

use super::MARK;
use super::lines::{Item, Place};

/// The text with `add` in the list and `remove` out of it.
pub fn edit(text: &str, key: &str, place: &Place, add: &[&str], remove: &BTreeSet<String>) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    match place {
        Place::Absent { .. } | Place::Empty { .. } if add.is_empty() => text.to_owned(),
        Place::Absent { at } => {
            let mut lines = vec![format!("{key}: {MARK}")];
            lines.extend(add.iter().map(|name| format!("  - {}", quoted(name))));
            inserted(text, *at, &lines, newline)
        }
        Place::Empty { line_end } => {
            let lines: Vec<String> = add.iter().map(|name| format!("  - {} {MARK}", quoted(name))).collect();
            inserted(text, *line_end, &lines, newline)
        }
        Place::Block { key_line, items, indent, marked } => {
            let kept: Vec<&Item> = items.iter().filter(|item| !remove.contains(&item.name)).collect();
            if kept.is_empty() && add.is_empty() {
                return emptied(text, key, key_line, items, *marked);
            }
            let last = items.last().map_or(key_line.end, |item| item.line.end);
            // Beside a line of ours in a list that was empty, so that the last one can be told for ours too.
            let ours = items.iter().all(|item| is_marked(text, item)) && !*marked;
            let mark = if ours { format!(" {MARK}") } else { String::new() };
            let lines: Vec<String> =
                add.iter().map(|name| format!("{indent}- {}{mark}", quoted(name))).collect();
            let grown = inserted(text, last, &lines, newline);
            without(
                &grown,
                items.iter().filter(|item| remove.contains(&item.name)).map(|item| item.line.clone()),
            )
        }
        Place::Flow { inside, items } => flow(text, inside, items, add, remove),
    }
}

fn is_marked(text: &str, item: &Item) -> bool {
    text[item.line.clone()].trim_end().ends_with(MARK)
}

/// Nothing is left: a key of ours goes with its names, one that was empty before is so again, one of the user's says so.
fn emptied(text: &str, key: &str, key_line: &Range<usize>, items: &[Item], marked: bool) -> String {
    let names = items.iter().map(|item| item.line.clone());
    if marked {
        return without(text, std::iter::once(key_line.clone()).chain(names));
    }
    if items.iter().all(|item| is_marked(text, item)) {
        return without(text, names);
    }
    let colon = key_line.start + text[key_line.clone()].find(':').unwrap_or(key.len()) + 1;
    let text = without(text, names);
    format!("{} []{}", &text[..colon], &text[colon..])
}

fn flow(
    text: &str,
    inside: &Range<usize>,
    items: &[Item],
    add: &[&str],
    remove: &BTreeSet<String>,
) -> String {
    let kept: Vec<usize> = (0..items.len()).filter(|i| !remove.contains(&items[*i].name)).collect();
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for i in (0..items.len()).filter(|i| !kept.contains(i)) {
        cuts.push(if kept.iter().any(|k| *k < i) {
            items[i - 1].at.end..items[i].at.end
        } else {
            items[i].at.start..items.get(i + 1).map_or(items[i].at.end, |next| next.at.start)
        });
    }
    let names = add.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    let (at, names) = match items.last() {
        _ if add.is_empty() => (inside.end, String::new()),
        Some(last) if !kept.is_empty() => (last.at.end, format!(", {names}")),
        Some(last) => (last.at.end, names),
        None => (inside.start, names),
    };
    let grown = format!("{}{names}{}", &text[..at], &text[at..]);
    without(&grown, cuts.into_iter())
}

/// The text without `ranges`, which are in ascending order and touch nothing behind the last one.
fn without(text: &str, ranges: impl Iterator<Item = Range<usize>>) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    let mut cut_to_end = false;
    for range in ranges {
        kept.push_str(&text[at..range.start]);
        at = range.end;
        cut_to_end = range.end == text.len() && !text[range].ends_with('\n');
    }
    kept.push_str(&text[at..]);
    if cut_to_end {
        // The last line had no line break, so what is the last line now has none.
        let end = kept.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text).len());
        kept.truncate(end.unwrap_or(kept.len()));
    }
    kept
}

/// The text with whole lines put at `at`, which is a beginning of a line or the end of the text.
fn inserted(text: &str, at: usize, lines: &[String], newline: &str) -> String {
    if lines.is_empty() {
        return text.to_owned();
    }
    let (before, after) = text.split_at(at);
    let lines = lines.join(newline);
    if before.is_empty() || before.ends_with('\n') {
        format!("{before}{lines}{newline}{after}")
    } else {
        format!("{before}{newline}{lines}{after}")
    }
}

/// In quotes, when some YAML reader would take it for something else than text.
fn quoted(name: &str) -> String {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let other =
        name.starts_with(|c: char| c.is_ascii_digit()) || words.contains(&name.to_ascii_lowercase().as_str());
    if other { format!("\"{name}\"") } else { name.to_owned() }
}
