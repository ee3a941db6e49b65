//! Our two entries at the head of `lua_package_path`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{ConfError, KongConf, grammar, is_usable_lua_dir, unmanaged};

const KEY: &str = "lua_package_path";

/// Kong's `?.lua` finds `handler` and `schema`, `?/init.lua` finds `migrations`.
const TEMPLATES: [&str; 2] = ["/?.lua", "/?/init.lua"];

/// How our entries are recognised: directories right below `<lua_dir>/gen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurPath {
    root: PathBuf,
}

impl OurPath {
    pub fn new(lua_dir: &Path) -> Self {
        Self { root: lua_dir.join("gen") }
    }

    /// All generations there are.
    pub fn generations(&self) -> impl Iterator<Item = PathBuf> {
        std::fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path())
    }

    /// The generation directory, when `entry` is one of ours.
    fn generation_of(&self, entry: &str) -> Option<PathBuf> {
        let entry = entry.trim();
        // The longer template first: `/?/init.lua` ends in neither of the other's.
        let directory = TEMPLATES.iter().rev().find_map(|template| entry.strip_suffix(template))?;
        let directory = Path::new(directory);
        (directory.parent() == Some(&self.root)).then(|| directory.to_path_buf())
    }

    /// Of the first entry of ours in a Lua path.
    pub fn generation_in(&self, lua_path: &str) -> Option<PathBuf> {
        lua_path.split(';').find_map(|entry| self.generation_of(entry))
    }

    /// A Lua path without our entries.
    pub fn without(&self, lua_path: &str) -> String {
        lua_path.split(';').filter(|entry| self.generation_of(entry).is_none()).collect::<Vec<_>>().join(";")
    }

    /// Our two entries for `generation`, each with its semicolon.
    ///
    /// # Errors
    /// `LUA_DIR_UNUSABLE`.
    pub fn entries(&self, generation: &Path) -> Result<String, ConfError> {
        if generation.parent() != Some(&self.root) || !is_usable_lua_dir(generation) {
            let message = format!(
                "{} cannot stand in `lua_package_path`; choose a Lua directory whose path has letters, digits, `-`, `_`, `.` and `/` only",
                generation.display()
            );
            return Err(ConfError::new("LUA_DIR_UNUSABLE", message));
        }
        Ok(TEMPLATES.iter().map(|template| format!("{}{template};", generation.display())).collect())
    }
}

pub(super) fn edit(conf: &KongConf, generation: Option<&Path>, ours: &OurPath) -> Result<Vec<u8>, ConfError> {
    let new = generation.map(|directory| ours.entries(directory)).transpose()?.unwrap_or_default();
    let new = grammar::escape(new.as_bytes());
    let Some(entry) = conf.entry(KEY) else {
        if new.is_empty() {
            return Ok(conf.text.clone());
        }
        return Ok(conf.with_line(KEY, &[&new, conf.style.lua_path.as_bytes()].concat()));
    };
    if !conf.is_managed(KEY) {
        return if new.is_empty() { Ok(conf.text.clone()) } else { Err(unmanaged(KEY)) };
    }
    let joined = entry.line.joined(&conf.text);
    let raw = &joined[entry.raw.clone()];
    let old = our_ranges(raw, entry.raw.start, ours);
    let unchanged = match old.as_slice() {
        [] => new.is_empty(),
        [first] => first.start == entry.raw.start && joined[first.clone()] == new,
        _ => false,
    };
    if unchanged {
        return Ok(conf.text.clone());
    }
    if new.is_empty()
        && conf.is_marked(entry)
        && ours.without(&String::from_utf8_lossy(&entry.value)) == conf.style.lua_path
    {
        return Ok(conf.without_line(entry));
    }
    let mut splices: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    for range in old {
        splices.extend(entry.line.ranges(&conf.text, range).into_iter().map(|place| (place, Vec::new())));
    }
    if !new.is_empty() {
        let at = entry.line.place(entry.raw.start);
        splices.push((at..at, new));
    }
    Ok(conf.spliced(splices))
}

/// Joined bytes of our entries with the semicolon after each (before it, for one at the very end); neighbours joined.
fn our_ranges(raw: &[u8], offset: usize, ours: &OurPath) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    loop {
        let end = raw[start..].iter().position(|b| *b == b';').map_or(raw.len(), |i| start + i);
        let entry = String::from_utf8_lossy(&grammar::unescape(&raw[start..end])).into_owned();
        if ours.generation_of(&entry).is_some() {
            let range = if end < raw.len() { start..end + 1 } else { start.saturating_sub(1)..end };
            match ranges.last_mut() {
                Some(last) if last.end >= offset + range.start => last.end = offset + range.end,
                _ => ranges.push(offset + range.start..offset + range.end),
            }
        }
        if end == raw.len() {
            return ranges;
        }
        start = end + 1;
    }
}
