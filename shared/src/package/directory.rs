//! A plugin's directory as it lies on disk.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::{PackageError, shown};
use super::tree::Tree;
use super::{archive, path};

/// Reads `dir`, without dot directories, tests and vendored trees. A directory that lies in a `kong/plugins` itself keeps
/// that in its paths, so that `kong/plugins/NAME` can be given as well as what is around it; what is kept so is returned.
pub(super) fn read(dir: &Path, tree: &mut Tree<'_>) -> Result<String, PackageError> {
    let real = fs::canonicalize(dir).map_err(|e| archive::unreadable(&e, &dir.to_string_lossy()))?;
    let prefix = outer(&real);
    let mut waiting = vec![(real, prefix.clone())];
    while let Some((dir, prefix)) = waiting.pop() {
        if waiting.len() > tree.limits.max_entries {
            let message = format!("more than {} directories", tree.limits.max_entries);
            return Err(PackageError::new("TOO_MANY_ENTRIES", message));
        }
        let entries = fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = entries.map_err(|e| archive::unreadable(&e, &dir.to_string_lossy()))?;
        // What is kept when a budget runs out must not depend on the file system's order.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let raw = join(&prefix, &name);
            let text = String::from_utf8_lossy(&raw);
            if path::hidden(&text) || path::aside(&text) {
                continue;
            }
            let found = entry.metadata().map_err(|e| archive::unreadable(&e, &text))?;
            if found.is_dir() {
                tree.directory(&raw)?;
                waiting.push((entry.path(), raw));
            } else {
                one(&entry.path(), &raw, &found, tree)?;
            }
        }
    }
    Ok(String::from_utf8_lossy(&prefix).into_owned())
}

fn one(file: &Path, raw: &[u8], found: &Metadata, tree: &mut Tree<'_>) -> Result<(), PackageError> {
    let text = String::from_utf8_lossy(raw);
    let failed = |e: io::Error| archive::unreadable(&e, &text);
    if found.is_symlink() {
        let target = fs::read_link(file).map_err(failed)?;
        return tree.link(raw, target.as_os_str().as_bytes());
    }
    if !found.is_file() {
        let message = format!("{} is neither a file nor a directory", shown(&text));
        return Err(PackageError::new("SPECIAL_FILE_NOT_ALLOWED", message));
    }
    if found.permissions().mode() & 0o6000 != 0 {
        let message = format!("{} is set-user-id or set-group-id", shown(&text));
        return Err(PackageError::new("MODE_NOT_ALLOWED", message));
    }
    if !Tree::wants(&text) {
        return tree.unread(raw);
    }
    let open = File::open(file).map_err(failed)?;
    let opened = open.metadata().map_err(failed)?;
    // A link put in the file's place in between would have been followed.
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(PackageError::new(
            "FILE_CHANGED",
            format!("{} was replaced while it was read", shown(&text)),
        ));
    }
    if opened.len() > tree.limits.max_file_bytes {
        return tree.oversized(raw, opened.len());
    }
    let read = tree.file(raw, opened.len(), &mut open.take(opened.len() + 1))?;
    if read != opened.len() {
        return Err(PackageError::new(
            "FILE_CHANGED",
            format!("{} was written while it was read", shown(&text)),
        ));
    }
    Ok(())
}

fn join(prefix: &[u8], name: &OsStr) -> Vec<u8> {
    let mut raw = prefix.to_vec();
    if !raw.is_empty() {
        raw.push(b'/');
    }
    raw.extend_from_slice(name.as_bytes());
    raw
}

/// `kong/plugins/NAME`, `kong/plugins` or `kong`, if the directory is one of those.
fn outer(real: &Path) -> Vec<u8> {
    let names: Vec<&OsStr> = real.iter().collect();
    let prefix = match names.as_slice() {
        [.., kong, plugins, _] if *kong == "kong" && *plugins == "plugins" => 3,
        [.., kong, plugins] if *kong == "kong" && *plugins == "plugins" => 2,
        [.., kong] if *kong == "kong" && real.join("plugins").is_dir() => 1,
        _ => 0,
    };
    names[names.len() - prefix..].iter().collect::<PathBuf>().into_os_string().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_directory_is_called_within_kong() {
        for (dir, prefix) in [
            ("/a/kong/plugins/x", "kong/plugins/x"),
            ("/a/kong/plugins", "kong/plugins"),
            ("/a/kong/plugins/x/y", ""),
            ("/a/kong", ""),
            ("/", ""),
        ] {
            assert_eq!(outer(Path::new(dir)), prefix.as_bytes(), "{dir}");
        }
    }
}
