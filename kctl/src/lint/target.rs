//! The Kong a plugin is meant for.

use serde::{Deserialize, Serialize};

/// The newest versions known of each line, for `3.x` and the like.
const NEWEST: [(u32, u32); 4] = [(0, 14), (1, 5), (2, 8), (3, 9)];

/// A minor version of Kong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub major: u32,
    pub minor: u32,
}

impl Default for Target {
    fn default() -> Self {
        Self { major: 3, minor: 9 }
    }
}

impl Target {
    /// `3.9`, `3.9.1`, `3.x`, `3`.
    ///
    /// # Errors
    /// A sentence for the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a version of Kong such as 3.9, 2.8 or 3.x");
        let mut parts = text.trim_start_matches('v').split('.');
        let major = parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
        let minor = match parts.next() {
            None | Some("x") => {
                NEWEST.iter().find(|(m, _)| *m == major).map(|(_, minor)| *minor).ok_or_else(wrong)?
            }
            Some(part) => part.parse().ok().filter(|m| *m < 100).ok_or_else(wrong)?,
        };
        let digits = |p: &str| p == "x" || !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
        if parts.all(digits) { Ok(Self { major, minor }) } else { Err(wrong()) }
    }

    /// 3.9 is 309: to compare.
    pub fn number(self) -> u32 {
        self.major * 100 + self.minor
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_people_write_them() {
        for (text, number) in
            [("3.9", 309), ("3.9.1", 309), ("3.x", 309), ("2", 208), ("0.14", 14), ("v2.1.x", 201)]
        {
            assert_eq!(Target::parse(text).map(Target::number), Ok(number), "{text}");
        }
        for text in ["", "x", "3.", "3.a", "3.9.b", "7.x", "-1.0"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
