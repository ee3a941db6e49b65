//! The `lua_package_path` in the nginx configuration that a kong.yml carries as a block of text.

use std::ops::Range;
use std::path::Path;

use super::{ConfError, OurPath};

const DIRECTIVE: &str = "lua_package_path";

/// Places of the quoted values of all `lua_package_path` directives.
fn values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let value = trimmed.strip_prefix(DIRECTIVE).filter(|rest| rest.starts_with([' ', '\t']));
        if let Some(rest) = value {
            let rest = rest.trim_start();
            let from = at + line.len() - rest.len() + 1;
            let close =
                rest.chars().next().filter(|q| matches!(q, '\'' | '"')).and_then(|q| rest[1..].find(q));
            if let Some(length) = close
                && rest[length + 2..].trim_start().starts_with(';')
            {
                found.push(from..from + length);
            }
        }
        at += line.len();
    }
    found
}

/// The path of an nginx configuration, if it has exactly one.
pub fn lua_path(nginx: &str) -> Option<String> {
    match values(nginx).as_slice() {
        [one] => Some(nginx[one.clone()].to_owned()),
        _ => None,
    }
}

/// For comparing all the rest.
pub fn without_lua_path(nginx: &str) -> String {
    let mut text = nginx.to_owned();
    for range in values(nginx).into_iter().rev() {
        text.replace_range(range, "");
    }
    text
}

/// The whole file with our entries first in the path.
///
/// # Errors
/// `LUA_PATH_NOT_FOUND`, `LUA_DIR_UNUSABLE`.
pub fn edit(text: &str, generation: Option<&Path>, ours: &OurPath) -> Result<String, ConfError> {
    let places = values(text);
    let [place] = places.as_slice() else {
        if generation.is_none()
            && places.iter().all(|place| ours.generation_in(&text[place.clone()]).is_none())
        {
            return Ok(text.to_owned());
        }
        let message = format!(
            "the file's `nginx` block has {} lines of `{DIRECTIVE} '…';` instead of one; write exactly one, with `;;` if nothing else",
            places.len()
        );
        return Err(ConfError::new("LUA_PATH_NOT_FOUND", message));
    };
    let old = &text[place.clone()];
    if ours.generation_in(old).as_deref() == generation {
        return Ok(text.to_owned());
    }
    let entries = generation.map(|directory| ours.entries(directory)).transpose()?.unwrap_or_default();
    Ok(format!("{}{entries}{}{}", &text[..place.start], ours.without(old), &text[place.end..]))
}
