//! A package in the two forms that work without kctl: a rock that `luarocks install` takes, and an archive that `tar` and
//! `lua_package_path` are enough for. The same package always gives the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write as _};

use ::zip::write::SimpleFileOptions;
use md5::{Digest as _, Md5};

use super::Package;
use crate::name::PluginName;

/// Name of a plugin's rock, LuaRocks allowing lower case only.
pub fn name(plugin: &PluginName) -> String {
    format!("kong-plugin-{}", plugin.as_str().to_lowercase())
}

/// A release's version as LuaRocks takes it, letters, digits and dots, with its revision.
pub fn version(version: &str) -> String {
    let plain: String = version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
    format!("{plain}-1")
}

/// `kong-plugin-NAME-VERSION-1`, what LuaRocks calls the files of this release.
pub fn stem(package: &Package) -> String {
    format!("{}-{}", name(&package.plugin), version(&package.version))
}

/// A Lua string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\{:03}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The rockspec of a release, its modules as they lie below `kong/plugins/NAME`.
pub fn rockspec(package: &Package) -> String {
    let lua = package.files.iter().filter_map(|f| f.entry.path.strip_suffix(".lua"));
    let module = |path: &str| {
        let dotted = path.strip_suffix("/init").unwrap_or(path).replace('/', ".");
        let key = quoted(&format!("kong.plugins.{}.{dotted}", package.plugin));
        format!("    [{key}] = {},\n", quoted(&format!("kong/plugins/{}/{path}.lua", package.plugin)))
    };
    let extras = package.extras.iter().filter_map(|f| f.entry.path.strip_suffix(".lua"));
    let extra = |path: &str| {
        let dotted = path.strip_suffix("/init").unwrap_or(path).replace('/', ".");
        format!("    [{}] = {},\n", quoted(&dotted), quoted(&format!("{path}.lua")))
    };
    // What is no Lua is placed by its directory, under a key that only has to be another one each time.
    let others = package.files.iter().map(|f| f.entry.path.as_str()).filter(|path| !path.ends_with(".lua"));
    let other = |(number, path): (usize, &str)| {
        let folder =
            path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.replace('/', ".") + ".");
        let key = quoted(&format!("kong.plugins.{}.{folder}file{number}", package.plugin));
        format!("      [{key}] = {},\n", quoted(&format!("kong/plugins/{}/{path}", package.plugin)))
    };
    let others: String = others.enumerate().map(other).collect();
    let install = if others.is_empty() {
        String::new()
    } else {
        format!("  install = {{\n    lua = {{\n{others}    }},\n  }},\n")
    };
    format!(
        "package = {}\nversion = {}\nsource = {{\n  url = {},\n}}\nbuild = {{\n  type = \"builtin\",\n  modules = {{\n{}  }},\n{install}}}\n",
        quoted(&name(&package.plugin)),
        quoted(&version(&package.version)),
        quoted(&format!("file://{}.tar.gz", stem(package))),
        lua.map(module).chain(extras.map(extra)).collect::<String>()
    )
}

/// A tree of files as LuaRocks lists them with their MD5.
#[derive(Default)]
struct Manifest<'a> {
    folders: BTreeMap<&'a str, Manifest<'a>>,
    files: BTreeMap<&'a str, String>,
}

impl<'a> Manifest<'a> {
    fn add(&mut self, path: &'a str, bytes: &[u8]) {
        match path.split_once('/') {
            Some((folder, rest)) => self.folders.entry(folder).or_default().add(rest, bytes),
            None => drop(self.files.insert(path, hex::encode(Md5::digest(bytes)))),
        }
    }

    fn lua(&self, depth: usize) -> String {
        let indent = "  ".repeat(depth);
        let folders = self
            .folders
            .iter()
            .map(|(name, m)| format!("{indent}[{}] = {{\n{}{indent}}},\n", quoted(name), m.lua(depth + 1)));
        let files =
            self.files.iter().map(|(name, sum)| format!("{indent}[{}] = {},\n", quoted(name), quoted(sum)));
        folders.chain(files).collect()
    }
}

/// A rock of pure Lua (`all`).
///
/// # Errors
/// None that a buffer in memory gives.
pub fn rock(package: &Package) -> io::Result<Vec<u8>> {
    let spec = rockspec(package);
    let spec_name = format!("{}.rockspec", stem(package));
    let placed: Vec<(String, &[u8])> =
        package.placed().map(|(path, bytes)| (format!("lua/{path}"), bytes)).collect();
    let mut manifest = Manifest::default();
    placed.iter().for_each(|(path, bytes)| manifest.add(path, bytes));
    manifest.add(&spec_name, spec.as_bytes());
    let listed = format!("rock_manifest = {{\n{}}}\n", manifest.lua(1));

    let mut zip = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    let own = [(spec_name.clone(), spec.as_bytes()), ("rock_manifest".to_owned(), listed.as_bytes())];
    for (path, bytes) in own.iter().chain(&placed) {
        // Without a time of its own every entry gets the format's first day.
        zip.start_file(path.as_str(), SimpleFileOptions::default().unix_permissions(0o644))?;
        zip.write_all(bytes)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// A gzipped tar with one folder in which the rockspec and `kong/plugins/NAME` lie.
///
/// # Errors
/// A path longer than tar's 100 bytes would need an extension that old tools lack.
pub fn archive(package: &Package) -> io::Result<Vec<u8>> {
    let root = stem(package);
    let gz = ::flate2::GzBuilder::new().mtime(0).write(Vec::new(), ::flate2::Compression::best());
    let mut tar = ::tar::Builder::new(gz);
    let spec = rockspec(package);
    let mut entries = vec![(format!("{root}/{root}.rockspec"), spec.as_bytes())];
    entries.extend(package.placed().map(|(path, bytes)| (format!("{root}/{path}"), bytes)));
    for (path, bytes) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, path, bytes)?;
    }
    tar.into_inner()?.finish()
}
