use super::*;

fn text(s: &str) -> Value {
    Value::Text(s.into())
}

fn table(fields: &[(&str, Value)]) -> Value {
    Value::Table(fields.iter().map(|(k, v)| (Key::Name((*k).into()), v.clone())).collect())
}

fn list(items: &[&str]) -> Value {
    Value::Table((1..).zip(items).map(|(at, v)| (Key::Index(at), text(v))).collect())
}

/// A good rockspec with some globals replaced or added.
fn globals(changes: &[(&str, Option<Value>)]) -> Evaluated {
    let mut globals = vec![
        ("package".to_owned(), text("kong-plugin-x")),
        ("version".to_owned(), text("1.0.0-1")),
        ("source".to_owned(), table(&[("url", text("git://x"))])),
        ("build".to_owned(), table(&[("modules", table(&[]))])),
    ];
    for (name, value) in changes {
        globals.retain(|(n, _)| n != name);
        globals.extend(value.clone().map(|v| ((*name).to_owned(), v)));
    }
    Evaluated { globals, undefined: Vec::new() }
}

fn read(changes: &[(&str, Option<Value>)]) -> Result<Rockspec, PackageError> {
    Rockspec::of("", "kong-plugin-x-1.0.0-1", &globals(changes))
}

#[test]
fn what_luarocks_refuses_is_refused() {
    let cases: &[(&str, Option<Value>)] = &[
        ("package", None),
        ("version", None),
        ("source", None),
        ("build", None),
        ("package", Some(Value::Number(1.0))),
        ("version", Some(text("1.0.0"))),
        ("version", Some(text("1_0-1"))),
        ("source", Some(text("git://x"))),
        ("source", Some(table(&[]))),
        ("source", Some(table(&[("url", text("git://x")), ("commit", text("abc"))]))),
        ("dependancies", Some(list(&["lua"]))),
        ("dependencies", Some(text("lua >= 5.1"))),
        ("dependencies", Some(Value::Table(vec![(Key::Index(1), Value::Bool(true))]))),
        ("description", Some(table(&[("author", text("x"))]))),
        ("build", Some(text("builtin"))),
        ("build", Some(table(&[("copy_directories", text("doc"))]))),
        ("build_dependencies", Some(list(&["x"]))),
        ("rockspec_format", Some(text("9.0"))),
        ("rockspec_format", Some(Value::Number(3.0))),
    ];
    for (field, value) in cases {
        let error = read(&[(field, value.clone())]).unwrap_err();
        assert_eq!(error.code, "ROCKSPEC_INVALID", "{field}: {value:?}");
        assert!(!error.hint.is_empty());
    }
    let undefined = Evaluated { undefined: vec!["os".into()], ..globals(&[]) };
    assert_eq!(Rockspec::of("", "kong-plugin-x-1.0.0-1", &undefined).unwrap_err().code, "ROCKSPEC_INVALID");
    for format in ["3.0", "3.1"] {
        let changes = [
            ("rockspec_format", Some(text(format))),
            ("build_dependencies", Some(list(&["x"]))),
            ("build", None),
            ("description", Some(table(&[("labels", list(&["kong"]))]))),
        ];
        read(&changes).unwrap();
    }
}

#[test]
fn commands_are_never_run() {
    for kind in ["make", "cmake", "command", "rust-mlua"] {
        let spec = read(&[("build", Some(table(&[("type", text(kind))])))]).unwrap();
        assert_eq!(spec.refusal.unwrap().code, "ROCKSPEC_BUILD_TYPE", "{kind}");
    }
    let hook = table(&[("post_install", text("touch /tmp/x"))]);
    assert_eq!(read(&[("hooks", Some(hook))]).unwrap().refusal.unwrap().code, "ROCKSPEC_HOOKS");
}

#[test]
fn a_file_is_called_after_what_is_in_it() {
    let of = |stem: &str| Rockspec::of("", stem, &globals(&[]));
    assert_eq!(of("kong-plugin-x-1.0.0-1").unwrap().oddities, []);
    assert_eq!(of("kong-plugin-x-0.9.0-1").unwrap().oddities[0].0, "ROCKSPEC_VERSION_MISMATCH");
    assert_eq!(of("kong-plugin-y-1.0.0-1").unwrap_err().code, "ROCKSPEC_NAME_MISMATCH");
}

#[test]
fn modules_in_every_form() {
    let modules = |build: &[(&str, Value)]| {
        let spec = read(&[("build", Some(table(build)))]).unwrap();
        let files: Vec<_> = spec.files("x").map(|(to, from)| format!("{to} {from}")).collect();
        files
    };
    let pairs = table(&[
        ("kong.plugins.x.handler", text("src/handler.lua")),
        ("kong/plugins/x/schema", text("./src/schema.lua")),
        ("kong.plugins.x.migrations", text("src/migrations/init.lua")),
        ("kong.plugins.x.fast", text("src/fast.c")),
        ("kong.plugins.xy.handler", text("src/xy.lua")),
        ("resty.other", text("lib/other.lua")),
    ]);
    let all = [
        "handler.lua src/handler.lua",
        "schema.lua ./src/schema.lua",
        "migrations/init.lua src/migrations/init.lua",
    ];
    assert_eq!(modules(&[("modules", pairs.clone())]), all);
    let install = table(&[("lua", pairs)]);
    assert_eq!(modules(&[("type", text("none")), ("install", install)]), all);
    let listed = list(&["kong/plugins/x/handler.lua", "lua/kong/plugins/x/sub/init.lua", "other.lua"]);
    assert_eq!(
        modules(&[("modules", listed)]),
        ["handler.lua kong/plugins/x/handler.lua", "sub/init.lua lua/kong/plugins/x/sub/init.lua"]
    );
    let sources = table(&[
        ("kong.plugins.x.handler", list(&["h.lua"])),
        ("kong.plugins.x.schema", table(&[("sources", text("s.lua"))])),
        ("kong.plugins.x.c", list(&["a.c", "b.c"])),
    ]);
    assert_eq!(modules(&[("modules", sources)]), ["handler.lua h.lua", "schema.lua s.lua"]);
    let general = table(&[("kong.plugins.x.handler", text("a.lua"))]);
    let linux = table(&[("modules", table(&[("kong.plugins.x.handler", text("b.lua"))]))]);
    let platforms = table(&[("linux", linux), ("win32", table(&[("modules", table(&[]))]))]);
    assert_eq!(modules(&[("modules", general), ("platforms", platforms)]), ["handler.lua b.lua"]);
    assert_eq!(modules(&[("modules", text("src"))]), [""; 0]);
}

#[test]
fn what_stands_in_the_wrong_place_is_told() {
    let build = table(&[("dependencies", list(&["lua-resty-http"]))]);
    assert_eq!(read(&[("build", Some(build))]).unwrap().oddities[0].0, "ROCKSPEC_MISPLACED");
}

#[test]
fn newer_versions() {
    let of = |version: &str| Rockspec { version: version.into(), ..read(&[]).unwrap() };
    for (newer, older) in [("1.10.0-1", "1.9.0-1"), ("1.0-2", "1.0-1"), ("2-1", "1.9-9")] {
        assert!(of(newer).newer_than(&of(older)) && !of(older).newer_than(&of(newer)), "{newer} {older}");
    }
}
