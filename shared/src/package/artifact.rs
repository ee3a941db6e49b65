//! The artifact: the one tar a release has.
//!
//! A plain ustar archive: the files in the release's order, each as `kong/plugins/NAME/PATH`, then the modules beside them,
//! each as it lies in a Lua root, a regular file of mode
//! 0644 with owner and time zero, then two empty blocks. No directories, no extensions, no compression. The same files
//! give the same bytes on every machine and in every version; whatever else a tar could say is refused on reading.

use std::io::{self, Write};

use ::tar::{EntryType, Header};
use bytes::Bytes;

use super::error::PackageError;
use super::limits::Limits;
use super::tree::Tree;
use super::{Package, layout, tar};
use crate::name::PluginName;

const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;

/// (prefix, name) as a ustar header holds a path, or `None` if it cannot.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME {
        return Some(("", path));
    }
    let (at, _) = path.match_indices('/').find(|(at, _)| path.len() - at - 1 <= NAME)?;
    (at <= PREFIX).then(|| (&path[..at], &path[at + 1..]))
}

pub(super) fn full_path(plugin: &PluginName, path: &str) -> String {
    format!("kong/plugins/{plugin}/{path}")
}

/// Whether a file's path can stand in an artifact.
pub(super) fn holds(plugin: &PluginName, path: &str) -> bool {
    split(&full_path(plugin, path)).is_some()
}

impl Package {
    /// The artifact; see the head of this file for its form.
    pub fn to_artifact(&self) -> Vec<u8> {
        let files = self.files.iter().chain(&self.extras);
        let size: usize = files.map(|f| BLOCK + f.bytes.len().next_multiple_of(BLOCK)).sum();
        let mut bytes = Vec::with_capacity(size + 2 * BLOCK);
        // A vector takes every write.
        let _ = self.write_artifact(&mut bytes);
        bytes
    }

    fn write_artifact(&self, out: &mut impl Write) -> io::Result<()> {
        for (path, bytes) in self.placed() {
            let (prefix, name) = split(&path).ok_or(io::ErrorKind::InvalidFilename)?;
            let mut header = Header::new_ustar();
            if let Some(ustar) = header.as_ustar_mut() {
                ustar.name[..name.len()].copy_from_slice(name.as_bytes());
                ustar.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
            }
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            out.write_all(header.as_bytes())?;
            out.write_all(bytes)?;
            let rest = bytes.len().next_multiple_of(BLOCK) - bytes.len();
            out.write_all(&[0; BLOCK][..rest])?;
        }
        out.write_all(&[0; 2 * BLOCK])
    }

    /// Reads an artifact and checks everything again, as if it came from a stranger. The version is what the code says of
    /// itself (see [`Package::version`]).
    ///
    /// # Errors
    /// `ARTIFACT_NOT_CANONICAL` for any byte that [`Package::to_artifact`] would not have written; else the codes of
    /// [`super::load`].
    pub fn from_artifact(bytes: &[u8], limits: &Limits) -> Result<Self, PackageError> {
        let headers = (limits.max_files as u64 + 2) * 2 * BLOCK as u64;
        if bytes.len() as u64 > limits.max_total_bytes + headers {
            return Err(PackageError::new(
                "ARCHIVE_TOO_LARGE",
                "the artifact is larger than a release can be",
            ));
        }
        let mut tree = Tree::new(limits);
        let mut rest = bytes;
        tar::read(&mut rest, &mut tree)?;
        let (plugin, files, extras) = layout::only_plugin(tree)?;
        let package = Self::new(plugin, files, limits)?;
        let package = if extras.is_empty() { package } else { package.with_extras(extras, limits)? };
        let mut same = Same { expected: bytes };
        if package.write_artifact(&mut same).is_ok() && same.expected.is_empty() {
            return Ok(package);
        }
        Err(not_canonical("its bytes are not the ones its files give"))
    }
}

pub(super) fn not_canonical(why: &str) -> PackageError {
    PackageError::new("ARTIFACT_NOT_CANONICAL", format!("this is not the artifact of a release: {why}"))
        .hint("pack the plugin again with kctl and send that")
}

/// Accepts what is written as long as it is what is expected, so that comparing needs no second copy.
struct Same<'a> {
    expected: &'a [u8],
}

impl Write for Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.expected = self.expected.strip_prefix(bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of one message that carries a part of an artifact.
const PIECE: usize = 256 * 1024;

/// An artifact as it travels, in order.
pub fn pieces(artifact: &Bytes) -> impl Iterator<Item = Bytes> {
    (0..artifact.len()).step_by(PIECE).map(|at| artifact.slice(at..artifact.len().min(at + PIECE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn package() -> Package {
        let files = vec![
            ("schema.lua".to_owned(), b"return { name = 'x', fields = {} }".to_vec()),
            ("handler.lua".to_owned(), b"return { VERSION = '1.2.0', PRIORITY = 1 }".to_vec()),
            (format!("{}/{}.lua", "d".repeat(90), "f".repeat(60)), vec![b'-'; 1000]),
        ];
        Package::new(PluginName::parse("x").unwrap(), files, &Limits::default()).unwrap()
    }

    #[test]
    fn paths_that_fit() {
        let long = format!("{}/{}", "a".repeat(150), "b".repeat(100));
        assert_eq!(split(&long), Some((&long[..150], &long[151..])));
        for path in
            [format!("{}/{}", "a".repeat(160), "b"), format!("a/{}", "b".repeat(101)), "b".repeat(101)]
        {
            assert_eq!(split(&path), None, "{path}");
        }
    }

    /// Artifacts lie in stores by their digest and are compared bytewise: this form may never change.
    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(
            Digest::of(&package().to_artifact()).to_string(),
            "sha256:1e8c3deb5b7bdecb17c79fbacb00ab2c66c5d05cb08c45ea862bf6ae06e9f331"
        );
    }

    #[test]
    fn there_and_back() {
        let package = package();
        let bytes = package.to_artifact();
        assert_eq!(Package::from_artifact(&bytes, &Limits::default()).unwrap(), package);
        assert_eq!(package.version, "1.2.0");
        assert!(package.files.is_sorted_by(|a, b| a.entry.path < b.entry.path));
    }

    #[test]
    fn other_readers_understand_it() {
        let package = package();
        let bytes = package.to_artifact();
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let paths: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
        let expected: Vec<_> =
            package.files.iter().map(|f| full_path(&package.plugin, &f.entry.path).into()).collect();
        assert_eq!(paths, expected as Vec<std::path::PathBuf>);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let package = package();
        let mut bytes = package.to_artifact();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            if let Ok(other) = Package::from_artifact(&bytes, &Limits::default()) {
                assert_ne!(other.digest(), package.digest(), "byte {at}");
            }
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn nothing_may_follow_or_be_missing() {
        let bytes = package().to_artifact();
        let code = |b: &[u8]| Package::from_artifact(b, &Limits::default()).unwrap_err().code;
        assert_eq!(code(&[&bytes[..], &[0; 512]].concat()), "ARTIFACT_NOT_CANONICAL");
        assert_eq!(code(&[&bytes[..], b"x"].concat()), "ARCHIVE_CORRUPT");
        assert_eq!(code(&bytes[..bytes.len() - 512]), "ARTIFACT_NOT_CANONICAL");
        assert_eq!(code(&bytes[..bytes.len() - 1024]), "ARCHIVE_TRUNCATED");
        assert_eq!(code(&[0; 1024]), "NO_PLUGIN_FOUND");
        assert_eq!(code(b""), "ARCHIVE_TRUNCATED");
    }
}
