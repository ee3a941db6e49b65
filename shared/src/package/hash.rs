//! The digest of a release, from its list of files or from a tree on disk.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::FileEntry;
use crate::digest::Digest;
use crate::name::PluginName;

/// Names the encoding below; another encoding gets another word.
const DOMAIN: &[u8] = b"kctl release 1\n";
const DOMAIN_WITH_EXTRAS: &[u8] = b"kctl release 2\n";
/// No placed tree is deeper: paths have at most 255 bytes.
const MAX_DEPTH: usize = 128;

/// The digest of a release: SHA-256 over
///
/// ```text
/// "kctl release 1\n"
/// u64 length of the plugin's name, name
/// u64 number of files
/// for each file, sorted by path (bytewise):  u64 length of the path, path, 32 bytes SHA-256 of the content, u64 size
/// ```
///
/// All numbers are big-endian. Lengths stand before what they measure, so no two lists share an encoding. The plugin's
/// name is part of it because the same files under another name are another release: the artifact's paths differ, and
/// Kong accepts a schema that gives itself another name, so such twins do exist. The version is not part of it.
pub fn digest_of<'a>(plugin: &PluginName, files: impl IntoIterator<Item = &'a FileEntry>) -> Digest {
    digest_with(plugin, files, [])
}

/// As [`digest_of`], for a release with modules beside the plugin's own directory. With any, the first line is another one
/// and a second list of the same form, of those modules by their paths relative to a Lua root, follows the first.
pub fn digest_with<'a>(
    plugin: &PluginName,
    files: impl IntoIterator<Item = &'a FileEntry>,
    extras: impl IntoIterator<Item = &'a FileEntry>,
) -> Digest {
    let sorted = |mut files: Vec<&'a FileEntry>| {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    };
    let (files, extras) = (sorted(files.into_iter().collect()), sorted(extras.into_iter().collect()));
    let mut hasher = Sha256::new();
    let mut put = |bytes: &[u8]| hasher.update(bytes);
    put(if extras.is_empty() { DOMAIN } else { DOMAIN_WITH_EXTRAS });
    put(&(plugin.as_str().len() as u64).to_be_bytes());
    put(plugin.as_str().as_bytes());
    for list in [Some(files), Some(extras).filter(|e| !e.is_empty())].into_iter().flatten() {
        put(&(list.len() as u64).to_be_bytes());
        for file in list {
            put(&(file.path.len() as u64).to_be_bytes());
            put(file.path.as_bytes());
            put(&file.sha256.0);
            put(&file.size.to_be_bytes());
        }
    }
    Digest(hasher.finalize().into())
}

/// Reads a placed release again from disk: `dir` is the plugin's own directory (see [`hash_tree`]), `extras` are the
/// modules beside it, relative to `root`. Also gives the files of both, paths as in a release.
///
/// # Errors
/// As [`hash_tree`]; a module may itself be a link to a plain file.
pub fn hash_release(
    dir: &Path,
    plugin: &PluginName,
    root: &Path,
    extras: &[String],
) -> io::Result<(Digest, Vec<FileEntry>, Vec<FileEntry>)> {
    let (_, files) = hash_tree(dir, plugin)?;
    let extra = |path: &String| {
        let (sha256, size) = hash_file(&root.join(path))?;
        Ok(FileEntry { path: path.clone(), sha256, size })
    };
    let extras = extras.iter().map(extra).collect::<io::Result<Vec<_>>>()?;
    Ok((digest_with(plugin, &files, &extras), files, extras))
}

/// Reads a placed `kong/plugins/NAME` again from disk. `dir` itself may be a link to the tree; whatever in it is neither
/// a plain file nor a directory is an error, and every file counts, dotfiles included: one file more or less is another
/// digest. Empty directories do not count.
///
/// # Errors
/// What the file system says; `InvalidData` for a link, a special file or a name that is not UTF-8.
pub fn hash_tree(dir: &Path, plugin: &PluginName) -> io::Result<(Digest, Vec<FileEntry>)> {
    let mut files = Vec::new();
    walk(dir, "", 0, &mut files)?;
    files.sort();
    Ok((digest_of(plugin, &files), files))
}

fn walk(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<FileEntry>) -> io::Result<()> {
    let invalid = |what: &str, path: &Path| {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} {what}", path.display())))
    };
    if depth > MAX_DEPTH {
        return invalid("is too deep", dir);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return invalid("has a name that is not UTF-8", &path);
        };
        let relative = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // Not followed: a link has a type of its own here.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&path, &relative, depth + 1, files)?;
        } else if kind.is_file() {
            let (sha256, size) = hash_file(&path)?;
            files.push(FileEntry { path: relative, sha256, size });
        } else {
            return invalid("is neither a plain file nor a directory", &path);
        }
    }
    Ok(())
}

fn hash_file(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = [0; 16 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((Digest(hasher.finalize().into()), size)),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &[u8]) -> FileEntry {
        FileEntry { path: path.into(), sha256: Digest::of(content), size: content.len() as u64 }
    }

    /// Digests live in logs, stores and on nodes: this value may never change.
    #[test]
    fn the_encoding_is_pinned() {
        let plugin = PluginName::parse("rate-guard").unwrap();
        let files = [entry("schema.lua", b"return {}"), entry("handler.lua", b"return {}\n")];
        assert_eq!(
            digest_of(&plugin, &files).to_string(),
            "sha256:8a19cc581e73803ae0979a4da32d1ae14a3adbe1baa31528610fe4f34cc67700"
        );
    }

    #[test]
    fn order_is_of_no_matter_and_all_else_is() {
        let (a, b) = (PluginName::parse("a").unwrap(), PluginName::parse("b").unwrap());
        let (x, y) = (entry("x", b"1"), entry("y", b"2"));
        let digest = digest_of(&a, [&x, &y]);
        assert_eq!(digest, digest_of(&a, [&y, &x]));
        for other in [
            digest_of(&b, [&x, &y]),
            digest_of(&a, [&x]),
            digest_of(&a, [&entry("x", b"2"), &y]),
            digest_of(&a, [&entry("z", b"1"), &y]),
        ] {
            assert_ne!(digest, other);
        }
    }

    #[test]
    fn a_tree_hashes_like_its_list_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/x.lua"), "x").unwrap();
        fs::write(dir.path().join("sub.lua"), "y").unwrap();
        let plugin = PluginName::parse("a").unwrap();
        let (digest, files) = hash_tree(dir.path(), &plugin).unwrap();
        assert_eq!(files, [entry("sub.lua", b"y"), entry("sub/x.lua", b"x")]);
        assert_eq!(digest, digest_of(&plugin, &files));

        std::os::unix::fs::symlink("sub.lua", dir.path().join("link.lua")).unwrap();
        assert_eq!(hash_tree(dir.path(), &plugin).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
