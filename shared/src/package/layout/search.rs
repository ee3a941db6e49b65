//! Where in a tree the plugin is. Reads the tree, takes nothing out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::MARKS;
use crate::name::PluginName;
use crate::package::error::{PackageError, shown};
use crate::package::path;
use crate::package::rockspec::{Evaluator, Found, Rockspec};
use crate::package::tree::{Body, Node, Tree};

/// How deep a bare plugin may lie: an archive's wrapping directory, and `src` or the like.
const MAX_BARE_DEPTH: usize = 4;
/// How many rockspecs are run: the last ones by name, since repositories keep those of old versions.
const MAX_ROCKSPECS: usize = 16;
/// In how many directories beside a rockspec its sources are looked for.
const MAX_BASES: usize = 16;

#[derive(Debug)]
pub(in crate::package) struct Search {
    /// An archive's only top-level directory; empty if there is none.
    pub wrapping: String,
}

impl Search {
    pub fn new(tree: &Tree<'_>, archive: bool) -> Self {
        let mut top = tree.nodes.iter().filter(|(p, _)| !p.contains('/') && !p.starts_with('.'));
        let wrapping = match (top.next(), top.next()) {
            (Some((name, Node::Directory)), None) if archive => name.clone(),
            _ => String::new(),
        };
        Self { wrapping }
    }

    /// Neither hidden nor in tests or vendored trees. The wrapping may have any name.
    pub fn usable(&self, path: &str) -> bool {
        let inside =
            if path::aside(&self.wrapping) { path.split_once('/').map_or("", |(_, p)| p) } else { path };
        !path::hidden(path) && !path::aside(inside)
    }

    /// The rockspecs nearest to the root, or those below it where several plugins bring one each. `only` is the one that
    /// was asked for.
    pub fn rockspecs(&self, tree: &Tree<'_>, only: Option<&str>, lua: &dyn Evaluator) -> Vec<Found> {
        let all = tree.nodes.iter().filter_map(|(p, node)| match node {
            Node::File(Body::Kept(bytes)) if p.ends_with(".rockspec") && self.usable(p) => Some((p, bytes)),
            _ => None,
        });
        if let Some(only) = only {
            return all.filter(|(p, _)| *p == only).map(|(p, bytes)| Found::read(p, bytes, lua)).collect();
        }
        let depth = |p: &str| path::parts(p).count();
        let nearest = all.clone().map(|(p, _)| depth(p)).min().unwrap_or(0);
        let mut nearest: Vec<_> = all.filter(|(p, _)| depth(p) == nearest).collect();
        nearest.drain(..nearest.len().saturating_sub(MAX_ROCKSPECS));
        nearest.into_iter().map(|(p, bytes)| Found::read(p, bytes, lua)).collect()
    }

    fn files<'t>(&'t self, tree: &'t Tree<'_>) -> impl Iterator<Item = &'t str> {
        let files = tree.nodes.iter().filter(|(_, n)| matches!(n, Node::File(_)));
        files.map(|(p, _)| p.as_str()).filter(|p| self.usable(p))
    }

    /// (name, path) of the `kong/plugins/NAME` that is meant.
    pub fn canonical(
        &self,
        tree: &Tree<'_>,
        wanted: Option<&PluginName>,
    ) -> Result<Option<(String, String)>, PackageError> {
        let mut roots: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for file in self.files(tree) {
            if let Some(c) = path::canonical(file).filter(|c| MARKS.contains(&c.rest)) {
                roots.entry(c.name).or_default().insert(&file[..file.len() - c.rest.len() - 1]);
            }
        }
        let Some(name) = pick(roots.keys().copied(), wanted)? else { return Ok(None) };
        let found: Vec<&str> = roots.get(name).into_iter().flatten().copied().collect();
        // Examples and test setups keep copies further down; two at one depth are a question.
        let depth = |root: &&&str| path::parts(root).count();
        let least = found.iter().map(|r| depth(&r)).min().unwrap_or(0);
        let nearest: Vec<&str> = found.iter().filter(|r| depth(r) == least).copied().collect();
        match nearest.as_slice() {
            [] => Ok(None),
            [root, others @ ..] => match others.iter().find(|o| !same(tree, root, o)) {
                None => Ok(Some((name.to_owned(), (*root).to_owned()))),
                Some(other) => {
                    let message = format!("{} and {} differ", shown(root), shown(other));
                    Err(PackageError::new("PLUGIN_TWICE", message).hint("give the directory that is meant"))
                }
            },
        }
    }

    /// What a rockspec lists of the plugin that is meant, if its files are here: (plugin, its rockspec, where the sources
    /// are).
    pub fn listed<'r>(
        &self,
        tree: &Tree<'_>,
        rockspecs: &[&'r Rockspec],
        wanted: Option<&PluginName>,
    ) -> Result<Option<(String, &'r Rockspec, String)>, PackageError> {
        let mut best: BTreeMap<&str, (&'r Rockspec, String)> = BTreeMap::new();
        for rockspec in rockspecs {
            let bases = self.bases(tree, rockspec);
            for name in rockspec.plugins().collect::<BTreeSet<_>>() {
                let marks = |base: &&String| {
                    let mut marks = rockspec.files(name).filter(|(p, _)| MARKS.contains(&p.as_str()));
                    marks.any(|(_, file)| present(tree, rockspec, base, file).is_some())
                };
                let Some(base) = bases.iter().find(marks) else { continue };
                match best.get(name) {
                    Some((other, _)) if !rockspec.newer_than(other) => {}
                    _ => drop(best.insert(name, (rockspec, base.clone()))),
                }
            }
        }
        let Some(name) = pick(best.keys().copied(), wanted)? else { return Ok(None) };
        Ok(best.get(name).map(|(spec, base)| (name.to_owned(), *spec, base.clone())))
    }

    /// Where a rockspec's sources may be: beside it, or, as source rocks have it, in a directory beside it.
    pub fn bases(&self, tree: &Tree<'_>, rockspec: &Rockspec) -> Vec<String> {
        let beside = below(&tree.nodes, &rockspec.dir)
            .filter(|(_, rest, n)| matches!(n, Node::Directory) && !rest.contains('/') && self.usable(rest));
        let above = rockspec.dir.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        // A rockspec in a folder of rockspecs speaks of the repository around it.
        let above = above.or_else(|| (!rockspec.dir.is_empty()).then(String::new));
        std::iter::once(rockspec.dir.clone())
            .chain(above)
            .chain(beside.map(|(p, ..)| p.to_owned()).take(MAX_BASES))
            .collect()
    }

    /// The directory where handler.lua and schema.lua lie outside any `kong/plugins`.
    pub fn bare(&self, tree: &Tree<'_>, wanted: Option<&PluginName>) -> Result<Option<String>, PackageError> {
        let mut scores: BTreeMap<&str, u8> = BTreeMap::new();
        for file in self.files(tree).filter(|f| path::canonical(f).is_none()) {
            for mark in MARKS {
                let dir = file.strip_suffix(mark).filter(|d| d.is_empty() || d.ends_with('/'));
                let dir = dir.map(|d| d.trim_end_matches('/'));
                if let Some(dir) = dir.filter(|d| path::parts(d).count() <= MAX_BARE_DEPTH) {
                    *scores.entry(dir).or_default() |= if mark.starts_with("handler") { 2 } else { 1 };
                }
            }
        }
        // A stray schema.lua is no plugin where there is a handler elsewhere.
        let best = scores.values().copied().max().unwrap_or(0);
        scores.retain(|_, score| *score == best);
        let within = |dir: &str| {
            let above =
                dir.match_indices('/').map(|(at, _)| &dir[..at]).chain((!dir.is_empty()).then_some(""));
            above.into_iter().any(|outer| scores.contains_key(outer))
        };
        let outermost: Vec<&str> = scores.keys().copied().filter(|d| !within(d)).collect();
        if let [] | [_] = outermost.as_slice() {
            return Ok(outermost.first().map(|d| (*d).to_owned()));
        }
        let name = |dir: &&str| dir.rsplit('/').next().unwrap_or_default().to_owned();
        let by_name: BTreeMap<String, &str> = outermost.iter().map(|d| (name(d), *d)).collect();
        let chosen = pick(by_name.keys().map(String::as_str), wanted)?;
        Ok(chosen.and_then(|n| by_name.get(n)).map(|d| (*d).to_owned()))
    }
}

/// A file that a rockspec lists, if it is there.
pub(super) fn present(tree: &Tree<'_>, rockspec: &Rockspec, base: &str, file: &str) -> Option<String> {
    let full = rockspec.place(base, file, tree.limits.max_path)?;
    matches!(tree.nodes.get(&full), Some(Node::File(_) | Node::Link)).then_some(full)
}

/// Everything below a directory, as (path, path below it, node).
pub(super) fn below<'t>(
    nodes: &'t BTreeMap<String, Node>,
    root: &str,
) -> impl Iterator<Item = (&'t str, &'t str, &'t Node)> {
    let start = if root.is_empty() { String::new() } else { format!("{root}/") };
    let from = nodes.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
    let length = start.len();
    from.take_while(move |(p, _)| p.starts_with(&start)).map(move |(p, n)| (p.as_str(), &p[length..], n))
}

/// Whether two trees have the same files. What was too large to be kept is never the same.
fn same(tree: &Tree<'_>, one: &str, other: &str) -> bool {
    let files = |root| {
        below(&tree.nodes, root).filter(|(_, rest, n)| !path::hidden(rest) && !matches!(n, Node::Directory))
    };
    files(one).count() == files(other).count()
        && files(one).zip(files(other)).all(|((_, a, x), (_, b, y))| match (x, y) {
            (Node::File(Body::Kept(x)), Node::File(Body::Kept(y))) => a == b && x == y,
            _ => false,
        })
}

/// The one that is wanted, or the only one.
fn pick<'n>(
    names: impl Iterator<Item = &'n str>,
    wanted: Option<&PluginName>,
) -> Result<Option<&'n str>, PackageError> {
    let names: Vec<&str> = names.collect();
    let list = || names.iter().take(20).map(|n| shown(n)).collect::<Vec<_>>().join(", ");
    match (names.as_slice(), wanted) {
        ([], _) => Ok(None),
        (all, Some(wanted)) => match all.iter().find(|n| **n == wanted.as_str()) {
            Some(name) => Ok(Some(name)),
            None => {
                let message = format!("it does not hold {wanted} but {}", list());
                Err(PackageError::new("NAME_MISMATCH", message).hint("name one of these, or none"))
            }
        },
        ([name], None) => Ok(Some(name)),
        (all, None) => {
            let message = format!("it holds {} plugins: {}", all.len(), list());
            let mut error = PackageError::new("MULTIPLE_PLUGINS", message).hint("say which one with --name");
            error.plugins = all.iter().map(|n| (*n).to_owned()).collect();
            Err(error)
        }
    }
}
