//! Whether a rockspec has the fields that LuaRocks takes, by its format.

use super::value::{Evaluated, Key, Value};
use crate::package::error::{PackageError, shown};

/// What a field may hold.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Bool,
    /// Strings, under any key.
    Texts,
    /// These fields and no others.
    Fields(&'static [(&'static str, Shape)]),
    /// These fields, and any other.
    Open(&'static [(&'static str, Shape)]),
    /// Any table.
    Table,
}
use Shape::{Bool, Fields, Open, Table, Text, Texts};

/// (field, what it holds, the first format that has it)
const TOP: &[(&str, Shape, Format)] = &[
    ("rockspec_format", Text, V1_0),
    ("package", Text, V1_0),
    ("version", Text, V1_0),
    ("description", Fields(DESCRIPTION), V1_0),
    ("dependencies", Texts, V1_0),
    ("supported_platforms", Texts, V1_0),
    ("external_dependencies", Table, V1_0),
    ("source", Fields(SOURCE), V1_0),
    ("build", Open(BUILD), V1_0),
    ("hooks", Fields(&[("platforms", Table), ("post_install", Text)]), V1_0),
    ("deploy", Fields(&[("wrap_bin_scripts", Bool)]), (1, 1)),
    ("build_dependencies", Texts, V3_0),
    ("test_dependencies", Texts, V3_0),
    ("test", Open(&[("platforms", Table), ("type", Text)]), V3_0),
];
const DESCRIPTION: &[(&str, Shape)] = &[
    ("summary", Text),
    ("detailed", Text),
    ("homepage", Text),
    ("license", Text),
    ("maintainer", Text),
    ("labels", Texts),
    ("issues_url", Text),
];
const SOURCE: &[(&str, Shape)] = &[
    ("platforms", Table),
    ("url", Text),
    ("md5", Text),
    ("file", Text),
    ("dir", Text),
    ("tag", Text),
    ("branch", Text),
    ("module", Text),
    ("cvs_tag", Text),
    ("cvs_module", Text),
];
const BUILD: &[(&str, Shape)] = &[
    ("platforms", Table),
    ("type", Text),
    ("install", Fields(&[("lua", Table), ("lib", Table), ("conf", Table), ("bin", Table)])),
    ("copy_directories", Texts),
];

type Format = (u32, u32);
const V1_0: Format = (1, 0);
const V3_0: Format = (3, 0);
const NEWEST: Format = (3, 1);

/// # Errors
/// `ROCKSPEC_INVALID`, in LuaRocks's terms.
pub(super) fn fields(stem: &str, globals: &Evaluated) -> Result<(), PackageError> {
    let file = format!("{stem}.rockspec");
    let invalid = |why: String| PackageError::new("ROCKSPEC_INVALID", format!("{}: {why}", shown(&file)));
    let format = match globals.get("rockspec_format") {
        None => V1_0,
        Some(value) => value.text().and_then(parse).ok_or_else(|| {
            invalid("rockspec_format is not the version of a rockspec format, such as \"3.0\"".into())
        })?,
    };
    if format > NEWEST {
        return Err(invalid(format!("rockspec format {}.{} is not known", format.0, format.1)));
    }
    let known = |name: &str| TOP.iter().find(|(n, _, since)| *n == name && *since <= format);
    if let Some(name) = globals.undefined.iter().find(|n| known(n).is_none()) {
        return Err(invalid(format!("it reads {}, which a rockspec does not have", shown(name))));
    }
    for (name, value) in &globals.globals {
        let Some((_, shape, _)) = known(name) else {
            return Err(invalid(format!(
                "unknown field {} in rockspec format {}.{}",
                shown(name),
                format.0,
                format.1
            )));
        };
        fits(name, value, *shape).map_err(&invalid)?;
    }
    let missing = |field: &str| invalid(format!("the field {field} is missing"));
    for field in ["package", "version", "source"] {
        globals.get(field).ok_or_else(|| missing(field))?;
    }
    if format < V3_0 {
        globals.get("build").ok_or_else(|| missing("build"))?;
    }
    globals.get("source").and_then(|s| s.get("url")).ok_or_else(|| missing("source.url"))?;
    let version = globals.get("version").and_then(Value::text).unwrap_or_default();
    if !is_rock_version(version) {
        return Err(invalid(format!("{} is not VERSION-REVISION, such as 1.0.0-1", shown(version))));
    }
    Ok(())
}

fn parse(text: &str) -> Option<Format> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `[%w.]+-[%d]+`
fn is_rock_version(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(version, revision)| {
        let word =
            |s: &str, dot| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || dot && b == b'.');
        word(version, true) && !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_digit())
    })
}

fn fits(name: &str, value: &Value, shape: Shape) -> Result<(), String> {
    let wrong = |wanted: &str| Err(format!("{name} is a {}, not a {wanted}", value.kind()));
    let (entries, fields, open) = match (shape, value) {
        (Text, Value::Text(_)) | (Bool, Value::Bool(_)) | (Table, Value::Table(_)) => return Ok(()),
        (Text, _) => return wrong("string"),
        (Bool, _) => return wrong("boolean"),
        (Texts, Value::Table(entries)) => {
            let bad = entries.iter().find(|(k, v)| v.text().is_none() && !is(k, "platforms"));
            return match bad {
                Some((_, v)) => Err(format!("{name} holds a {}, not only strings", v.kind())),
                None => Ok(()),
            };
        }
        (Fields(fields), Value::Table(entries)) => (entries, fields, false),
        (Open(fields), Value::Table(entries)) => (entries, fields, true),
        _ => return wrong("table"),
    };
    for (key, value) in entries {
        let field = match key {
            Key::Name(field) => field.clone(),
            Key::Index(at) => at.to_string(),
        };
        match fields.iter().find(|(f, _)| *f == field) {
            Some((_, shape)) => fits(&format!("{name}.{field}"), value, *shape)?,
            None if open => {}
            None => return Err(format!("unknown field {} in {name}", shown(&field))),
        }
    }
    Ok(())
}

fn is(key: &Key, name: &str) -> bool {
    matches!(key, Key::Name(n) if n == name)
}
