//! Why something is not a package: a stable code, one sentence, and what to do about it.

use crate::fault::Fault;
use crate::name::NameError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PackageError {
    /// Stable, SCREAMING_SNAKE_CASE.
    pub code: &'static str,
    /// What is wrong and where, in one sentence, lower case.
    pub message: String,
    /// What to do next; empty where the sentence says it already.
    pub hint: String,
    /// Of `MULTIPLE_PLUGINS`: which.
    pub plugins: Vec<String>,
}

impl PackageError {
    /// `code` is one of those that [`super::load`] promises.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: default_hint(code).into(), plugins: Vec::new() }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// A name out of an archive, quoted and cut, so that it cannot break a terminal or a log line.
pub(super) fn shown(name: &str) -> String {
    let cut: String = name.chars().take(120).collect();
    if cut.len() < name.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

fn default_hint(code: &str) -> &'static str {
    match code {
        "NOT_AN_ARCHIVE" => "give a directory, a .rock, a .zip or a .tar.gz",
        "ARCHIVE_TRUNCATED" => "fetch the archive again: its end is missing",
        "ARCHIVE_CORRUPT" => "fetch or build the archive again, or give the unpacked directory",
        "ARCHIVE_TOO_LARGE" | "TOO_MANY_ENTRIES" => {
            "pack the plugin alone: a directory, rock or archive with `kong/plugins/NAME`"
        }
        "ARCHIVE_NESTED" => "unpack it and give the innermost archive or directory",
        "PATH_ESCAPE" => "build the archive with relative paths, from inside the plugin's directory",
        "LINK_NOT_ALLOWED" => "put a copy of the file in the link's place",
        "SPECIAL_FILE_NOT_ALLOWED" => "pack plain files and directories only",
        "MODE_NOT_ALLOWED" => "take the bit away with `chmod ug-s` and pack it again",
        "DUPLICATE_PATH" => "build the archive again from a clean directory",
        "CASE_COLLISION" => "rename one of the two: they are one file where names ignore case",
        "NAME_NOT_UTF8" => "rename the file and pack it again",
        "PATH_TOO_LONG" => {
            "shorten the path: an artifact's path has at most 255 bytes, its last part at most 100"
        }
        "PATH_INVALID" => "rename the file: letters, digits, `-`, `_`, `.` and `/` are always fine",
        "BYTECODE_NOT_ALLOWED" => "ship the source: bytecode cannot be reviewed and fits one LuaJIT only",
        "NATIVE_NOT_ALLOWED" => "leave the library out and install it on the nodes by their own means",
        "DECLARATION_INVALID" => {
            "correct kctl.toml, for example:  [nginx]  nginx_http_lua_shared_dict = \"my_cache 10m\""
        }
        "NO_PLUGIN_FOUND" => {
            "a plugin is `kong/plugins/NAME/handler.lua` with `schema.lua` beside it; spec/ and test/ are not looked at"
        }
        "NAME_UNKNOWN" => "name it with --name, or lay it out as `kong/plugins/NAME/handler.lua`",
        "VERSION_INVALID" => "1 to 64 letters, digits, `.`, `_`, `+`, `-`",
        "ROCKSPEC_INVALID" | "ROCKSPEC_ENDLESS" => {
            "correct the rockspec (`luarocks lint` reads it too), or take the files as they lie with --ignore-rockspec"
        }
        "ROCKSPEC_MODULE_MISSING" => {
            "correct build.modules or add the file, or take the files as they lie with --ignore-rockspec"
        }
        "ROCKSPEC_NAME_MISMATCH" => {
            "rename the rockspec or correct what it says, or take the files as they lie with --ignore-rockspec"
        }
        "ROCKSPEC_BUILD_TYPE" => {
            "build it on this machine with --allow-build; or, if the Lua files are enough, take them as they lie with --ignore-rockspec"
        }
        "ROCKSPEC_HOOKS" => {
            "no command of a rockspec is run here; if the Lua files are enough, take them as they lie with --ignore-rockspec"
        }
        "FILE_CHANGED" => "run it again when nothing writes to the directory",
        _ => "",
    }
}

impl From<NameError> for PackageError {
    fn from(e: NameError) -> Self {
        let hint = match e.code {
            "PLUGIN_BUNDLED" => "rename the plugin's directory: Kong's own plugins are never replaced",
            "NAME_RESERVED" => "rename the plugin's directory",
            _ => "name it with --name, or rename the plugin's directory",
        };
        Self { code: e.code, message: e.message, hint: hint.into(), plugins: Vec::new() }
    }
}

impl From<PackageError> for Fault {
    fn from(e: PackageError) -> Self {
        Self::new(e.code, e.message).hint(e.hint)
    }
}
