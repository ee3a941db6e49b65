//! Where Lua finds plugins on this node, and what is the matter with their files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kctl_shared::digest::Digest;
use kctl_shared::name::{BUNDLED, PluginName};
use kctl_shared::package::hash_tree;

use crate::doctor::facts::{Facts, Files};
use crate::gateway::kong_env::KongEnv;
use crate::gateway::process::{self, Tree};
use crate::gateway::resolve::{self, Reader};

/// Files of one plugin that are looked at; more is not a plugin.
const MOST_FILES: usize = 2000;
const MOST_DEPTH: usize = 16;
/// Read of a Lua file when looking for signs of its age.
const MOST_BYTES: usize = 1 << 20;

/// As whom workers read.
pub fn reader(tree: Option<&Tree>, facts: &Facts, env: Option<&KongEnv>) -> Reader {
    let running = tree.and_then(|tree| process::credentials(tree.serving().next()?.pid));
    if let Some(running) = running {
        return running;
    }
    // A master that is not root cannot change its user.
    let owner = env.map(|env| env.owner).filter(|owner| owner.0 != 0);
    if let Some((user, group)) = owner {
        return (user, vec![group]);
    }
    let me = rustix::process::geteuid().as_raw();
    if me != 0 {
        return (me, vec![rustix::process::getegid().as_raw()]);
    }
    let key = ["nginx_main_user", "nginx_user"];
    let set = key
        .iter()
        .find_map(|k| facts.conf()?.values.get(*k).cloned().or_else(|| env?.get(k).map(str::to_owned)));
    let name = set.as_deref().and_then(|v| v.split_whitespace().next()).unwrap_or("kong");
    account(name).or_else(|| account("nobody")).unwrap_or((65534, vec![65534]))
}

fn account(name: &str) -> Option<Reader> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f.first() == Some(&name))?
        .into_iter();
    let user = fields.nth(2)?.parse().ok()?;
    Some((user, vec![fields.next()?.parse().ok()?]))
}

pub fn may_read(path: &Path, user: u32) -> bool {
    fs::metadata(path).is_ok_and(|m| resolve::permits(&m, 0o4, &identity(user)))
}

pub fn may_write(path: &Path, user: u32) -> bool {
    fs::metadata(path).is_ok_and(|m| resolve::permits(&m, 0o2, &identity(user)))
}

/// A user with its primary group only.
fn identity(user: u32) -> Reader {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let line = text.lines().map(fields).find(|f| f.get(2).is_some_and(|id| *id == user.to_string()));
    (user, line.and_then(|f| f.get(3)?.parse().ok()).into_iter().collect())
}

/// Fills in what there is to know of files.
pub fn look(facts: &mut Facts, bin: &Path, reader: &Reader) {
    let listed = facts.conf().map(|c| c.names.clone()).unwrap_or_default();
    let armed = facts.armed().map(|a| a.names.clone()).unwrap_or_default();
    let used: Vec<String> = facts.in_use().into_iter().flatten().cloned().collect();
    let names = super::custom(listed.iter().chain(&armed).chain(&used));
    let own = facts.conf().map(|c| c.lua_path.clone()).or_else(|| facts.armed().map(|a| a.lua_path.clone()));
    let own = own.unwrap_or_default();
    let leaked = facts.armed().map(|a| a.leaked.join(";")).unwrap_or_default();
    let path = format!("{own};{leaked};{}", usual(bin));
    let modern = facts.dialect.is_modern();
    let prefix = facts.prefix.clone();
    facts.plugins =
        names.iter().map(|name| (name.clone(), files(&path, &prefix, name, reader, modern))).collect();
    let shadows = |name: &&str| {
        let module = format!("kong.plugins.{name}.handler");
        let own: String = own.split(';').filter(|e| e.starts_with('/')).collect::<Vec<_>>().join(";");
        let found = resolve::resolve(&own, &prefix, &module)?;
        // Kong's own tree may be named on purpose.
        let core = found
            .ancestors()
            .nth(3)
            .is_some_and(|kong| kong.join("init.lua").is_file() && kong.join("cmd").is_dir());
        (!core).then(|| ((*name).to_owned(), found))
    };
    facts.shadowed = BUNDLED.iter().filter_map(shadows).collect();
}

/// Where Kong's own packages and LuaRocks put Lua files; stands behind everything as `;;`.
fn usual(bin: &Path) -> String {
    let root = fs::canonicalize(bin).ok().and_then(|bin| Some(bin.parent()?.parent()?.to_path_buf()));
    let near = root
        .into_iter()
        .flat_map(|root| [root.join("share/lua/5.1"), root.join("openresty/luajit/share/lua/5.1")]);
    let fixed =
        ["/usr/local/openresty/luajit/share/lua/5.1", "/usr/local/share/lua/5.1", "/usr/share/lua/5.1"];
    let mut places: Vec<PathBuf> = Vec::new();
    for place in near.chain(fixed.map(PathBuf::from)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places.iter().map(|p| format!("{0}/?.lua;{0}/?/init.lua", p.display())).collect::<Vec<_>>().join(";")
}

fn files(path: &str, prefix: &Path, name: &str, reader: &Reader, modern: bool) -> Files {
    let hits = |part: &str| -> Vec<PathBuf> {
        let module = format!("kong/plugins/{name}/{part}");
        let mut seen = BTreeSet::new();
        let entries = path.split(';').filter(|entry| !entry.is_empty());
        let all = entries.map(|entry| prefix.join(entry.replace('?', &module))).filter(|path| path.is_file());
        all.filter(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone()))).collect()
    };
    let mut files =
        Files { handlers: hits("handler"), schemas: hits("schema"), reader: reader.0, ..Files::default() };
    for entry in path.split(';').filter(|entry| entry.ends_with("/?.lua")) {
        let directory = prefix.join(entry.trim_end_matches("?.lua")).join("kong/plugins").join(name);
        for part in ["handler.lua", "schema.lua"] {
            if let Some(link) = dangling(&directory.join(part)).filter(|link| !files.dangling.contains(link))
            {
                files.dangling.push(link);
            }
        }
    }
    let directory = files.handlers.first().or(files.schemas.first()).and_then(|file| file.parent());
    let Some(directory) = directory.map(Path::to_path_buf) else { return files };
    let mut tree = Vec::new();
    walk(&directory, MOST_DEPTH, &mut tree);
    let mut closed = BTreeSet::new();
    for file in &tree {
        closed.extend(closed_steps(file, reader));
    }
    files.closed = closed.into_iter().collect();
    files.changed = changed(&directory, name);
    if modern {
        files.old_style = tree.iter().find_map(|file| old_style(file, &directory));
    }
    files
}

/// The link on the way to `path` that leads nowhere.
fn dangling(path: &Path) -> Option<PathBuf> {
    let broken = |step: &&Path| {
        fs::symlink_metadata(step).is_ok_and(|m| m.is_symlink()) && fs::metadata(step).is_err()
    };
    path.ancestors().find(broken).map(Path::to_path_buf)
}

/// Files and directories below `directory`, links followed.
fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if found.len() >= MOST_FILES {
            return;
        }
        if path.is_dir() && depth > 0 {
            walk(&path, depth - 1, found);
        }
        found.push(path);
    }
}

/// What on the way to `path` the reader may not enter or read.
fn closed_steps(path: &Path, reader: &Reader) -> Vec<PathBuf> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let is_closed = |step: &&Path| {
        fs::metadata(step).is_ok_and(|m| !resolve::permits(&m, if m.is_dir() { 0o1 } else { 0o4 }, reader))
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for route in [path, &real] {
        for step in route.ancestors().filter(is_closed) {
            let real = fs::canonicalize(step).unwrap_or_else(|_| step.to_path_buf());
            if !found.contains(&real) {
                found.push(real);
            }
        }
    }
    found
}

/// Files of a release of ours have their digest in their path.
fn changed(directory: &Path, name: &str) -> Option<String> {
    let real = fs::canonicalize(directory).ok()?;
    let release = real.ancestors().nth(3)?;
    let hex = release.file_name()?.to_str()?;
    let stored =
        release.parent()?.file_name()? == name && release.parent()?.parent()?.file_name()? == "store";
    let digest: Digest = format!("sha256:{hex}").parse().ok().filter(|_| stored)?;
    let plugin = PluginName::parse(name).ok()?;
    match hash_tree(&real, &plugin) {
        Ok((found, _)) if found == digest => None,
        Ok((found, _)) => Some(format!("{} holds {found}", real.display())),
        Err(error) => Some(format!("{}: {error}", real.display())),
    }
}

/// A sign that a Lua file was written for Kong before 3.0.
fn old_style(file: &Path, directory: &Path) -> Option<String> {
    if file.extension().is_none_or(|e| e != "lua")
        || fs::metadata(file).is_ok_and(|m| m.len() > MOST_BYTES as u64)
    {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let shown = file.strip_prefix(directory).unwrap_or(file).display();
    let code = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    for line in code.clone() {
        let line = line.replace([' ', '\t', '(', ')', '"', '\''], "");
        if line.contains("requirekong.plugins.base_plugin") {
            return Some(format!("{shown} requires kong.plugins.base_plugin, which is gone"));
        }
    }
    let schema = file.file_name().is_some_and(|n| n == "schema.lua") && file.parent() == Some(directory);
    let flat: String = code.flat_map(|line| line.chars().filter(|c| !c.is_whitespace())).collect();
    let old = schema
        && (flat.contains("no_consumer=") || flat.contains("self_check="))
        && !flat.contains("typedefs");
    // `fields = { key = {` where the new form has `fields = { { key = {`.
    let map = schema
        && flat.split_once("fields={").is_some_and(|(before, rest)| {
            !before.contains("fields") && !rest.starts_with('{') && rest.contains("={type=")
        })
        && !flat.contains("typedefs");
    (old || map).then(|| format!("{shown} has fields as a map, not as a list of records"))
}

/// The plugin that Kong's words are about.
pub fn subject(words: &str) -> Option<String> {
    let between = |start: &str, end: &[char]| {
        let rest = words.split_once(start)?.1;
        let name = rest.split(end).next().unwrap_or(rest).trim();
        (!name.is_empty() && name.len() <= 64 && !name.contains(char::is_whitespace)).then(|| name.to_owned())
    };
    let before = |mark: &str| {
        let head = words.split_once(mark)?.0;
        let name = head.rsplit([' ', ':', '\n']).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    before(" plugin is in use but not enabled")
        .or_else(|| between("error loading module 'kong.plugins.", &['.', '\'']))
        .or_else(|| between("on plugin '", &['\'']))
        .or_else(|| between("for plugin: ", &[' ', ';', ',', '\n']))
        .or_else(|| between("handler for plugin \"", &['"']))
        .or_else(|| between("Plugin \"", &['"']))
        .or_else(|| between("plugin \"", &['"']))
        .or_else(|| between("plugin '", &['\'']))
        .or_else(|| before(" plugin is enabled but not installed"))
        .or_else(|| between("/kong/plugins/", &['/']))
        .or_else(|| between("kong.plugins.", &['.', '\'', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kongs_words_name_the_plugin() {
        for (words, name) in [
            (
                "error loading plugin schemas: on plugin 'a-b': a-b plugin is enabled but not installed; no plugin found",
                Some("a-b"),
            ),
            ("error building initial plugins: golden plugin is in use but not enabled", Some("golden")),
            (
                "error loading module 'kong.plugins.x.handler': /d/kong/plugins/x/handler.lua:1: module 'kong.plugins.base_plugin' not found",
                Some("x"),
            ),
            ("on plugin 'y': no configuration schema found for plugin: y", Some("y")),
            ("Plugin \"z\" cannot be loaded because its VERSION field", Some("z")),
            ("failed to execute the \"init_worker\" handler for plugin \"b\": boom", Some("b")),
            ("in 'name': plugin 'q' not enabled; add it to the 'plugins' configuration property", Some("q")),
            ("attempt to index upvalue 'kong'", None),
        ] {
            assert_eq!(subject(words).as_deref(), name, "{words}");
        }
    }

    #[test]
    fn old_plugins_are_known_by_what_they_need() {
        let dir = tempfile::tempdir().unwrap();
        let sign = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::write(&path, text).unwrap();
            old_style(&path, dir.path()).is_some()
        };
        assert!(sign("handler.lua", "local Base = require(\"kong.plugins.base_plugin\")\n"));
        assert!(sign("handler.lua", "local Base = require 'kong.plugins.base_plugin'\n"));
        assert!(!sign("handler.lua", "-- require 'kong.plugins.base_plugin'\nreturn {}\n"));
        assert!(sign(
            "schema.lua",
            "return {\n  no_consumer = true,\n  fields = { key = { type = \"string\" } } }\n"
        ));
        assert!(sign("schema.lua", "return { fields = { key = { type = \"string\" } } }\n"));
        assert!(!sign(
            "schema.lua",
            "return { name = \"x\", fields = { { config = { type = \"record\", fields = {} } } } }\n"
        ));
    }
}
