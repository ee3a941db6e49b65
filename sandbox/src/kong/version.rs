//! Which Kong is played: the name of the executable says it, `kong-2.8.5`; `kong` alone is the newest.
//!
//! One process plays one Kong from its first moment to its last, so the version is the process's own.

use std::fmt;
use std::sync::OnceLock;

/// Version of Kong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

/// The one that every recording is of.
const NEWEST: Version = Version(3, 9, 1);

static PLAYED: OnceLock<Version> = OnceLock::new();

impl Version {
    /// Of the name of an executable; `None`: it is not called `kong`.
    pub fn of_executable(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("kong")?;
        if rest.is_empty() {
            return Some(NEWEST);
        }
        let mut parts = rest.strip_prefix('-')?.split('.').map(str::parse);
        let version = Self(parts.next()?.ok()?, parts.next()?.ok()?, parts.next().unwrap_or(Ok(0)).ok()?);
        parts.next().is_none().then_some(version)
    }

    /// As `MMMmmmppp`, which Kong's PDK calls the version number.
    pub fn number(self) -> u32 {
        u32::from(self.0) * 1_000_000 + u32::from(self.1) * 1000 + u32::from(self.2)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Settles which Kong this process plays.
pub fn play(version: Version) {
    // Once set, it stays.
    let _ = PLAYED.set(version);
}

/// Which Kong this process plays.
pub fn played() -> Version {
    PLAYED.get().copied().unwrap_or(NEWEST)
}

/// Whether the played Kong is this one or a later one.
pub fn since(major: u16, minor: u16, patch: u16) -> bool {
    played() >= Version(major, minor, patch)
}

/// Before 0.9: another command line, and a YAML file.
pub fn is_ancient() -> bool {
    !since(0, 9, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executables_name_says_which_kong_it_is() {
        for (name, version) in [
            ("kong", Some(NEWEST)),
            ("kong-2.8.5", Some(Version(2, 8, 5))),
            ("kong-0.14", Some(Version(0, 14, 0))),
            ("kong-x", None),
            ("kong-1.2.3.4", None),
            ("kongx", None),
            ("kctl", None),
        ] {
            assert_eq!(Version::of_executable(name), version, "{name}");
        }
    }
}
