//! Modules that travel with a plugin although they lie outside `kong/plugins/NAME`: those that its rockspec lists beside
//! it, and those of rocks it depends on. Paths are relative to a Lua root, e.g. `resty/foo.lua`.

mod shadow;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

use super::error::{PackageError, shown};
use super::layout::MARKS;
use super::limits::Limits;
use super::lua::Scan;
use super::tree::{Body, Node, Tree};
use super::{FileEntry, Package, PackagedFile, archive, artifact, check, directory, path};
use crate::digest::Digest;
use crate::name::{BUNDLED, PluginName};

pub use shadow::{refuse_shadows, shadows};

type Files = Vec<(String, Vec<u8>)>;

impl Package {
    /// The package with modules beside its own directory.
    ///
    /// # Errors
    /// As [`Package::new`]; `MODULE_INVALID` for what is no Lua module's path, `PLUGIN_BUNDLED`, `MULTIPLE_PLUGINS`.
    pub fn with_extras(mut self, extras: Files, limits: &Limits) -> Result<Self, PackageError> {
        let own = format!("kong/plugins/{}/", self.plugin);
        for (file, _) in &extras {
            let invalid = |why: &str| PackageError::new("MODULE_INVALID", format!("{} {why}", shown(file)));
            path::clean(file.as_bytes(), limits.max_path)?;
            if !file.ends_with(".lua") {
                return Err(invalid("is no Lua module"));
            }
            if file.starts_with(&own) || path::aside(file) || file.trim_end_matches(".lua").contains('.') {
                return Err(invalid("cannot be a module beside the plugin"));
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
        let taken = |left: &String| self.extras.iter().any(|e| left.ends_with(e.entry.path.as_str()));
        self.left_out.retain(|left| !taken(left));
        if self.version.starts_with("0.0.0-") {
            self.version = format!("0.0.0-{}", self.digest().short());
        }
        Ok(self)
    }
}

/// Adds to `package`, read from `source`, what its own rock or rockspec has beside it, and all modules of the rocks, source
/// archives or directories it depends on.
///
/// # Errors
/// Those of [`super::load`] and [`Package::with_extras`]; `NO_MODULES_FOUND`, `NOT_A_DEPENDENCY`, `ROCKSPEC_BUILD_TYPE`,
/// `ROCKSPEC_MODULE_MISSING`, `NATIVE_NOT_ALLOWED`, `MODULE_CONFLICT` for two with one name and different content, and
/// `MODULE_SHADOWS` unless `allow_shadow`.
pub fn gather(
    package: Package,
    source: &Path,
    dependencies: &[std::path::PathBuf],
    allow_shadow: bool,
    limits: &Limits,
) -> Result<Package, PackageError> {
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |files: Files| {
        for (path, bytes) in files {
            match all.insert(path.clone(), bytes) {
                Some(other) if all.get(&path) != Some(&other) => {
                    let message =
                        format!("two of the given have a module {} of different content", shown(&path));
                    return Err(PackageError::new("MODULE_CONFLICT", message)
                        .hint("give one of them only, or make them agree"));
                }
                _ => {}
            }
        }
        Ok(())
    };
    add(read(source, Some(&package.plugin), limits)?)?;
    for dependency in dependencies {
        let files = read(dependency, None, limits)?;
        if files.is_empty() {
            let message =
                format!("{} has no modules: neither a rock's nor a rockspec's", dependency.display());
            return Err(PackageError::new("NO_MODULES_FOUND", message)
                .hint("give its .rock, or a directory or archive with its rockspec"));
        }
        add(files)?;
    }
    if !allow_shadow {
        refuse_shadows(all.keys().map(String::as_str))?;
    }
    if all.is_empty() {
        return Ok(package);
    }
    package.with_extras(all.into_iter().collect(), limits)
}

/// Modules of a rock, source archive or directory; without those of `plugin`, whose source it is then.
fn read(source: &Path, plugin: Option<&PluginName>, limits: &Limits) -> Result<Files, PackageError> {
    let name = source.to_string_lossy();
    let unreadable = |e: std::io::Error| archive::unreadable(&e, &name);
    let mut tree = Tree::new(limits);
    if fs::metadata(source).map_err(unreadable)?.is_dir() {
        directory::read(source, &mut tree)?;
        return modules(tree, None, plugin, limits);
    }
    let mut unpacked = limits.max_unpacked;
    archive::read(File::open(source).map_err(unreadable)?, &mut tree, &mut unpacked)?;
    let rockspec = rockspec(&tree);
    let mut inner = tree.nodes.keys().filter(|p| path::archive(p)).cloned();
    match (&rockspec, inner.next(), inner.next()) {
        // A source rock: the rockspec lies beside the archive.
        (Some(_), Some(archive), None) if !is_rock(&tree) => {
            let Some(Node::File(Body::Kept(bytes))) = tree.nodes.remove(&archive) else {
                return Ok(Files::new());
            };
            let mut tree = Tree::new(limits);
            archive::read(Cursor::new(bytes), &mut tree, &mut unpacked)?;
            modules(tree, rockspec, plugin, limits)
        }
        _ => modules(tree, rockspec, plugin, limits),
    }
}

/// (directory, content) of the only rockspec nearest to the root.
fn rockspec(tree: &Tree<'_>) -> Option<(String, Vec<u8>)> {
    let usable = |p: &&String| p.ends_with(".rockspec") && !path::hidden(p);
    let depth = |p: &str| p.matches('/').count();
    let nearest = tree.nodes.keys().filter(usable).map(|p| depth(p)).min()?;
    let mut found = tree.nodes.iter().filter(|(p, _)| usable(p) && depth(p) == nearest);
    match (found.next(), found.next()) {
        (Some((p, Node::File(Body::Kept(bytes)))), None) => {
            Some((p.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned()), bytes.clone()))
        }
        _ => None,
    }
}

/// Built already: its modules lie below `lua`.
fn is_rock(tree: &Tree<'_>) -> bool {
    tree.nodes.contains_key("rock_manifest")
}

fn modules(
    mut tree: Tree<'_>,
    spec: Option<(String, Vec<u8>)>,
    plugin: Option<&PluginName>,
    limits: &Limits,
) -> Result<Files, PackageError> {
    let mark = |p: &&String| !path::aside(p) && path::canonical(p).is_some_and(|c| MARKS.contains(&c.rest));
    if let (None, Some(path)) = (plugin, tree.nodes.keys().find(mark)) {
        let message = format!("a dependency has a plugin in it ({})", shown(path));
        return Err(PackageError::new("NOT_A_DEPENDENCY", message)
            .hint("install each plugin by itself; only modules travel with one"));
    }
    let wanted: Vec<(String, String)> = if is_rock(&tree) {
        if let (None, Some(native)) =
            (plugin, tree.nodes.keys().find(|p| p.starts_with("lib/") && path::native(p)))
        {
            let message = format!("{} is a native library", shown(native));
            return Err(PackageError::new("NATIVE_NOT_ALLOWED", message));
        }
        let lua = tree.nodes.iter().filter(|(_, n)| matches!(n, Node::File(_)));
        let lua = lua.filter_map(|(p, _)| Some((p.strip_prefix("lua/")?.to_owned(), p.clone())));
        lua.filter(|(module, _)| module.ends_with(".lua")).collect()
    } else {
        match spec.or_else(|| rockspec(&tree)) {
            Some((dir, bytes)) => listed(&tree, &dir, &bytes, plugin.is_none(), limits)?,
            None => Vec::new(),
        }
    };
    let own = plugin.map(|p| format!("kong/plugins/{p}/"));
    // Where several plugins are in one place, the others' modules are theirs.
    let marked: Vec<String> = wanted
        .iter()
        .filter_map(|(module, _)| path::canonical(module).filter(|c| MARKS.contains(&c.rest)))
        .map(|c| format!("kong/plugins/{}/", c.name))
        .collect();
    let mut files = Files::new();
    for (module, path) in wanted {
        let others = own.is_some() && marked.iter().any(|m| module.starts_with(m));
        if own.as_ref().is_some_and(|own| module.starts_with(own)) || others {
            continue;
        }
        match tree.nodes.get_mut(&path) {
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

/// (module's path, path in the tree) of what a rockspec lists; `strict`: all of it has to be there and to be Lua.
fn listed(
    tree: &Tree<'_>,
    dir: &str,
    source: &[u8],
    strict: bool,
    limits: &Limits,
) -> Result<Vec<(String, String)>, PackageError> {
    let scan = Scan::of(source);
    let within = |depth: usize| scan.assignments.iter().filter(move |a| !a.member && a.depth >= depth);
    if strict {
        let build = within(1).filter(|a| a.key == "type").find_map(|a| a.value.as_deref());
        if let Some(other) = build.filter(|t| !matches!(*t, "builtin" | "module" | "none")) {
            let message = format!("it is built with {}, and nothing is run here to build it", shown(other));
            return Err(PackageError::new("ROCKSPEC_BUILD_TYPE", message)
                .hint("build it with luarocks, `luarocks pack` it, and give that rock"));
        }
        let c = within(2).find(|a| a.value.as_deref().is_some_and(|v| v.ends_with(".c")));
        if let Some(c) = c {
            let message = format!("its module {} is built from C", shown(&c.key));
            return Err(PackageError::new("NATIVE_NOT_ALLOWED", message));
        }
    }
    // The rockspec's own directory, or the one that wraps an archive.
    let mut bases = vec![dir.to_owned()];
    bases.extend(tree.nodes.keys().filter(|p| !p.contains('/')).cloned());
    let mut found = Vec::new();
    for assignment in within(2) {
        let Some(file) = assignment.value.as_deref().filter(|v| v.ends_with(".lua")) else { continue };
        let Ok(file) = path::clean(file.as_bytes(), limits.max_path) else { continue };
        let module = assignment.key.replace('.', "/");
        let init =
            file.rsplit('/').next() == Some("init.lua") && !(module == "init" || module.ends_with("/init"));
        let module = if init { format!("{module}/init.lua") } else { format!("{module}.lua") };
        let at = |base: &String| if base.is_empty() { file.clone() } else { format!("{base}/{file}") };
        match bases.iter().map(at).find(|p| matches!(tree.nodes.get(p), Some(Node::File(_)))) {
            Some(path) => found.push((module, path)),
            None if strict => {
                let message = format!("the rockspec lists {}, which is not there", shown(&file));
                return Err(PackageError::new("ROCKSPEC_MODULE_MISSING", message));
            }
            None => {}
        }
    }
    Ok(found)
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
