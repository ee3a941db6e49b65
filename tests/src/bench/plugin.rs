//! The plugin that everything is measured with: a handler, a schema and eight modules, 100 KiB together.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plugins::SCHEMA;

pub const NAME: &str = "bench-100k";
const SIZE: usize = 100 << 10;
const MODULES: usize = 8;

/// Writes one version of it below `root` and returns its directory.
pub fn write(root: &Path, version: &str) -> PathBuf {
    let base = root.join(format!("{NAME}-{version}"));
    let lua = base.join("kong/plugins").join(NAME);
    fs::create_dir_all(&lua).unwrap();
    let requires: String =
        (0..MODULES).map(|n| format!("local m{n} = require \"kong.plugins.{NAME}.part{n}\"\n")).collect();
    let calls: String = (0..MODULES).map(|n| format!("  m{n}.f0(conf)\n")).collect();
    let handler = format!(
        "{requires}local Handler = {{ PRIORITY = 801, VERSION = \"{version}\" }}\nfunction Handler:access(conf)\n{calls}end\nreturn Handler\n"
    );
    let schema = SCHEMA.replace("NAME", NAME);
    let part = (SIZE - handler.len() - schema.len()) / MODULES;
    fs::write(lua.join("handler.lua"), &handler).unwrap();
    fs::write(lua.join("schema.lua"), &schema).unwrap();
    for n in 0..MODULES {
        fs::write(lua.join(format!("part{n}.lua")), module(n, version, part)).unwrap();
    }
    base
}

/// Functions that differ a little, as many as fit.
fn module(number: usize, version: &str, size: usize) -> String {
    let mut text = format!("-- part {number} of {version}\nlocal M = {{}}\n");
    for n in 0.. {
        let function = format!(
            "-- Returns what the field number {n} of a configuration is worth, and nothing else.\nfunction M.f{n}(conf)\n  local value = \
             conf and conf.header or \"{number}.{n}\"\n  if #value > {n} then\n    return value:sub(1, {n})\n  end\n  return value\nend\n\n"
        );
        if text.len() + function.len() + "return M\n".len() > size {
            break;
        }
        text += &function;
    }
    text + "return M\n"
}
