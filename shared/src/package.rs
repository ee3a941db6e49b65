//! Releases and artifacts: what of a directory, rock or archive belongs to a plugin, and the one form it is kept in.
//!
//! ```text
//! directory ─┐                       ┌─ layout: which files are the plugin's
//! rock, zip ─┼─▶ tree (checked names,┤                                       ─▶ Package ─▶ artifact (canonical tar)
//! tar.gz    ─┘    no links, bounded) └─ naming: plugin name and version               ◀─ strict reader
//! ```
//!
//! Everything that comes in is hostile until it is a [`Package`]: readers stream, stop at the first thing that is wrong,
//! and never hold more than [`Limits`] allows. Nothing is written to disk here and no Lua is run: rockspecs are run by
//! the [`Evaluator`] that the caller brings, and whether the code is any good is for Kong and the linter to say.

mod archive;
mod artifact;
mod check;
mod declared;
mod directory;
mod error;
mod extras;
mod hash;
mod layout;
mod limits;
mod lua;
mod naming;
mod path;
pub mod rock;
mod rockspec;
mod source;
mod tar;
mod tree;
mod zip;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::PluginName;
pub use artifact::pieces;
pub use declared::DECLARATION;
pub use error::PackageError;
pub use extras::{gather, refuse_shadows, shadows};
pub use hash::{digest_of, digest_with, hash_release, hash_tree};
pub use limits::Limits;
pub use lua::{Mention, Require, Scan, SharedDict};
pub use naming::{MAX_VERSION, is_version};
pub use rockspec::{Evaluated, Evaluator, Key, Unread, Value};
pub use source::{LoadOptions, Loaded, load, load_all_about};

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to `kong/plugins/NAME`, e.g. `handler.lua`.
    pub path: String,
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
}

/// One file of a release with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackagedFile {
    pub entry: FileEntry,
    pub bytes: Vec<u8>,
}

/// A plugin's files, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub plugin: PluginName,
    /// For people and for the catalogue; not part of the digest. [`load`] takes it from its options, the code or the
    /// rock; read from an artifact it is what the code says of itself, since an artifact does not carry one.
    pub version: String,
    /// Sorted by path, bytewise.
    pub files: Vec<PackagedFile>,
    /// Modules beside the plugin's own directory that travel with it, paths relative to a Lua root; sorted likewise.
    pub extras: Vec<PackagedFile>,
    /// What stood beside the plugin and looks as if it could be meant, but is not part of the release (at most 100):
    /// Lua outside `kong/plugins/NAME`, and whatever is no Lua where handler.lua lies bare.
    pub left_out: Vec<String>,
}

impl Package {
    /// Checks the files and puts them in order. The version is the code's own, or `0.0.0-<digest>`.
    ///
    /// # Errors
    /// `NO_PLUGIN_FOUND`, `ARCHIVE_TOO_LARGE`, `PATH_TOO_LONG`, `PATH_ESCAPE`, `PATH_INVALID`, `DUPLICATE_PATH`,
    /// `CASE_COLLISION`, `BYTECODE_NOT_ALLOWED`.
    pub fn new(
        plugin: PluginName,
        files: Vec<(String, Vec<u8>)>,
        limits: &Limits,
    ) -> Result<Self, PackageError> {
        check::files(&plugin, &files, limits)?;
        let mut files: Vec<PackagedFile> = files
            .into_iter()
            .map(|(path, bytes)| PackagedFile {
                entry: FileEntry { path, sha256: Digest::of(&bytes), size: bytes.len() as u64 },
                bytes,
            })
            .collect();
        files.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let mut package =
            Self { plugin, version: String::new(), files, extras: Vec::new(), left_out: Vec::new() };
        package.version = naming::version_of_code(&package)
            .unwrap_or_else(|| format!("0.0.0-{}", package.digest().short()));
        Ok(package)
    }

    /// Identity of the release: plugin, files and modules beside it, see [`digest_of`] and [`digest_with`].
    pub fn digest(&self) -> Digest {
        digest_with(&self.plugin, self.files.iter().map(|f| &f.entry), self.extras.iter().map(|f| &f.entry))
    }

    /// All files with their paths relative to a Lua root, in the order of the artifact.
    pub fn placed(&self) -> impl Iterator<Item = (String, &[u8])> {
        let own =
            self.files.iter().map(|f| (artifact::full_path(&self.plugin, &f.entry.path), f.bytes.as_slice()));
        own.chain(self.extras.iter().map(|f| (f.entry.path.clone(), f.bytes.as_slice())))
    }

    /// The content of one file, by its path below `kong/plugins/NAME`.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.iter().find(|f| f.entry.path == path).map(|f| f.bytes.as_slice())
    }
}
