//! Reads counters of answers out of Kong's `/metrics`, line by line, without ever holding more than one.
//!
//! The plugin `prometheus` counts what it is configured for: since Kong 3.0 `kong_http_requests_total` (with
//! `status_code_metrics`), before it `kong_http_status`. No Kong has both. Both name the code in a label.
#![deny(clippy::disallowed_methods)]

use kctl_shared::served::Answers;

const COUNTERS: [&[u8]; 2] = [b"kong_http_requests_total{", b"kong_http_status{"];
/// Both always have this one too.
const ALWAYS: &[u8] = b"kong_nginx_metric_errors_total";
/// Longest line that is looked at, in bytes: names of service, route and consumer fit many times over. Of a longer one
/// nothing is counted, before a reload as after it.
const MAX_LINE: usize = 16 << 10;

/// Takes a body in pieces of any size.
#[derive(Debug, Default)]
pub struct Scrape {
    line: Vec<u8>,
    /// The present line is none of interest, or too long.
    skipped: bool,
    counted: Option<Answers>,
    /// The plugin answers: a counter that it does not show yet stands at zero.
    answers: bool,
}

impl Scrape {
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            self.more(&bytes[..at]);
            self.end_line();
            bytes = &bytes[at + 1..];
        }
        self.more(bytes);
    }

    /// `None`: this Kong counts nothing. A counter that it would have, had anything been counted, is zero.
    pub fn end(mut self) -> Option<Answers> {
        self.end_line();
        self.counted.or(self.answers.then(Answers::default))
    }

    fn more(&mut self, bytes: &[u8]) {
        if self.skipped {
            return;
        }
        self.line.extend_from_slice(&bytes[..bytes.len().min(MAX_LINE + 1 - self.line.len())]);
        let begins = |counter: &[u8]| {
            let known = self.line.len().min(counter.len());
            self.line[..known] == counter[..known]
        };
        self.skipped =
            self.line.len() > MAX_LINE || ![COUNTERS[0], COUNTERS[1], ALWAYS].into_iter().any(begins);
    }

    fn end_line(&mut self) {
        self.answers |= !self.skipped && self.line.starts_with(ALWAYS);
        if let Some((code, count)) = Some(&self.line).filter(|_| !self.skipped).and_then(|l| counter(l)) {
            let failed = if code == Some(b'5') { count } else { 0 };
            *self.counted.get_or_insert_default() += Answers { all: count, failed };
        }
        self.line.clear();
        self.skipped = false;
    }
}

/// First digit of the code, and the value.
fn counter(line: &[u8]) -> Option<(Option<u8>, u64)> {
    let start = COUNTERS.into_iter().find_map(|name| line.strip_prefix(name))?;
    let (mut rest, mut code) = (start, None);
    loop {
        rest = match rest {
            [b'}', after @ ..] => return Some((code, number(after)?)),
            [b',', after @ ..] => after,
            other => other,
        };
        if rest.first() == Some(&b'}') {
            continue;
        }
        let at = rest.iter().position(|b| *b == b'=')?;
        let (name, [b'=', b'"', after @ ..]) = rest.split_at(at) else { return None };
        if name == b"code" {
            code = after.first().copied();
        }
        rest = after_quote(after)?;
    }
}

/// What follows a label's value; a backslash escapes whatever comes next.
fn after_quote(mut value: &[u8]) -> Option<&[u8]> {
    loop {
        value = match value {
            [b'"', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

/// A value as Lua writes it, `12` or `1e+15`; what follows it is a time, which Kong does not write.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    // Beyond 2^53 nothing could be added to it one by one.
    (value.is_finite() && (0.0..=9e15).contains(&value)).then_some(value as u64)
}

#[cfg(test)]
mod tests;
