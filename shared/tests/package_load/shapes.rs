use std::fs;

use kctl_shared::package::{LoadOptions, Package, hash_tree, load};

use crate::forge::{HANDLER, Lua, Member, SCHEMA, Tar, load_bytes, probe, write_tree, zip};

const ROCKSPEC: &str = r#"
    local plugin_name = "probe"
    package = "kong-plugin-" .. plugin_name
    version = "2.0.0-1"
    source = { url = "git://example.com/probe" }
    build = { type = "builtin", modules = {
      ["kong.plugins." .. plugin_name .. ".handler"] = "src/handler.lua",
      ["kong.plugins.probe.schema"] = "src/schema.lua",
      ["kong.plugins.probe.sub.x"] = "src/sub/x.lua",
    } }
"#;

/// A rockspec that says no more than it must.
fn bare_spec(stem: &str) -> String {
    let (package, version) = stem
        .rsplit_once('-')
        .and_then(|(s, r)| {
            let (package, version) = s.rsplit_once('-')?;
            Some((package, format!("{version}-{r}")))
        })
        .unwrap();
    format!("package = {package:?}\nversion = {version:?}\nsource = {{ url = \"git://x\" }}\nbuild = {{}}\n")
}

fn paths(package: &Package) -> Vec<&str> {
    package.files.iter().map(|f| f.entry.path.as_str()).collect()
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    files.iter().fold(Tar::default(), |t, (p, b)| t.file(p.as_bytes(), b.as_bytes())).tgz()
}

/// (file name, bytes) → name, version; all of them the plugin `probe` with the same three files.
#[test]
fn every_shape_gives_the_same_release() {
    let shape = |prefix: &str| Tar::of(&probe(prefix)).tgz();
    let rock = |prefix: &str, extra: Vec<Member>| {
        let files = probe(prefix);
        zip(&files.iter().map(|(p, b)| Member::deflated(p.as_bytes(), b)).chain(extra).collect::<Vec<_>>())
    };
    let spec = |dir: &str| {
        Member::stored(format!("{dir}kong-plugin-probe-2.0.0-1.rockspec").as_bytes(), ROCKSPEC.as_bytes())
    };
    let inner = Tar::of(&probe("kong-plugin-probe-2.0.0/kong/plugins/probe/")).tgz();
    let inner_src = Tar::of(&probe("w/src/")).tgz();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("the canonical tree", "x.tar.gz", shape("kong/plugins/probe/")),
        ("not named as what it is", "x.zip", shape("kong/plugins/probe/")),
        ("uncompressed", "x", Tar::of(&probe("kong/plugins/probe/")).end()),
        ("wrapped", "x.tgz", shape("probe-1.0/kong/plugins/probe/")),
        ("below src", "x.tgz", shape("probe-1.0/src/kong/plugins/probe/")),
        ("a LuaRocks tree", "x.tgz", shape("w/share/lua/5.1/kong/plugins/probe/")),
        ("wrapped in `test`", "x.tgz", shape("test/kong/plugins/probe/")),
        ("bare at the root", "x.tgz", shape("")),
        ("bare and wrapped", "x.tgz", shape("w/")),
        ("bare in `test`", "x.tgz", shape("test/")),
        ("bare below src", "x.tgz", shape("w/src/")),
        ("plain zip", "x.zip", rock("kong/plugins/probe/", vec![])),
        (
            "binary rock",
            "kong-plugin-probe-2.0.0-1.all.rock",
            rock("lua/kong/plugins/probe/", vec![spec("")]),
        ),
        ("source rock with sources", "p.src.rock", rock("w/src/", vec![spec(""), spec("w/")])),
        ("source rock with an archive", "p.src.rock", zip(&[spec(""), Member::stored(b"s.tar.gz", &inner)])),
        (
            "source rock, renamed modules",
            "p.src.rock",
            zip(&[spec(""), Member::stored(b"s.tar.gz", &inner_src)]),
        ),
        ("one archive in another", "x.tgz", Tar::default().file(b"s/p.zip", &rock("", vec![])).tgz()),
    ];
    let digest =
        load_bytes("x.tgz", &shape("kong/plugins/probe/"), &LoadOptions::default()).unwrap().digest();
    for (case, file, bytes) in cases {
        let package = load_bytes(file, &bytes, &LoadOptions::default())
            .unwrap_or_else(|e| panic!("{case}: {}: {e}", e.code));
        assert_eq!((package.plugin.as_str(), package.version.as_str()), ("probe", "1.2.0"), "{case}");
        assert_eq!(package.digest(), digest, "{case}: {:?}", paths(&package));
    }
}

#[test]
fn every_directory_around_the_plugin_will_do() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), &probe("repo/kong/plugins/probe/"));
    write_tree(
        dir.path(),
        &[
            ("repo/spec/kong/plugins/dummy/handler.lua".into(), vec![]),
            ("repo/.git/kong/plugins/hidden/handler.lua".into(), vec![]),
            ("repo/lua_modules/share/lua/5.1/kong/plugins/dep/handler.lua".into(), vec![]),
            ("repo/kong/plugins/probe/.luacheckrc".into(), vec![]),
            ("repo/kong/plugins/probe/data.json".into(), b"{}".to_vec()),
            ("repo/README.md".into(), vec![]),
        ],
    );
    let around = ["repo", "repo/kong", "repo/kong/plugins", "repo/kong/plugins/probe"];
    let packages = around.map(|d| load(&dir.path().join(d), &LoadOptions::default(), &Lua).unwrap());
    for package in &packages {
        assert_eq!(paths(package), ["data.json", "handler.lua", "schema.lua", "sub/x.lua"]);
        assert_eq!(package.digest(), packages[0].digest());
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("repo", &link).unwrap();
    assert_eq!(load(&link, &LoadOptions::default(), &Lua).unwrap(), packages[0]);
}

#[test]
fn a_bare_directory_leaves_out_what_is_no_code_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("kong-plugin-probe");
    write_tree(&root, &probe(""));
    for (path, text) in [
        ("README.md", ""),
        ("LICENSE", ""),
        ("data.json", "{}"),
        ("spec/x_spec.lua", ""),
        (".luacheckrc", ""),
    ] {
        write_tree(&root, &[(path.into(), text.into())]);
    }
    let package = load(&root, &LoadOptions::default(), &Lua).unwrap();
    assert_eq!(package.plugin.as_str(), "probe");
    assert_eq!(paths(&package), ["handler.lua", "schema.lua", "sub/x.lua"]);
    assert_eq!(package.left_out, ["data.json"]);
}

#[test]
fn lua_outside_the_plugin_is_left_out_and_named() {
    let mut files = probe("lua/kong/plugins/probe/");
    files.push(("lua/resty/probe.lua".into(), vec![]));
    let package = load_bytes("x.tgz", &Tar::of(&files).tgz(), &LoadOptions::default()).unwrap();
    assert_eq!(paths(&package), ["handler.lua", "schema.lua", "sub/x.lua"]);
    assert_eq!(package.left_out, ["lua/resty/probe.lua"]);
}

#[test]
fn what_kong_will_refuse_is_packed_all_the_same() {
    for files in [
        &[("kong/plugins/probe/handler.lua", "return {")][..],
        &[("kong/plugins/probe/schema.lua", "return nil")],
        &[("kong/plugins/probe/handler/init.lua", "return { VERSION = '1.2.3.4' }")],
        &[("handler.lua", "")],
    ] {
        let options = LoadOptions { name: None, ..Default::default() };
        assert!(load_bytes("kong-plugin-probe.tgz", &tar(files), &options).is_ok(), "{files:?}");
    }
}

#[test]
fn where_the_version_comes_from() {
    let plain = "return { PRIORITY = 1 }";
    let handler = "kong/plugins/probe/handler.lua";
    let spec = "kong-plugin-probe-2.0.0-1.rockspec";
    let older = "kong-plugin-probe-1.0.0-1.rockspec";
    let (new, old) = (bare_spec("kong-plugin-probe-2.0.0-1"), bare_spec("kong-plugin-probe-1.0.0-1"));
    let dev = bare_spec("probe-scm-1");
    let load = |files: &[(&str, &str)], version: Option<&str>| {
        let options = LoadOptions { version: version.map(Into::into), ..Default::default() };
        load_bytes("x.tgz", &tar(files), &options).unwrap().version
    };
    assert_eq!(load(&[(handler, HANDLER), (spec, &new)], Some("9")), "9");
    assert_eq!(load(&[(handler, HANDLER), (spec, &new)], None), "1.2.0");
    assert_eq!(load(&[(handler, plain), (spec, &new)], None), "2.0.0");
    // The nearest to the root counts.
    let below = format!("rockspecs/{older}");
    assert_eq!(load(&[(handler, plain), (spec, &new), (&below, &old)], None), "2.0.0");
    for files in [
        vec![(handler, plain)],
        vec![(handler, plain), (spec, &new), (older, &old)],
        vec![(handler, plain), ("probe-scm-1.rockspec", &dev)],
        vec![(handler, "return { VERSION = 'not a version' }")],
    ] {
        let version = load(&files, None);
        assert!(version.len() == 14 && version.starts_with("0.0.0-"), "{version}");
    }
    let rock = zip(&[Member::stored(format!("lua/{handler}").as_bytes(), plain.as_bytes())]);
    let version = load_bytes("probe-3.1-2.all.rock", &rock, &LoadOptions::default()).unwrap().version;
    assert_eq!(version, "3.1");
}

#[test]
fn one_of_several_plugins_can_be_named() {
    let mut files = probe("kong/plugins/probe/");
    files.extend(probe("kong/plugins/other/"));
    let tgz = Tar::of(&files).tgz();
    let options = LoadOptions { name: Some("other".parse().unwrap()), ..Default::default() };
    let other = load_bytes("x.tgz", &tgz, &options).unwrap();
    assert_eq!((other.plugin.as_str(), other.files.len(), other.left_out.len()), ("other", 3, 0));
    let error = load_bytes("x.tgz", &tgz, &LoadOptions::default()).unwrap_err();
    assert!(error.message.contains("\"other\", \"probe\""), "{}", error.message);
    // The same files under two names are two releases: their artifacts differ.
    let options = LoadOptions { name: Some("probe".parse().unwrap()), ..Default::default() };
    assert_ne!(load_bytes("x.tgz", &tgz, &options).unwrap().digest(), other.digest());
}

#[test]
fn what_a_rockspec_lists_must_be_there() {
    let spec = "kong-plugin-probe-2.0.0-1.rockspec";
    let files = [("src/handler.lua", HANDLER), ("src/schema.lua", SCHEMA), (spec, ROCKSPEC)];
    let error = load_bytes("x.tgz", &tar(&files), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.code, "ROCKSPEC_MODULE_MISSING");
    assert!(error.message.contains("src/sub/x.lua"), "{}", error.message);
}

#[test]
fn libraries_are_taken_when_asked_for() {
    let mut files = probe("kong/plugins/probe/");
    files.push(("kong/plugins/probe/fast.so".into(), b"\x7fELF".to_vec()));
    let options = LoadOptions { allow_native: true, ..Default::default() };
    let package = load_bytes("x.tgz", &Tar::of(&files).tgz(), &options).unwrap();
    assert_eq!(paths(&package), ["fast.so", "handler.lua", "schema.lua", "sub/x.lua"]);
    // Whether libraries are wanted was decided when it was packed.
    assert_eq!(
        Package::from_artifact(&package.to_artifact(), &options.limits).unwrap().digest(),
        package.digest()
    );
}

#[test]
fn a_placed_tree_has_the_release_s_digest() {
    let dir = tempfile::tempdir().unwrap();
    let package =
        load_bytes("x.tgz", &Tar::of(&probe("kong/plugins/probe/")).tgz(), &LoadOptions::default()).unwrap();
    let root = dir.path().join("kong/plugins/probe");
    let files: Vec<_> = package.files.iter().map(|f| (f.entry.path.clone(), f.bytes.clone())).collect();
    write_tree(&root, &files);
    let (digest, entries) = hash_tree(&root, &package.plugin).unwrap();
    assert_eq!(digest, package.digest());
    assert!(entries.iter().eq(package.files.iter().map(|f| &f.entry)));
    fs::write(root.join(".extra"), "").unwrap();
    assert_ne!(hash_tree(&root, &package.plugin).unwrap().0, digest);
}
