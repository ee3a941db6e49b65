//! Modules that travel with a plugin although they lie outside `kong/plugins/NAME`: how they are taken into a package,
//! and those of the dependencies that are given along. Paths are relative to a Lua root, e.g. `resty/foo.lua`.

mod shadow;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use super::error::{PackageError, shown};
use super::layout::{MARKS, Search};
use super::limits::Limits;
use super::rockspec::{Evaluator, Rockspec};
use super::source::LoadOptions;
use super::tree::{Body, Node, Tree};
use super::{FileEntry, Package, PackagedFile, archive, artifact, check, directory, path};
use crate::digest::Digest;
use crate::name::{BUNDLED, PluginName};

pub use shadow::{refuse_shadows, shadows};

type Files = Vec<(String, Vec<u8>)>;

impl Package {
    /// The package with modules beside its own directory, in place of those it has.
    ///
    /// # Errors
    /// As [`Package::new`]; `MODULE_INVALID` for what is no Lua module's path, `PLUGIN_BUNDLED`, `MULTIPLE_PLUGINS`.
    pub fn with_extras(mut self, extras: Files, limits: &Limits) -> Result<Self, PackageError> {
        for (file, _) in &extras {
            fits(&self.plugin, file, limits)?;
        }
        check::extras(&self, &extras, limits)?;
        self.extras = extras
            .into_iter()
            .map(|(path, bytes)| PackagedFile {
                entry: FileEntry { path, sha256: Digest::of(&bytes), size: bytes.len() as u64 },
                bytes,
            })
            .collect();
        self.extras.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        if self.version.starts_with("0.0.0-") {
            self.version = format!("0.0.0-{}", self.digest().short());
        }
        Ok(self)
    }
}

/// Whether a path can be a module's beside `plugin`.
pub(super) fn fits(plugin: &PluginName, file: &str, limits: &Limits) -> Result<(), PackageError> {
    let invalid = |why: &str| Err(PackageError::new("MODULE_INVALID", format!("{} {why}", shown(file))));
    path::clean(file.as_bytes(), limits.max_path)?;
    if !file.ends_with(".lua") {
        return invalid("is no Lua module");
    }
    let own = file.starts_with(&format!("kong/plugins/{plugin}/"));
    if own || path::aside(file) || path::hidden(file) || file.trim_end_matches(".lua").contains('.') {
        return invalid("cannot be a module beside the plugin");
    }
    if let Some(place) = path::canonical(file).filter(|c| c.above.is_empty()) {
        if BUNDLED.contains(&place.name) {
            let message = format!("{} belongs to a plugin that comes with Kong", shown(file));
            return Err(PackageError::new("PLUGIN_BUNDLED", message));
        }
        if MARKS.contains(&place.rest) {
            let message = format!("{} is another plugin's", shown(file));
            return Err(PackageError::new("MULTIPLE_PLUGINS", message)
                .hint("install each plugin by itself; only modules travel with one"));
        }
    }
    Ok(())
}

/// Whether a module's content can stand in a release.
pub(super) fn sound(file: &str, bytes: &[u8], limits: &Limits) -> Result<(), PackageError> {
    check::extra(file, bytes, limits)
}

/// Adds to `package` all modules of the rocks, source archives or directories it depends on. Rockspecs are run by `lua`.
///
/// # Errors
/// Those of [`super::load`] and [`Package::with_extras`]; `NO_MODULES_FOUND`, `NOT_A_DEPENDENCY`, `ROCKSPEC_BUILD_TYPE`,
/// `ROCKSPEC_MODULE_MISSING`, `NATIVE_NOT_ALLOWED`, `MODULE_CONFLICT` for two with one name and different content, and
/// `MODULE_SHADOWS` unless that is allowed.
pub fn gather(
    package: Package,
    dependencies: &[PathBuf],
    options: &LoadOptions,
    lua: &dyn Evaluator,
) -> Result<Package, PackageError> {
    let limits = &options.limits;
    let present = package.extras.iter().map(|f| (f.entry.path.clone(), f.bytes.clone()));
    let mut all: BTreeMap<String, Vec<u8>> = present.collect();
    for dependency in dependencies {
        let files = read(dependency, lua, limits)?;
        if files.is_empty() {
            let message =
                format!("{} has no modules: neither a rock's nor a rockspec's", dependency.display());
            return Err(PackageError::new("NO_MODULES_FOUND", message)
                .hint("give its .rock, or a directory or archive with its rockspec"));
        }
        if !options.allow_shadow {
            refuse_shadows(files.iter().map(|(path, _)| path.as_str()))?;
        }
        for (path, bytes) in files {
            match all.get(&path) {
                Some(other) if *other != bytes => {
                    let message =
                        format!("two of the given have a module {} of different content", shown(&path));
                    return Err(PackageError::new("MODULE_CONFLICT", message)
                        .hint("give one of them only, or make them agree"));
                }
                _ => drop(all.insert(path, bytes)),
            }
        }
    }
    let version = package.version.clone();
    let mut package = package.with_extras(all.into_iter().collect(), limits)?;
    if let Some(said) = &options.version {
        package.version.clone_from(said);
    } else if !version.starts_with("0.0.0-") {
        package.version = version;
    }
    Ok(package)
}

/// Modules of a rock, source archive or directory.
fn read(source: &Path, lua: &dyn Evaluator, limits: &Limits) -> Result<Files, PackageError> {
    let name = source.to_string_lossy();
    let unreadable = |e: std::io::Error| archive::unreadable(&e, &name);
    let mut tree = Tree::new(limits);
    if fs::metadata(source).map_err(unreadable)?.is_dir() {
        directory::read(source, &mut tree)?;
        let spec = rockspec(&tree, false, lua)?;
        return modules(&tree, false, spec);
    }
    let mut unpacked = limits.max_unpacked;
    archive::read(File::open(source).map_err(unreadable)?, &mut tree, &mut unpacked)?;
    if is_rock(&tree) {
        return modules(&tree, true, None);
    }
    let spec = rockspec(&tree, true, lua)?;
    let mut inner = tree.nodes.keys().filter(|p| path::archive(p)).cloned();
    match (&spec, inner.next(), inner.next()) {
        // A source rock: the rockspec lies beside the archive.
        (Some(_), Some(archive), None) => {
            let Some(Node::File(Body::Kept(bytes))) = tree.nodes.remove(&archive) else {
                return Ok(Files::new());
            };
            let mut tree = Tree::new(limits);
            archive::read(Cursor::new(bytes), &mut tree, &mut unpacked)?;
            modules(&tree, true, spec)
        }
        _ => modules(&tree, true, spec),
    }
}

/// The newest rockspec of those nearest to the root.
fn rockspec(tree: &Tree<'_>, archive: bool, lua: &dyn Evaluator) -> Result<Option<Rockspec>, PackageError> {
    let mut newest: Option<Rockspec> = None;
    let mut failed = None;
    for found in Search::new(tree, archive).rockspecs(tree, None, lua) {
        match found.read {
            Ok(spec) if newest.as_ref().is_none_or(|n| spec.newer_than(n)) => newest = Some(spec),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    match (newest, failed) {
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// Built already: its modules lie below `lua`.
fn is_rock(tree: &Tree<'_>) -> bool {
    tree.nodes.contains_key("rock_manifest")
}

fn modules(tree: &Tree<'_>, archive: bool, spec: Option<Rockspec>) -> Result<Files, PackageError> {
    let mark = |p: &&String| !path::aside(p) && path::canonical(p).is_some_and(|c| MARKS.contains(&c.rest));
    if let Some(path) = tree.nodes.keys().find(mark) {
        let message = format!("a dependency has a plugin in it ({})", shown(path));
        return Err(PackageError::new("NOT_A_DEPENDENCY", message)
            .hint("install each plugin by itself; only modules travel with one"));
    }
    let wanted = match spec {
        _ if is_rock(tree) => built(tree)?,
        Some(spec) => listed(tree, &Search::new(tree, archive), &spec)?,
        None => Vec::new(),
    };
    let mut files = Files::new();
    for (module, path) in wanted {
        match tree.nodes.get(&path) {
            Some(Node::File(Body::Kept(bytes))) => files.push((module, bytes.clone())),
            Some(Node::File(Body::Dropped(size))) => {
                let message = format!("{} ({size} bytes) is more than a release can hold", shown(&path));
                return Err(PackageError::new("ARCHIVE_TOO_LARGE", message));
            }
            _ => {}
        }
    }
    Ok(files)
}

/// (module's path, path in the tree) of what a rock holds.
fn built(tree: &Tree<'_>) -> Result<Vec<(String, String)>, PackageError> {
    if let Some(native) = tree.nodes.keys().find(|p| p.starts_with("lib/") && path::native(p)) {
        let message = format!("{} is a native library", shown(native));
        return Err(PackageError::new("NATIVE_NOT_ALLOWED", message));
    }
    let lua = tree.nodes.iter().filter(|(p, n)| matches!(n, Node::File(_)) && p.ends_with(".lua"));
    Ok(lua.filter_map(|(p, _)| Some((p.strip_prefix("lua/")?.to_owned(), p.clone()))).collect())
}

/// (module's path, path in the tree) of what a rockspec lists: all of it has to be there and to be Lua.
fn listed(tree: &Tree<'_>, search: &Search, spec: &Rockspec) -> Result<Vec<(String, String)>, PackageError> {
    if let Some(refusal) = &spec.refusal {
        return Err(refusal.clone().hint("build it with luarocks, `luarocks pack` it, and give that rock"));
    }
    if let Some(module) = &spec.native {
        let message = format!("its module {} is built from C", shown(module));
        return Err(PackageError::new("NATIVE_NOT_ALLOWED", message));
    }
    let bases = search.bases(tree, spec);
    let place = |(module, file): (String, &str)| {
        let places = bases.iter().filter_map(|base| spec.place(base, file, tree.limits.max_path));
        let there = places.into_iter().find(|p| matches!(tree.nodes.get(p), Some(Node::File(_))));
        there.map(|path| (module, path)).ok_or_else(|| {
            let message = format!("the rockspec lists {}, which is not there", shown(file));
            PackageError::new("ROCKSPEC_MODULE_MISSING", message)
        })
    };
    spec.placed().map(place).collect()
}

/// Whether a path beside a plugin's own directory can stand in an artifact.
pub(super) fn holds(path: &str) -> bool {
    artifact::split(path).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &str) -> Package {
        let files = vec![
            ("handler.lua".to_owned(), b"return {}".to_vec()),
            ("schema.lua".to_owned(), b"return {}".to_vec()),
        ];
        Package::new(PluginName::parse(name).unwrap(), files, &Limits::default()).unwrap()
    }

    #[test]
    fn what_may_not_lie_beside_a_plugin() {
        for (path, code) in [
            ("resty/foo.so", "MODULE_INVALID"),
            ("resty/foo.txt", "MODULE_INVALID"),
            ("kong/plugins/mine/more.lua", "MODULE_INVALID"),
            ("resty/foo.bar.lua", "MODULE_INVALID"),
            ("test/foo.lua", "MODULE_INVALID"),
            ("kong/plugins/key-auth/handler.lua", "PLUGIN_BUNDLED"),
            ("kong/plugins/key-auth/more.lua", "PLUGIN_BUNDLED"),
            ("kong/plugins/other/handler.lua", "MULTIPLE_PLUGINS"),
            ("../foo.lua", "PATH_ESCAPE"),
            ("/foo.lua", "PATH_ESCAPE"),
            (".hidden/foo.lua", "MODULE_INVALID"),
        ] {
            let refused =
                plain("mine").with_extras(vec![(path.to_owned(), b"x".to_vec())], &Limits::default());
            assert_eq!(refused.unwrap_err().code, code, "{path}");
        }
        let bytecode = vec![("resty/foo.lua".to_owned(), b"\x1bLJ\x02".to_vec())];
        assert_eq!(
            plain("mine").with_extras(bytecode, &Limits::default()).unwrap_err().code,
            "BYTECODE_NOT_ALLOWED"
        );
        let twice = ["resty/Foo.lua", "resty/foo.lua"].map(|p| (p.to_owned(), Vec::new())).to_vec();
        assert_eq!(plain("mine").with_extras(twice, &Limits::default()).unwrap_err().code, "CASE_COLLISION");
    }

    #[test]
    fn they_are_part_of_the_release_and_of_its_artifact() {
        let plain = plain("mine");
        let extras = vec![
            ("resty/foo.lua".to_owned(), b"return 1".to_vec()),
            ("kong/plugins/shared/util.lua".to_owned(), b"return 2".to_vec()),
        ];
        let more = plain.clone().with_extras(extras.clone(), &Limits::default()).unwrap();
        assert_ne!(more.digest(), plain.digest());
        let other = vec![extras[0].clone(), (extras[1].0.clone(), b"return 3".to_vec())];
        assert_ne!(plain.clone().with_extras(other, &Limits::default()).unwrap().digest(), more.digest());
        assert_eq!(
            plain.clone().with_extras(Vec::new(), &Limits::default()).unwrap().digest(),
            plain.digest()
        );
        let read = Package::from_artifact(&more.to_artifact(), &Limits::default()).unwrap();
        assert_eq!((read.digest(), &read.extras), (more.digest(), &more.extras));
    }
}
