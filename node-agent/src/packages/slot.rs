//! Where the agent keeps what belongs to one placement, and what it notes there.
//!
//! ```text
//! <lua_dir>/store/<plugin>/<sha256>/kong/plugins/<plugin>/…                          method store
//! <lua_dir>/luarocks/<plugin>/<sha256>/{share,lib}/…                                 a LuaRocks tree of the release's own
//! <lua_dir>/luarocks/<plugin>/<sha256>.<method>/kong/plugins/<plugin>/…              sources for a tree that others use too
//! <lua_dir>/path/<plugin>/<sha256>.<method>/                                         nothing but the note
//! …/release.json                                                                     the note, where the name does not say it all
//! ```
//!
//! A slot is made beside its place and renamed into it, note and all: what is there is whole, and says how it came there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::spec::Placement;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const NOTE: &str = "release.json";
/// Of the hash over a method, in hexadecimal digits: enough to keep a handful of methods apart.
const TAG: usize = 16;

/// Where Lua modules lie in a LuaRocks tree.
pub(super) const TREE_LUA: &str = "share/lua/5.1";

/// What a slot says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    pub method: Method,
    /// Method path: the plugin's own directory, as it was found.
    #[serde(default)]
    pub found: Option<PathBuf>,
    /// Modules beside the plugin's own directory, relative to a Lua root.
    #[serde(default)]
    pub extras: Vec<String>,
}

impl Note {
    pub fn read(slot: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(slot.join(NOTE)).ok()?).ok()
    }

    /// Name and content of the note, where there has to be one.
    pub fn file(&self) -> Option<(&'static str, Vec<u8>)> {
        (!is_plain(&self.method) || !self.extras.is_empty())
            .then(|| (NOTE, serde_json::to_vec(self).unwrap_or_default()))
    }
}

/// Whether the slot's place and name say which method it is.
fn is_plain(method: &Method) -> bool {
    matches!(method, Method::Store | Method::Luarocks { tree: None, make: false })
}

/// Relative to the Lua directory.
pub(super) fn slot(plugin: &PluginName, placement: &Placement) -> PathBuf {
    let mut name = placement.digest.hex();
    if !is_plain(&placement.method) {
        let text = serde_json::to_vec(&placement.method).unwrap_or_default();
        name.push('.');
        name.push_str(&hex::encode(Sha256::digest(text))[..TAG]);
    }
    [placement.method.name(), plugin.as_str(), &name].iter().collect()
}

/// Where the slot keeps modules, relative to it.
pub(super) fn modules(method: &Method) -> &'static str {
    match method {
        Method::Luarocks { tree: None, .. } => TREE_LUA,
        _ => "",
    }
}

/// All placements there are, by names and notes alone.
pub(super) fn all(root: &Path) -> BTreeMap<PluginName, BTreeSet<Placement>> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    let mut found: BTreeMap<PluginName, BTreeSet<Placement>> = BTreeMap::new();
    for kind in Method::NAMES {
        let kind_dir = root.join(kind);
        for plugin in names(&kind_dir).into_iter().filter_map(|n| PluginName::parse(&n).ok()) {
            let dir = kind_dir.join(plugin.as_str());
            let placements = names(&dir).into_iter().filter_map(|name| {
                let (digest, tagged) =
                    name.split_once('.').map_or((name.as_str(), false), |(d, _)| (d, true));
                let method = match (kind, tagged) {
                    ("store", false) => Method::Store,
                    ("luarocks", false) => Method::Luarocks { tree: None, make: false },
                    _ => Note::read(&dir.join(&name))?.method,
                };
                Some(Placement { digest: digest.parse().ok()?, method })
            });
            let placements: BTreeSet<_> = placements.collect();
            if !placements.is_empty() {
                found.entry(plugin).or_default().extend(placements);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::digest::Digest;

    #[test]
    fn every_placement_has_a_slot_of_its_own_and_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let plugin = PluginName::parse("hello").unwrap();
        let digest = Digest::of(b"1");
        let tree = |tree: Option<&str>, make| Method::Luarocks { tree: tree.map(str::to_owned), make };
        let methods = [
            Method::Store,
            tree(None, false),
            tree(None, true),
            tree(Some("/usr/local"), false),
            tree(Some("/opt/tree"), false),
            Method::Path { dir: None },
            Method::Path { dir: Some("/srv/lua".into()) },
        ];
        let placements: BTreeSet<_> =
            methods.into_iter().map(|method| Placement { digest, method }).collect();
        let slots: BTreeSet<_> = placements.iter().map(|p| slot(&plugin, p)).collect();
        assert_eq!(slots.len(), placements.len());
        for placement in &placements {
            let dir = root.path().join(slot(&plugin, placement));
            fs::create_dir_all(&dir).unwrap();
            let note = Note { method: placement.method.clone(), found: None, extras: Vec::new() };
            if let Some((name, bytes)) = note.file() {
                fs::write(dir.join(name), bytes).unwrap();
            }
        }
        assert_eq!(all(root.path()), BTreeMap::from([(plugin, placements)]));
    }
}
