//! Lossless editor for kong.conf of every age: reads the file as that Kong does, and changes exactly two values in
//! it, and lines of its own that hand a plugin's needs on to nginx.
//!
//! Pure: bytes in, bytes out. Every edit is checked by reading the result again; an edit that would change anything but
//! the two values is refused.

mod directive;
mod grammar;
mod lua_path;
mod nginx;
mod style;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kctl_shared::nginx::NginxSetting;
use kctl_shared::spec::Failure;

pub use lua_path::OurPath;
pub use style::{Comments, Lists, Style};

/// Largest kong.conf that is read, in bytes. Kong's own, with all its comments, has less than a tenth.
pub const MAX_BYTES: usize = 1 << 20;

/// Kong's `lua_package_path` when there is none in `.kong_env`.
pub const DEFAULT_LUA_PATH: &str = "./?.lua;./?/init.lua;";

/// At the end of a line that was not in the file before; without it, a line of ours could not be told from one that says
/// Kong's default on purpose, and taking the last name away could not restore the file as it was.
pub(super) const MARK: &str = "# added by kctl";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ConfError {
    pub code: &'static str,
    pub message: String,
}

impl ConfError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<ConfError> for Failure {
    fn from(error: ConfError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// What should be different. Names in neither set stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub add: BTreeSet<String>,
    pub remove: BTreeSet<String>,
    /// Our generation directory, first in `lua_package_path`; `None`: no entry of ours.
    pub generation: Option<PathBuf>,
    /// What lines of ours hand on to nginx, all of it; `None`: as they stand.
    pub nginx: Option<BTreeSet<NginxSetting>>,
}

/// A kong.conf, or any file of that grammar, as Kong reads it.
#[derive(Clone, Debug)]
pub struct KongConf {
    text: Vec<u8>,
    style: Style,
    parsed: grammar::Parsed,
}

impl KongConf {
    /// As the newest Kong reads it.
    ///
    /// # Errors
    /// As [`Self::parse_as`].
    pub fn parse(text: &[u8]) -> Result<Self, ConfError> {
        Self::parse_as(text, Style::default())
    }

    /// # Errors
    /// `CONF_TOO_LARGE`; `CONF_UNPARSABLE` where Kong itself gives up.
    pub fn parse_as(text: &[u8], style: Style) -> Result<Self, ConfError> {
        if text.len() > MAX_BYTES {
            return Err(too_large());
        }
        Ok(Self { text: text.to_vec(), style, parsed: grammar::parse(text, style.comments)? })
    }

    /// The value that counts: of the last line with this key at the top level.
    pub fn get(&self, key: &str) -> Option<String> {
        self.entry(key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
    }

    /// All keys at the top level.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let entries = self.parsed.entries.iter();
        entries.map(|e| (e.key.clone(), String::from_utf8_lossy(&e.value).into_owned())).collect()
    }

    /// Names of the plugins as Kong reads them, in order; `bundled` among them where the file says so, or where Kong adds
    /// those that come with it anyway. Empty when the list is empty or switched `off`.
    ///
    /// # Errors
    /// `UNMANAGED_VALUE` when the text does not say what the list is (a vault reference, a number).
    pub fn plugins(&self) -> Result<Vec<String>, ConfError> {
        directive::names(self)
    }

    /// Our generation directory at the head of `lua_package_path`, if any of ours is in it.
    pub fn generation(&self, ours: &OurPath) -> Option<PathBuf> {
        ours.generation_in(&self.get("lua_package_path").unwrap_or_default())
    }

    /// `lua_package_path` without our entries; Kong's default when the file has none.
    pub fn users_lua_path(&self, ours: &OurPath) -> String {
        ours.without(&self.get("lua_package_path").unwrap_or_else(|| self.style.lua_path.into()))
    }

    /// What nginx is given by the file's own lines and ours.
    pub fn nginx(&self) -> BTreeSet<NginxSetting> {
        nginx::settings(self)
    }

    /// What it would be given without ours.
    pub fn users_nginx(&self) -> BTreeSet<NginxSetting> {
        nginx::users_settings(self)
    }

    /// Keys with a line of ours for nginx.
    pub fn own_nginx_keys(&self) -> BTreeSet<String> {
        nginx::own_keys(self)
    }

    /// The file with `change` made, byte for byte the same outside the two values and lines of ours.
    ///
    /// # Errors
    /// `NGINX_CONFLICT`, `UNMANAGED_VALUE`, `PLUGINS_OFF`, `PLUGINS_EMPTY`, `PLUGINS_QUOTED`, `PLUGINS_WOULD_BE_EMPTY`, `LUA_DIR_UNUSABLE`,
    /// `CONF_EDIT_UNSAFE`: in each case the file is better edited by its owner.
    pub fn edit(&self, change: &Change, ours: &OurPath) -> Result<Vec<u8>, ConfError> {
        let expected = directive::expected(self, change)?;
        let listed = directive::edit(self, change)?;
        let mut edited = listed.again(lua_path::edit(&listed, change.generation.as_deref(), ours)?)?;
        let mut touched = BTreeSet::new();
        if let Some(wanted) = &change.nginx {
            touched = self.own_nginx_keys();
            touched.extend(wanted.iter().map(|s| s.key.clone()));
            edited = nginx::edit(&edited, wanted)?;
        }

        let others = |conf: &Self| {
            let mut map = conf.to_map();
            map.retain(|key, _| {
                key != "lua_package_path"
                    && !touched.contains(key)
                    && !self.style.lists.keys().contains(&key.as_str())
            });
            (map, conf.parsed.sections.clone())
        };
        let got: BTreeSet<String> = directive::names(&edited).unwrap_or_default().into_iter().collect();
        let path_kept = edited.users_lua_path(ours) == self.users_lua_path(ours);
        let given = change.nginx.as_ref().is_none_or(|wanted| {
            wanted.is_subset(&edited.nginx()) && edited.users_nginx() == self.users_nginx()
        });
        if others(self) != others(&edited)
            || !given
            || got != expected
            || !path_kept
            || edited.generation(ours) != change.generation
        {
            return Err(ConfError::new(
                "CONF_EDIT_UNSAFE",
                format!(
                    "the `{}` or `lua_package_path` line is written in a way that cannot be changed safely; write it on one line, \
                     without a comment after it",
                    self.style.lists.key()
                ),
            ));
        }
        Ok(edited.text)
    }

    /// Another text, read in the same way.
    fn again(&self, text: Vec<u8>) -> Result<Self, ConfError> {
        Self::parse_as(&text, self.style)
    }

    fn entry(&self, key: &str) -> Option<&grammar::Entry> {
        self.parsed.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// Whether the value of `key` is known from the text alone.
    fn is_managed(&self, key: &str) -> bool {
        let section = self.parsed.sections.iter().any(|name| name == key);
        let entry = self.entry(key);
        !section && entry.is_none_or(|e| !e.transformed && !has_reference(&e.value))
    }

    /// The text with the given places replaced, in ascending order.
    fn spliced(&self, mut splices: Vec<(std::ops::Range<usize>, Vec<u8>)>) -> Vec<u8> {
        splices.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = Vec::with_capacity(self.text.len() + 256);
        let mut at = 0;
        for (range, insert) in splices {
            text.extend_from_slice(&self.text[at..range.start]);
            text.extend_from_slice(&insert);
            at = range.end;
        }
        text.extend_from_slice(&self.text[at..]);
        text
    }

    /// The text with a line of ours added at the top level: below the comment that documents `key`, if there is one.
    fn with_line(&self, key: &str, value: &[u8]) -> Vec<u8> {
        let place = grammar::after_comment(&self.text, key).or(self.parsed.insert_before);
        self.with_line_at(place, key, value)
    }

    /// The same, at a place; at the end of the file without one.
    fn with_line_at(&self, place: Option<usize>, key: &str, value: &[u8]) -> Vec<u8> {
        let crlf =
            self.text.iter().position(|b| *b == b'\n').is_some_and(|i| i > 0 && self.text[i - 1] == b'\r');
        let newline: &[u8] = if crlf { b"\r\n" } else { b"\n" };
        let (above, behind) = if self.marks_above() {
            ([MARK.as_bytes(), newline].concat(), Vec::new())
        } else {
            (Vec::new(), format!(" {MARK}").into_bytes())
        };
        let mut line = [&above, key.as_bytes(), b" = ", value, &behind].concat();
        let end = self.text.len();
        let at = place.unwrap_or(end);
        match at {
            at if at == end && end > 0 && !self.text.ends_with(b"\n") => {
                line.insert(0, b'\n');
                self.spliced(vec![(end..end, line)])
            }
            at => {
                line.extend_from_slice(newline);
                self.spliced(vec![(at..at, line)])
            }
        }
    }

    /// The text without the line of `entry`, which [`Self::with_line`] once added.
    fn without_line(&self, entry: &grammar::Entry) -> Vec<u8> {
        let mut span = entry.line.span.clone();
        if self.marks_above() {
            span.start = self.line_above(entry).start;
        }
        if !self.text[span.clone()].ends_with(b"\n") && span.start > 0 {
            span.start -= 1;
        }
        self.spliced(vec![(span, Vec::new())])
    }

    fn is_marked(&self, entry: &grammar::Entry) -> bool {
        if self.marks_above() {
            let above = &self.text[self.line_above(entry)];
            return &above[grammar::trim(above)] == MARK.as_bytes();
        }
        let joined = entry.line.joined(&self.text);
        let comment = &joined[entry.raw.end..];
        &comment[grammar::trim(comment)] == MARK.as_bytes()
    }

    /// Where a comment behind a list would be taken for a part of it.
    fn marks_above(&self) -> bool {
        self.style.comments == Comments::FirstButNotInLists
    }

    fn line_above(&self, entry: &grammar::Entry) -> std::ops::Range<usize> {
        let end = entry.line.span.start;
        let start = self.text[..end.saturating_sub(1)].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        start..end
    }
}

fn has_reference(value: &[u8]) -> bool {
    value.windows(9).any(|w| w == b"{vault://")
}

fn unmanaged(key: &str) -> ConfError {
    let message = format!(
        "the value of `{key}` is not plain text (a vault reference, a number, a `#` that this Kong misreads, or a section of that \
         name); it must be changed where it is kept"
    );
    ConfError::new("UNMANAGED_VALUE", message)
}

pub(crate) fn too_large() -> ConfError {
    ConfError::new(
        "CONF_TOO_LARGE",
        format!("the file is larger than {MAX_BYTES} bytes, which no kong.conf is; look at what it is"),
    )
}

/// Whether `path` can stand in `lua_package_path` and in nginx's configuration.
pub fn is_usable_lua_dir(path: &Path) -> bool {
    path.is_absolute()
        && path.to_str().is_some_and(|s| {
            !s.chars().any(|c| c.is_control() || c.is_whitespace() || ";?'\"\\$,{}".contains(c))
        })
}
