//! Repositories as people lay them out: which plugin and which files each gives.

use kctl_shared::package::{LoadOptions, load, load_all_about};

use crate::forge::{HANDLER, Lua, SCHEMA, assert_refused, write_tree};

type Files<'a> = &'a [(&'a str, &'a str)];

/// A rockspec for `kong-plugin-probe` with these modules (Lua).
fn spec(modules: &str) -> String {
    format!(
        "package = 'kong-plugin-probe' version = '2.0.0-1' source = {{ url = 'git://x' }}\n\
         dependencies = {{ 'lua-resty-http ~> 0.11' }}\nbuild = {{ modules = {{ {modules} }} }}"
    )
}

const SPEC: &str = "kong-plugin-probe-2.0.0-1.rockspec";

#[test]
fn each_layout_gives_its_files() {
    let src = spec(
        "['kong.plugins.probe.handler'] = 'src/handler.lua', ['kong.plugins.probe.schema'] = 'src/schema.lua'",
    );
    let init = spec("['kong.plugins.probe.handler'] = 'h/init.lua', ['kong.plugins.probe.schema'] = 's.lua'");
    let outside = spec(
        "['kong.plugins.probe.handler'] = 'kong/plugins/probe/handler.lua', \
         ['kong.plugins.probe.lib'] = 'lib/probe.lua', ['resty.probe'] = 'lib/resty.lua'",
    );
    let old = SPEC.replace("2.0.0", "1.10.0");
    let old_spec = spec("['kong.plugins.probe.handler'] = 'old.lua'").replace("2.0.0", "1.10.0");
    let cases: &[(&str, Files<'_>, &str, &[&str])] = &[
        (
            "the rockspec forgets a module that lies beside the others",
            &[
                (SPEC, &src),
                ("src/handler.lua", HANDLER),
                ("src/schema.lua", SCHEMA),
                ("src/access.lua", ""),
                ("src/sub/x.lua", ""),
            ],
            "probe",
            &["access.lua", "handler.lua", "schema.lua", "sub/x.lua"],
        ),
        (
            "a rockspec in a folder of rockspecs",
            &[
                ("rockspecs/kong-plugin-probe-2.0.0-1.rockspec", &src),
                ("src/handler.lua", HANDLER),
                ("src/schema.lua", SCHEMA),
            ],
            "probe",
            &["handler.lua", "schema.lua"],
        ),
        (
            "an old rockspec is still there",
            &[(SPEC, &src), (&old, &old_spec), ("src/handler.lua", HANDLER), ("src/schema.lua", SCHEMA)],
            "probe",
            &["handler.lua", "schema.lua"],
        ),
        (
            "a module that is a directory",
            &[(SPEC, &init), ("h/init.lua", HANDLER), ("s.lua", SCHEMA)],
            "probe",
            &["handler/init.lua", "schema.lua"],
        ),
        (
            "a part of the plugin lies elsewhere",
            &[
                (SPEC, &outside),
                ("kong/plugins/probe/handler.lua", HANDLER),
                ("kong/plugins/probe/schema.lua", SCHEMA),
                ("lib/probe.lua", ""),
                ("lib/resty.lua", ""),
            ],
            "probe",
            &["handler.lua", "lib.lua", "schema.lua"],
        ),
        (
            "a copy for its own tests lies deeper",
            &[
                ("kong/plugins/probe/handler.lua", HANDLER),
                ("kong/plugins/probe/schema.lua", SCHEMA),
                ("docker/kong/plugins/probe/handler.lua", ""),
                ("docker/kong/plugins/probe/schema.lua", ""),
            ],
            "probe",
            &["handler.lua", "schema.lua"],
        ),
        (
            "capitals and digits",
            &[
                ("lua/kong/plugins/2orion2GeoJSON/handler.lua", HANDLER),
                ("lua/kong/plugins/2orion2GeoJSON/schema.lua", SCHEMA),
            ],
            "2orion2GeoJSON",
            &["handler.lua", "schema.lua"],
        ),
    ];
    for (case, files, name, paths) in cases {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
        write_tree(dir.path(), &files);
        let package =
            load(dir.path(), &LoadOptions::default(), &Lua).unwrap_or_else(|e| panic!("{case}: {e}"));
        let found: Vec<_> = package.files.iter().map(|f| f.entry.path.as_str()).collect();
        assert_eq!((package.plugin.as_str(), found.as_slice()), (*name, *paths), "{case}");
    }
}

#[test]
fn several_plugins_with_a_rockspec_each() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let spec = spec(&format!(
            "['kong.plugins.{name}.handler'] = 'handler.lua', ['kong.plugins.{name}.schema'] = 'schema.lua'"
        ));
        let spec = spec.replace("kong-plugin-probe", &format!("kong-plugin-{name}"));
        let file = format!("plugins/{name}/kong-plugin-{name}-2.0.0-1.rockspec");
        let files = [
            (file, spec),
            (format!("plugins/{name}/handler.lua"), HANDLER.into()),
            (format!("plugins/{name}/schema.lua"), SCHEMA.into()),
        ];
        write_tree(dir.path(), &files.map(|(p, t)| (p, t.into_bytes())));
    }
    let error = load(dir.path(), &LoadOptions::default(), &Lua).unwrap_err();
    assert_eq!(
        (error.code, error.plugins.as_slice()),
        ("MULTIPLE_PLUGINS", &["a".to_owned(), "b".to_owned()][..])
    );
    let named = LoadOptions { name: Some("b".parse().unwrap()), ..Default::default() };
    assert_eq!(load(dir.path(), &named, &Lua).unwrap().plugin.as_str(), "b");
    let direct = dir.path().join("plugins/a/kong-plugin-a-2.0.0-1.rockspec");
    assert_eq!(load(&direct, &LoadOptions::default(), &Lua).unwrap().plugin.as_str(), "a");
}

#[test]
fn what_the_rockspec_needs_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(
        "['kong.plugins.probe.handler'] = 'kong/plugins/probe/handler.lua', ['resty.probe'] = 'lib/resty.lua'",
    );
    let files = [(SPEC, spec.as_str()), ("kong/plugins/probe/handler.lua", HANDLER), ("lib/resty.lua", "")];
    write_tree(dir.path(), &files.map(|(p, t)| (p.to_owned(), t.as_bytes().to_vec())));
    let loaded = load_all_about(dir.path(), &LoadOptions::default(), &Lua).unwrap();
    assert_eq!(loaded.dependencies, ["lua-resty-http ~> 0.11"]);
    assert_eq!(loaded.package.extras[0].entry.path, "resty/probe.lua");
    assert!(loaded.origins.contains(&("resty/probe.lua".into(), "lib/resty.lua".into())));
    assert_eq!(loaded.package.left_out, [""; 0]);
}

#[test]
fn what_is_no_lua_plugin_is_said_to_be_what_it_is() {
    for (file, word) in [
        ("main.go", "Go"),
        ("package.json", "JavaScript"),
        ("plugins/check.js", "JavaScript"),
        ("plugin.py", "Python"),
        ("filter.wasm", "Wasm"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_tree(dir.path(), &[(file.into(), Vec::new()), ("README.md".into(), Vec::new())]);
        let result = load(dir.path(), &LoadOptions::default(), &Lua);
        assert!(result.as_ref().unwrap_err().message.contains(word), "{file}: {result:?}");
        assert_refused(file, result, "NO_PLUGIN_FOUND");
    }
}
