//! Plugins that somebody else put on the node: found and compared, never touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kctl_shared::name::PluginName;
use kctl_shared::package::{FileEntry, Package, hash_release, hash_tree};
use kctl_shared::spec::Failure;

/// LuaJIT's own places behind whatever `lua_package_path` says, where LuaRocks puts modules by default.
const BUILTIN: &str = "/usr/local/share/lua/5.1/?.lua;/usr/local/share/lua/5.1/?/init.lua";
/// Files named in a message, at most.
const MAX_NAMED: usize = 5;

/// The plugin's own directory: the one named, `kong/plugins/NAME` in the one named, or where Lua finds its handler.
///
/// # Errors
/// `PATH_NOT_FOUND`.
pub(super) fn find(
    plugin: &PluginName,
    dir: Option<&str>,
    lua_path: Option<&str>,
) -> Result<PathBuf, Failure> {
    let missing = |message: String| Failure::new("PATH_NOT_FOUND", message);
    if let Some(dir) = dir.map(Path::new) {
        let below = dir.join("kong/plugins").join(plugin.as_str());
        let is_plugin = |d: &Path| d.join("handler.lua").is_file() || d.join("handler/init.lua").is_file();
        return [below.as_path(), dir].into_iter().find(|d| is_plugin(d)).map(Path::to_path_buf).ok_or_else(
            || {
                missing(format!(
                    "there is no handler.lua of {plugin} in {} or in {} on this node",
                    below.display(),
                    dir.display()
                ))
            },
        );
    }
    let lua_path =
        lua_path.ok_or_else(|| missing("this node's Lua path is not known; name a directory".into()))?;
    let module = format!("kong/plugins/{plugin}/handler");
    let entries = lua_path.split(';').chain(BUILTIN.split(';')).filter(|e| e.starts_with('/'));
    for entry in entries {
        let file = PathBuf::from(entry.replace('?', &module));
        if !file.is_file() {
            continue;
        }
        let up = if file.file_name().is_some_and(|n| n == "init.lua") { 2 } else { 1 };
        if let Some(dir) = file.ancestors().nth(up) {
            return Ok(dir.to_path_buf());
        }
    }
    Err(missing(format!(
        "Lua finds no {module}.lua on this node; put it on lua_package_path, or name its directory"
    )))
}

/// The Lua root that a plugin's directory lies in.
pub(super) fn lua_root<'a>(dir: &'a Path, plugin: &PluginName) -> Option<&'a Path> {
    let end = Path::new("kong/plugins").join(plugin.as_str());
    dir.ends_with(end).then(|| dir.ancestors().nth(3)).flatten()
}

/// # Errors
/// `PATH_DIFFERS` with the first files that do.
pub(super) fn compare(package: &Package, dir: &Path) -> Result<(), Failure> {
    let differs = |what: String| Failure::new("PATH_DIFFERS", format!("{} {what}", dir.display()));
    let (_, files) =
        hash_tree(dir, &package.plugin).map_err(|e| differs(format!("cannot be read as a plugin: {e}")))?;
    let extras: Vec<String> = package.extras.iter().map(|f| f.entry.path.clone()).collect();
    let root = lua_root(dir, &package.plugin);
    if !extras.is_empty() && root.is_none() {
        return Err(differs(format!(
            "does not end in kong/plugins/{}, and modules beside it belong to it",
            package.plugin
        )));
    }
    let root = root.unwrap_or(dir);
    if hash_release(dir, &package.plugin, root, &extras).is_ok_and(|(digest, ..)| digest == package.digest())
    {
        return Ok(());
    }
    let by_path = |list: &mut dyn Iterator<Item = &FileEntry>| -> BTreeMap<String, FileEntry> {
        list.map(|f| (f.path.clone(), f.clone())).collect()
    };
    let (there, here) = (by_path(&mut package.files.iter().map(|f| &f.entry)), by_path(&mut files.iter()));
    let missing = there.keys().filter(|p| !here.contains_key(*p)).map(|p| format!("{p} is missing"));
    let more = here.keys().filter(|p| !there.contains_key(*p)).map(|p| format!("{p} is not part of it"));
    let other = there.iter().filter(|(p, f)| here.get(*p).is_some_and(|h| h != *f));
    let other = other.map(|(p, _)| format!("{p} has other content"));
    let beside = package.extras.iter().filter(|f| {
        let there = hash_release(dir, &package.plugin, root, std::slice::from_ref(&f.entry.path));
        !there.is_ok_and(|(_, _, found)| found.contains(&f.entry))
    });
    let beside =
        beside.map(|f| format!("{} is missing or has other content", root.join(&f.entry.path).display()));
    let all: Vec<String> = missing.chain(more).chain(other).chain(beside).collect();
    let named = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let rest = all.len().saturating_sub(MAX_NAMED);
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    Err(differs(format!("is not {} {}: {named}{rest}", package.plugin, package.version)))
}
