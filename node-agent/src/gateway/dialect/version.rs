//! `kong version`'s answer.

use std::fmt;

use kctl_shared::spec::Failure;

/// Newest major whose files and answers are known.
const NEWEST_MAJOR: u16 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KongVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

impl KongVersion {
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// `3.9.1`, `Kong version: 0.8.3`, `Kong Enterprise 2.8.1.4`, `3.4.3.1-enterprise-edition`, `2.8`. A missing patch
    /// level is 0, what follows the third number does not matter.
    ///
    /// # Errors
    /// `KONG_VERSION_UNKNOWN`, `KONG_VERSION_UNSUPPORTED`.
    pub fn parse(answer: &str) -> Result<Self, Failure> {
        let shown: String = answer.trim().chars().filter(|c| !c.is_control()).take(80).collect();
        let unknown = |why: &str| {
            Failure::new(
                "KONG_VERSION_UNKNOWN",
                format!("{shown:?} is not a version of Kong that is known: {why}"),
            )
        };
        let start = answer
            .char_indices()
            .find(|(i, c)| {
                c.is_ascii_digit() && !answer[..*i].ends_with(|b: char| b.is_ascii_alphanumeric() || b == '.')
            })
            .map(|(i, _)| i)
            .ok_or_else(|| unknown("it has no number"))?;
        let end = answer[start..]
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .map_or(answer.len(), |i| start + i);
        let mut parts = answer[start..end].trim_end_matches('.').split('.').map(str::parse::<u16>);
        let mut part = |missing: Option<u16>| match parts.next() {
            Some(Ok(number)) => Ok(number),
            None if missing.is_some() => Ok(missing.unwrap_or_default()),
            _ => Err(unknown("it has to have at least two numbers, as in 3.9")),
        };
        let version = Self { major: part(None)?, minor: part(None)?, patch: part(Some(0))? };
        // Before it took Kong's own numbers, the Enterprise edition counted 0.29 to 0.36.
        if version.major == 0 && version.minor > 15 {
            let message =
                format!("{shown:?} is an Enterprise edition older than 1.3, which cannot be driven");
            return Err(Failure::new("KONG_VERSION_UNSUPPORTED", message));
        }
        if version.major > NEWEST_MAJOR {
            return Err(unknown("it is newer than this program; upgrade kctl"));
        }
        Ok(version)
    }
}

impl fmt::Display for KongVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
