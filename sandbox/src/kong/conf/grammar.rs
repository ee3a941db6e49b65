//! The text form of `kong.conf` and `.kong_env`.

use crate::kong::version;

/// The settings of a file in order; a later line of the same key wins.
///
/// As Kong's reader does: the first `=` splits, white space around key and value is cut, characters of the key that
/// are no letters or digits become `_`, lines that start with `#` or `;` are comments, an unescaped `#` ends the value
/// and `\#` is a literal one, a trailing backslash joins the next line, and what follows a `[section]` is lost.
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        if trimmed.starts_with('[') && trimmed.trim_end().ends_with(']') {
            break;
        }
        let mut joined = line.to_owned();
        while joined.ends_with('\\') {
            joined.pop();
            match lines.next() {
                Some(next) => joined.push_str(next.trim_start()),
                None => break,
            }
        }
        let Some((key, value)) = joined.split_once('=') else { continue };
        let key: String =
            key.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if !key.is_empty() {
            settings.push((key, strip_comment(value).trim().to_owned()));
        }
    }
    settings
}

fn strip_comment(value: &str) -> String {
    let value = value.trim();
    let cut = |at: Option<usize>| at.map_or(value, |at| &value[..at]);
    if !version::since(0, 10, 4) {
        return cut(value.find('#')).to_owned();
    }
    if !version::since(3, 2, 0) {
        // With the character before it, which is why a value that begins with one is none to it.
        let hash = value
            .char_indices()
            .zip(value.char_indices().skip(1))
            .find(|((_, a), (_, b))| *a != '\\' && *b == '#');
        return cut(hash.map(|((at, _), _)| at)).replace("\\#", "#");
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'#') => {
                chars.next();
                out.push('#');
            }
            '#' => break,
            other => out.push(other),
        }
    }
    out
}

/// A value as `.kong_env` writes it.
pub fn escape(value: &str) -> String {
    value.replace('#', "\\#")
}

/// The items of a list value. Items are trimmed; an empty item between commas stays, as Kong keeps it.
pub fn items(value: &str) -> Vec<String> {
    if value.trim().is_empty() {
        return Vec::new();
    }
    value.split(',').map(|item| item.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_at_unescaped_hashes_and_quotes_stay() {
        let text = "a-b = \"x\" # why\n; note\nc=1\\#2\nd = one,\\\n  two\n[late]\ne = 5\n";
        let expected = [("a_b", "\"x\""), ("c", "1#2"), ("d", "one,two")];
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn empty_items_between_commas_are_names_too() {
        assert_eq!(items("bundled,,golden"), ["bundled", "", "golden"]);
        assert!(items(" ").is_empty());
    }
}
