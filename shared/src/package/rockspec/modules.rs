//! Which module is which file, out of all the ways a rockspec's `build` can say so.

use super::Rockspec;
use super::value::{Evaluated, Key, Value};
use crate::package::error::{PackageError, shown};
use crate::package::path;

/// Fields of a rockspec that people put into `build`, where LuaRocks takes no notice of them.
const MISPLACED: [&str; 4] = ["dependencies", "description", "source", "supported_platforms"];

pub(super) fn read(spec: &mut Rockspec, globals: &Evaluated) {
    let empty = Value::Table(Vec::new());
    let build = globals.get("build").unwrap_or(&empty);
    let kind = build.get("type").and_then(Value::text).unwrap_or("builtin");
    if !matches!(kind, "builtin" | "module" | "none") {
        let message = format!("{}.rockspec builds with {}, which runs commands", spec.stem, shown(kind));
        spec.refusal = Some(PackageError::new("ROCKSPEC_BUILD_TYPE", message));
    }
    let hooks = globals.get("hooks").and_then(Value::table).unwrap_or_default();
    if !hooks.is_empty() && spec.refusal.is_none() {
        let message = format!("{}.rockspec has a hook, which runs commands", spec.stem);
        spec.refusal = Some(PackageError::new("ROCKSPEC_HOOKS", message));
    }
    for field in MISPLACED.iter().filter(|f| build.get(f).is_some()) {
        let message = format!("{field} stands inside build, where LuaRocks does not look for it");
        spec.oddities.push(("ROCKSPEC_MISPLACED", message));
    }
    let platform = |name: &str| build.get("platforms").and_then(|p| p.get(name));
    for part in [Some(build), platform("unix"), platform("linux")].into_iter().flatten() {
        // `none` copies nothing of build.modules.
        let modules = part.get("modules").filter(|_| kind != "none");
        let install = part.get("install").and_then(|i| i.get("lua"));
        for list in [modules, install].into_iter().flatten() {
            if list.table().is_none() {
                let message = format!("a list of modules is a {}, not a table", list.kind());
                spec.oddities.push(("ROCKSPEC_MODULES", message));
            }
            for (key, value) in list.table().unwrap_or_default() {
                add(spec, key, value);
            }
        }
    }
}

fn add(spec: &mut Rockspec, key: &Key, value: &Value) {
    // A table is LuaRocks's way to name sources of a C module; one Lua file in it is a common mistake.
    let sources = value.get("sources").unwrap_or(value);
    let files: Vec<&str> = match sources {
        Value::Text(file) => vec![file.as_str()],
        Value::Table(list) => list.iter().filter_map(|(_, v)| v.text()).collect(),
        _ => return,
    };
    let file = match files.as_slice() {
        [file] if file.ends_with(".lua") => *file,
        files => {
            if let (Key::Name(name), true) = (key, files.iter().any(|f| f.ends_with(".c"))) {
                spec.native = Some(name.clone());
            }
            return;
        }
    };
    let module = match key {
        Key::Name(name) => name.replace('/', "."),
        // A list of files says what they are called by where they lie.
        Key::Index(_) => match path::canonical(file) {
            Some(place) => {
                let rest = place.rest.strip_suffix(".lua").unwrap_or(place.rest).replace('/', ".");
                let rest = rest.strip_suffix(".init").unwrap_or(&rest);
                format!("kong.plugins.{}.{rest}", place.name)
            }
            None => return,
        },
    };
    // What a platform says stands for what is said in general.
    spec.modules.retain(|(m, _)| *m != module);
    spec.modules.push((module, file.to_owned()));
}
