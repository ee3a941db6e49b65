//! In which the ages of kong.conf differ.

/// How a line of kong.conf is read, and which keys list plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub lists: Lists,
    pub comments: Comments,
    /// `lua_package_path` when the file has none.
    pub lua_path: &'static str,
}

impl Default for Style {
    /// Of Kong 3.2 and later, and of `.kong_env`, in which nothing is left to be read in two ways.
    fn default() -> Self {
        Self { lists: Lists::Plugins, comments: Comments::Unescaped, lua_path: "./?.lua;./?/init.lua;" }
    }
}

/// Which keys list plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// `plugins`, all there are (1.0).
    Plugins,
    /// `plugins`, and beside it what is left of `custom_plugins` (0.14, 0.15).
    PluginsAndCustom,
    /// `custom_plugins`, added to those that come with Kong (0.9 to 0.13).
    Custom,
}

impl Lists {
    /// The key that a new name goes to.
    pub fn key(self) -> &'static str {
        match self {
            Self::Plugins | Self::PluginsAndCustom => PLUGINS,
            Self::Custom => CUSTOM,
        }
    }

    pub(super) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Plugins => &[PLUGINS],
            Self::PluginsAndCustom => &[PLUGINS, CUSTOM],
            Self::Custom => &[CUSTOM],
        }
    }
}

pub(super) const PLUGINS: &str = "plugins";
pub(super) const CUSTOM: &str = "custom_plugins";

/// Where Kong believes that a comment after a value begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comments {
    /// At the first `#` without a backslash right before it (3.2).
    Unescaped,
    /// One character before the first `#` that has one, and that one not a backslash: `a#b` is nothing, and a value that
    /// begins with `#` is taken for a value (0.10.4 to 3.1).
    WithCharacterBefore,
    /// At the first `#` (0.9.1 to 0.10.3).
    First,
    /// As [`Self::First`], but never in a value with a comma (0.9.0).
    FirstButNotInLists,
}
