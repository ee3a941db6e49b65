//! A chunk as tokens: strings and comments are known, so that neither is taken for code.

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    Text(String),
    Assign,
    Concat,
    Sign(u8),
    /// Numbers and operators.
    Other,
}

/// The tokens, and the line of each.
pub(super) fn tokens(source: &[u8]) -> (Vec<Token<'_>>, Vec<usize>) {
    let (mut found, mut lines, mut line) = (Vec::new(), Vec::new(), 1);
    let mut rest = source;
    if rest.starts_with(b"#") {
        rest = &rest[rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())..];
    }
    while let Some(&first) = rest.first() {
        let (token, used) = match first {
            b if b.is_ascii_whitespace() => (None, 1),
            b'-' if rest.starts_with(b"--") => (None, comment(rest)),
            b'[' => match long(rest) {
                Some((text, used)) => (Some(Token::Text(text)), used),
                None => (Some(Token::Sign(b'[')), 1),
            },
            b'"' | b'\'' => quoted(rest),
            b if b.is_ascii_alphabetic() || b == b'_' => {
                let used = word(rest, |b| b.is_ascii_alphanumeric() || b == b'_');
                (std::str::from_utf8(&rest[..used]).ok().map(Token::Name), used)
            }
            b if b.is_ascii_digit() => {
                (Some(Token::Other), word(rest, |b| b.is_ascii_alphanumeric() || b == b'.'))
            }
            b'.' if rest.starts_with(b"...") => (Some(Token::Other), 3),
            b'.' if rest.starts_with(b"..") => (Some(Token::Concat), 2),
            b'=' | b'~' | b'<' | b'>' if rest.get(1) == Some(&b'=') => (Some(Token::Other), 2),
            b'=' => (Some(Token::Assign), 1),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b'#' | b'<' | b'>' => (Some(Token::Other), 1),
            b => (Some(Token::Sign(b)), 1),
        };
        if let Some(token) = token {
            found.push(token);
            lines.push(line);
        }
        line += rest[..used].iter().filter(|b| **b == b'\n').count();
        rest = &rest[used..];
    }
    (found, lines)
}

fn word(source: &[u8], part: impl Fn(u8) -> bool) -> usize {
    source.iter().position(|b| !part(*b)).unwrap_or(source.len())
}

/// Length of the comment that `source` begins with.
fn comment(source: &[u8]) -> usize {
    match long(&source[2..]) {
        Some((_, used)) => 2 + used,
        None => word(source, |b| b != b'\n'),
    }
}

/// `[[…]]`, `[=[…]=]` and so on; one without end reaches to the end of the source.
fn long(source: &[u8]) -> Option<(String, usize)> {
    let level = word(source.get(1..)?, |b| b == b'=');
    if source.first() != Some(&b'[') || source.get(1 + level) != Some(&b'[') {
        return None;
    }
    let start = level + 2;
    let mut close = vec![b'='; level + 2];
    (close[0], close[level + 1]) = (b']', b']');
    let found = source[start..].windows(close.len()).position(|w| w == close);
    let end = found.map_or(source.len(), |n| start + n);
    let text = String::from_utf8_lossy(&source[start..end]);
    // A line break right after the bracket does not belong to the string.
    let text = text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(&text).to_owned();
    Some((text, found.map_or(source.len(), |_| end + close.len())))
}

/// A quoted string; one that does not end on its line is no string.
fn quoted(source: &[u8]) -> (Option<Token<'_>>, usize) {
    let quote = source[0];
    let mut text = Vec::new();
    let mut at = 1;
    while let Some(&b) = source.get(at) {
        at += 1;
        match b {
            b'\n' => return (Some(Token::Other), at),
            b'\\' => {
                let Some(&escaped) = source.get(at) else { break };
                at += 1;
                match escaped {
                    b'n' => text.push(b'\n'),
                    b't' => text.push(b'\t'),
                    b'r' => text.push(b'\r'),
                    b'0'..=b'9' => {
                        let digits = word(&source[at - 1..source.len().min(at + 2)], |b| b.is_ascii_digit());
                        let code = source[at - 1..at - 1 + digits]
                            .iter()
                            .fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
                        text.push(u8::try_from(code).unwrap_or(b'?'));
                        at += digits - 1;
                    }
                    other => text.push(other),
                }
            }
            b if b == quote => return (Some(Token::Text(String::from_utf8_lossy(&text).into_owned())), at),
            b => text.push(b),
        }
    }
    (Some(Token::Other), source.len())
}
