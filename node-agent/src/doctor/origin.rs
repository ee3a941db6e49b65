//! Where the settings that run come from, when they are not the ones of kong.conf.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::facts::{Armed, Conf, Facts, expanded};

/// Settings that are no accident: with so many contradicted, another file was read.
const MANY: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// kong.conf explains everything.
    Conf,
    /// kong.conf was edited after Kong read it.
    Unloaded,
    /// The environment of whoever started Kong.
    Environment,
    /// Another file, where it is known which.
    OtherConf(Option<PathBuf>),
}

/// What differs between the file and what was last prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub plugins: bool,
    pub lua_path: bool,
    /// Keys that the file sets and that run otherwise.
    pub contradicted: BTreeSet<String>,
    /// Keys that the file does not set and that run otherwise than Kong's defaults.
    pub added: BTreeSet<String>,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub fn keys(&self) -> Vec<String> {
        let ours = [("plugins", self.plugins), ("lua_package_path", self.lua_path)];
        let ours = ours.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned());
        ours.chain(self.contradicted.iter().cloned()).chain(self.added.iter().cloned()).collect()
    }
}

pub fn difference(facts: &Facts) -> Difference {
    let (Some(conf), Some(armed)) = (facts.conf(), facts.armed()) else { return Difference::default() };
    let differing = facts.rendered().map(|r| r.differing.clone()).unwrap_or_default();
    let (contradicted, added) = differing.into_iter().partition(|key| conf.values.contains_key(key));
    Difference {
        plugins: conf.unmanaged.is_none() && expanded(&conf.names) != expanded(&armed.names),
        lua_path: !same_path(conf, armed),
        contradicted,
        added,
    }
}

fn same_path(conf: &Conf, armed: &Armed) -> bool {
    conf.lua_path.contains("{vault://") || conf.lua_path == armed.lua_path
}

pub fn origin(facts: &Facts) -> Origin {
    let difference = difference(facts);
    let Some(conf) = facts.conf() else { return Origin::Conf };
    let elsewhere = conf.values.get("prefix").is_some_and(|prefix| {
        let written = PathBuf::from(prefix);
        written != facts.prefix && facts.armed().is_some() && !facts.prefix.ends_with(&written)
    });
    if elsewhere {
        return Origin::OtherConf(conf.others.first().cloned());
    }
    if difference.is_none() {
        return Origin::Conf;
    }
    let set_there = |key: &str| facts.environment.contains_key(&format!("KONG_{}", key.to_uppercase()));
    if difference.keys().iter().all(|key| set_there(key)) {
        return Origin::Environment;
    }
    let many = difference.contradicted.len() >= MANY;
    let other = conf.others.first().cloned();
    if conf.younger {
        return if many && other.is_some() { Origin::OtherConf(other) } else { Origin::Unloaded };
    }
    if other.is_some() || many { Origin::OtherConf(other) } else { Origin::Environment }
}

/// Keys whose values come from where Kong is started, and have to be given to Kong's commands; a setting that Kong refuses
/// is not carried on.
pub fn from_outside(facts: &Facts) -> BTreeSet<String> {
    let difference = difference(facts);
    let mut keys: BTreeSet<String> = match origin(facts) {
        Origin::Conf | Origin::OtherConf(_) => BTreeSet::new(),
        // What the file sets was edited; the rest came from outside.
        Origin::Unloaded => difference.added,
        Origin::Environment => difference.keys().into_iter().collect(),
    };
    if facts.armed().is_some_and(|armed| armed.refused.is_some()) {
        keys.retain(|key| !key.starts_with("nginx_") || key.ends_with("_processes"));
    }
    keys
}
