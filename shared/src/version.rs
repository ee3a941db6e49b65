//! Which of two versions is the newer one: SemVer, with a rock's revision behind it.

use std::cmp::Ordering;

/// `None` when the two cannot be compared: one has other than numbers where SemVer has its three, or is a made-up
/// version of a plugin that names none (`0.0.0-ab12cd34`).
///
/// `1.2.0` and `1.2.0-1` differ by the revision only; `1.2.0-rc.1` and `1.2.0-rc.1-2` are before both.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Parts::of(a)?, Parts::of(b)?);
    let most = a.numbers.len().max(b.numbers.len());
    let at = |numbers: &[u64], n: usize| numbers.get(n).copied().unwrap_or(0);
    let numbers = (0..most).map(|n| at(&a.numbers, n).cmp(&at(&b.numbers, n))).find(|o| o.is_ne());
    let numbers = numbers.unwrap_or(Ordering::Equal);
    Some(numbers.then_with(|| pre(a.pre, b.pre)).then(a.revision.cmp(&b.revision)))
}

struct Parts<'a> {
    numbers: Vec<u64>,
    /// Of a version before the one that the numbers name.
    pre: Option<&'a str>,
    revision: u64,
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Option<Self> {
        let version = version.strip_prefix('v').unwrap_or(version);
        if version.starts_with("0.0.0-") {
            return None;
        }
        let version = version.split('+').next()?;
        let (core, rest) = match version.split_once('-') {
            Some((core, rest)) => (core, Some(rest)),
            None => (version, None),
        };
        let numbers = core.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let (pre, last) = match rest {
            None => (None, None),
            Some(rest) => match rest.rsplit_once('-') {
                Some((pre, last)) => (Some(pre), Some(last)),
                None => (None, Some(rest)),
            },
        };
        Some(match last.map(str::parse) {
            None => Self { numbers, pre: None, revision: 0 },
            Some(Ok(revision)) => Self { numbers, pre, revision },
            Some(Err(_)) => Self { numbers, pre: rest, revision: 0 },
        })
    }
}

/// As SemVer orders what stands before a release: identifier by identifier, numbers before words, fewer before more.
fn pre(a: Option<&str>, b: Option<&str>) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return b.is_some().cmp(&a.is_some()) };
    let key = |part: &str| match part.parse::<u64>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, part.to_owned()),
    };
    a.split('.').map(key).cmp(b.split('.').map(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_this_order() {
        let order = [
            "0.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0-rc.1-2",
            "1.0.0",
            "1.0.0-1",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.1",
            "1.9.0",
            "1.10.0",
            "v2",
        ];
        for (n, a) in order.iter().enumerate() {
            for (m, b) in order.iter().enumerate() {
                assert_eq!(compare(a, b), Some(n.cmp(&m)), "{a} {b}");
            }
        }
        assert_eq!(compare("1.2", "1.2.0+build"), Some(Ordering::Equal));
        for odd in ["scm", "", "1.x", "0.0.0-ab12cd34", "scm-1"] {
            assert_eq!(compare(odd, "1.0.0"), None, "{odd}");
            assert_eq!(compare("1.0.0", odd), None, "{odd}");
        }
    }
}
