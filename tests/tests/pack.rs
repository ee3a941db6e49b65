//! What `kctl plugin new` and `pack` write, used with and without kctl.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_shared::package::{LoadOptions, Unread, load};
use kctl_tests::cluster::{Cluster, Ran, kctl_binary};
use kctl_tests::plugins;

fn kctl(dir: &Path, args: &[&str]) -> Ran {
    Command::new(kctl_binary()).args(args).current_dir(dir).env("HOME", dir).output().unwrap().into()
}

/// Where the packed file is.
fn pack(dir: &Path, args: &[&str]) -> PathBuf {
    let ran = kctl(dir, &[&["plugin", "pack"], args, &["-o", "name"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    dir.join(ran.out.trim())
}

/// A plugin with more than the two files, one of them no Lua.
fn sources(dir: &Path) -> PathBuf {
    let root = plugins::good(dir, "packed_Up", "1.2.3");
    let lua = root.join("kong/plugins/packed_Up");
    std::fs::create_dir_all(lua.join("lib")).unwrap();
    std::fs::write(lua.join("lib/init.lua"), "return { \"lib\" }\n").unwrap();
    std::fs::write(lua.join("lib/more.lua"), "return \"more\"\n").unwrap();
    std::fs::write(lua.join("names.txt"), "a\nb\n").unwrap();
    root
}

/// Relative paths of all files below a directory.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => todo.push(entry.path()),
                false => found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_same_sources_give_the_same_bytes_and_the_same_release() {
    let temp = tempfile::tempdir().unwrap();
    let root = sources(temp.path());
    let release = load(&root, &LoadOptions::default(), &Unread).unwrap();
    for format in ["rock", "tar-gz"] {
        let first = pack(temp.path(), &[root.to_str().unwrap(), "--format", format]);
        let name = first.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("kong-plugin-packed_up-1.2.3-1."), "{name}");
        let again = pack(temp.path(), &[root.to_str().unwrap(), "--format", format, "--file", "again"]);
        assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(again).unwrap(), "{format}");
        let packed = load(&first, &LoadOptions::default(), &Unread).unwrap();
        assert_eq!((packed.digest(), &packed.version), (release.digest(), &release.version), "{format}");
    }
    let refused = kctl(temp.path(), &["plugin", "pack", "absent"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("SOURCE_UNREADABLE"), "{refused:?}");
    let nowhere = kctl(temp.path(), &["plugin", "pack", root.to_str().unwrap(), "--file", "no/such/dir/x"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.err.contains("PACK_FAILED"), "{nowhere:?}");
}

#[test]
fn luarocks_and_tar_take_what_is_packed() {
    let temp = tempfile::tempdir().unwrap();
    let root = sources(temp.path());
    let placed = files(&root.join("kong"));
    let archive = pack(temp.path(), &[root.to_str().unwrap(), "--format", "tar-gz"]);
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).current_dir(temp.path()).status().unwrap();
    assert!(unpacked.success());
    assert_eq!(files(&temp.path().join("kong-plugin-packed_up-1.2.3-1/kong")), placed);

    if Command::new("luarocks").arg("--version").output().is_err() {
        assert!(std::env::var("KCTL_TESTS_STRICT").is_err(), "luarocks is not installed");
        eprintln!("luarocks is not installed: packed files are not tried with it");
        return;
    }
    let luarocks = |dir: &Path, args: &[&str]| {
        let mut command = Command::new("luarocks");
        command.args(["--lua-version", "5.1"]).args(args).args(["--deps-mode", "none"]);
        let ended = command.current_dir(dir).env("HOME", temp.path()).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    };
    let rock = pack(temp.path(), &[root.to_str().unwrap()]);
    luarocks(temp.path(), &["install", "--tree", "by-rock", rock.to_str().unwrap()]);
    assert_eq!(files(&temp.path().join("by-rock/share/lua/5.1/kong")), placed);
    luarocks(&temp.path().join("kong-plugin-packed_up-1.2.3-1"), &["make", "--tree", "../by-make"]);
    assert_eq!(files(&temp.path().join("by-make/share/lua/5.1/kong")), placed);
    // LuaRocks takes no version with a sign in it.
    let odd = pack(temp.path(), &[root.to_str().unwrap(), "--as-version", "2.0.0-rc1+b_7"]);
    assert!(odd.ends_with("kong-plugin-packed_up-2.0.0.rc1.b.7-1.all.rock"), "{odd:?}");
    luarocks(temp.path(), &["install", "--tree", "odd", odd.to_str().unwrap()]);
}

/// A rock of two modules, made by LuaRocks itself.
fn dependency(dir: &Path) -> PathBuf {
    let sources = dir.join("dep");
    std::fs::create_dir_all(sources.join("lib/resty/foo")).unwrap();
    std::fs::write(sources.join("lib/resty/foo/init.lua"), "return { name = \"foo\" }").unwrap();
    std::fs::write(sources.join("lib/resty/bar.lua"), "return { name = \"bar\" }").unwrap();
    let spec = "package = \"lua-resty-foo\"\nversion = \"1.0-1\"\nsource = { url = \"file://x\" }\n\
                build = { type = \"builtin\", modules = { [\"resty.foo\"] = \"lib/resty/foo/init.lua\", \
                [\"resty.bar\"] = \"lib/resty/bar.lua\" } }\n";
    std::fs::write(sources.join("lua-resty-foo-1.0-1.rockspec"), spec).unwrap();
    for args in [&["make", "--deps-mode=none"][..], &["pack", "lua-resty-foo"]] {
        let mut command = Command::new("luarocks");
        command.args(["--lua-version=5.1", "--tree"]).arg(dir.join("dep-tree")).args(args);
        let ended = command.current_dir(&sources).env("HOME", dir).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    }
    sources.join("lua-resty-foo-1.0-1.all.rock")
}

#[test]
fn dependencies_are_packed_with_the_plugin() {
    let temp = tempfile::tempdir().unwrap();
    let root = sources(temp.path());
    let rock = dependency(temp.path());
    let (source, rock) = (root.to_str().unwrap(), rock.to_str().unwrap());
    let modules = ["resty/bar.lua", "resty/foo/init.lua"];
    let json = |args: &[&str]| -> serde_json::Value {
        let ran = kctl(temp.path(), &[&["plugin", "pack"], args, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    };
    let by_rock = json(&[source, rock, "--file", "one.rock"]);
    assert_eq!(by_rock["modules"], serde_json::json!(modules));
    // The same from its sources, and from what was packed.
    let by_sources = json(&[
        source,
        temp.path().join("dep").to_str().unwrap(),
        "--file",
        "two.tar.gz",
        "--format",
        "tar-gz",
    ]);
    assert_eq!(by_sources["digest"], by_rock["digest"]);
    for packed in ["one.rock", "two.tar.gz"] {
        assert_eq!(json(&[packed, "--file", "three.rock"])["digest"], by_rock["digest"], "{packed}");
    }
    let installed = Command::new("luarocks")
        .args(["--lua-version=5.1", "--tree", "tree", "install", "--deps-mode=none", "one.rock"])
        .current_dir(temp.path())
        .env("HOME", temp.path())
        .output()
        .unwrap();
    // LuaRocks wants the name it gave.
    assert!(!installed.status.success(), "{installed:?}");
    let named = json(&[source, rock])["file"].as_str().unwrap().to_owned();
    let installed = Command::new("luarocks")
        .args(["--lua-version=5.1", "--tree", "tree", "install", "--deps-mode=none", &named])
        .current_dir(temp.path())
        .env("HOME", temp.path())
        .output()
        .unwrap();
    assert!(installed.status.success(), "{installed:?}");
    let lua = temp.path().join("tree/share/lua/5.1");
    assert!(
        modules.iter().all(|m| lua.join(m).exists())
            && lua.join("kong/plugins/packed_Up/handler.lua").exists()
    );

    let refused = |args: &[&str], code: &str| {
        let ran = kctl(temp.path(), &[&["plugin", "pack", "--file", "no.rock"], args].concat());
        assert_eq!(ran.code, if code == "MODULE_CONFLICT" { 6 } else { 1 }, "{args:?}: {ran:?}");
        assert!(ran.err.contains(code), "{code}: {ran:?}");
        assert!(!temp.path().join("no.rock").exists());
    };
    refused(&[source, source], "NOT_A_DEPENDENCY");
    std::fs::create_dir(temp.path().join("empty")).unwrap();
    refused(&[source, "empty"], "NO_MODULES_FOUND");
    refused(&[source, "absent.rock"], "SOURCE_UNREADABLE");
    let write = |dir: &str, modules: &str, build: &str| {
        let dir = temp.path().join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("x.lua"), "return 2").unwrap();
        let spec = format!(
            "package = \"x\"\nversion = \"1-1\"\nsource = {{ url = \"git://x\" }}\nbuild = {{ type = \"{build}\", modules = {{ {modules} }} }}\n"
        );
        std::fs::write(dir.join("x-1-1.rockspec"), spec).unwrap();
    };
    write("shadow", "[\"resty.core\"] = \"x.lua\"", "builtin");
    refused(&[source, "shadow"], "MODULE_SHADOWS");
    assert_eq!(
        json(&[source, "shadow", "--allow-shadow", "--file", "yes.rock"])["modules"],
        serde_json::json!(["resty/core.lua"])
    );
    write("other", "[\"resty.bar\"] = \"x.lua\"", "builtin");
    refused(&[source, rock, "other"], "MODULE_CONFLICT");
    write("native", "[\"resty.c\"] = \"x.c\"", "builtin");
    refused(&[source, "native"], "NATIVE_NOT_ALLOWED");
    write("make", "[\"resty.m\"] = \"x.lua\"", "make");
    refused(&[source, "make"], "ROCKSPEC_BUILD_TYPE");
    write("missing", "[\"resty.gone\"] = \"gone.lua\"", "builtin");
    refused(&[source, "missing"], "ROCKSPEC_MODULE_MISSING");
    write("bundled", "[\"kong.plugins.key-auth.more\"] = \"x.lua\"", "builtin");
    refused(&[source, "bundled"], "PLUGIN_BUNDLED");
}

#[test]
fn a_new_plugin_runs_as_it_is() {
    let cluster = Cluster::start(1, 1);
    let made = kctl(cluster.temp(), &["plugin", "new", "fresh-start"]);
    assert_eq!(made.code, 0, "{made:?}");
    let ran = cluster.install(&cluster.temp().join("fresh-start"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(cluster.loaded_on("fresh-start"), [Some("0.1.0".to_owned())]);
    let again = kctl(cluster.temp(), &["plugin", "new", "fresh-start"]);
    assert!(again.code == 1 && again.err.contains("DIRECTORY_NOT_EMPTY"), "{again:?}");
    let bundled = kctl(cluster.temp(), &["plugin", "new", "key-auth"]);
    assert!(bundled.code == 1 && bundled.err.contains("PLUGIN_BUNDLED"), "{bundled:?}");
}

/// A repository whose rockspec builds with `kind`: the plugin's handler exists only once it was built.
fn to_be_built(dir: &Path, kind: &str) -> PathBuf {
    let root = dir.join(kind);
    std::fs::create_dir_all(root.join("src")).unwrap();
    std::fs::write(root.join("src/handler.in"), "return { PRIORITY = 7, VERSION = \"@V@\" }\n").unwrap();
    std::fs::write(root.join("src/schema.lua"), plugins::SCHEMA.replace("NAME", "built")).unwrap();
    let build = "sed s/@V@/2.1.0/ src/handler.in > src/handler.lua";
    let place = "mkdir -p $(LUADIR)/kong/plugins/built $(LUADIR)/resty && cp src/*.lua $(LUADIR)/kong/plugins/built/ \
                 && echo 'return 1' > $(LUADIR)/resty/built.lua";
    let how = match kind {
        "make" => {
            let text = format!("all:\n\t{build}\ninstall:\n\t{place}\n");
            std::fs::write(root.join("Makefile"), text).unwrap();
            "build_variables = {}, install_variables = { LUADIR = \"$(LUADIR)\" }".to_owned()
        }
        _ => format!("build_command = \"{build}\", install_command = \"{place}\""),
    };
    let spec = format!(
        "package = \"kong-plugin-built\"\nversion = \"2.1.0-1\"\nsource = {{ url = \"file://x.tar.gz\" }}\nbuild = {{ type = \
         \"{kind}\", {how} }}\n"
    );
    std::fs::write(root.join("kong-plugin-built-2.1.0-1.rockspec"), spec).unwrap();
    root
}

#[test]
fn a_rockspec_that_runs_commands_is_built_only_where_that_is_allowed() {
    let temp = tempfile::tempdir().unwrap();
    let mut digests = Vec::new();
    for kind in ["make", "command"] {
        let root = to_be_built(temp.path(), kind);
        let (before, text, out) = (files(&root), root.to_str().unwrap(), format!("{kind}.rock"));
        let refused = kctl(temp.path(), &["plugin", "pack", text]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.err.contains("ROCKSPEC_BUILD_TYPE") && refused.err.contains("--allow-build"),
            "{refused:?}"
        );
        let ran = kctl(temp.path(), &["plugin", "pack", text, "--allow-build", "--file", &out, "-o", "json"]);
        assert_eq!(ran.code, 0, "{kind}: {ran:?}");
        let packed: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&packed["plugin"], &packed["version"]), (&"built".into(), &"2.1.0".into()), "{packed}");
        assert_eq!(packed["files"], serde_json::json!(["handler.lua", "schema.lua"]), "{packed}");
        assert_eq!(packed["modules"], serde_json::json!(["resty/built.lua"]), "{packed}");
        assert_eq!(files(&root), before, "nothing is left in the sources");
        digests.push(packed["digest"].clone());
        let spec = root.join("kong-plugin-built-2.1.0-1.rockspec");
        let lint = kctl(temp.path(), &["plugin", "lint", spec.to_str().unwrap(), "--allow-build"]);
        assert_eq!(lint.code, 0, "{lint:?}");
    }
    assert_eq!(digests[0], digests[1], "what came out is what counts");

    let root = to_be_built(temp.path(), "command");
    let spec = root.join("kong-plugin-built-2.1.0-1.rockspec");
    let good = std::fs::read_to_string(&spec).unwrap();
    let (text, spec_text) = (root.to_str().unwrap(), good.replace("sed s/", "exit 3; sed s/"));
    std::fs::write(&spec, spec_text).unwrap();
    let ran = kctl(temp.path(), &["plugin", "pack", text, "--allow-build"]);
    assert!(ran.code == 1 && ran.err.contains("BUILD_FAILED"), "{ran:?}");
    std::fs::write(&spec, format!("{good}hooks = {{ post_install = \"true\" }}\n")).unwrap();
    let ran = kctl(temp.path(), &["plugin", "pack", text, "--allow-build"]);
    assert!(ran.code == 1 && ran.err.contains("blocked by"), "{ran:?}");
    std::fs::write(&spec, good).unwrap();
    let mut bare = Command::new(kctl_binary());
    bare.args(["plugin", "pack", text, "--allow-build"]).current_dir(temp.path()).env("PATH", "/nonexistent");
    let ran = Ran::from(bare.output().unwrap());
    assert!(ran.code == 1 && ran.err.contains("LUAROCKS_NOT_FOUND"), "{ran:?}");
}

#[test]
fn what_nginx_needs_is_declared_beside_the_handler_or_on_the_command_line() {
    let temp = tempfile::tempdir().unwrap();
    let toml = "[nginx]\nnginx_http_lua_shared_dict = \"my_cache 10m\"\n";
    let root = plugins::needs_dict(temp.path(), "needy", "1.0.0", "my_cache", Some(toml));
    let pack = |args: &[&str]| {
        let ran = kctl(temp.path(), &[&["plugin", "pack"], args, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()
    };
    let need = "nginx_http_lua_shared_dict = my_cache 10m";
    for format in ["rock", "tar-gz"] {
        let declared = pack(&[root.to_str().unwrap(), "--format", format, "--file", "packed"]);
        assert_eq!(declared["nginx"], serde_json::json!([need]));
        let again = pack(&["packed", "--file", "again"]);
        assert_eq!(
            (&again["digest"], &again["nginx"]),
            (&declared["digest"], &declared["nginx"]),
            "{format}"
        );
    }
    let lint =
        |args: &[&str]| kctl(temp.path(), &[&["plugin", "lint", root.to_str().unwrap()], args].concat());
    assert!(!lint(&[]).out.contains("SHARED_DICT_UNDECLARED"));
    std::fs::remove_file(root.join("kong/plugins/needy/kctl.toml")).unwrap();
    let ran = lint(&[]);
    assert!(ran.code == 0 && ran.out.contains("SHARED_DICT_UNDECLARED"), "{ran:?}");
    assert!(
        !lint(&["--nginx", "nginx_http_lua_shared_dict=my_cache 10m"]).out.contains("SHARED_DICT_UNDECLARED")
    );
    let given = pack(&[root.to_str().unwrap(), "--nginx", "nginx_http_lua_shared_dict=my_cache 10m"]);
    assert_eq!(given["nginx"], serde_json::json!([need]));
    let ran = lint(&["--nginx", "nginx_http_lua_shared_dict=a 1m; user root"]);
    assert!(ran.code == 64 && ran.err.contains("NGINX_INVALID"), "{ran:?}");
    std::fs::write(root.join("kong/plugins/needy/kctl.toml"), "[nginx]\nplugins = \"x\"\n").unwrap();
    let ran = lint(&[]);
    assert!(ran.code == 1 && ran.out.contains("DECLARATION_INVALID"), "{ran:?}");
}
