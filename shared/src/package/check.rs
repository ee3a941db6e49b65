//! What any release must fulfil, whatever it was made from.

use std::collections::BTreeMap;

use super::error::{PackageError, shown};
use super::layout::MARKS;
use super::limits::Limits;
use super::{artifact, path};
use crate::name::PluginName;

/// How LuaJIT and Lua begin a compiled chunk (the next byte tells them apart).
const BYTECODE: &[u8] = b"\x1bL";

pub(super) fn files(
    plugin: &PluginName,
    files: &[(String, Vec<u8>)],
    limits: &Limits,
) -> Result<(), PackageError> {
    if !files.iter().any(|(path, _)| MARKS.contains(&path.as_str())) {
        return Err(PackageError::new(
            "NO_PLUGIN_FOUND",
            format!("{plugin} has neither handler.lua nor schema.lua"),
        ));
    }
    let too_large = |what: String| Err(PackageError::new("ARCHIVE_TOO_LARGE", what));
    if files.len() > limits.max_files {
        return too_large(format!("{} files, at most {} are taken", files.len(), limits.max_files));
    }
    let total: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    if total > limits.max_total_bytes {
        return too_large(format!("{total} bytes, at most {} are taken", limits.max_total_bytes));
    }
    for (file, bytes) in files {
        one(file, bytes, limits)?;
        if !artifact::holds(plugin, file) {
            return Err(too_long(file));
        }
    }
    collisions(files)
}

/// What modules beside a plugin's own directory must fulfil as well.
pub(super) fn extras(
    package: &super::Package,
    extras: &[(String, Vec<u8>)],
    limits: &Limits,
) -> Result<(), PackageError> {
    let too_large = |what: String| Err(PackageError::new("ARCHIVE_TOO_LARGE", what));
    let count = package.files.len() + extras.len();
    if count > limits.max_files {
        return too_large(format!("{count} files, at most {} are taken", limits.max_files));
    }
    let own: u64 = package.files.iter().map(|f| f.entry.size).sum();
    let total = own + extras.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    if total > limits.max_total_bytes {
        return too_large(format!("{total} bytes, at most {} are taken", limits.max_total_bytes));
    }
    for (file, bytes) in extras {
        extra(file, bytes, limits)?;
    }
    // Together with the plugin's own: a directory of both may not differ in case either.
    let own = package.files.iter().map(|f| (artifact::full_path(&package.plugin, &f.entry.path), Vec::new()));
    let all: Vec<(String, Vec<u8>)> =
        own.chain(extras.iter().map(|(p, _)| (p.clone(), Vec::new()))).collect();
    collisions(&all)
}

/// One module beside the plugin.
pub(super) fn extra(file: &str, bytes: &[u8], limits: &Limits) -> Result<(), PackageError> {
    one(file, bytes, limits)?;
    if super::extras::holds(file) { Ok(()) } else { Err(too_long(file)) }
}

/// One file, whatever it is.
fn one(file: &str, bytes: &[u8], limits: &Limits) -> Result<(), PackageError> {
    if bytes.len() as u64 > limits.max_file_bytes {
        let (size, most) = (bytes.len(), limits.max_file_bytes);
        let message = format!("{} has {size} bytes, at most {most} are taken", shown(file));
        return Err(PackageError::new("ARCHIVE_TOO_LARGE", message));
    }
    if bytes.starts_with(BYTECODE) {
        return Err(PackageError::new("BYTECODE_NOT_ALLOWED", format!("{} is compiled Lua", shown(file))));
    }
    if path::clean(file.as_bytes(), limits.max_path)? != *file || file.is_empty() || path::hidden(file) {
        return Err(PackageError::new(
            "PATH_INVALID",
            format!("{} cannot be a path in a release", shown(file)),
        ));
    }
    Ok(())
}

fn too_long(file: &str) -> PackageError {
    PackageError::new("PATH_TOO_LONG", format!("{} is too long for an artifact", shown(file)))
}

/// Two paths, or directories on the way to them, that some file system takes for one.
fn collisions(files: &[(String, Vec<u8>)]) -> Result<(), PackageError> {
    let mut seen: BTreeMap<String, (&str, bool)> = BTreeMap::new();
    for (file, _) in files {
        let ends = file.match_indices('/').map(|(at, _)| at).chain([file.len()]);
        for path in ends.map(|at| &file[..at]) {
            let last = path.len() == file.len();
            let Some((other, other_last)) = seen.insert(path.to_lowercase(), (path, last)) else { continue };
            if other != path {
                let message =
                    format!("{} and {} differ in upper and lower case only", shown(other), shown(path));
                return Err(PackageError::new("CASE_COLLISION", message));
            }
            if last || other_last {
                return Err(PackageError::new("DUPLICATE_PATH", format!("{} is there twice", shown(path))));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_lists() {
        let long = format!("{}.lua", "f".repeat(200));
        let cases: &[(&[&str], &str)] = &[
            (&[], "NO_PLUGIN_FOUND"),
            (&["access.lua"], "NO_PLUGIN_FOUND"),
            (&["handler.lua", "../x.lua"], "PATH_ESCAPE"),
            (&["handler.lua", "/x.lua"], "PATH_ESCAPE"),
            (&["handler.lua", "a//x.lua"], "PATH_INVALID"),
            (&["handler.lua", "./x.lua"], "PATH_INVALID"),
            (&["handler.lua", ".x.lua"], "PATH_INVALID"),
            (&["handler.lua", "handler.lua"], "DUPLICATE_PATH"),
            (&["handler.lua", "a", "a/b.lua"], "DUPLICATE_PATH"),
            (&["handler.lua", "a/b.lua", "a"], "DUPLICATE_PATH"),
            (&["handler.lua", "Handler.lua"], "CASE_COLLISION"),
            (&["handler.lua", "Sub/a.lua", "sub/b.lua"], "CASE_COLLISION"),
            (&["handler.lua", "Ä.lua", "ä.lua"], "CASE_COLLISION"),
            (&["handler.lua", &long], "PATH_TOO_LONG"),
        ];
        let plugin = PluginName::parse("x").unwrap();
        for (paths, code) in cases {
            let list: Vec<_> = paths.iter().map(|p| ((*p).to_owned(), Vec::new())).collect();
            assert_eq!(files(&plugin, &list, &Limits::default()).unwrap_err().code, *code, "{paths:?}");
        }
        let fine = ["handler/init.lua", "sub/a.lua", "sub/b.lua", "sub.lua"];
        let list: Vec<_> = fine.iter().map(|p| ((*p).to_owned(), Vec::new())).collect();
        assert_eq!(files(&plugin, &list, &Limits::default()), Ok(()));
    }
}
