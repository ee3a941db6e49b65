//! kong.conf as a person reads it, line by line, so that what Kong makes of it can be compared with what was meant.

/// A `key = value` or `[section]` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// The section it stands in, which takes it out of effect.
    pub section: Option<String>,
    /// Empty for a section's own line.
    pub key: String,
    /// As written, without a trailing comment.
    pub value: String,
}

impl Line {
    pub fn names(&self) -> Vec<String> {
        let names = self.value.split(',').map(|name| unquoted(name.trim()).to_owned());
        names.filter(|name| !name.is_empty()).collect()
    }
}

/// All lines that are neither blank nor comments.
pub fn scan(text: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(text);
    let (mut lines, mut section, mut continued) = (Vec::new(), None, false);
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        let goes_on = std::mem::replace(&mut continued, line.ends_with('\\'));
        if goes_on || line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let number = index + 1;
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or(name).to_owned();
            section = Some(name);
            lines.push(Line { number, section: section.clone(), key: String::new(), value: String::new() });
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let value = without_comment(value).trim().to_owned();
            lines.push(Line { number, section: section.clone(), key, value });
        }
    }
    lines
}

fn without_comment(value: &str) -> &str {
    let bytes = value.as_bytes();
    let at = (0..bytes.len()).find(|i| bytes[*i] == b'#' && (*i == 0 || bytes[i - 1] != b'\\'));
    at.map_or(value, |at| &value[..at])
}

pub fn unquoted(name: &str) -> &str {
    name.trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sections_and_comments_are_told_apart() {
        let text =
            b"# c\nplugins = bundled, foo # two\nlua-package-path=a\\\n  b = c\n[x]\nplugins = \"bar\"\n";
        let lines: Vec<_> = scan(text)
            .into_iter()
            .map(|l| (l.number, l.section.unwrap_or_default(), l.key.clone(), l.value))
            .collect();
        let expected = [
            (2, "", "plugins", "bundled, foo"),
            (3, "", "lua_package_path", "a\\"),
            (5, "x", "", ""),
            (6, "x", "plugins", "\"bar\""),
        ];
        let expected = expected.map(|(n, s, k, v)| (n, s.to_owned(), k.to_owned(), v.to_owned()));
        assert_eq!(lines, expected);
        assert_eq!(scan(text)[3].names(), ["bar"]);
    }
}
