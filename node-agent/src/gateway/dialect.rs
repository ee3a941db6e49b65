//! What a Kong of a given version understands and shows: a pure function of what `kong version` answers.
//!
//! Every row was read from Kong's sources at its tags. A version that is not in the table is refused: guessing would edit
//! a file in a grammar that nobody reads.

mod version;

use kctl_shared::spec::Failure;

pub use version::KongVersion;

use super::kong_conf::{Comments, Lists, Style};

/// The grammar of the file a node is configured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// `key = value` lines (0.9 and later).
    Conf(Style),
    /// YAML (before 0.9), with the key that lists plugins.
    Yml(YmlKey),
}

impl Default for Grammar {
    fn default() -> Self {
        Self::Conf(Style::default())
    }
}

/// The list in a kong.yml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YmlKey {
    /// 0.6 to 0.8: added to those that come with Kong.
    CustomPlugins,
    /// Up to 0.5: all there are, Kong's own included.
    PluginsAvailable,
}

impl YmlKey {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomPlugins => "custom_plugins",
            Self::PluginsAvailable => "plugins_available",
        }
    }
}

/// How a changed file reaches the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `kong prepare`, then `kong reload`: nobody is disturbed.
    Reload,
    /// Only `kong restart`: there is no command that renders the file anew beside a running Kong.
    Restart,
}

/// How a list of plugins can be tried before anything running is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trials {
    /// `kong config parse`, and a Kong without database in a scratch prefix.
    ParseAndBoot,
    /// A Kong in a scratch prefix, on the node's own database, which it only reads.
    BootOnDatabase,
    /// None without disturbing the cluster: a second Kong would join it, or migrate its database.
    None,
}

/// What this Kong understands and shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub version: KongVersion,
    pub grammar: Grammar,
    pub takes: Takes,
    pub trials: Trials,
    /// File in the prefix with the settings in force; none before 0.9, where nginx reads the node's own file.
    pub armed: Option<&'static str>,
    /// First line of an empty declarative configuration.
    pub format_version: &'static str,
}

impl Default for Dialect {
    /// The newest there is; for files whose node has not said its version yet.
    fn default() -> Self {
        Self::table(KongVersion::new(3, 9, 1))
    }
}

impl Dialect {
    /// Of the answer of `kong version`.
    ///
    /// # Errors
    /// `KONG_VERSION_UNKNOWN` when the answer names no version, or one that did not exist when this was written;
    /// `KONG_VERSION_UNSUPPORTED` for versions that cannot be driven.
    pub fn of(answer: &str) -> Result<Self, Failure> {
        let version = KongVersion::parse(answer)?;
        if let Some(why) = not_driven(version) {
            return Err(Failure::new("KONG_VERSION_UNSUPPORTED", format!("Kong {version} {why}")));
        }
        Ok(Self::table(version))
    }

    /// The grammar alone, for editing a file by hand: also of versions that cannot be driven.
    ///
    /// # Errors
    /// `KONG_VERSION_UNKNOWN`.
    pub fn grammar_of(answer: &str) -> Result<Grammar, Failure> {
        Ok(Self::table(KongVersion::parse(answer)?).grammar)
    }

    /// Where the plugins are listed, as a person calls it.
    pub fn key(&self) -> &'static str {
        match self.grammar {
            Grammar::Conf(style) => style.lists.key(),
            Grammar::Yml(key) => key.as_str(),
        }
    }

    /// `kong migrations list` tells by its exit code what is left to do.
    pub fn tells_migrations(&self) -> bool {
        self.version >= KongVersion::new(1, 0, 0)
    }

    /// Reads `daos.lua`, schemas and handlers in the form of 3.0 only.
    pub fn is_modern(&self) -> bool {
        self.version >= KongVersion::new(3, 0, 0)
    }

    /// Hands `nginx_<block>_<directive>` settings on to nginx.
    pub fn injects(&self) -> bool {
        self.version >= KongVersion::new(0, 15, 0)
    }

    fn table(version: KongVersion) -> Self {
        let since = |major, minor, patch| version >= KongVersion::new(major, minor, patch);
        Self {
            version,
            grammar: grammar(version),
            takes: if since(0, 11, 0) { Takes::Reload } else { Takes::Restart },
            trials: if since(1, 1, 0) {
                Trials::ParseAndBoot
            } else if since(0, 11, 0) {
                Trials::BootOnDatabase
            } else {
                Trials::None
            },
            armed: if since(0, 10, 0) {
                Some(".kong_env")
            } else if since(0, 9, 0) {
                Some("kong.conf")
            } else {
                None
            },
            format_version: if since(3, 0, 0) { "3.0" } else { "1.1" },
        }
    }
}

fn grammar(version: KongVersion) -> Grammar {
    let since = |major, minor, patch| version >= KongVersion::new(major, minor, patch);
    if !since(0, 6, 0) {
        return Grammar::Yml(YmlKey::PluginsAvailable);
    }
    if !since(0, 9, 0) {
        return Grammar::Yml(YmlKey::CustomPlugins);
    }
    let lists = if since(1, 0, 0) {
        Lists::Plugins
    } else if since(0, 14, 0) {
        Lists::PluginsAndCustom
    } else {
        Lists::Custom
    };
    let comments = if since(3, 2, 0) {
        Comments::Unescaped
    } else if since(0, 10, 4) {
        Comments::WithCharacterBefore
    } else if since(0, 9, 1) {
        Comments::First
    } else {
        Comments::FirstButNotInLists
    };
    let lua_path = if since(0, 11, 1) { "./?.lua;./?/init.lua;" } else { "?/init.lua;./kong/?.lua" };
    Grammar::Conf(Style { lists, comments, lua_path })
}

fn not_driven(version: KongVersion) -> Option<&'static str> {
    let before = |major, minor, patch| version < KongVersion::new(major, minor, patch);
    if before(0, 5, 0) {
        Some("cannot be driven: 0.5 is the oldest that can")
    } else if !before(0, 9, 0) && before(0, 9, 7) {
        Some("loses `custom_plugins` on the way to nginx and never loads a plugin of yours; 0.9.7 mended it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
