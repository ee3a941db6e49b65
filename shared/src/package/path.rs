//! Paths as archives spell them, made plain or refused, and what a plain path says about its file.

use super::error::{PackageError, shown};

/// Directories of a repository that never hold the plugin itself: its tests, and trees of what it depends on.
const ASIDE: &[&str] = &["spec", "specs", "test", "tests", "t", "lua_modules", "node_modules"];
/// How many directories may stand above `kong/plugins`: `NAME-1.0/share/lua/5.1` is the deepest that makes sense.
const MAX_ABOVE: usize = 4;

/// What a plugin says about itself, wherever it lies.
pub(super) fn declaration(path: &str) -> bool {
    path.rsplit('/').next() == Some(super::DECLARATION)
}

/// `./a//b/` becomes `a/b`; the root itself becomes empty.
pub(super) fn clean(raw: &[u8], max: usize) -> Result<String, PackageError> {
    let name = || shown(&String::from_utf8_lossy(raw));
    if raw.len() > max {
        return Err(PackageError::new(
            "PATH_TOO_LONG",
            format!("{} has {} bytes, at most {max} are taken", name(), raw.len()),
        ));
    }
    if raw.contains(&0) {
        return Err(PackageError::new("PATH_ESCAPE", format!("{} has a NUL byte in its name", name())));
    }
    let Ok(text) = std::str::from_utf8(raw) else {
        return Err(PackageError::new("NAME_NOT_UTF8", format!("the name {} is not UTF-8", name())));
    };
    if text.starts_with('/') {
        return Err(PackageError::new("PATH_ESCAPE", format!("{} is an absolute path", name())));
    }
    if text.contains('\\') {
        return Err(PackageError::new("PATH_ESCAPE", format!("{} has a backslash in its name", name())));
    }
    if text.chars().any(char::is_control) {
        return Err(PackageError::new(
            "PATH_INVALID",
            format!("{} has a control character in its name", name()),
        ));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                return Err(PackageError::new("PATH_ESCAPE", format!("{} leads out of the archive", name())));
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Whether a link at `link` leads out of what holds it. Lexical: what the target is itself does not matter.
pub(super) fn leads_out(link: &str, target: &[u8]) -> bool {
    if target.starts_with(b"/") || target.contains(&0) || target.contains(&b'\\') {
        return true;
    }
    let mut depth = link.split('/').count() - 1;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// A path at or below `kong/plugins/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Canonical<'a> {
    /// What stands before `kong/plugins`, without the slash.
    pub above: &'a str,
    pub name: &'a str,
    /// Below `kong/plugins/NAME`; empty for that directory itself.
    pub rest: &'a str,
}

pub(super) fn canonical(path: &str) -> Option<Canonical<'_>> {
    const ROOT: &str = "kong/plugins/";
    let mut start = 0;
    for _ in 0..=MAX_ABOVE {
        if let Some(inside) = path[start..].strip_prefix(ROOT) {
            let (name, rest) = inside.split_once('/').unwrap_or((inside, ""));
            return Some(Canonical { above: path[..start].trim_end_matches('/'), name, rest });
        }
        start += path[start..].find('/')? + 1;
    }
    None
}

pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|p| !p.is_empty())
}

/// A dotfile, or something in a dot directory.
pub(super) fn hidden(path: &str) -> bool {
    parts(path).any(|p| p.starts_with('.'))
}

/// In a directory that never holds the plugin itself. The plugin's own directory may be called or hold what it likes.
pub(super) fn aside(path: &str) -> bool {
    let outer = canonical(path).map_or(path, |c| c.above);
    parts(outer).any(|p| ASIDE.contains(&p))
}

/// A shared library by its name.
pub(super) fn native(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    [".so", ".dll", ".dylib"].iter().any(|e| name.ends_with(e)) || name.contains(".so.")
}

/// An archive by its name.
pub(super) fn archive(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    [".tar.gz", ".tgz", ".zip", ".rock", ".tar"].iter().any(|e| name.ends_with(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths() {
        for (raw, plain) in
            [("./a//b/", "a/b"), ("./", ""), ("a", "a"), ("a/./b c.lua", "a/b c.lua"), ("...", "...")]
        {
            assert_eq!(clean(raw.as_bytes(), 255).unwrap(), plain, "{raw}");
        }
    }

    #[test]
    fn refused_paths() {
        let long = "a".repeat(300);
        for (raw, code) in [
            (&b"../../x.lua"[..], "PATH_ESCAPE"),
            (b"a/..", "PATH_ESCAPE"),
            (b"/etc/passwd", "PATH_ESCAPE"),
            (b"a\\..\\b", "PATH_ESCAPE"),
            (b"handler.lua\0.txt", "PATH_ESCAPE"),
            (b"a\nb", "PATH_INVALID"),
            (b"\xff.lua", "NAME_NOT_UTF8"),
            (long.as_bytes(), "PATH_TOO_LONG"),
        ] {
            assert_eq!(clean(raw, 255).unwrap_err().code, code);
        }
    }

    #[test]
    fn links_that_lead_out() {
        for target in ["/etc/passwd", "../../x", "..\\x", "b/../../../x"] {
            assert!(leads_out("a/link", target.as_bytes()), "{target}");
        }
        for target in ["x", "../x", "./../b/./c", "b/../../x"] {
            assert!(!leads_out("a/link", target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn where_a_plugin_stands() {
        let at = |p| canonical(p).map(|c| (c.above, c.name, c.rest));
        assert_eq!(at("kong/plugins/x/handler.lua"), Some(("", "x", "handler.lua")));
        assert_eq!(at("x-1.0/lua/kong/plugins/x/a/b.lua"), Some(("x-1.0/lua", "x", "a/b.lua")));
        assert_eq!(at("kong/kong/plugins/x"), Some(("kong", "x", "")));
        assert_eq!(at("1/2/3/4/kong/plugins/x/y"), Some(("1/2/3/4", "x", "y")));
        assert_eq!(at("1/2/3/4/5/kong/plugins/x/y"), None);
        assert_eq!(at("king-kong/plugins/x/y"), None);
        assert!(aside("spec/fixtures/kong/plugins/x/handler.lua"));
        assert!(!aside("kong/plugins/test/spec/handler.lua"));
    }
}
