//! `kctl plugin lint` as people and programs see it, and what stands between a broken plugin and the nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use kctl_shared::package::{LoadOptions, Unread, load};
use kctl_tests::cluster::{Cluster, Ran, kctl_binary};
use kctl_tests::plugins::{self, BROKEN, SCHEMA};
use serde_json::Value;

fn kctl(args: &[&str]) -> Ran {
    Command::new(kctl_binary()).args(args).env("HOME", "/nonexistent").output().unwrap().into()
}

fn lint(path: &Path, more: &[&str]) -> Ran {
    kctl(&[&["plugin", "lint", path.to_str().unwrap()], more].concat())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// A plugin with this handler.
fn with(root: &Path, name: &str, handler: &str) -> PathBuf {
    plugins::write(root, name, name, Some(handler), Some(SCHEMA))
}

#[test]
fn a_good_plugin_and_every_broken_one() {
    let temp = tempfile::tempdir().unwrap();
    let good = lint(&plugins::good(temp.path(), "probe", "1.0.0"), &[]);
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.out.starts_with("✔ lint  probe 1.0.0   0 errors"), "{good:?}");
    for (kind, code) in [
        ("syntax error", "SYNTAX_ERROR"),
        ("no schema", "SCHEMA_MISSING"),
        ("no handler", "HANDLER_MISSING"),
        ("bad PRIORITY", "PRIORITY_INVALID"),
        ("bad VERSION", "HANDLER_VERSION_INVALID"),
        ("bad schema", "SCHEMA_INVALID"),
        ("returns nothing", "HANDLER_INVALID"),
    ] {
        let broken = BROKEN.iter().find(|b| b.kind == kind).unwrap().write(temp.path(), "probe");
        let ran = lint(&broken, &["-o", "json"]);
        assert_eq!(ran.code, 1, "{kind}: {ran:?}");
        let finding = &json(&ran)[0]["findings"][0];
        assert_eq!(
            (finding["rule"].as_str(), finding["severity"].as_str()),
            (Some(code), Some("error")),
            "{kind}"
        );
        assert!(!finding["help"].as_str().unwrap().is_empty());
        let told = lint(&broken, &[]);
        assert!(
            told.code == 1 && told.out.starts_with('✖') && told.out.contains(code) && told.err.is_empty(),
            "{told:?}"
        );
    }
}

#[test]
fn every_form_says_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let path = with(temp.path(), "probe", "local H = {}\nfunction H:access() counter = 1 end\nreturn H)\n");
    let human = lint(&path, &[]);
    assert!(human.out.contains("kong/plugins/probe/handler.lua:3: '<eof>' expected near ')'"), "{human:?}");
    let sarif = json(&lint(&path, &["-o", "sarif"]));
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let result = &run["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"SYNTAX_ERROR".into(), &"error".into()));
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "kong/plugins/probe/handler.lua");
    assert_eq!(place["region"]["startLine"], 3);
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|r| r["id"] == result["ruleId"]));
    for (args, exit) in [
        (&["-o", "yaml"][..], 1),
        (&["-o", "jsonl"], 1),
        (&["-o", "human"], 1),
        (&["--kong", "nonsense"], 64),
        (&["--policy", "NO_SUCH=error"], 64),
        (&["--policy", "SYNTAX_ERROR=off"], 64),
    ] {
        assert_eq!(lint(&path, args).code, exit, "{args:?}");
    }
    assert_eq!(kctl(&["version", "-o", "sarif"]).code, 64);
    assert_eq!(lint(Path::new("/nonexistent/x"), &[]).code, 1);
}

#[test]
fn the_version_of_kong_and_the_policy_decide() {
    let temp = tempfile::tempdir().unwrap();
    let old =
        "local B = require 'kong.plugins.base_plugin'\nlocal H = B:extend()\nH.PRIORITY = 7001\nreturn H\n";
    let path = with(temp.path(), "probe", old);
    assert_eq!(lint(&path, &["--kong", "2.8"]).code, 0);
    let now = lint(&path, &["--kong", "3.x", "-o", "json"]);
    assert_eq!((now.code, &json(&now)[0]["findings"][0]["rule"]), (1, &"BASE_PLUGIN_GONE".into()));
    let shell = "return { PRIORITY = 7001, VERSION = '1.0.0', access = function() os.execute('id') end }\n";
    let path = with(temp.path(), "shell", shell);
    let warned = lint(&path, &[]);
    assert!(
        warned.code == 0 && warned.out.contains("warning") && warned.out.contains("RUNS_COMMANDS"),
        "{warned:?}"
    );
    assert_eq!(lint(&path, &["--policy", "RUNS_COMMANDS=error"]).code, 1);
    let off = lint(&path, &["--policy", "RUNS_COMMANDS=off"]);
    assert!(off.code == 0 && !off.out.contains("RUNS_COMMANDS"), "{off:?}");
}

#[test]
fn all_plugins_of_a_repository_are_judged() {
    let temp = tempfile::tempdir().unwrap();
    let repo = temp.path().join("repo");
    let good = "return { PRIORITY = 7001, VERSION = '1.0.0' }";
    for (name, handler) in [("one", good), ("two", "return {}")] {
        let lua = repo.join(name).join("kong/plugins").join(name);
        std::fs::create_dir_all(&lua).unwrap();
        std::fs::write(lua.join("handler.lua"), handler).unwrap();
        std::fs::write(lua.join("schema.lua"), SCHEMA.replace("NAME", name)).unwrap();
    }
    let ran = lint(&repo, &["-o", "json"]);
    let reports = json(&ran);
    let errors: Vec<_> =
        reports.as_array().unwrap().iter().map(|r| (r["plugin"].as_str(), r["errors"].as_u64())).collect();
    assert_eq!((ran.code, errors), (1, vec![(Some("one"), Some(0)), (Some("two"), Some(1))]));
    assert_eq!(lint(&repo, &["--name", "one"]).code, 0);
    let packed = kctl(&["plugin", "pack", repo.to_str().unwrap()]);
    assert!(
        packed.code == 1
            && packed.err.contains("MULTIPLE_PLUGINS")
            && packed.err.contains("\"one\", \"two\""),
        "{packed:?}"
    );
    assert_eq!(kctl(&["plugin", "pack", repo.to_str().unwrap(), "--name", "two"]).code, 1);
}

/// What never ends, takes all memory or kills its process is a finding of its own file, told in time.
#[test]
fn nothing_a_plugin_does_takes_the_linter_along() {
    let temp = tempfile::tempdir().unwrap();
    for (name, handler, code) in [
        ("loop", "while true do end", "LOAD_ENDLESS"),
        ("caught", "while true do pcall(function() while true do end end) end", "LOAD_ENDLESS"),
        ("pattern", "local s = ('a'):rep(40) s:find(('a*'):rep(40) .. 'b')", "LOAD_ENDLESS"),
        ("memory", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1024) .. i end", "LOAD_"),
        ("text", "local s = ('x'):rep(1e9)", "LOAD_"),
        ("recursion", "local function f() return 1 + f() end f()", "LOAD_ERROR"),
        ("exit", "os.exit(0)", "OS_EXIT"),
        ("nested", &format!("return {}1{}", "(".repeat(20_000), ")".repeat(20_000)), "SYNTAX_ERROR"),
    ] {
        let path = with(temp.path(), name, handler);
        let ran = lint(&path, &["-o", "json"]);
        let report = &json(&ran)[0];
        let finding = &report["findings"][0];
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(finding["rule"].as_str().unwrap().starts_with(code), "{name}: {report:#}");
        assert_eq!(finding["file"], format!("kong/plugins/{name}/handler.lua"), "{name}: {report:#}");
    }
}

/// The child has no file, no socket and no process to give away, whatever Lua could be made to do in it.
#[test]
fn what_lies_beside_a_plugin_is_no_reason_to_refuse_it() {
    let temp = tempfile::tempdir().unwrap();
    let handler = "require 'resty.http' require 'acme.util' require 'kong.acme.more' \
                   return { PRIORITY = 1, VERSION = '1.0.0' }";
    let plugin = with(temp.path(), "probe", handler);
    let root = plugin.as_path();
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("resty/http.lua", "error('a copy')");
    write("acme/util.lua", "require 'resty.absent' return {}");
    write("kong/acme/more.lua", "return {}");
    write("kong/plugins/key-auth/more.lua", "return {}");
    let ran = lint(root, &["-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = &json(&ran)[0];
    assert_eq!(report["verdict"], "loads with needs", "{report}");
    assert_eq!(report["needs"], serde_json::json!(["resty.absent"]));
    let rules: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"MODULE_KONGS_OWN") && rules.contains(&"DEPENDENCY"), "{rules:?}");
    // As it is meant: then the copy is what is loaded.
    let meant = lint(root, &["--allow-shadow", "-o", "json"]);
    assert_eq!(json(&meant)[0]["findings"][0]["rule"], "LOAD_ERROR", "{meant:?}");
    assert_eq!(json(&meant)[0]["findings"][0]["file"], "resty/http.lua", "{meant:?}");
}

#[test]
fn a_rockspec_that_refuses_hides_nothing_that_kong_would_say() {
    let temp = tempfile::tempdir().unwrap();
    let root = with(temp.path(), "probe", "return { PRIORITY = 'high', VERSION = '1.0.0' }");
    let spec = "package = 'kong-plugin-probe' version = '1.0.0-1' source = { url = 'git://x' } build = { type = 'make' }";
    std::fs::write(root.join("kong-plugin-probe-1.0.0-1.rockspec"), spec).unwrap();
    let ran = lint(&root, &["-o", "json"]);
    let report = &json(&ran)[0];
    let rules: Vec<_> =
        report["findings"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    assert_eq!(&rules[..2], ["ROCKSPEC_BUILD_TYPE", "PRIORITY_INVALID"], "{report}");
    assert_eq!((ran.code, &report["verdict"], &report["errors"]), (1, &"refused".into(), &2.into()));
    assert_eq!((&report["plugin"], &report["digest"]), (&"probe".into(), &"".into()));
}

#[test]
fn rockspecs_are_run_and_can_do_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let head = "package = 'kong-plugin-probe'\nversion = '1.0.0-1'\nsource = { url = 'git://x' }\n";
    let good = "local n = 'probe'\nbuild = { modules = { ['kong.plugins.' .. n .. '.handler'] = ('src/%s.lua'):format('h'), \
                ['kong.plugins.probe.schema'] = 'src/s.lua' } }";
    for (case, source, code) in [
        ("computed", good.to_owned(), None),
        ("endless", "while true do end".into(), Some("ROCKSPEC_ENDLESS")),
        ("pattern", "local s = ('a'):rep(40) s:find(('a*'):rep(40) .. 'b')".into(), Some("ROCKSPEC_ENDLESS")),
        ("bomb", "build = { x = ('x'):rep(1e9) }".into(), Some("ROCKSPEC_ENDLESS")),
        ("command", "os.execute('touch /tmp/kctl-was-here')".into(), Some("ROCKSPEC_INVALID")),
        ("file", "build = { x = io.open('/etc/passwd') }".into(), Some("ROCKSPEC_INVALID")),
        ("bytecode", "\u{1b}LJ".into(), Some("ROCKSPEC_INVALID")),
        ("unknown field", format!("{good}\nnonsense = 1"), Some("ROCKSPEC_INVALID")),
    ] {
        let root = temp.path().join(case);
        std::fs::create_dir_all(root.join("src")).unwrap();
        std::fs::write(root.join("src/h.lua"), "return { PRIORITY = 7001, VERSION = '1.0.0' }").unwrap();
        std::fs::write(root.join("src/s.lua"), SCHEMA.replace("NAME", "probe")).unwrap();
        let source = if code == Some("ROCKSPEC_INVALID") && case == "bytecode" {
            source
        } else {
            format!("{head}{source}")
        };
        std::fs::write(root.join("kong-plugin-probe-1.0.0-1.rockspec"), source).unwrap();
        let ran = lint(&root, &["-o", "json"]);
        let report = &json(&ran)[0];
        match code {
            None => {
                assert_eq!((ran.code, report["plugin"].as_str()), (0, Some("probe")), "{case}: {report:#}")
            }
            Some(code) => {
                assert_eq!(
                    (ran.code, report["findings"][0]["rule"].as_str()),
                    (1, Some(code)),
                    "{case}: {report:#}"
                );
                let packed = kctl(&["plugin", "pack", root.to_str().unwrap()]);
                assert!(packed.code == 1 && packed.err.contains(code), "{case}: {packed:?}");
            }
        }
    }
}

#[test]
fn an_install_is_judged_first_and_nothing_is_touched() {
    let cluster = Cluster::start(1, 1);
    let root = cluster.temp().to_owned();
    let broken = BROKEN.iter().find(|b| b.kind == "syntax error").unwrap().write(&root, "probe");
    let started = Instant::now();
    let ran = cluster.install(&broken);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("SYNTAX_ERROR") && ran.err.contains("handler.lua:") && ran.err.contains("--no-lint"),
        "{ran:?}"
    );
    eprintln!("refused after {:?}", started.elapsed());
    assert_eq!(cluster.json(&["operation", "list"]).as_array().map(Vec::len), Some(0));
    let unjudged = cluster.install_unjudged(&broken);
    assert_eq!(unjudged.code, 3, "{unjudged:?}");
    let good = plugins::good(&root, "probe", "1.0.0");
    let ran = cluster.install(&good);
    assert_eq!(ran.code, 0, "{ran:?}");
    let digest = load(&good, &LoadOptions::default(), &Unread).unwrap().digest().to_string();
    for line in
        ["✔ packed     probe 1.0.0   2 files", &digest, "✔ lint       0 errors, 1 warning (PRIORITY 801"]
    {
        assert!(ran.err.contains(line), "{line}: {ran:?}");
    }
}

#[test]
fn plugins_of_one_repository_that_pack_one_module_in_two_ways() {
    let temp = tempfile::tempdir().unwrap();
    let handler =
        "local both = require \"resty.both\" return { PRIORITY = 7001, VERSION = \"1.0.0\", x = both }";
    for (name, text) in [("one", "return 1"), ("two", "return 2")] {
        plugins::write(temp.path(), &format!("repository/{name}"), name, Some(handler), Some(SCHEMA));
        let lua = temp.path().join("repository").join(name).join("resty");
        std::fs::create_dir_all(&lua).unwrap();
        std::fs::write(lua.join("both.lua"), text).unwrap();
    }
    let ran = lint(&temp.path().join("repository"), &["-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for (at, other) in [(0, "two"), (1, "one")] {
        let found = json(&ran)[at]["findings"].as_array().unwrap().clone();
        let clash = found.iter().find(|f| f["rule"] == "MODULE_CLASH").unwrap();
        assert!(clash["message"].as_str().unwrap().contains(&format!("another one in {other}")), "{clash}");
    }
    std::fs::write(temp.path().join("repository/two/resty/both.lua"), "return 1").unwrap();
    assert!(!lint(&temp.path().join("repository"), &[]).out.contains("MODULE_CLASH"));
}
