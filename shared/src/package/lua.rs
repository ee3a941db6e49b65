//! Just enough Lua to read constants: which strings a chunk assigns to which names, and what it requires.
//!
//! Nothing is run and nothing is judged. The scanner knows strings and comments, so that neither can fool it, follows
//! `local X = "…"` and `..` between constants, and otherwise looks at one token after the other.

mod tokens;

use std::collections::BTreeMap;

use tokens::{Token, tokens};

/// Constants stand at the head of a file; more than this is not looked at, which bounds the work on hostile input.
const MAX_SCAN: usize = 256 * 1024;
/// Assignments that are looked at, and likewise calls of `require`: many times what a handler or rockspec has.
const MAX_FOUND: usize = 2048;
/// Bytes of a constant: a chunk may double one with each line, and no name or version is this long.
const MAX_CONSTANT: usize = 256;

/// `KEY = …` anywhere in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub key: String,
    /// What is assigned, where that is a constant string.
    pub value: Option<String>,
    /// Table constructors around it.
    pub depth: usize,
    /// Which table constructor it is directly in; 0 for none.
    pub table: usize,
    /// `X.KEY = …` or `X["KEY"] = …`.
    pub member: bool,
}

/// A call of `require`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Require {
    /// The module, with `.` between its parts; `None` where the code works the name out itself.
    pub module: Option<String>,
    /// From 1.
    pub line: usize,
    /// In a `pcall`: the code has a way on without the module.
    pub optional: bool,
}

/// A name, or a member of one, that a chunk reads: `loadstring`, `os.exit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    pub name: String,
    /// From 1.
    pub line: usize,
}

/// A use of `ngx.shared.NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedDict {
    pub name: String,
    /// From 1.
    pub line: usize,
}

#[derive(Debug, Default)]
pub struct Scan {
    pub(super) assignments: Vec<Assignment>,
    /// Every call of `require`.
    pub requires: Vec<Require>,
    /// Every use of one of [`WATCHED`] that is not a field of something else.
    pub mentions: Vec<Mention>,
    /// Every dictionary of nginx whose name is a constant.
    pub dicts: Vec<SharedDict>,
}

/// What may matter to whoever lets the code run: libraries by their members, functions by their names.
const WATCHED: &[&str] = &[
    "os.exit",
    "os.execute",
    "os.remove",
    "os.rename",
    "io.popen",
    "io.open",
    "io.lines",
    "package.loadlib",
    "string.dump",
    "loadstring",
    "load",
    "loadfile",
    "dofile",
];

impl Scan {
    /// Reads a chunk. Takes any bytes.
    pub fn of(source: &[u8]) -> Self {
        let (tokens, lines) = tokens(&source[..source.len().min(MAX_SCAN)]);
        let mut scan = Self::default();
        let mut constants = BTreeMap::new();
        let mut tables: Vec<usize> = Vec::new();
        // Names that `ngx.shared` was given.
        let mut shared: Vec<&str> = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            if scan.assignments.len() + scan.requires.len() + scan.mentions.len() + scan.dicts.len()
                >= MAX_FOUND
            {
                break;
            }
            let line = lines.get(at).copied().unwrap_or_default();
            match token {
                Token::Sign(b'{') => tables.push(at + 1),
                Token::Sign(b'}') => {
                    tables.pop();
                }
                Token::Name("require") => scan.requires.extend(required(&tokens, at, line, &constants)),
                Token::Name(name) => {
                    scan.mentions.extend(mentioned(&tokens, at, name, line));
                    if let Some(behind) = shared_at(&tokens, at, &shared) {
                        match dict(&tokens, behind, &constants) {
                            Some(name) => scan.dicts.push(SharedDict { name, line }),
                            None => shared.extend(given(&tokens, at, behind)),
                        }
                    }
                }
                Token::Assign => {
                    let Some((key, member)) = key(&tokens, at, &constants) else { continue };
                    // In `local a, b = …` the first value is not b's.
                    let several = tables.is_empty() && at >= 2 && tokens[at - 2] == Token::Sign(b',');
                    let value = constant(&tokens, at + 1, &constants)
                        .filter(|(_, next)| !several && ends(tokens.get(*next)))
                        .map(|(text, _)| text);
                    if let (true, false, Some(value)) = (tables.is_empty(), member, &value) {
                        constants.insert(key.clone(), value.clone());
                    }
                    let (depth, table) = (tables.len(), tables.last().copied().unwrap_or(0));
                    scan.assignments.push(Assignment { key, value, depth, table, member });
                }
                _ => {}
            }
        }
        scan
    }

    /// Constant arguments of `require`.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.requires.iter().filter_map(|r| r.module.as_deref())
    }

    /// The first constant assigned to `key` as a field: in a table constructor, or as a member of something.
    pub fn field(&self, key: &str) -> Option<&str> {
        let fields = self.assignments.iter().filter(|a| a.key == key && (a.member || a.depth > 0));
        fields
            .filter_map(|a| Some((a.depth, a.value.as_deref()?)))
            .min_by_key(|(depth, _)| *depth)
            .map(|(_, v)| v)
    }

    /// Whether something is assigned to `key` in that table constructor.
    pub fn has(&self, table: usize, key: &str) -> bool {
        self.assignments.iter().any(|a| a.table == table && a.key == key)
    }
}

/// The `require` at `at`, if it is called there or handed to `pcall`.
fn required(
    tokens: &[Token<'_>],
    at: usize,
    line: usize,
    constants: &BTreeMap<String, String>,
) -> Option<Require> {
    let before = |n: usize| at.checked_sub(n).and_then(|i| tokens.get(i));
    let name = |n: usize| match before(n) {
        Some(Token::Name(name)) => *name,
        _ => "",
    };
    if matches!(before(1), Some(Token::Sign(b'.' | b':'))) {
        return None;
    }
    let dotted = |text: String| text.replace('/', ".");
    let handed = before(1) == Some(&Token::Sign(b'(')) && matches!(name(2), "pcall" | "xpcall");
    if handed && tokens.get(at + 1) == Some(&Token::Sign(b',')) {
        // xpcall has its handler in between.
        let from = if name(2) == "pcall" { at + 2 } else { at + 4 };
        let module = constant(tokens, from, constants).map(|(text, _)| dotted(text));
        return Some(Require { module, line, optional: true });
    }
    // `a or require "b"` is a way on too.
    let guarded = name(1) == "or"
        || name(1) == "return" && name(4) == "function" && matches!(name(6), "pcall" | "xpcall");
    let (open, called) = match tokens.get(at + 1) {
        Some(Token::Sign(b'(')) => (1, true),
        Some(Token::Text(_)) => (0, true),
        _ => (0, false),
    };
    let module = constant(tokens, at + 1 + open, constants)
        .filter(|(_, next)| open == 0 || tokens.get(*next) == Some(&Token::Sign(b')')))
        .map(|(text, _)| dotted(text));
    called.then_some(Require { module, line, optional: guarded })
}

/// The one of [`WATCHED`] that begins at `at`.
fn mentioned(tokens: &[Token<'_>], at: usize, name: &str, line: usize) -> Option<Mention> {
    if matches!(
        at.checked_sub(1).and_then(|i| tokens.get(i)),
        Some(Token::Sign(b'.' | b':') | Token::Name("function"))
    ) {
        return None;
    }
    let member = match (tokens.get(at + 1), tokens.get(at + 2)) {
        (Some(Token::Sign(b'.')), Some(Token::Name(member))) => Some(*member),
        _ => None,
    };
    let full = member.map_or(name.to_owned(), |m| format!("{name}.{m}"));
    // A field of a table constructor or a local of that name is somebody else.
    let assigned = tokens.get(at + 1) == Some(&Token::Assign);
    (!assigned && WATCHED.contains(&full.as_str())).then_some(Mention { name: full, line })
}

/// Where an expression that is `ngx.shared` ends, if one begins at `at`.
fn shared_at(tokens: &[Token<'_>], at: usize, aliases: &[&str]) -> Option<usize> {
    if matches!(at.checked_sub(1).and_then(|i| tokens.get(i)), Some(Token::Sign(b'.' | b':'))) {
        return None;
    }
    match tokens.get(at..)? {
        [Token::Name("ngx"), Token::Sign(b'.'), Token::Name("shared"), ..] => Some(at + 3),
        [Token::Name(name), ..] if aliases.contains(name) => Some(at + 1),
        _ => None,
    }
}

/// The dictionary that is taken out of `ngx.shared`, which ends at `at`.
fn dict(tokens: &[Token<'_>], at: usize, known: &BTreeMap<String, String>) -> Option<String> {
    match (tokens.get(at)?, tokens.get(at + 1)?) {
        (Token::Sign(b'.'), Token::Name(name)) => Some((*name).to_owned()),
        (Token::Sign(b'['), _) => {
            let (text, end) = constant(tokens, at + 1, known)?;
            (tokens.get(end) == Some(&Token::Sign(b']'))).then_some(text)
        }
        _ => None,
    }
}

/// The name that `ngx.shared`, from `at` to `behind`, is given as a whole.
fn given<'a>(tokens: &[Token<'a>], at: usize, behind: usize) -> Option<&'a str> {
    let Token::Name(name) = tokens.get(at.checked_sub(2)?)? else { return None };
    let whole = !matches!(tokens.get(behind), Some(Token::Sign(b'.' | b'[' | b':')));
    (whole && tokens.get(at - 1) == Some(&Token::Assign)).then_some(*name)
}

/// A constant string expression at `at`, and where it ends.
fn constant(
    tokens: &[Token<'_>],
    mut at: usize,
    known: &BTreeMap<String, String>,
) -> Option<(String, usize)> {
    let mut text = String::new();
    loop {
        match tokens.get(at)? {
            Token::Text(t) => text.push_str(t),
            Token::Name(n) => text.push_str(known.get(*n)?),
            _ => return None,
        }
        at += 1;
        if text.len() > MAX_CONSTANT {
            return None;
        }
        match tokens.get(at) {
            Some(Token::Concat) => at += 1,
            _ => return Some((text, at)),
        }
    }
}

/// Whether an expression can end before this token.
fn ends(next: Option<&Token<'_>>) -> bool {
    match next {
        None => true,
        Some(Token::Name(n)) => !matches!(*n, "and" | "or"),
        Some(Token::Sign(s)) => matches!(s, b',' | b';' | b'}'),
        Some(_) => false,
    }
}

/// What the `=` at `at` assigns to.
fn key(tokens: &[Token<'_>], at: usize, known: &BTreeMap<String, String>) -> Option<(String, bool)> {
    let before = |n: usize| at.checked_sub(n).and_then(|i| tokens.get(i));
    match before(1)? {
        Token::Name(n) => Some(((*n).to_owned(), before(2) == Some(&Token::Sign(b'.')))),
        Token::Sign(b']') => {
            const LONGEST: usize = 16;
            let open = (2..LONGEST).find(|n| before(*n) == Some(&Token::Sign(b'[')))?;
            let (text, end) = constant(tokens, at - open + 1, known)?;
            let member = matches!(before(open + 1), Some(Token::Name(_) | Token::Sign(b']' | b')')));
            (end == at - 1).then_some((text, member))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (source, version) in [
            ("local H = { PRIORITY = 1000, VERSION = \"1.2.0\" }", Some("1.2.0")),
            ("local H = {}\nH.VERSION = '0.1'\nH.PRIORITY = 10\nreturn H", Some("0.1")),
            ("H[\"VERSION\"] = [[2.0]]", Some("2.0")),
            ("return { [\"VERSION\"] = [==[3]==] }", Some("3")),
            ("local VERSION = \"1.0\" .. \".2\"\nreturn { VERSION = VERSION }", Some("1.0.2")),
            ("-- VERSION = \"0\"\n--[[ H.VERSION = \"0\" ]] H.VERSION = \"1\"", Some("1")),
            ("local s = 'H.VERSION = \"0\"' H.VERSION = \"1\"", Some("1")),
            ("local s = \"a\\\"; H.VERSION = '0' --\" H.VERSION = \"1\"", Some("1")),
            ("#!/usr/bin/lua\nH.VERSION = \"1\\0462\"", Some("1.2")),
            ("local H = { x = { VERSION = \"9\" }, VERSION = \"1\" }", Some("1")),
            ("H.VERSION = \"1\" .. rev()", None),
            ("H.VERSION = rev or \"1\"", None),
            ("H.VERSION = \"1\" or rev", None),
            ("local VERSION = \"1\"", None),
            ("local _, VERSION = \"1\", \"2\" return { VERSION = VERSION }", None),
            ("if H.VERSION == \"1\" then end", None),
            ("H._VERSION = \"1\"", None),
            ("H.VERSION = \"1\n", None),
            ("H.VERSION = 1.0", None),
            ("--[[ never closed\nH.VERSION = \"1\"", None),
        ] {
            assert_eq!(Scan::of(source.as_bytes()).field("VERSION"), version, "{source}");
        }
    }

    #[test]
    fn requires_and_what_else_matters() {
        let source = r#"
            local require = require
            local a = require "kong.plugins.x.a"
            local b = require("kong/plugins/x/b").new()
            local name = "x"
            local c = require("kong.plugins." .. name .. ".c")
            local ok, d = pcall(require, "resty.d")
            local ok, e = pcall(function() return require("resty.e") end)
            local f = require("resty." .. conf.f)
            local g = loader.require("none")
            os.exit(1) ngx.os.exit() local t = { load = 1 } t.load() loadstring("x")()
        "#;
        let scan = Scan::of(source.as_bytes());
        let found: Vec<_> = scan.requires.iter().map(|r| (r.line, r.module.as_deref(), r.optional)).collect();
        assert_eq!(
            found,
            [
                (3, Some("kong.plugins.x.a"), false),
                (4, Some("kong.plugins.x.b"), false),
                (6, Some("kong.plugins.x.c"), false),
                (7, Some("resty.d"), true),
                (8, Some("resty.e"), true),
                (9, None, false),
            ]
        );
        let found: Vec<_> = scan.mentions.iter().map(|m| (m.line, m.name.as_str())).collect();
        assert_eq!(found, [(11, "os.exit"), (11, "loadstring")]);
    }

    #[test]
    fn dictionaries_of_nginx() {
        let source = r#"
            local a = ngx.shared.one
            local b = ngx.shared["two"]:get("x")
            local shm, NAME = ngx.shared, "none"
            local shared = ngx.shared
            local DICT = "three"
            local c = shared[DICT] or shared.four
            local d = ngx.shared[conf.name] kong.ngx.shared.none() conf.shared.none()
        "#;
        let found = Scan::of(source.as_bytes()).dicts;
        let found: Vec<_> = found.iter().map(|d| (d.line, d.name.as_str())).collect();
        assert_eq!(found, [(2, "one"), (3, "two"), (7, "three"), (7, "four")]);
    }

    #[test]
    fn any_bytes_will_do() {
        for source in [
            &b"\xff\xfe = \x00 ]] [==[ \\ '\\"[..],
            b"[",
            b"[=",
            b"--",
            b"--[==",
            b"\"\\",
            b"]=",
            b"=",
            b"\"\\99",
        ] {
            Scan::of(source);
        }
    }

    #[test]
    fn constants_do_not_grow_without_end() {
        let mut source = String::from("local a = 'xxxxxxxx'\n");
        (0..60).for_each(|_| source.push_str("a = a .. a\n"));
        let scan = Scan::of(source.as_bytes());
        assert!(scan.assignments.iter().filter_map(|a| a.value.as_ref()).all(|v| v.len() <= MAX_CONSTANT));
    }
}
