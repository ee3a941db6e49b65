//! Lossless editor for the YAML configuration of Kong before 0.9: one list of names, and one line of the nginx
//! configuration that the file carries.
//!
//! YAML can say the same in too many ways to edit all of them. What is found by looking at lines must be what a YAML
//! reader finds, before and after the edit; anything else is refused and left to its owner.

mod items;
mod lines;
mod nginx;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_norway::{Mapping, Value};

use super::dialect::YmlKey;
use super::kong_conf::{Change, ConfError, MARK, MAX_BYTES, OurPath, too_large};
use lines::Place;

/// A kong.yml as Kong reads it.
#[derive(Clone, Debug)]
pub struct KongYml {
    text: String,
    key: YmlKey,
    values: Mapping,
}

impl KongYml {
    /// # Errors
    /// `CONF_TOO_LARGE`, `CONF_UNPARSABLE`; `CONF_YAML_UNSAFE` for what an editor of lines cannot be sure of.
    pub fn parse(text: &[u8], key: YmlKey) -> Result<Self, ConfError> {
        if text.len() > MAX_BYTES {
            return Err(too_large());
        }
        let text = std::str::from_utf8(text).map_err(|_| {
            ConfError::new("CONF_UNPARSABLE", "the file is not UTF-8 text, which YAML has to be")
        })?;
        lines::check(text)?;
        let value: Value = serde_norway::from_str(text).map_err(|error| {
            ConfError::new("CONF_UNPARSABLE", format!("the file is not YAML that can be read: {error}"))
        })?;
        let values = match value {
            Value::Mapping(values) => values,
            Value::Null => Mapping::new(),
            _ => return Err(unsafe_yaml("the file is not a list of `key: value` lines")),
        };
        Ok(Self { text: text.to_owned(), key, values })
    }

    /// A setting's text, if it is a plain one.
    pub fn get(&self, key: &str) -> Option<String> {
        match self.values.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    /// Names of the plugins as Kong reads them; `bundled` first where Kong adds those that come with it anyway.
    ///
    /// # Errors
    /// `UNMANAGED_VALUE` when the value is no list of names.
    pub fn plugins(&self) -> Result<Vec<String>, ConfError> {
        let mut names = match self.key {
            YmlKey::CustomPlugins => vec!["bundled".to_owned()],
            YmlKey::PluginsAvailable => Vec::new(),
        };
        names.extend(self.listed()?);
        Ok(names)
    }

    /// Names in the list itself.
    fn listed(&self) -> Result<Vec<String>, ConfError> {
        let key = self.key.as_str();
        let unmanaged = || {
            let message = format!(
                "the value of `{key}` is not a list of names, which it has to be; write one `- name` a line"
            );
            ConfError::new("UNMANAGED_VALUE", message)
        };
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Sequence(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(unmanaged)).collect()
            }
            Some(_) => Err(unmanaged()),
        }
    }

    /// Our generation directory, if one is in the nginx configuration's `lua_package_path`.
    pub fn generation(&self, ours: &OurPath) -> Option<PathBuf> {
        ours.generation_in(&self.lua_path())
    }

    /// `lua_package_path` without our entries.
    pub fn users_lua_path(&self, ours: &OurPath) -> String {
        ours.without(&self.lua_path())
    }

    fn lua_path(&self) -> String {
        nginx::lua_path(self.values.get("nginx").and_then(Value::as_str).unwrap_or_default())
            .unwrap_or_default()
    }

    /// The file with `change` made, byte for byte the same outside the list and the path.
    ///
    /// # Errors
    /// `UNMANAGED_VALUE`, `CONF_YAML_UNSAFE`, `LUA_DIR_UNUSABLE`, `LUA_PATH_NOT_FOUND`.
    pub fn edit(&self, change: &Change, ours: &OurPath) -> Result<Vec<u8>, ConfError> {
        let listed = self.again(self.with_names(change)?)?;
        let edited = listed.again(nginx::edit(&listed.text, change.generation.as_deref(), ours)?)?;
        let expected: BTreeSet<String> = {
            let mut set: BTreeSet<String> = self.listed().unwrap_or_default().into_iter().collect();
            set.retain(|name| !change.remove.contains(name));
            set.extend(change.add.iter().cloned());
            set
        };
        let got: BTreeSet<String> = edited.listed().unwrap_or_default().into_iter().collect();
        let others = |yml: &Self| {
            let mut values = yml.values.clone();
            values.remove(self.key.as_str());
            if let Some(Value::String(nginx)) = values.get_mut("nginx") {
                *nginx = nginx::without_lua_path(nginx);
            }
            values
        };
        if got != expected
            || others(self) != others(&edited)
            || edited.generation(ours) != change.generation
            || edited.users_lua_path(ours) != self.users_lua_path(ours)
        {
            return Err(unsafe_yaml("the edit would change more than it should"));
        }
        Ok(edited.text.into_bytes())
    }

    fn with_names(&self, change: &Change) -> Result<String, ConfError> {
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(self.text.clone());
        }
        let listed = self.listed()?;
        let add: Vec<&str> =
            change.add.iter().map(String::as_str).filter(|name| !listed.iter().any(|l| l == name)).collect();
        if add.is_empty() && !listed.iter().any(|name| change.remove.contains(name)) {
            return Ok(self.text.clone());
        }
        let place = lines::find(&self.text, self.key.as_str())?;
        // What the lines say must be what YAML says.
        let seen: Vec<&str> = place.names();
        if seen != listed
            || (matches!(place, Place::Absent { .. }) && self.values.contains_key(self.key.as_str()))
        {
            return Err(unsafe_yaml(&format!(
                "`{}` is written in a way that lines do not show",
                self.key.as_str()
            )));
        }
        Ok(items::edit(&self.text, self.key.as_str(), &place, &add, &change.remove))
    }

    fn again(&self, text: impl Into<String>) -> Result<Self, ConfError> {
        Self::parse(text.into().as_bytes(), self.key)
            .map_err(|_| unsafe_yaml("the file could not be read after the edit"))
    }
}

fn unsafe_yaml(why: &str) -> ConfError {
    let message = format!("{why}; edit the file by hand, or write the list plainly, one `- name` a line");
    ConfError::new("CONF_YAML_UNSAFE", message)
}
