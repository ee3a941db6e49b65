//! Every way in which a rockspec is wrong, and the code it gets, whatever the plugin beside it is like.

use std::fs;
use std::path::Path;

use kctl_shared::package::{LoadOptions, load};

use crate::forge::{Lua, Tar, assert_refused, load_bytes, probe, write_tree};

/// A rockspec that is fine, with a field set to something else (Lua).
fn spec(field: &str, value: &str) -> String {
    let mut fields = vec![
        ("package", "\"kong-plugin-probe\""),
        ("version", "\"2.0.0-1\""),
        ("source", "{ url = \"git://example.com/probe\" }"),
        (
            "build",
            "{ type = \"builtin\", modules = { [\"kong.plugins.probe.handler\"] = \"HANDLER\", \
          [\"kong.plugins.probe.schema\"] = \"SCHEMA\" } }",
        ),
    ];
    fields.retain(|(name, _)| *name != field);
    fields.push((field, value));
    fields.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("{n} = {v}\n")).collect()
}

const FILE: &str = "kong-plugin-probe-2.0.0-1.rockspec";

#[test]
fn each_evil_rockspec_has_its_code() {
    let modules = |entry: &str| {
        let own =
            "[\"kong.plugins.probe.handler\"] = \"HANDLER\", [\"kong.plugins.probe.schema\"] = \"SCHEMA\"";
        spec("build", &format!("{{ modules = {{ {own}, {entry} }} }}"))
    };
    let cases: Vec<(&str, &str, String, &str)> = vec![
        ("make", FILE, spec("build", "{ type = \"make\" }"), "ROCKSPEC_BUILD_TYPE"),
        ("cmake", FILE, spec("build", "{ type = \"cmake\" }"), "ROCKSPEC_BUILD_TYPE"),
        (
            "command",
            FILE,
            spec("build", "{ type = \"command\", install_command = \"touch /tmp/x\" }"),
            "ROCKSPEC_BUILD_TYPE",
        ),
        ("hook", FILE, spec("hooks", "{ post_install = \"touch /tmp/x\" }"), "ROCKSPEC_HOOKS"),
        (
            "a module absent",
            FILE,
            modules("[\"kong.plugins.probe.more\"] = \"no/more.lua\""),
            "ROCKSPEC_MODULE_MISSING",
        ),
        ("another package", "other-2.0.0-1.rockspec", spec("x", ""), "ROCKSPEC_NAME_MISMATCH"),
        ("unknown field", FILE, spec("dependancies", "{}"), "ROCKSPEC_INVALID"),
        (
            "unknown field in a table",
            FILE,
            spec("source", "{ url = \"x\", commit = \"y\" }"),
            "ROCKSPEC_INVALID",
        ),
        ("no source", FILE, spec("source", ""), "ROCKSPEC_INVALID"),
        ("no build", FILE, spec("build", ""), "ROCKSPEC_INVALID"),
        ("version without revision", FILE, spec("version", "\"2.0.0\""), "ROCKSPEC_INVALID"),
        ("a number for a name", FILE, spec("package", "1"), "ROCKSPEC_INVALID"),
        ("no Lua", FILE, "package = ".into(), "ROCKSPEC_INVALID"),
        ("a call of what is not there", FILE, "os.execute(\"id\")".into(), "ROCKSPEC_INVALID"),
    ];
    for (case, file, source, code) in &cases {
        for (layout, prefix) in
            [("as Kong wants it", "kong/plugins/probe/"), ("in src", "src/"), ("at the root", "")]
        {
            let source = source
                .replace("HANDLER", &format!("{prefix}handler.lua"))
                .replace("SCHEMA", &format!("{prefix}schema.lua"));
            let dir = tempfile::tempdir().unwrap();
            write_tree(dir.path(), &probe(prefix));
            fs::write(dir.path().join(file), &source).unwrap();
            let before = listing(dir.path());
            let case = format!("{case}, {layout}");
            assert_refused(&case, load(dir.path(), &LoadOptions::default(), &Lua), code);
            assert_refused(&case, load(&dir.path().join(file), &LoadOptions::default(), &Lua), code);
            let mut files = probe(&format!("w/{prefix}"));
            files.push((format!("w/{file}"), source.into()));
            let tgz = Tar::of(&files).tgz();
            assert_refused(&case, load_bytes("x.tgz", &tgz, &LoadOptions::default()), code);
            let ignoring = LoadOptions {
                ignore_rockspec: true,
                name: Some("probe".parse().unwrap()),
                ..Default::default()
            };
            assert_eq!(load(dir.path(), &ignoring, &Lua).unwrap().files.len(), 3, "{case}");
            assert_eq!(listing(dir.path()), before, "{case}");
        }
    }
}

#[test]
fn what_is_odd_but_harmless_is_taken() {
    let build = |build: &str| spec("build", build);
    for (case, file, source) in [
        ("the file's version is behind", "kong-plugin-probe-1.9.0-1.rockspec", spec("x", "")),
        ("no version in the file's name", "kong-plugin-probe.rockspec", spec("x", "")),
        ("the usual prefix left out", "probe-2.0.0-1.rockspec", spec("x", "")),
        ("dependencies inside build", FILE, build("{ modules = {}, dependencies = { \"lua\" } }")),
        ("modules are no table", FILE, build("{ modules = \"kong\" }")),
        ("type none", FILE, build("{ type = \"none\", copy_directories = { \"doc\" } }")),
        ("format 3", FILE, spec("build", "") + "rockspec_format = \"3.0\"\n"),
        (
            "the name in capitals",
            "kong-plugin-probe-2.0.0-1.rockspec",
            spec("package", "\"Kong-Plugin-Probe\""),
        ),
        ("a plain name", "rockspec", spec("x", "")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_tree(dir.path(), &probe("kong/plugins/probe/"));
        let source = source.replace("HANDLER", "kong/plugins/probe/handler.lua");
        fs::write(dir.path().join(file), source.replace("SCHEMA", "kong/plugins/probe/schema.lua")).unwrap();
        let taken = load(dir.path(), &LoadOptions::default(), &Lua);
        assert_eq!(taken.unwrap_or_else(|e| panic!("{case}: {e}")).files.len(), 3, "{case}");
    }
}

/// Paths and contents of everything in a directory.
fn listing(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => todo.push(entry.path()),
                false => found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    found.sort();
    found
}
