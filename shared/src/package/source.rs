//! From a path on disk to a package.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

use super::error::PackageError;
use super::layout::{self, Outcome, Query};
use super::limits::Limits;
use super::rockspec::Evaluator;
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
    /// Take the files as they lie, as if there were no rockspec.
    pub ignore_rockspec: bool,
    /// Take modules beside the plugin too that stand in the place of Kong's own.
    pub allow_shadow: bool,
    pub limits: Limits,
}

/// A package, and what there is to say about where it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub package: Package,
    /// (path below a Lua root, path within the directory or archive)
    pub origins: Vec<(String, String)>,
    /// What the plugin's rockspec depends on, as LuaRocks writes it, e.g. `lua-resty-http ~> 0.11`.
    pub dependencies: Vec<String>,
    /// What is odd about the rockspec but does no harm: (rule, sentence).
    pub oddities: Vec<(&'static str, String)>,
}

/// [`load_all_about`] without what is said about it.
///
/// # Errors
/// Those of [`load_all_about`].
pub fn load(path: &Path, options: &LoadOptions, lua: &dyn Evaluator) -> Result<Package, PackageError> {
    load_all_about(path, options, lua).map(|loaded| loaded.package)
}

/// Packs a directory, a rock, a zip or a tar, compressed or not; the content decides which it is, not the name. A
/// rockspec stands for the directory it lies in. The name and the version are found as [`LoadOptions`], the code, the
/// rockspec and the file's name say, in this order; without any the version is `0.0.0-<digest>`. Modules beside the plugin
/// that its rock or rockspec has, or that its code requires, come with it; what a release cannot hold is left out.
///
/// Reads only, blocks, and needs less than 64 MiB whatever it is given; rockspecs are run by `lua`.
///
/// # Errors
/// About the source: `SOURCE_UNREADABLE`, `FILE_CHANGED`, `NOT_AN_ARCHIVE`, `ARCHIVE_TRUNCATED`, `ARCHIVE_CORRUPT`,
/// `ARCHIVE_TOO_LARGE`, `ARCHIVE_NESTED`, `ARCHIVE_ENCRYPTED`, `TOO_MANY_ENTRIES`. About what is in it: `PATH_ESCAPE`,
/// `PATH_TOO_LONG`, `PATH_INVALID`, `NAME_NOT_UTF8`, `DUPLICATE_PATH`, `CASE_COLLISION`, `LINK_NOT_ALLOWED`,
/// `SPECIAL_FILE_NOT_ALLOWED`, `MODE_NOT_ALLOWED`, `NATIVE_NOT_ALLOWED`, `BYTECODE_NOT_ALLOWED`. About the plugin:
/// `NO_PLUGIN_FOUND`, `MULTIPLE_PLUGINS`, `PLUGIN_TWICE`, `NAME_MISMATCH`, `NAME_UNKNOWN`, `NAME_INVALID`,
/// `NAME_RESERVED`, `PLUGIN_BUNDLED`, `VERSION_INVALID`. About its rockspec: `ROCKSPEC_INVALID`, `ROCKSPEC_ENDLESS`,
/// `ROCKSPEC_BUILD_TYPE`, `ROCKSPEC_HOOKS`, `ROCKSPEC_NAME_MISMATCH`, `ROCKSPEC_MODULE_MISSING`. About what it declares: `DECLARATION_INVALID`.
pub fn load_all_about(
    path: &Path,
    options: &LoadOptions,
    lua: &dyn Evaluator,
) -> Result<Loaded, PackageError> {
    if let Some(version) = options.version.as_ref().filter(|v| !naming::is_version(v)) {
        return Err(PackageError::new("VERSION_INVALID", format!("{version:?} is not a version")));
    }
    let limits = &options.limits;
    let shown = path.to_string_lossy();
    let found = fs::metadata(path).map_err(|e| archive::unreadable(&e, &shown))?;
    let real = fs::canonicalize(path).map_err(|e| archive::unreadable(&e, &shown))?;
    let file_name = real.file_name().unwrap_or_default().to_string_lossy();
    let mut tree = Tree::new(limits);
    let query = |stem, archive, outer| Query {
        wanted: options.name.as_ref(),
        allow_native: options.allow_native,
        ignore_rockspec: options.ignore_rockspec,
        allow_shadow: options.allow_shadow,
        rockspec: None,
        stem,
        archive,
        outer,
    };
    let own_rockspec = found.is_file() && file_name.ends_with(".rockspec");
    if found.is_dir() || own_rockspec {
        let dir = if own_rockspec { real.parent().unwrap_or(Path::new("/")) } else { path };
        let stem = fs::canonicalize(dir).map_err(|e| archive::unreadable(&e, &shown))?;
        let stem = stem.file_name().unwrap_or_default().to_string_lossy();
        let prefix = directory::read(dir, &mut tree)?;
        let mut query = query(&stem, false, Vec::new());
        if own_rockspec {
            let within =
                if prefix.is_empty() { file_name.into_owned() } else { format!("{prefix}/{file_name}") };
            query.rockspec = Some(within);
        }
        return package(layout::find(tree, query, lua)?, None, options);
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
    let stem = naming::stem(&file_name);
    let rock = naming::version_of_rock(stem).filter(|_| file_name.ends_with(".rock"));
    match layout::find(tree, query(stem, true, Vec::new()), lua)? {
        Outcome::Inner { stem, bytes, rockspecs } => {
            let mut tree = Tree::new(limits);
            archive::read(Cursor::new(bytes), &mut tree, &mut unpacked)?;
            package(layout::find(tree, query(&stem, true, rockspecs), lua)?, rock, options)
        }
        plugin => package(plugin, rock, options),
    }
}

fn package(found: Outcome, rock: Option<String>, options: &LoadOptions) -> Result<Loaded, PackageError> {
    let chosen = match found {
        Outcome::Plugin(chosen) => chosen,
        Outcome::Inner { stem, .. } => {
            return Err(PackageError::new(
                "ARCHIVE_NESTED",
                format!("{stem:?} is an archive in an archive in an archive"),
            ));
        }
    };
    let mut package = Package::new(chosen.plugin, chosen.files, &options.limits)?;
    package.nginx()?;
    if !chosen.beside.is_empty() {
        package = package.with_extras(chosen.beside, &options.limits)?;
    }
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
    let rockspec = chosen.rockspec;
    Ok(Loaded {
        dependencies: rockspec.iter().flat_map(|r| r.dependencies.clone()).collect(),
        oddities: rockspec.iter().flat_map(|r| r.oddities.clone()).collect(),
        origins: chosen.origins,
        package,
    })
}
