//! How a release gets onto a node, and off it again: each way is undone by its own counterpart.

use std::fmt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Longest directory that may be named, in bytes.
const MAX_PLACE: usize = 200;

/// Chosen per install, remembered with the release. Part of a release's identity on a node: the same files placed in
/// another way are placed again, and the former way is undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Unpacked by the agent into its own store. Needs nothing on the node.
    #[default]
    Store,
    /// Installed and removed by the node's LuaRocks.
    Luarocks {
        /// Root of the LuaRocks tree; `None`: a tree of the release's own, which is never changed.
        tree: Option<String>,
        /// From sources, with `luarocks make`; else from a rock, with `luarocks install`.
        make: bool,
    },
    /// Already on the node, put there by somebody else: compared and listed, never copied, changed or deleted.
    Path {
        /// The plugin's own directory, or one with `kong/plugins/NAME` in it; `None`: wherever Lua finds it.
        dir: Option<String>,
    },
}

impl Method {
    pub const NAMES: [&str; 3] = ["store", "luarocks", "path"];

    /// Loaded from where Lua finds it anyway: nothing of kctl's stands before it on the Lua path.
    pub fn is_in_place(&self) -> bool {
        matches!(self, Self::Path { dir: None })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Luarocks { .. } => "luarocks",
            Self::Path { .. } => "path",
        }
    }

    /// The tree or directory that was named; empty without one.
    pub fn place(&self) -> &str {
        match self {
            Self::Store => "",
            Self::Luarocks { tree: place, .. } | Self::Path { dir: place } => place.as_deref().unwrap_or(""),
        }
    }

    /// Whether `luarocks make` is meant.
    pub fn makes(&self) -> bool {
        matches!(self, Self::Luarocks { make: true, .. })
    }

    pub fn is_store(&self) -> bool {
        *self == Self::Store
    }

    /// The tree that other rocks may live in too.
    pub fn shared_tree(&self) -> Option<&Path> {
        match self {
            Self::Luarocks { tree, .. } => tree.as_deref().map(Path::new),
            _ => None,
        }
    }

    /// From how messages spell it; an empty name is the default.
    ///
    /// # Errors
    /// `METHOD_UNKNOWN`, `METHOD_INVALID`.
    pub fn parse(name: &str, place: &str, make: bool) -> Result<Self, Fault> {
        let invalid =
            |message: String| Fault::new("METHOD_INVALID", message).hint("see kctl plugin install --help");
        let place = match place {
            "" => None,
            place => Some(checked(place).map_err(invalid)?),
        };
        if make && name != "luarocks" {
            return Err(invalid("building from sources is for the method luarocks only".into()));
        }
        match (name, place) {
            ("" | "store", None) => Ok(Self::Store),
            ("" | "store", Some(_)) => {
                Err(invalid("a directory can be named for the methods luarocks and path only".into()))
            }
            ("luarocks", tree) => Ok(Self::Luarocks { tree, make }),
            ("path", dir) => Ok(Self::Path { dir }),
            (other, _) => Err(Fault::new(
                "METHOD_UNKNOWN",
                format!("there is no install method {other:?}, only {}", Self::NAMES.join(", ")),
            )
            .hint("see kctl plugin install --help")),
        }
    }
}

/// An absolute directory without anything in it that Lua, nginx or a shell could take for something else.
fn checked(place: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    let path = Path::new(place);
    let straight = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if place.len() > MAX_PLACE || !place.chars().all(plain) {
        return Err(format!(
            "{place:?} cannot be such a directory: at most {MAX_PLACE} letters, digits and / . _ - + @"
        ));
    }
    let trimmed = place.trim_end_matches('/');
    if !path.is_absolute() || !straight || trimmed.is_empty() {
        return Err(format!("{place} must be an absolute path without `..`, and not the root"));
    }
    Ok(trimmed.to_owned())
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.place() {
            "" => Ok(()),
            place => write!(f, " ({place})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        let tree = |t: Option<&str>, make| Method::Luarocks { tree: t.map(str::to_owned), make };
        for (name, place, make, method) in [
            ("", "", false, Method::Store),
            ("store", "", false, Method::Store),
            ("luarocks", "", false, tree(None, false)),
            ("luarocks", "/usr/local/", true, tree(Some("/usr/local"), true)),
            ("path", "/srv/kong_1.0/lua", false, Method::Path { dir: Some("/srv/kong_1.0/lua".into()) }),
            ("path", "", false, Method::Path { dir: None }),
        ] {
            let parsed = Method::parse(name, place, make).unwrap();
            assert_eq!(parsed, method);
            let again = Method::parse(parsed.name(), parsed.place(), parsed.makes()).unwrap();
            assert_eq!(again, method, "{name} {place}");
        }
    }

    #[test]
    fn what_is_refused() {
        let long = format!("/{}", "a".repeat(MAX_PLACE));
        for (name, place, make, code) in [
            ("rpm", "", false, "METHOD_UNKNOWN"),
            ("Store", "", false, "METHOD_UNKNOWN"),
            ("store", "/usr/local", false, "METHOD_INVALID"),
            ("store", "", true, "METHOD_INVALID"),
            ("path", "/x", true, "METHOD_INVALID"),
            ("luarocks", "usr/local", false, "METHOD_INVALID"),
            ("luarocks", "/", false, "METHOD_INVALID"),
            ("luarocks", "//", false, "METHOD_INVALID"),
            ("luarocks", "/a/../etc", false, "METHOD_INVALID"),
            ("luarocks", "/a b", false, "METHOD_INVALID"),
            ("luarocks", "/a;b", false, "METHOD_INVALID"),
            ("luarocks", "/a?", false, "METHOD_INVALID"),
            ("path", "/a\nb", false, "METHOD_INVALID"),
            ("path", "/$(id)", false, "METHOD_INVALID"),
            ("path", &long, false, "METHOD_INVALID"),
        ] {
            assert_eq!(Method::parse(name, place, make).unwrap_err().code, code, "{name} {place}");
        }
    }
}
