//! Where Lua finds a plugin, and whether what lies there is the release that was agreed on and can be read by those who
//! have to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kctl_shared::name::PluginName;
use kctl_shared::package::hash_release;
use kctl_shared::spec::{Failure, ReleaseRef};

/// Both must be there; both must come from the same place.
const MODULES: [&str; 2] = ["handler", "schema"];

/// As whom workers read: effective user and all groups.
pub type Reader = (u32, Vec<u32>);

/// The first file on `lua_path` for `module`, as Lua searches: entries in order, `?` replaced by the name with its dots
/// turned into slashes. Relative entries are relative to the prefix, where nginx runs.
pub fn resolve(lua_path: &str, prefix: &Path, module: &str) -> Option<PathBuf> {
    let name = module.replace('.', "/");
    let entries = lua_path.split(';').filter(|entry| !entry.is_empty());
    entries.map(|entry| prefix.join(entry.replace('?', &name))).find(|path| path.is_file())
}

/// A Lua path with its relative entries as nginx takes them.
pub fn absolute(lua_path: &str, prefix: &Path) -> String {
    let entries = lua_path.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    let entries =
        entries.map(|entry| prefix.join(entry.trim_start_matches("./")).to_string_lossy().into_owned());
    entries.collect::<Vec<_>>().join(";")
}

/// Proves that Lua finds `plugin` in `generation`, that its files are `release`, and that `reader` can read them all.
///
/// # Errors
/// `FILES_MISSING`, `FILES_SHADOWED`, `FILES_CHANGED`, `FILES_UNREADABLE`.
pub fn check(
    lua_path: &str,
    prefix: &Path,
    generation: Option<&Path>,
    plugin: &PluginName,
    release: &ReleaseRef,
    reader: Option<&Reader>,
) -> Result<(), Failure> {
    let mut directory: Option<PathBuf> = None;
    for part in MODULES {
        let module = format!("kong.plugins.{plugin}.{part}");
        let found = resolve(lua_path, prefix, &module).ok_or_else(|| {
            Failure::new("FILES_MISSING", format!("no file for {module} on lua_package_path {lua_path}"))
        })?;
        let place = found.parent().unwrap_or(Path::new("/")).to_path_buf();
        let expected = match (generation, &directory) {
            (Some(generation), _) => generation.join("kong/plugins").join(plugin.as_str()),
            (None, Some(first)) => first.clone(),
            (None, None) => place.clone(),
        };
        if place != expected {
            let message = format!(
                "Lua finds {module} at {}, before {}; take that copy away",
                found.display(),
                expected.display()
            );
            return Err(Failure::new("FILES_SHADOWED", message));
        }
        directory = Some(place);
    }
    let directory = directory.unwrap_or_default();
    let root = generation.unwrap_or(Path::new("/"));
    let extras = generation.map(|g| extras_of(g, plugin)).unwrap_or_default();
    for extra in &extras {
        let module = extra.trim_end_matches(".lua");
        let module = module.strip_suffix("/init").unwrap_or(module);
        let found = resolve(lua_path, prefix, module);
        if found.as_ref() != Some(&root.join(extra)) {
            let found = found.map_or("nowhere".to_owned(), |f| format!("at {}", f.display()));
            let message = format!(
                "Lua finds {module}, which comes with {plugin}, {found}, and not at {}",
                root.join(extra).display()
            );
            return Err(Failure::new("FILES_SHADOWED", message));
        }
    }
    let (digest, files, _) = hash_release(&directory, plugin, root, &extras).map_err(|e| {
        Failure::new("FILES_CHANGED", format!("{} cannot be hashed: {e}", directory.display()))
    })?;
    if digest != release.digest {
        let message = format!(
            "{} holds {digest}, not the release {} ({})",
            directory.display(),
            release.version,
            release.digest
        );
        return Err(Failure::new("FILES_CHANGED", message));
    }
    let Some(reader) = reader else { return Ok(()) };
    for file in &files {
        readable(&directory.join(&file.path), reader)?;
    }
    extras.iter().try_for_each(|extra| readable(&root.join(extra), reader))
}

/// Where in a generation the modules are listed that come with a plugin and lie beside its own directory.
pub(crate) fn extras_list(plugin: &PluginName) -> String {
    format!(".kctl/{plugin}.json")
}

fn extras_of(generation: &Path, plugin: &PluginName) -> Vec<String> {
    let list = fs::read(generation.join(extras_list(plugin))).ok();
    list.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Every directory on the way, links followed, and the file itself.
fn readable(path: &Path, reader: &Reader) -> Result<(), Failure> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    for route in [path, &real] {
        for step in route.ancestors() {
            let Ok(metadata) = fs::metadata(step) else {
                return Err(Failure::new(
                    "FILES_UNREADABLE",
                    format!("{} cannot be looked at", step.display()),
                ));
            };
            let needed = if metadata.is_dir() { 0o1 } else { 0o4 };
            if !permits(&metadata, needed, reader) {
                let message = format!(
                    "{} (mode {:o}) is closed to user {}, as which Kong's workers run; directories must be 0755, files 0644",
                    step.display(),
                    metadata.permissions().mode() & 0o7777,
                    reader.0
                );
                return Err(Failure::new("FILES_UNREADABLE", message));
            }
        }
    }
    Ok(())
}

pub(crate) fn permits(metadata: &fs::Metadata, needed: u32, (user, groups): &Reader) -> bool {
    let shift = if metadata.uid() == *user {
        6
    } else if groups.contains(&metadata.gid()) {
        3
    } else {
        0
    };
    *user == 0 || metadata.permissions().mode() & (needed << shift) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::digest::Digest;
    use kctl_shared::package::hash_tree;

    fn world() -> (tempfile::TempDir, PluginName, ReleaseRef, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let generation = dir.path().join("gen/1");
        let place = generation.join("kong/plugins/hello");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("handler.lua"), "h").unwrap();
        fs::write(place.join("schema.lua"), "s").unwrap();
        let name = PluginName::parse("hello").unwrap();
        let (digest, _) = hash_tree(&place, &name).unwrap();
        (dir, name, ReleaseRef::new("1.0.0", digest), generation)
    }

    fn path_of(directory: &Path) -> String {
        format!("{0}/?.lua;{0}/?/init.lua;", directory.display())
    }

    #[test]
    fn the_agreed_release_in_its_place_passes() {
        let (dir, name, release, generation) = world();
        let path = path_of(&generation);
        assert_eq!(check(&path, dir.path(), Some(&generation), &name, &release, Some(&(0, vec![0]))), Ok(()));
        assert_eq!(check(&path, dir.path(), None, &name, &release, None), Ok(()));
    }

    #[test]
    fn a_copy_before_ours_another_content_and_closed_directories_are_told_apart() {
        let (dir, name, release, generation) = world();
        let code = |path: &str, release: &ReleaseRef, reader: Option<&Reader>| {
            check(path, dir.path(), Some(&generation), &name, release, reader).unwrap_err().code
        };
        let other = dir.path().join("other");
        fs::create_dir_all(other.join("kong/plugins/hello")).unwrap();
        fs::write(other.join("kong/plugins/hello/schema.lua"), "s").unwrap();
        let shadowed = format!("{}{}", path_of(&other), path_of(&generation));
        assert_eq!(code(&shadowed, &release, None), "FILES_SHADOWED");
        assert_eq!(code("./?.lua", &release, None), "FILES_MISSING");
        let another = ReleaseRef { digest: Digest::of(b"x"), ..release.clone() };
        assert_eq!(code(&path_of(&generation), &another, None), "FILES_CHANGED");
        let nobody = (65534, vec![65534]);
        fs::set_permissions(generation.join("kong"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(code(&path_of(&generation), &release, Some(&nobody)), "FILES_UNREADABLE");
    }

    #[test]
    fn modules_beside_the_plugin_are_part_of_the_proof() {
        let (dir, name, plain, generation) = world();
        let extras = vec!["resty/foo.lua".to_owned()];
        fs::create_dir_all(generation.join("resty")).unwrap();
        fs::write(generation.join("resty/foo.lua"), "f").unwrap();
        let place = generation.join("kong/plugins/hello");
        let (digest, ..) = hash_release(&place, &name, &generation, &extras).unwrap();
        let release = ReleaseRef { digest, ..plain.clone() };
        let path = path_of(&generation);
        let code = |path: &str, release: &ReleaseRef| {
            check(path, dir.path(), Some(&generation), &name, release, None).map_err(|f| f.code)
        };
        // As long as nothing says that they belong to it, they do not.
        assert_eq!(code(&path, &plain), Ok(()));
        assert_eq!(code(&path, &release), Err("FILES_CHANGED".into()));
        let list = generation.join(extras_list(&name));
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(list, serde_json::to_string(&extras).unwrap()).unwrap();
        assert_eq!(code(&path, &release), Ok(()));
        let other = dir.path().join("other");
        fs::create_dir_all(other.join("resty")).unwrap();
        fs::write(other.join("resty/foo.lua"), "f").unwrap();
        assert_eq!(code(&format!("{}{path}", path_of(&other)), &release), Err("FILES_SHADOWED".into()));
        fs::write(generation.join("resty/foo.lua"), "g").unwrap();
        assert_eq!(code(&path, &release), Err("FILES_CHANGED".into()));
    }
}
