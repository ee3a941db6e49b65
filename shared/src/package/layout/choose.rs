//! What a rockspec adds to the files that were found, and which rockspec speaks of a plugin at all.

use super::super::DECLARATION;
use super::super::error::{PackageError, shown};
use super::super::path;
use super::super::rockspec::{Found, Rockspec};
use super::super::tree::Tree;
use super::search::{self, Search};
use super::{Listing, MARKS, below};

/// The newest rockspec that lists modules of the plugin, or else one that lists none of any plugin and lies above its
/// files. `above` is the directory around the plugin's tree.
///
/// # Errors
/// That of a rockspec which would be it, had it been readable.
pub(super) fn fitting<'r>(
    rockspecs: &'r [Found],
    plugin: &str,
    above: &str,
) -> Result<Option<&'r Rockspec>, PackageError> {
    let read = || rockspecs.iter().filter_map(|f| f.read.as_ref().ok());
    let newest = |a: &'r Rockspec, b: &'r Rockspec| if b.newer_than(a) { b } else { a };
    if let Some(spec) = read().filter(|r| r.knows(plugin)).reduce(newest) {
        return Ok(Some(spec));
    }
    let over = |dir: &str| dir.is_empty() || format!("{above}/").starts_with(&format!("{dir}/"));
    let failed = rockspecs.iter().filter(|f| over(&f.dir)).find_map(|f| f.read.as_ref().err());
    let silent = read().filter(|r| over(&r.dir) && r.plugins().next().is_none()).reduce(newest);
    match (silent, failed) {
        (Some(spec), _) => Ok(Some(spec)),
        (None, Some(error)) if error.code != "ROCKSPEC_UNREAD" => Err(error.clone()),
        (None, _) => Ok(None),
    }
}

/// Why nothing may have been found: a rockspec that might have said where things are cannot be read.
pub(super) fn unreadable(rockspecs: &[Found]) -> Option<PackageError> {
    rockspecs.iter().find_map(|f| f.read.as_ref().err()).filter(|e| e.code != "ROCKSPEC_UNREAD").cloned()
}

/// Adds to the files of `kong/plugins/NAME` those that the rockspec takes from elsewhere.
///
/// # Errors
/// `ROCKSPEC_MODULE_MISSING` for a module that is neither in the tree nor where the rockspec says.
pub(super) fn complete(
    tree: &Tree<'_>,
    search: &Search,
    spec: &Rockspec,
    plugin: &str,
    list: &mut Listing,
) -> Result<(), PackageError> {
    let bases = search.bases(tree, spec);
    for (rest, file) in spec.files(plugin) {
        if list.iter().any(|(r, _)| *r == rest || *r == as_package(&rest)) {
            continue;
        }
        let from = bases.iter().find_map(|base| search::present(tree, spec, base, file));
        list.push((rest, from.ok_or_else(|| missing(spec, file))?));
    }
    Ok(())
}

/// The files that a rockspec lists, and what lies beside them and is Lua: rockspecs forget modules that the code needs.
///
/// # Errors
/// `ROCKSPEC_MODULE_MISSING`.
pub(super) fn listed(
    tree: &Tree<'_>,
    search: &Search,
    spec: &Rockspec,
    base: &str,
    plugin: &str,
) -> Result<Listing, PackageError> {
    let mut list = Listing::new();
    for (rest, file) in spec.files(plugin) {
        let full = search::present(tree, spec, base, file).ok_or_else(|| missing(spec, file))?;
        list.push((rest, full));
    }
    let mark = list.iter().find(|(rest, _)| MARKS.contains(&rest.as_str()));
    let Some(root) = mark.and_then(|(rest, full)| full.strip_suffix(rest.as_str())) else { return Ok(list) };
    let root = root.trim_end_matches('/');
    // What the rockspec gives another name is accounted for.
    let places = spec.modules.iter().filter_map(|(_, f)| spec.place(base, f, tree.limits.max_path));
    let accounted: Vec<String> = places.collect();
    let nested = |rest: &str| {
        let inside = |mark: &str| {
            let ends = rest.match_indices('/').map(|(at, _)| &rest[..at]);
            ends.into_iter().any(|dir| tree.nodes.contains_key(&join(root, &format!("{dir}/{mark}"))))
        };
        inside("handler.lua") || inside("schema.lua") && !rest.starts_with("handler/")
    };
    let more = below(tree, root, true).into_iter().filter(|(rest, full)| {
        (rest.ends_with(".lua") || rest == DECLARATION)
            && search.usable(full)
            && path::canonical(full).is_none()
            && !accounted.contains(full)
            && !nested(rest)
            && !list.iter().any(|(r, _)| r == rest)
    });
    let more: Vec<_> = more.collect();
    list.extend(more);
    Ok(list)
}

fn join(root: &str, rest: &str) -> String {
    if root.is_empty() { rest.to_owned() } else { format!("{root}/{rest}") }
}

/// `a/b.lua` as `a/b/init.lua`.
fn as_package(rest: &str) -> String {
    format!("{}/init.lua", rest.strip_suffix(".lua").unwrap_or(rest))
}

fn missing(spec: &Rockspec, file: &str) -> PackageError {
    let message = format!("{}.rockspec lists {}, which is not there", spec.stem, shown(file));
    PackageError::new("ROCKSPEC_MODULE_MISSING", message)
}
