//! What a plugin and its version are called where nobody says so.

use std::collections::BTreeSet;

use super::Package;
use super::error::{PackageError, shown};
use super::lua::Scan;
use super::rockspec::Rockspec;
use crate::name::{PluginName, is_bundled};

/// Bytes of a version.
pub const MAX_VERSION: usize = 64;

/// Whether this can be a release's version: 1 to 64 letters, digits, `.`, `_`, `+`, `-`. Kong is stricter about a
/// handler's VERSION, and says so itself.
pub fn is_version(s: &str) -> bool {
    (1..=MAX_VERSION).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
}

pub(super) fn version_of_code(package: &Package) -> Option<String> {
    let source = ["handler.lua", "handler/init.lua"].iter().find_map(|p| package.file(p))?;
    Scan::of(source).field("VERSION").filter(|v| is_version(v)).map(str::to_owned)
}

/// The version in `NAME-VERSION-REVISION`. A development version names no content, so it is none.
pub(super) fn version_of_rock(stem: &str) -> Option<String> {
    let (_, version) = split_rock(stem)?;
    (is_version(version) && !matches!(version, "scm" | "dev" | "cvs")).then(|| version.to_owned())
}

fn split_rock(stem: &str) -> Option<(&str, &str)> {
    let (rest, revision) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    let digits = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_digit());
    (digits && version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')).then_some((name, version))
}

/// The name of an archive's file without what says that it is an archive; of `x-1.0-1.all.rock` that is `x-1.0-1`.
pub(super) fn stem(file: &str) -> &str {
    if let Some(rock) = file.strip_suffix(".rock") {
        return rock.rsplit_once('.').map_or(rock, |(stem, _)| stem);
    }
    [".tar.gz", ".tgz", ".zip", ".tar"].iter().find_map(|e| file.strip_suffix(e)).unwrap_or(file)
}

/// `foo-1.2.0-1`, `foo-v1.2` and `foo-main` without what follows the name.
fn without_version(name: &str) -> &str {
    if let Some((rock, _)) = split_rock(name) {
        return rock;
    }
    let version = |tail: &str| {
        let tail = tail.strip_prefix('v').unwrap_or(tail);
        matches!(tail, "main" | "master")
            || tail.starts_with(|c: char| c.is_ascii_digit()) && tail.contains('.')
    };
    name.match_indices('-').find(|(at, _)| version(&name[at + 1..])).map_or(name, |(at, _)| &name[..at])
}

/// Where handler.lua lies bare, everything that may give its plugin's name away.
#[derive(Debug)]
pub(super) struct Clues<'a> {
    pub wanted: Option<&'a PluginName>,
    /// Directory of the files, directory around all, file or directory as given; from the nearest to the farthest.
    pub around: Vec<&'a str>,
    pub rockspecs: &'a [&'a Rockspec],
    /// (path, content) of the plugin's files.
    pub files: &'a [(String, Vec<u8>)],
}

/// The name, from the surest clue to the weakest: what was asked for; what the code requires of itself; a name that says
/// `kong-plugin-NAME`; what the schema calls itself (Kong accepts any name there); the directory.
pub(super) fn plugin_name(clues: &Clues<'_>) -> Result<PluginName, PackageError> {
    if let Some(name) = clues.wanted {
        return Ok(name.clone());
    }
    let packages = clues.rockspecs.iter().map(|r| r.package.as_str());
    let named = clues.around.iter().copied().chain(packages);
    let explicit = named.filter_map(|n| n.strip_prefix("kong-plugin-")).map(without_version);
    // A directory called `src` says where sources are, not what.
    let around = clues
        .around
        .iter()
        .copied()
        .filter(|n| !matches!(*n, "src" | "lua" | "lib" | "plugin" | "plugins" | "kong"));
    let mut candidates: Vec<String> = Vec::new();
    candidates.extend(required(clues.files));
    candidates.extend(explicit.map(str::to_owned));
    candidates.extend(schema_name(clues.files));
    // Mirrors call a copy OWNER+REPOSITORY.
    candidates.extend(around.map(|n| without_version(n.rsplit('+').next().unwrap_or(n)).to_owned()));
    for candidate in &candidates {
        match PluginName::parse(candidate) {
            Ok(name) => return Ok(name),
            Err(e) if e.code == "NAME_INVALID" => {}
            Err(e) => return Err(e.into()),
        }
    }
    let seen = candidates.first().map_or(String::new(), |c| format!("; {} cannot be one", shown(c)));
    Err(PackageError::new("NAME_UNKNOWN", format!("nothing tells the plugin's name{seen}")))
}

fn content<'a>(files: &'a [(String, Vec<u8>)], path: &str) -> Option<&'a [u8]> {
    files.iter().find(|(p, _)| p == path).map(|(_, bytes)| bytes.as_slice())
}

/// NAME, if the files require `kong.plugins.NAME.x` where `x` is one of them, and no other such name.
fn required(files: &[(String, Vec<u8>)]) -> Option<String> {
    let mut names = BTreeSet::new();
    for (_, bytes) in files.iter().filter(|(path, _)| path.ends_with(".lua")) {
        for module in Scan::of(bytes).modules() {
            let Some((name, module)) = module.strip_prefix("kong.plugins.").and_then(|m| m.split_once('.'))
            else {
                continue;
            };
            let path = module.replace('.', "/");
            let own = [format!("{path}.lua"), format!("{path}/init.lua")];
            // A copy of one of Kong's plugins still requires the original's modules.
            if !is_bundled(name) && own.iter().any(|p| content(files, p).is_some()) {
                names.insert(name.to_owned());
            }
        }
    }
    if names.len() == 1 { names.pop_first() } else { None }
}

/// `name = "x"` of the table that also has `fields`.
fn schema_name(files: &[(String, Vec<u8>)]) -> Option<String> {
    let source = ["schema.lua", "schema/init.lua"].iter().find_map(|p| content(files, p))?;
    let scan = Scan::of(source);
    let outer =
        scan.assignments.iter().filter(|a| a.key == "name" && a.depth == 1 && scan.has(a.table, "fields"));
    outer.filter_map(|a| a.value.clone()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_rocks() {
        for (stem, version) in [
            ("kong-plugin-foo-1.2.0-1", Some("1.2.0")),
            ("foo-0.1beta-12", Some("0.1beta")),
            ("foo-scm-1", None),
            ("foo-1.2.0", None),
            ("foo", None),
        ] {
            assert_eq!(version_of_rock(stem).as_deref(), version, "{stem}");
        }
    }

    #[test]
    fn names_without_versions() {
        for (name, bare) in [
            ("foo-1.2.0-1", "foo"),
            ("foo-bar-v1.2", "foo-bar"),
            ("foo-2fa", "foo-2fa"),
            ("foo-main", "foo"),
            ("1claw", "1claw"),
            ("foo", "foo"),
            ("foo-scm-1", "foo"),
        ] {
            assert_eq!(without_version(name), bare, "{name}");
        }
    }

    #[test]
    fn stems() {
        for (file, bare) in [
            ("x-1.0-1.all.rock", "x-1.0-1"),
            ("x-1.0-1.linux-x86_64.rock", "x-1.0-1"),
            ("x-1.0.tar.gz", "x-1.0"),
            ("x.tgz", "x"),
            ("x", "x"),
        ] {
            assert_eq!(stem(file), bare, "{file}");
        }
    }

    fn name(around: &[&str], files: &[(&str, &str)]) -> Result<String, &'static str> {
        let files: Vec<_> = files.iter().map(|(p, s)| ((*p).to_owned(), s.as_bytes().to_vec())).collect();
        plugin_name(&Clues { wanted: None, around: around.to_vec(), rockspecs: &[], files: &files })
            .map(|n| n.to_string())
            .map_err(|e| e.code)
    }

    #[test]
    fn the_surest_clue_wins() {
        let schema = ("schema.lua", "local t = { name = 'no' } return { name = 'from-schema', fields = {} }");
        let handler =
            ("handler.lua", "local a = require('kong.plugins.from-code.access') require 'kong.plugins.x.y'");
        let access = ("access.lua", "");
        assert_eq!(name(&["dir"], &[schema, handler, access]), Ok("from-code".into()));
        assert_eq!(name(&["dir"], &[schema, handler]), Ok("from-schema".into()));
        assert_eq!(name(&["src", "kong-plugin-foo-1.0.0"], &[schema]), Ok("foo".into()));
        assert_eq!(name(&["src", "dir-1.0"], &[]), Ok("dir".into()));
        assert_eq!(name(&["key-auth"], &[]), Err("PLUGIN_BUNDLED"));
        assert_eq!(name(&["a b"], &[]), Err("NAME_UNKNOWN"));
    }
}
