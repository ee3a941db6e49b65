//! Modules that travel beside a plugin, and those that stay behind without doing it harm.

use kctl_shared::package::{LoadOptions, Package, load};

use crate::forge::{Lua, SCHEMA, Tar, load_bytes, write_tree};

const OWN: &str = "kong/plugins/probe/";

/// The plugin `probe` with `code` at the top of its handler, and other files; taken from a directory.
fn directory(code: &str, files: &[(&str, &str)], options: &LoadOptions) -> Package {
    let dir = tempfile::tempdir().unwrap();
    let handler = format!("{code}\nreturn {{ PRIORITY = 1, VERSION = \"1.2.0\" }}\n");
    let mut all = vec![
        (format!("{OWN}handler.lua"), handler.into_bytes()),
        (format!("{OWN}schema.lua"), SCHEMA.as_bytes().to_vec()),
    ];
    all.extend(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())));
    write_tree(dir.path(), &all);
    load(dir.path(), options, &Lua).unwrap()
}

const SPEC: &str = "kong-plugin-probe-1.2.0-1.rockspec";

fn spec(modules: &str) -> String {
    let own = "[\"kong.plugins.probe.handler\"] = \"kong/plugins/probe/handler.lua\"";
    format!(
        "package = \"kong-plugin-probe\"\nversion = \"1.2.0-1\"\nsource = {{ url = \"git://example.com/probe\" }}\n\
         build = {{ type = \"builtin\", modules = {{ {own}, {modules} }} }}\n"
    )
}

fn beside(package: &Package) -> Vec<&str> {
    package.extras.iter().map(|f| f.entry.path.as_str()).collect()
}

#[test]
fn what_travels_and_what_is_left_behind() {
    let nothing: &[&str] = &[];
    for (case, code, modules, files, with, left) in [
        (
            "listed, under another name",
            "",
            "['acme.util'] = 'lib/u.lua', ['acme'] = 'lib/init.lua'",
            &[("lib/u.lua", ""), ("lib/init.lua", "")][..],
            &["acme/init.lua", "acme/util.lua"][..],
            nothing,
        ),
        (
            "required, and required by that, in the same Lua root",
            "require 'acme.a'",
            "",
            &[("acme/a.lua", "pcall(require, 'acme.b')"), ("acme/b/init.lua", ""), ("acme/c.lua", "")],
            &["acme/a.lua", "acme/b/init.lua"],
            &["acme/c.lua"],
        ),
        (
            "shared by plugins, and of one of them",
            "require 'kong.plugins.common.util' require 'kong.plugins.other.util'",
            "",
            &[
                ("kong/plugins/common/util.lua", ""),
                ("kong/plugins/other/util.lua", ""),
                ("kong/plugins/other/handler.lua", ""),
            ],
            &["kong/plugins/common/util.lua"],
            nothing,
        ),
        (
            "in the place of Kong's own, needed or not",
            "require 'resty.http'",
            "['resty.http'] = 'lib/http.lua', ['kong.tools.utils'] = 'lib/utils.lua'",
            &[("lib/http.lua", ""), ("lib/utils.lua", ""), ("cjson.lua", "")],
            nothing,
            &["cjson.lua", "lib/http.lua", "lib/utils.lua"],
        ),
        (
            "a bundled plugin's, another plugin's, a test's, none that could be required, compiled",
            "",
            "['kong.plugins.key-auth.more'] = 'a.lua', ['kong.plugins.other.handler'] = 'b.lua', \
             ['kong.plugins.other.more'] = 'c.lua', ['spec.helper'] = 'd.lua', ['acme.bin'] = 'e.lua'",
            &[("a.lua", ""), ("b.lua", ""), ("c.lua", ""), ("d.lua", ""), ("e.lua", "\x1bLJ\x02")],
            nothing,
            &["a.lua", "b.lua", "c.lua", "d.lua", "e.lua"],
        ),
        (
            "listed and not there",
            "",
            "['acme.gone'] = 'lib/gone.lua', ['acme.c'] = { 'x.c', 'y.c' }",
            &[],
            nothing,
            nothing,
        ),
    ] {
        let spec = spec(modules);
        let files: Vec<_> = std::iter::once((SPEC, spec.as_str())).chain(files.iter().copied()).collect();
        let options = LoadOptions { name: Some("probe".parse().unwrap()), ..Default::default() };
        let package = directory(code, &files, &options);
        assert_eq!(beside(&package), with, "{case}");
        assert_eq!(package.left_out, left, "{case}");
        assert_eq!(package.version, "1.2.0", "{case}");
    }
}

#[test]
fn a_copy_of_kongs_own_travels_if_it_is_meant() {
    let files = [("resty/http.lua", "return {}")];
    let allowed = LoadOptions { allow_shadow: true, ..Default::default() };
    assert_eq!(beside(&directory("require 'resty.http'", &files, &allowed)), ["resty/http.lua"]);
    assert_eq!(beside(&directory("", &files, &allowed)), [""; 0]);
    // Kong brings many of resty, not all.
    let foreign = [("resty/cookie.lua", "return {}")];
    assert_eq!(
        beside(&directory("require 'resty.cookie'", &foreign, &LoadOptions::default())),
        ["resty/cookie.lua"]
    );
}

#[test]
fn a_rock_brings_what_it_holds() {
    let tar = Tar::default()
        .file(SPEC.as_bytes(), spec("").as_bytes())
        .file(b"rock_manifest", b"rock_manifest = {}")
        .file(b"lua/kong/plugins/probe/handler.lua", b"return {}")
        .file(b"lua/kong/plugins/probe/schema.lua", b"return {}")
        .file(b"lua/kong/plugins/other/handler.lua", b"return {}")
        .file(b"lua/kong/plugins/other/more.lua", b"return {}")
        .file(b"lua/kong/plugins/key-auth/more.lua", b"return {}")
        .file(b"lua/acme/a.lua", b"return 1")
        .file(b"lua/resty/core.lua", b"return 1")
        .end();
    let options = LoadOptions { name: Some("probe".parse().unwrap()), ..Default::default() };
    let package = load_bytes("kong-plugin-probe-1.2.0-1.all.rock", &tar, &options).unwrap();
    assert_eq!(beside(&package), ["acme/a.lua"]);
    assert_eq!(package.left_out, ["lua/kong/plugins/key-auth/more.lua", "lua/resty/core.lua"]);
}
