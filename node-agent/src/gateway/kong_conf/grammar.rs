//! The grammar of kong.conf, as Kong's own reader (Penlight's `config.read`, `smart = false`) understands it, with the
//! place of every byte kept, so that an edit can touch exactly the bytes it means.
//!
//! What that reader does, and a simpler one would get wrong: comment and blank lines do not end a continuation; an
//! unfinished continuation at the end of the file is lost; a section header takes all later keys away from the top
//! level; `#` ends a value unless a backslash stands right before it; quotes mean nothing; the last of several equal keys
//! wins; a value that looks like a number becomes one.

use std::ops::Range;

use super::{Comments, ConfError};

/// Lua's `%s`: one more than ASCII whitespace as Rust has it.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

pub(super) fn trim(bytes: &[u8]) -> Range<usize> {
    let start = bytes.iter().position(|b| !is_space(*b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !is_space(*b)).map_or(start, |i| i + 1);
    start..end
}

/// One line as the reader sees it, possibly joined from several lines of the file.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Where its bytes stand in the file, in order.
    pieces: Vec<Range<usize>>,
    /// From the first byte of its first line to after the newline of its last one.
    pub span: Range<usize>,
}

impl Line {
    pub fn joined(&self, text: &[u8]) -> Vec<u8> {
        self.pieces.iter().flat_map(|piece| &text[piece.clone()]).copied().collect()
    }

    /// Place in the file of the `index`th joined byte; one past the last is the end of the last piece.
    pub fn place(&self, mut index: usize) -> usize {
        for piece in &self.pieces {
            if index < piece.len() {
                return piece.start + index;
            }
            index -= piece.len();
        }
        self.pieces.last().map_or(self.span.start, |piece| piece.end)
    }

    /// File ranges that hold the joined bytes `range`. Breaks between lines inside it are included when nothing but the
    /// break is lost with them.
    pub fn ranges(&self, text: &[u8], range: Range<usize>) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut before = 0;
        for piece in &self.pieces {
            let (from, to) = (range.start.max(before), range.end.min(before + piece.len()));
            if from < to {
                let here = piece.start + (from - before)..piece.start + (to - before);
                match found.last_mut() {
                    Some(last) if only_a_break(&text[last.end..here.start]) => last.end = here.end,
                    _ => found.push(here),
                }
            }
            before += piece.len();
        }
        found
    }
}

/// `\`, whitespace and exactly one newline.
fn only_a_break(between: &[u8]) -> bool {
    let Some(rest) = between.strip_prefix(b"\\") else { return between.is_empty() };
    rest.iter().all(|b| is_space(*b)) && rest.iter().filter(|b| **b == b'\n').count() == 1
}

/// All lines, and where an unfinished continuation at the end of the file begins.
pub(super) fn lines(text: &[u8]) -> (Vec<Line>, Option<usize>) {
    let mut lines = Vec::new();
    let mut pending: Option<Line> = None;
    let mut at = 0;
    while at < text.len() {
        let end = text[at..].iter().position(|b| *b == b'\n').map_or(text.len(), |i| at + i);
        let after = (end + 1).min(text.len());
        let line = &text[at..end];
        let first = line.iter().find(|b| !is_space(**b));
        if first.is_some_and(|b| !matches!(b, b';' | b'#')) {
            let content = line.len() - line.iter().rev().take_while(|b| is_space(**b)).count();
            let continued = line[..content].ends_with(b"\\");
            let piece = at..if continued { at + content - 1 } else { end };
            let joined = match pending.take() {
                Some(mut open) => {
                    open.pieces.push(piece);
                    open.span.end = after;
                    open
                }
                None => Line { pieces: vec![piece], span: at..after },
            };
            if continued { pending = Some(joined) } else { lines.push(joined) }
        }
        at = after;
    }
    (lines, pending.map(|open| open.span.start))
}

/// A `key = value` line at the top level.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    /// As Kong reads it, escapes resolved.
    pub value: Vec<u8>,
    /// The value as written, in joined bytes: without surrounding blanks and trailing comment.
    pub raw: Range<usize>,
    pub line: Line,
    /// Kong reads something else than is written (a number, a list, half a name before a `#`).
    pub transformed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub entries: Vec<Entry>,
    /// Names of sections: they replace a key of the same name.
    pub sections: Vec<String>,
    /// Where a new top-level line can be put; `None`: at the end of the file.
    pub insert_before: Option<usize>,
}

pub(super) fn parse(text: &[u8], comments: Comments) -> Result<Parsed, ConfError> {
    let (lines, dangling) = lines(text);
    let mut parsed = Parsed { entries: Vec::new(), sections: Vec::new(), insert_before: None };
    for line in lines {
        let joined = line.joined(text);
        if joined.starts_with(b"[") {
            let name = section_name(&joined).ok_or_else(|| {
                let number = text[..line.span.start].iter().filter(|b| **b == b'\n').count() + 1;
                let message =
                    format!("line {number} begins with `[` but names no section; Kong cannot read the file");
                ConfError::new("CONF_UNPARSABLE", message)
            })?;
            parsed.insert_before.get_or_insert(line.span.start);
            parsed.sections.push(name);
        } else if parsed.sections.is_empty()
            && let Some(entry) = entry(line, &joined, comments)
        {
            parsed.entries.push(entry);
        }
    }
    parsed.insert_before = parsed.insert_before.or(dangling);
    Ok(parsed)
}

/// Where a line for `key` belongs when it is only there as a comment: after that comment and the indented ones that
/// explain it. Not inside a continued line, and not where keys no longer count.
pub(super) fn after_comment(text: &[u8], key: &str) -> Option<usize> {
    let (lines, dangling) = lines(text);
    let (mut at, mut found) = (0, None);
    while at < text.len() {
        let end = text[at..].iter().position(|b| *b == b'\n').map(|i| at + i + 1);
        let line = &text[at..end.unwrap_or(text.len())];
        let after = end.unwrap_or(text.len());
        match found {
            None if comments_out(line, key) => found = end,
            Some(_) if explains(line) => found = end,
            Some(_) => break,
            None => {}
        }
        at = after;
    }
    let at = found?;
    let inside = lines.iter().any(|line| line.span.start < at && at < line.span.end);
    let late = dangling.is_some_and(|start| start < at)
        || lines.iter().any(|line| line.span.start < at && line.joined(text).starts_with(b"["));
    (!inside && !late).then_some(at)
}

/// `#key = …`
fn comments_out(line: &[u8], key: &str) -> bool {
    let line = &line[trim(line)];
    let Some(rest) = line.strip_prefix(b"#") else { return false };
    let rest = &rest[trim(rest)];
    rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest[trim(rest)].starts_with(b"="))
}

/// An indented comment.
fn explains(line: &[u8]) -> bool {
    line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) && line[trim(line)].starts_with(b"#")
}

fn section_name(joined: &[u8]) -> Option<String> {
    let mut from = 0;
    while let Some(open) = joined[from..].iter().position(|b| *b == b'[') {
        let start = from + open + 1;
        let len = joined[start..].iter().position(|b| *b == b']')?;
        if len > 0 {
            return Some(identifier(&joined[start..start + len]));
        }
        from = start;
    }
    None
}

/// Anything but a letter or digit becomes `_`.
fn identifier(bytes: &[u8]) -> String {
    bytes.iter().map(|b| if b.is_ascii_alphanumeric() { char::from(*b) } else { '_' }).collect()
}

fn entry(line: Line, joined: &[u8], comments: Comments) -> Option<Entry> {
    let equals = joined.iter().position(|b| *b == b'=')?;
    let key = identifier(&joined[..equals][trim(&joined[..equals])]);
    let mut raw = trim(&joined[equals + 1..]);
    raw = raw.start + equals + 1..raw.end + equals + 1;
    let transformed = is_transformed(&joined[raw.clone()]) || misread(&joined[raw.clone()], comments);
    if let Some(comment) = comment_start(&joined[raw.clone()], comments) {
        raw.end = raw.start + comment;
        while raw.end > raw.start && is_space(joined[raw.end - 1]) {
            raw.end -= 1;
        }
    }
    if raw.is_empty() {
        raw = equals + 1..equals + 1;
    }
    let value = match comments {
        Comments::Unescaped | Comments::WithCharacterBefore => unescape(&joined[raw.clone()]),
        Comments::First | Comments::FirstButNotInLists => joined[raw.clone()].to_vec(),
    };
    Some(Entry { key, value, raw, line, transformed })
}

/// Where the value ends.
fn comment_start(value: &[u8], comments: Comments) -> Option<usize> {
    let hashes = || (0..value.len()).filter(|i| value[*i] == b'#');
    match comments {
        Comments::Unescaped => hashes().find(|i| *i == 0 || value[i - 1] != b'\\'),
        Comments::WithCharacterBefore => hashes().find(|i| *i > 0 && value[i - 1] != b'\\').map(|i| i - 1),
        Comments::FirstButNotInLists if value.contains(&b',') => None,
        Comments::First | Comments::FirstButNotInLists => hashes().next(),
    }
}

/// Whether an older Kong takes something for a value that everybody else takes for a comment, or the other way round.
fn misread(value: &[u8], comments: Comments) -> bool {
    let Some(hash) = value.iter().position(|b| *b == b'#') else { return false };
    match comments {
        Comments::Unescaped => false,
        Comments::WithCharacterBefore => {
            let eaten = comment_start(value, comments).is_some_and(|i| !is_space(value[i]));
            hash == 0 || eaten
        }
        Comments::First => hash > 0 && value[hash - 1] == b'\\',
        Comments::FirstButNotInLists => value.contains(&b',') || (hash > 0 && value[hash - 1] == b'\\'),
    }
}

/// `\#` means `#`; nothing else is an escape.
pub(super) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'\\' && tail.first() == Some(&b'#') {
            value.push(b'#');
            rest = &tail[1..];
        } else {
            value.push(*first);
            rest = tail;
        }
    }
    value
}

pub(super) fn escape(value: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(value.len());
    for byte in value {
        if *byte == b'#' {
            raw.push(b'\\');
        }
        raw.push(*byte);
    }
    raw
}

/// Errs on the side of `true`: what looks like a number in any of Lua's notations, unless written plainly.
fn is_transformed(value: &[u8]) -> bool {
    if value.windows(7).any(|w| w == b"_blank_") {
        return true;
    }
    let number = value.strip_suffix(b" kB").unwrap_or(value);
    let plain = number.len() <= 15
        && (number == b"0" || (number.first() != Some(&b'0') && number.iter().all(u8::is_ascii_digit)));
    let numeric = number
        .iter()
        .all(|b| b.is_ascii_hexdigit() || matches!(b, b'x' | b'X' | b'p' | b'P' | b'+' | b'-' | b'.'));
    let begins = number.first().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-'));
    begins && numeric && (!plain || number.len() != value.len())
}
