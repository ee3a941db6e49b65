//! Modules that travel with a plugin although they lie outside its directory: what its rock holds and its rockspec lists
//! beside it, and what its code requires from the Lua root it stands in. Never a reason to refuse the plugin: what a
//! release cannot hold is left out, and told.

use std::collections::{BTreeMap, BTreeSet};

use super::super::extras;
use super::super::lua::Scan;
use super::super::path;
use super::super::rockspec::Rockspec;
use super::super::tree::{Body, Node, Tree};
use super::search::Search;
use super::{Files, Listing, MARKS};
use crate::name::PluginName;

/// The plugin itself, taken already.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub plugin: &'a PluginName,
    pub list: &'a Listing,
    pub files: &'a Files,
    /// What stands before `kong/plugins/NAME` in the tree, with its slash; `None` where it does not lie so.
    pub root: Option<&'a str>,
}

#[derive(Debug, Default)]
pub(super) struct Beside {
    pub files: Files,
    /// (path below a Lua root, path in the tree)
    pub listing: Listing,
    /// Paths in the tree of modules that a release cannot hold.
    pub unfit: Vec<String>,
}

pub(super) fn find(
    tree: &Tree<'_>,
    search: &Search,
    own: &Own<'_>,
    spec: Option<&Rockspec>,
    allow_shadow: bool,
) -> Beside {
    let source = Source { tree, own };
    let mut candidates = source.given(search, spec);
    let required = source.required(search, &mut candidates);
    let mut beside = Beside::default();
    for (module, (from, bytes)) in candidates {
        let fits = extras::fits(own.plugin, &module, tree.limits).is_ok()
            && (allow_shadow || extras::shadows(&module).is_none())
            // What the code needs is judged as the plugin's own files are.
            && (required.contains(&module) || extras::sound(&module, bytes, tree.limits).is_ok());
        if fits {
            beside.files.push((module.clone(), bytes.to_vec()));
            beside.listing.push((module, from));
        } else {
            beside.unfit.push(from);
        }
    }
    beside
}

/// Path below a Lua root -> (path in the tree, content).
type Candidates<'t> = BTreeMap<String, (String, &'t [u8])>;

struct Source<'t> {
    tree: &'t Tree<'t>,
    own: &'t Own<'t>,
}

impl<'t> Source<'t> {
    /// A file of the tree or of the plugin, which was taken out of it.
    fn content(&self, path: &str) -> Option<&'t [u8]> {
        match self.tree.nodes.get(path) {
            Some(Node::File(Body::Kept(bytes))) => Some(bytes),
            _ => {
                let at = self.own.list.iter().position(|(_, from)| from == path)?;
                self.own.files.get(at).map(|(_, bytes)| bytes.as_slice())
            }
        }
    }

    /// What the rock has or the rockspec lists, without the plugin's own and that of other plugins.
    fn given(&self, search: &Search, spec: Option<&Rockspec>) -> Candidates<'t> {
        let mut found = Candidates::new();
        if self.tree.nodes.contains_key("rock_manifest") {
            let lua = self.tree.nodes.keys().filter(|p| p.ends_with(".lua"));
            for (module, path) in lua.filter_map(|p| Some((p.strip_prefix("lua/")?, p))) {
                if let Some(bytes) = self.content(path) {
                    found.insert(module.to_owned(), (path.clone(), bytes));
                }
            }
        } else if let Some(spec) = spec {
            let bases = search.bases(self.tree, spec);
            for (module, file) in spec.placed() {
                let places = bases.iter().filter_map(|b| spec.place(b, file, self.tree.limits.max_path));
                if let Some(there) = places.into_iter().find_map(|p| self.content(&p).map(|b| (p, b))) {
                    found.insert(module, there);
                }
            }
        }
        let place = |module: &str| {
            path::canonical(module)
                .filter(|c| c.above.is_empty())
                .map(|c| (c.name.to_owned(), MARKS.contains(&c.rest)))
        };
        let mut others: BTreeSet<String> =
            found.keys().filter_map(|m| place(m)).filter(|(_, mark)| *mark).map(|(name, _)| name).collect();
        others.insert(self.own.plugin.to_string());
        found.retain(|module, _| place(module).is_none_or(|(name, _)| !others.contains(&name)));
        found
    }

    /// The modules among `candidates` that the code requires; adds those that lie in the plugin's Lua root.
    fn required(&self, search: &Search, candidates: &mut Candidates<'t>) -> BTreeSet<String> {
        let mut required = BTreeSet::new();
        let mut todo: Vec<&[u8]> =
            self.own.files.iter().filter(|(p, _)| p.ends_with(".lua")).map(|(_, b)| b.as_slice()).collect();
        while let Some(source) = todo.pop() {
            for module in Scan::of(source).modules() {
                let path = module.replace('.', "/");
                for file in [format!("{path}.lua"), format!("{path}/init.lua")] {
                    if !candidates.contains_key(&file) {
                        let Some(there) = self.in_root(search, &file) else { continue };
                        candidates.insert(file.clone(), there);
                    }
                    if let (true, Some((_, bytes))) = (required.insert(file.clone()), candidates.get(&file)) {
                        todo.push(bytes);
                    }
                    break;
                }
            }
        }
        required
    }

    fn in_root(&self, search: &Search, file: &str) -> Option<(String, &'t [u8])> {
        let root = self.own.root?;
        // What belongs to another plugin is installed with that one.
        let place = path::canonical(file).filter(|c| c.above.is_empty());
        let marked = |name: &str| {
            MARKS
                .iter()
                .any(|mark| self.tree.nodes.contains_key(&format!("{root}kong/plugins/{name}/{mark}")))
        };
        if place.is_some_and(|c| c.name == self.own.plugin.as_str() || marked(c.name)) {
            return None;
        }
        let from = format!("{root}{file}");
        let plain = path::clean(file.as_bytes(), self.tree.limits.max_path).is_ok_and(|p| p == file);
        let bytes = self.content(&from).filter(|_| plain && search.usable(&from))?;
        Some((from, bytes))
    }
}
