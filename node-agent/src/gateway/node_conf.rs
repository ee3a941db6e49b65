//! A node's own configuration file, in whichever grammar its Kong reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kctl_shared::nginx::NginxSetting;

use super::dialect::Grammar;
use super::kong_conf::{Change, ConfError, KongConf, OurPath};
use super::kong_yml::KongYml;

#[derive(Clone, Debug)]
pub enum NodeConf {
    Conf(KongConf),
    Yml(KongYml),
}

impl NodeConf {
    /// # Errors
    /// `CONF_TOO_LARGE`, `CONF_UNPARSABLE`, `CONF_YAML_UNSAFE`.
    pub fn parse(text: &[u8], grammar: Grammar) -> Result<Self, ConfError> {
        Ok(match grammar {
            Grammar::Conf(style) => Self::Conf(KongConf::parse_as(text, style)?),
            Grammar::Yml(key) => Self::Yml(KongYml::parse(text, key)?),
        })
    }

    /// A setting's text.
    pub fn get(&self, key: &str) -> Option<String> {
        match self {
            Self::Conf(conf) => conf.get(key),
            Self::Yml(yml) => yml.get(key),
        }
    }

    /// All settings of a kong.conf; those of a kong.yml are never rendered anew, so nobody has to compare them.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        match self {
            Self::Conf(conf) => conf.to_map(),
            Self::Yml(_) => BTreeMap::new(),
        }
    }

    /// Names of the plugins that Kong would load, `bundled` for those that come with it.
    ///
    /// # Errors
    /// `UNMANAGED_VALUE`.
    pub fn plugins(&self) -> Result<Vec<String>, ConfError> {
        match self {
            Self::Conf(conf) => conf.plugins(),
            Self::Yml(yml) => yml.plugins(),
        }
    }

    /// Our generation directory, if one is on the Lua path.
    pub fn generation(&self, ours: &OurPath) -> Option<PathBuf> {
        match self {
            Self::Conf(conf) => conf.generation(ours),
            Self::Yml(yml) => yml.generation(ours),
        }
    }

    /// The Lua path without our entries.
    pub fn users_lua_path(&self, ours: &OurPath) -> String {
        match self {
            Self::Conf(conf) => conf.users_lua_path(ours),
            Self::Yml(yml) => yml.users_lua_path(ours),
        }
    }

    /// What Kong hands on to nginx; a kong.yml has no such settings.
    pub fn nginx(&self) -> BTreeSet<NginxSetting> {
        match self {
            Self::Conf(conf) => conf.nginx(),
            Self::Yml(_) => BTreeSet::new(),
        }
    }

    /// The same without lines of ours.
    pub fn users_nginx(&self) -> BTreeSet<NginxSetting> {
        match self {
            Self::Conf(conf) => conf.users_nginx(),
            Self::Yml(_) => BTreeSet::new(),
        }
    }

    /// Keys with a line of ours for nginx.
    pub fn own_nginx_keys(&self) -> BTreeSet<String> {
        match self {
            Self::Conf(conf) => conf.own_nginx_keys(),
            Self::Yml(_) => BTreeSet::new(),
        }
    }

    /// The file with `change` made, byte for byte the same outside the two values.
    ///
    /// # Errors
    /// As [`KongConf::edit`] and [`KongYml::edit`].
    pub fn edit(&self, change: &Change, ours: &OurPath) -> Result<Vec<u8>, ConfError> {
        match self {
            Self::Conf(conf) => conf.edit(change, ours),
            // Whoever asks for settings of nginx has looked at the version before.
            Self::Yml(yml) => yml.edit(change, ours),
        }
    }
}
