//! Where a list of names stands in the lines of a YAML file.

use std::ops::Range;

use super::{ConfError, MARK, unsafe_yaml};

/// A name in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub name: String,
    /// Of the name as written, with its quotes.
    pub at: Range<usize>,
    /// Of its whole line, with the line break, in a block list.
    pub line: Range<usize>,
}

/// What there is under the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: where the key can be put.
    Absent { at: usize },
    /// `key:` and nothing after it. `line_end` is behind its line break.
    Empty { line_end: usize },
    /// `- name` lines. `key_line` is the whole line of the key.
    Block { key_line: Range<usize>, items: Vec<Item>, indent: String, marked: bool },
    /// `[a, b]`: the places of the brackets' inside and of the items.
    Flow { inside: Range<usize>, items: Vec<Item> },
}

impl Place {
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Absent { .. } | Self::Empty { .. } => Vec::new(),
            Self::Block { items, .. } | Self::Flow { items, .. } => {
                items.iter().map(|item| item.name.as_str()).collect()
            }
        }
    }
}

/// A line with its place; `structure` is false inside block scalars, where nothing has a meaning.
struct Line<'a> {
    at: Range<usize>,
    text: &'a str,
    structure: bool,
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    // Indentation that the lines of a block scalar are deeper than.
    let mut scalar: Option<usize> = None;
    for raw in text.split_inclusive('\n') {
        let line = raw.trim_end_matches('\n').trim_end_matches('\r');
        let indent = line.len() - line.trim_start_matches(' ').len();
        let blank = line.trim().is_empty();
        if scalar.is_some_and(|depth| !blank && indent <= depth) {
            scalar = None;
        }
        let structure = scalar.is_none();
        if structure && opens_scalar(line) {
            scalar = Some(indent);
        }
        found.push(Line { at: at..at + raw.len(), text: line, structure });
        at += raw.len();
    }
    found
}

/// `key: |`, `- >-`, with comments.
fn opens_scalar(line: &str) -> bool {
    let line = without_comment(line).trim_end();
    let Some(last) = line.rsplit([' ', '\t']).next() else { return false };
    let mut chars = last.chars();
    matches!(chars.next(), Some('|' | '>'))
        && chars.all(|c| matches!(c, '+' | '-') || c.is_ascii_digit())
        && line[..line.len() - last.len()].trim_end().ends_with([':', '-'])
}

/// The line up to a `#` that begins a comment: at the beginning or after a blank, outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut before = ' ';
    for (i, c) in line.char_indices() {
        match quote {
            Some(q) if c == q && !(q == '"' && before == '\\') => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_ascii_whitespace() => return &line[..i],
            None if matches!(c, '"' | '\'')
                && (before.is_ascii_whitespace() || matches!(before, '[' | ',' | '{')) =>
            {
                quote = Some(c);
            }
            None => {}
        }
        before = c;
    }
    line
}

/// Refuses what lines cannot be trusted with.
///
/// # Errors
/// `CONF_YAML_UNSAFE`.
pub fn check(text: &str) -> Result<(), ConfError> {
    if text.starts_with('\u{feff}') {
        return Err(unsafe_yaml("the file begins with a byte order mark"));
    }
    if text.contains(['\u{85}', '\u{2028}', '\u{2029}']) || text.replace("\r\n", "").contains('\r') {
        return Err(unsafe_yaml("the file has line breaks that not every reader takes for one"));
    }
    let mut content = false;
    for (number, line) in lines(text).iter().enumerate().filter(|(_, line)| line.structure) {
        let bare = without_comment(line.text).trim_end();
        let refuse = |what: &str| Err(unsafe_yaml(&format!("line {} has {what}", number + 1)));
        if bare.starts_with("%")
            || bare.starts_with("...")
            || (bare.starts_with("---") && (content || bare != "---"))
        {
            return refuse("a directive or more than one document");
        }
        if bare.trim_start_matches(' ').starts_with('\t') {
            return refuse("a tab for indentation");
        }
        let mut before = ' ';
        for (c, next) in bare.chars().zip(bare.chars().skip(1).chain([' '])) {
            let begins = before.is_ascii_whitespace() || matches!(before, '[' | ',' | '{');
            if begins && (c == '!' || (matches!(c, '&' | '*') && !next.is_ascii_whitespace())) {
                return refuse("an anchor, an alias or a tag");
            }
            before = c;
        }
        if bare.trim_start().starts_with("<<") {
            return refuse("a merge key");
        }
        content |= !bare.trim().is_empty();
    }
    Ok(())
}

/// Finds `key` at the top level.
///
/// # Errors
/// `CONF_YAML_UNSAFE` for a list in another form than those of [`Place`].
pub fn find(text: &str, key: &str) -> Result<Place, ConfError> {
    let lines = lines(text);
    let is_key = |line: &&Line<'_>| {
        line.structure
            && line.text.strip_prefix(key).is_some_and(|rest| {
                let rest = rest.trim_start_matches(' ');
                rest == ":" || rest.starts_with(": ") || rest.starts_with(":\t")
            })
    };
    let mut matching = lines.iter().enumerate().filter(|(_, line)| is_key(line));
    let Some((index, line)) = matching.next() else {
        return Ok(Place::Absent { at: absent(text, &lines, key) });
    };
    if matching.next().is_some() {
        return Err(unsafe_yaml(&format!("`{key}` is there twice")));
    }
    let colon = key.len() + line.text[key.len()..].find(':').unwrap_or_default() + 1;
    let value = without_comment(line.text)[colon..].trim();
    if value.starts_with('[') {
        let open = line.at.start + colon + line.text[colon..].find('[').unwrap_or_default();
        return flow(text, open);
    }
    if !value.is_empty() {
        return Err(unsafe_yaml(&format!("`{key}` has a value that is not written as a list")));
    }
    block(&lines, index)
}

fn block(lines: &[Line<'_>], key: usize) -> Result<Place, ConfError> {
    let key_line = lines[key].at.clone();
    let marked = lines[key].text.trim_end().ends_with(MARK);
    let mut items: Vec<Item> = Vec::new();
    let mut indent: Option<&str> = None;
    for line in &lines[key + 1..] {
        let bare = without_comment(line.text).trim_end();
        if bare.trim().is_empty() {
            continue;
        }
        let spaces = &bare[..bare.len() - bare.trim_start_matches(' ').len()];
        let Some(rest) = bare[spaces.len()..].strip_prefix('-').filter(|rest| rest.starts_with(' ')) else {
            // Another key ends the list; anything deeper belongs to it in a way not known here.
            if spaces.is_empty() && !bare.starts_with('-') {
                break;
            }
            return Err(unsafe_yaml("the list has a line that is not `- name`"));
        };
        if *indent.get_or_insert(spaces) != spaces {
            return Err(unsafe_yaml("the list's lines are not indented alike"));
        }
        let text = rest.trim_start();
        let from = line.at.start + bare.len() - text.len();
        let name =
            scalar(text).ok_or_else(|| unsafe_yaml("the list has an item that is not a plain name"))?;
        items.push(Item { name, at: from..from + text.len(), line: line.at.clone() });
    }
    Ok(match indent {
        None => Place::Empty { line_end: key_line.end },
        Some(indent) => Place::Block { key_line, items, indent: indent.to_owned(), marked },
    })
}

fn flow(text: &str, open: usize) -> Result<Place, ConfError> {
    let line_end = text[open..].find('\n').map_or(text.len(), |i| open + i);
    let bare = without_comment(&text[open..line_end]).trim_end();
    let not_one_line = || unsafe_yaml("a list in brackets goes over several lines");
    let inner = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(not_one_line)?;
    let inside = open + 1..open + 1 + inner.len();
    let mut items = Vec::new();
    let mut start = 0;
    for part in inner.split(',') {
        let trimmed = part.trim();
        if !trimmed.is_empty() {
            let from = inside.start + start + (part.len() - part.trim_start().len());
            let name = scalar(trimmed)
                .ok_or_else(|| unsafe_yaml("the list has an item that is not a plain name"))?;
            items.push(Item { name, at: from..from + trimmed.len(), line: open..line_end });
        }
        start += part.len() + 1;
    }
    Ok(Place::Flow { inside, items })
}

/// A name, with or without quotes; `None` for anything else.
fn scalar(text: &str) -> Option<String> {
    let quoted = ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
    let name = quoted.unwrap_or(text);
    let plain = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    plain.then(|| name.to_owned())
}

/// Where a key that is not there belongs: below the comment that documents it, else at the end, else (when that would
/// change the value before it) at the beginning.
fn absent(text: &str, lines: &[Line<'_>], key: &str) -> usize {
    let mut found = None;
    for line in lines.iter().filter(|line| line.structure) {
        let comment =
            line.text.trim_start().strip_prefix('#').map(|rest| rest.trim_start_matches(['#', ' ']));
        match (found, comment) {
            (None, Some(rest)) if rest.strip_prefix(key).is_some_and(|r| r.trim_start().starts_with(':')) => {
                found = Some(line.at.end);
            }
            (Some(_), Some(rest)) if rest.starts_with("- ") => found = Some(line.at.end),
            (Some(_), _) => break,
            (None, _) => {}
        }
    }
    let first = || {
        let documents =
            lines.iter().take_while(|line| line.text.trim_end() == "---" || line.text.starts_with('#'));
        documents.filter(|line| line.text.trim_end() == "---").last().map_or(0, |line| line.at.end)
    };
    found.unwrap_or_else(|| {
        let closed = text.ends_with('\n') && lines.last().is_none_or(|line| line.structure);
        if closed || text.is_empty() { text.len() } else { first() }
    })
}
