//! From a path on disk to a package.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

use super::error::PackageError;
use super::layout::{self, Found, Query};
use super::limits::Limits;
use super::tree::Tree;
use super::{Package, archive, directory, naming};
use crate::name::PluginName;

/// How to take a package.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which plugin, where several are found; what to call it, where nothing else does.
    pub name: Option<PluginName>,
    /// Overrides what the code and the rock say.
    pub version: Option<String>,
    /// Take shared libraries too.
    pub allow_native: bool,
    pub limits: Limits,
}

/// Packs a directory, a rock, a zip or a tar, compressed or not; the content decides which it is, not the name. The name
/// and the version are found as [`LoadOptions`], the code, the rockspec and the file's name say, in this order; without
/// any the version is `0.0.0-<digest>`.
///
/// Reads only, blocks, and needs less than 64 MiB whatever it is given.
///
/// # Errors
/// About the source: `SOURCE_UNREADABLE`, `FILE_CHANGED`, `NOT_AN_ARCHIVE`, `ARCHIVE_TRUNCATED`, `ARCHIVE_CORRUPT`,
/// `ARCHIVE_TOO_LARGE`, `ARCHIVE_NESTED`, `ARCHIVE_ENCRYPTED`, `TOO_MANY_ENTRIES`. About what is in it: `PATH_ESCAPE`,
/// `PATH_TOO_LONG`, `PATH_INVALID`, `NAME_NOT_UTF8`, `DUPLICATE_PATH`, `CASE_COLLISION`, `LINK_NOT_ALLOWED`,
/// `SPECIAL_FILE_NOT_ALLOWED`, `MODE_NOT_ALLOWED`, `NATIVE_NOT_ALLOWED`, `BYTECODE_NOT_ALLOWED`. About the plugin:
/// `NO_PLUGIN_FOUND`, `MULTIPLE_PLUGINS`, `PLUGIN_TWICE`, `NAME_MISMATCH`, `NAME_UNKNOWN`, `NAME_INVALID`,
/// `NAME_RESERVED`, `PLUGIN_BUNDLED`, `VERSION_INVALID`, `ROCKSPEC_MODULE_MISSING`.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Package, PackageError> {
    if let Some(version) = options.version.as_ref().filter(|v| !naming::is_version(v)) {
        return Err(PackageError::new("VERSION_INVALID", format!("{version:?} is not a version")));
    }
    let limits = &options.limits;
    let shown = path.to_string_lossy();
    let found = fs::metadata(path).map_err(|e| archive::unreadable(&e, &shown))?;
    let real = fs::canonicalize(path).map_err(|e| archive::unreadable(&e, &shown))?;
    let file_name = real.file_name().unwrap_or_default().to_string_lossy();
    let stem = if found.is_dir() { &file_name } else { naming::stem(&file_name) };
    let mut tree = Tree::new(limits);
    let query = Query {
        wanted: options.name.as_ref(),
        allow_native: options.allow_native,
        stem,
        archive: !found.is_dir(),
        rockspecs: Vec::new(),
    };
    if found.is_dir() {
        directory::read(path, &mut tree)?;
        return package(layout::find(tree, query)?, None, options);
    }
    if !found.is_file() {
        return Err(PackageError::new(
            "NOT_AN_ARCHIVE",
            format!("{shown} is neither a file nor a directory"),
        ));
    }
    if found.len() > limits.max_compressed {
        let message = format!("{} bytes, at most {} are read", found.len(), limits.max_compressed);
        return Err(PackageError::new("ARCHIVE_TOO_LARGE", message));
    }
    let mut unpacked = limits.max_unpacked;
    let file = File::open(path).map_err(|e| archive::unreadable(&e, &shown))?;
    archive::read(file, &mut tree, &mut unpacked)?;
    let rock = naming::version_of_rock(stem).filter(|_| file_name.ends_with(".rock"));
    match layout::find(tree, query)? {
        Found::Inner { stem, bytes, rockspecs } => {
            let mut tree = Tree::new(limits);
            archive::read(Cursor::new(bytes), &mut tree, &mut unpacked)?;
            let query = Query {
                wanted: options.name.as_ref(),
                allow_native: options.allow_native,
                stem: &stem,
                archive: true,
                rockspecs,
            };
            package(layout::find(tree, query)?, rock, options)
        }
        plugin => package(plugin, rock, options),
    }
}

fn package(found: Found, rock: Option<String>, options: &LoadOptions) -> Result<Package, PackageError> {
    let chosen = match found {
        Found::Plugin(chosen) => chosen,
        Found::Inner { stem, .. } => {
            return Err(PackageError::new(
                "ARCHIVE_NESTED",
                format!("{stem:?} is an archive in an archive in an archive"),
            ));
        }
    };
    let mut package = Package::new(chosen.plugin, chosen.files, &options.limits)?;
    package.left_out = chosen.left_out;
    if let Some(version) = &options.version {
        package.version.clone_from(version);
    } else if naming::version_of_code(&package).is_none() {
        // Old rockspecs often stay beside the present one: only a single one says which version this is.
        let rockspec = match chosen.rockspecs.as_slice() {
            [one] => naming::version_of_rock(&one.stem),
            _ => None,
        };
        if let Some(version) = rockspec.or(rock) {
            package.version = version;
        }
    }
    Ok(package)
}
