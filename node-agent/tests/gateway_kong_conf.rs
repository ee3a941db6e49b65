//! kong.conf is edited without losing a byte: the laws of the editor, on files as odd as Kong itself accepts them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kctl_node_agent::gateway::dialect::{Dialect, Grammar};
use kctl_node_agent::gateway::kong_conf::{Change, KongConf, OurPath, Style};
use kctl_shared::nginx::NginxSetting;
use proptest::prelude::*;

fn ours() -> OurPath {
    OurPath::new(Path::new("/opt/kctl"))
}

fn generation(n: u64) -> Option<PathBuf> {
    Some(format!("/opt/kctl/gen/{n}").into())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn add(names: &[&str], n: u64) -> Change {
    Change { add: set(names), generation: generation(n), ..Change::default() }
}

fn take(names: &[&str]) -> Change {
    Change { remove: set(names), ..Change::default() }
}

fn edit(text: &str, change: &Change) -> Result<String, &'static str> {
    let conf = KongConf::parse(text.as_bytes()).map_err(|e| e.code)?;
    let edited = conf.edit(change, &ours()).map_err(|e| e.code)?;
    Ok(String::from_utf8(edited).unwrap())
}

fn plugins(text: &str) -> Vec<String> {
    KongConf::parse(text.as_bytes()).unwrap().plugins().unwrap()
}

const PATHS: &str = "/opt/kctl/gen/1/?.lua;/opt/kctl/gen/1/?/init.lua;";

#[test]
fn values_are_read_as_kong_reads_them() {
    let value = |text: &str, key: &str| KongConf::parse(text.as_bytes()).unwrap().get(key);
    for (text, expected) in [
        ("plugins = bundled,a", Some("bundled,a")),
        ("  plugins=bundled , a  # c", Some("bundled , a")),
        ("plugins = a\r\nx = 1\r\n", Some("a")),
        ("# plugins = a\n; plugins = b\n", None),
        ("plugins = a\nplugins = b", Some("b")),
        ("plugins = a\\#b#c", Some("a#b")),
        ("plugins = \"a\"", Some("\"a\"")),
        ("plugins = a,\\\n  b", Some("a,  b")),
        ("plugins = a,\\\n# comment\n\n  b", Some("a,  b")),
        ("plugins = a,\\", None),
        ("[s]\nplugins = a", None),
        ("plugins", None),
        ("pl-ugins = a", None),
        ("plugins =", Some("")),
        ("plugins = # nothing", Some("")),
        ("Plugins = a", None),
    ] {
        assert_eq!(value(text, "plugins").as_deref(), expected, "{text:?}");
    }
    assert_eq!(value("lua-package-path = x", "lua_package_path").as_deref(), Some("x"));
    assert_eq!(KongConf::parse(b"[\nx = 1").unwrap_err().code, "CONF_UNPARSABLE");
    assert_eq!(KongConf::parse(&vec![b'#'; (1 << 20) + 1]).unwrap_err().code, "CONF_TOO_LARGE");
}

#[test]
fn names_are_the_ones_kong_would_load() {
    for (text, expected) in [
        ("", vec!["bundled"]),
        ("plugins = off", vec![]),
        ("plugins = off,a", vec![]),
        ("plugins = a,off", vec!["a"]),
        ("plugins =", vec![]),
        ("plugins = a,,b", vec!["a", "", "b"]),
        ("plugins = 42", vec!["42"]),
    ] {
        assert_eq!(plugins(text), expected, "{text:?}");
    }
    for text in ["plugins = {vault://env/plugins}", "plugins = 1e3", "plugins = a_blank_b", "[plugins]"] {
        let error = KongConf::parse(text.as_bytes()).unwrap().plugins().unwrap_err();
        assert_eq!(error.code, "UNMANAGED_VALUE", "{text:?}");
    }
}

#[test]
fn a_line_is_changed_where_it_stands() {
    for (text, names, expected) in [
        ("plugins = bundled\n", &["x"][..], "plugins = bundled,x\n"),
        ("plugins = bundled # mine\n", &["x", "y"], "plugins = bundled,x,y # mine\n"),
        ("plugins = a\nplugins=bundled\r\n", &["x"], "plugins = a\nplugins=bundled,x\r\n"),
        ("plugins = a,\\\n   b\nc = d\n", &["x"], "plugins = a,\\\n   b,x\nc = d\n"),
        ("plugins = bundled,x", &["x"], "plugins = bundled,x"),
    ] {
        let change = Change { add: set(names), ..Change::default() };
        assert_eq!(edit(text, &change).as_deref(), Ok(expected), "{text:?}");
    }
    let text = "lua_package_path = ./?.lua;;  # mine\nplugins = bundled\n";
    let expected = format!("lua_package_path = {PATHS}./?.lua;;  # mine\nplugins = bundled,x\n");
    assert_eq!(edit(text, &add(&["x"], 1)), Ok(expected.clone()));
    let second = edit(&expected, &add(&["x"], 2)).unwrap();
    assert_eq!(second, expected.replace("gen/1", "gen/2"));
    assert_eq!(edit(&second, &take(&["x"])), Ok(text.to_owned()));
}

#[test]
fn removal_takes_a_name_with_its_comma() {
    for (text, expected) in [
        ("plugins = bundled,x\n", "plugins = bundled\n"),
        ("plugins = x,bundled\n", "plugins = bundled\n"),
        ("plugins = a , x , b\n", "plugins = a , b\n"),
        ("plugins = a,x,x,b,x\n", "plugins = a,b\n"),
        ("plugins = bundled,\\\n  x,\\\n  a\n", "plugins = bundled,\\\n  a\n"),
        ("plugins = bundled,\\\n  a,\\\n  x\nnext = 1\n", "plugins = bundled,\\\n  a\nnext = 1\n"),
        ("plugins = bundled\n", "plugins = bundled\n"),
        ("plugins = xx,bundled\n", "plugins = xx,bundled\n"),
        ("plugins = off,x\n", "plugins = off\n"),
        ("nothing = here\n", "nothing = here\n"),
    ] {
        assert_eq!(edit(text, &take(&["x"])).as_deref(), Ok(expected), "{text:?}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    for (text, change, code) in [
        ("plugins = off\n", add(&["x"], 1), "PLUGINS_OFF"),
        ("plugins = x,off,a\n", take(&["x"]), "PLUGINS_OFF"),
        ("plugins =\n", add(&["x"], 1), "PLUGINS_EMPTY"),
        ("plugins = x\n", take(&["x"]), "PLUGINS_WOULD_BE_EMPTY"),
        ("plugins = \"bundled\"\n", add(&["x"], 1), "PLUGINS_QUOTED"),
        ("plugins = {vault://env/p}\n", add(&["x"], 1), "UNMANAGED_VALUE"),
        ("lua_package_path = {vault://env/p}\n", add(&["x"], 1), "UNMANAGED_VALUE"),
        (
            "plugins = bundled\n",
            Change { generation: Some("/opt/other/1".into()), ..add(&["x"], 1) },
            "LUA_DIR_UNUSABLE",
        ),
    ] {
        assert_eq!(edit(text, &change), Err(code), "{text:?}");
    }
}

#[test]
fn lines_that_were_not_there_come_and_go() {
    for text in [
        "# only a comment\n",
        "database = off",
        "database = off\n",
        "database = off\r\nprefix = /x\r\n",
        "a = b\n[section]\nplugins = c\n",
        "a = b\ndangling = c,\\\n",
        "a = b\\",
        "\n\n",
        "",
    ] {
        let with = edit(text, &add(&["x"], 1)).unwrap();
        assert_eq!(plugins(&with), ["bundled", "x"], "{text:?}");
        assert_eq!(edit(&with, &take(&["x"])).as_deref(), Ok(text), "{with:?}");
        let two = edit(&with, &add(&["y"], 2)).unwrap();
        let one = edit(&two, &Change { remove: set(&["x"]), ..add(&["y"], 3) }).unwrap();
        assert_eq!(edit(&one, &take(&["y"])).as_deref(), Ok(text), "{one:?}");
    }
    // A line that says the same on purpose stays.
    let text = "plugins = bundled\nlua_package_path = ./?.lua;./?/init.lua;\n";
    assert_eq!(edit(&edit(text, &add(&["x"], 1)).unwrap(), &take(&["x"])).as_deref(), Ok(text));
}

fn style(version: &str) -> Style {
    match Dialect::grammar_of(version).unwrap() {
        Grammar::Conf(style) => style,
        Grammar::Yml(_) => panic!("{version} reads YAML"),
    }
}

fn edit_as(version: &str, text: &str, change: &Change) -> Result<String, &'static str> {
    let conf = KongConf::parse_as(text.as_bytes(), style(version)).map_err(|e| e.code)?;
    let edited = conf.edit(change, &ours()).map_err(|e| e.code)?;
    Ok(String::from_utf8(edited).unwrap())
}

#[test]
fn custom_plugins_are_added_to_those_that_come_with_kong() {
    for (text, expected) in [
        ("custom_plugins = a\n", "custom_plugins = a,x\n"),
        ("custom_plugins = a, b # mine\n", "custom_plugins = a, b,x # mine\n"),
        ("custom_plugins =\n", "custom_plugins = x\n"),
        ("custom_plugins = \n", "custom_plugins = x \n"),
        ("custom_plugins=a\r\n", "custom_plugins=a,x\r\n"),
        ("plugins = bundled\n", "plugins = bundled\ncustom_plugins = x # added by kctl\n"),
    ] {
        let change = Change { add: set(&["x"]), ..Change::default() };
        assert_eq!(edit_as("0.13.1", text, &change).as_deref(), Ok(expected), "{text:?}");
        assert_eq!(edit_as("0.13.1", expected, &take(&["x"])).as_deref(), Ok(text), "{expected:?}");
    }
    assert_eq!(edit_as("0.13.1", "custom_plugins = x\n", &take(&["x"])).as_deref(), Ok("custom_plugins =\n"));
    let names = KongConf::parse_as(b"custom_plugins = a,b", style("0.9.9")).unwrap().plugins().unwrap();
    assert_eq!(names, ["bundled", "a", "b"]);
}

#[test]
fn in_0_14_a_name_leaves_both_directives() {
    let text = "plugins = bundled,x # all\ncustom_plugins = x, y\n";
    assert_eq!(
        edit_as("0.14.1", text, &take(&["x"])).as_deref(),
        Ok("plugins = bundled # all\ncustom_plugins = y\n")
    );
    let add = Change { add: set(&["y", "z"]), ..Change::default() };
    assert_eq!(
        edit_as("0.15.0", text, &add).as_deref(),
        Ok("plugins = bundled,x,z # all\ncustom_plugins = x, y\n")
    );
    // From 1.0 on the second one is a line without a meaning.
    assert_eq!(
        edit_as("1.0.0", text, &take(&["x"])).as_deref(),
        Ok("plugins = bundled # all\ncustom_plugins = x, y\n")
    );
}

#[test]
fn a_hash_is_where_that_kong_sees_one() {
    let names = |version: &str, text: &str| {
        KongConf::parse_as(text.as_bytes(), style(version)).unwrap().plugins().map_err(|e| e.code)
    };
    let is = |list: &[&str]| Ok(list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    for (version, text, expected) in [
        ("3.2.0", "plugins = a#b", is(&["a"])),
        ("3.2.0", "plugins = # c", is(&[])),
        ("3.1.1", "plugins = a # b", is(&["a"])),
        ("3.1.1", "plugins = a#b", Err("UNMANAGED_VALUE")),
        ("2.8.5", "plugins = # c", Err("UNMANAGED_VALUE")),
        ("2.8.5", "plugins = a\\#b", is(&["a#b"])),
        ("0.10.0", "custom_plugins = a#b", is(&["bundled", "a"])),
        ("0.10.0", "custom_plugins = # c", is(&["bundled"])),
        ("0.10.0", "custom_plugins = a\\#b", Err("UNMANAGED_VALUE")),
        ("0.9.0", "custom_plugins = a # c", is(&["bundled", "a"])),
        ("0.9.0", "custom_plugins = a,b # c", Err("UNMANAGED_VALUE")),
    ] {
        assert_eq!(names(version, text), expected, "{version} {text:?}");
    }
    let add = Change { add: set(&["x"]), ..Change::default() };
    assert_eq!(edit_as("0.9.0", "custom_plugins = a # c\n", &add), Err("CONF_EDIT_UNSAFE"));
    assert_eq!(edit_as("0.13.1", "custom_plugins = x # c\n", &take(&["x"])), Err("CONF_EDIT_UNSAFE"));
}

#[test]
fn a_new_line_stands_below_the_comment_that_documents_it() {
    let add = Change { add: set(&["x"]), ..Change::default() };
    for (text, expected) in [
        (
            "#plugins = bundled  # which\n      # ones\n\nb = 1\n",
            "#plugins = bundled  # which\n      # ones\nplugins = bundled,x # added by kctl\n\nb = 1\n",
        ),
        ("# plugins=bundled", "# plugins=bundled\nplugins = bundled,x # added by kctl"),
        // Not into the middle of a continued line, and not below a section.
        (
            "a = b,\\\n#plugins = bundled\nc\n",
            "a = b,\\\n#plugins = bundled\nc\nplugins = bundled,x # added by kctl\n",
        ),
        (
            "a = 1\n[s]\n#plugins = bundled\n",
            "a = 1\nplugins = bundled,x # added by kctl\n[s]\n#plugins = bundled\n",
        ),
    ] {
        assert_eq!(edit(text, &add).as_deref(), Ok(expected), "{text:?}");
        assert_eq!(edit(expected, &take(&["x"])).as_deref(), Ok(text), "{expected:?}");
    }
}

fn line() -> impl Strategy<Value = String> {
    let names =
        prop::collection::vec(prop::sample::select(vec!["bundled", "a", "b-c", "D_1", "off", ""]), 0..4);
    let list = (names, prop::sample::select(vec![",", " , ", ",\\\n  ", ",\\\n# note\n "]))
        .prop_map(|(n, s)| n.join(s));
    let path = prop::sample::select(vec![
        "./?.lua;;",
        "/x/\\#y/?.lua;/z/?.lua",
        "",
        "./?.lua;/opt/kctl/lua/?.lua;;",
        "a\\\n;b",
    ]);
    let end = prop::sample::select(vec!["", " ", "\t# note", "#x", "\\", "\r"]);
    prop_oneof![
        (list.clone(), end.clone()).prop_map(|(v, e)| format!("plugins = {v}{e}")),
        (list, end.clone()).prop_map(|(v, e)| format!("custom_plugins = {v}{e}")),
        Just("#plugins = bundled # these".to_owned()),
        Just("#custom_plugins =    # these".to_owned()),
        Just("    # and more".to_owned()),
        (path, end.clone()).prop_map(|(v, e)| format!("lua_package_path={v}{e}")),
        ("[a-z_]{1,6}", "[ -~]{0,12}", end).prop_map(|(k, v, e)| format!("{k} = {v}{e}")),
        "[ -~]{0,20}",
        Just("# comment = 1".to_owned()),
        Just(String::new()),
        Just("[section]".to_owned()),
    ]
}

fn file() -> impl Strategy<Value = String> {
    let ends = prop::sample::select(vec!["\n", "\r\n"]);
    (prop::collection::vec(line(), 0..8), ends, any::<bool>()).prop_map(|(lines, end, last)| {
        let mut text = lines.join(end);
        if last {
            text.push_str(end);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_fails_badly(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(conf) = KongConf::parse(&bytes) {
            let _ = conf.edit(&add(&["x"], 1), &ours());
        }
    }

    #[test]
    fn an_edit_is_the_set_operation_and_nothing_else(
        text in file(),
        version in prop::sample::select(vec!["0.9.0", "0.10.0", "0.13.1", "0.14.1", "1.5.1", "3.0.0", "3.9.1"]),
    ) {
        let Ok(conf) = KongConf::parse_as(text.as_bytes(), style(version)) else { return Ok(()) };
        let Ok(edited) = conf.edit(&add(&["x"], 1), &ours()) else { return Ok(()) };
        let after = KongConf::parse_as(&edited, style(version)).unwrap();
        let mut expected: BTreeSet<String> = conf.plugins().unwrap().into_iter().collect();
        expected.insert("x".into());
        prop_assert_eq!(after.plugins().unwrap().into_iter().collect::<BTreeSet<_>>(), expected);
        prop_assert_eq!(after.generation(&ours()), generation(1));
        prop_assert_eq!(after.users_lua_path(&ours()), conf.users_lua_path(&ours()));
        let others = |conf: &KongConf| {
            let mut map = conf.to_map();
            map.retain(|key, _| !matches!(key.as_str(), "plugins" | "custom_plugins" | "lua_package_path"));
            map
        };
        prop_assert_eq!(others(&after), others(&conf));
        // Again changes nothing; another generation changes nothing but its number; taking it away gives the original.
        prop_assert_eq!(&after.edit(&add(&["x"], 1), &ours()).unwrap(), &edited);
        let next = after.edit(&add(&["x"], 2), &ours()).unwrap();
        let renamed = String::from_utf8(edited).unwrap().replace("/opt/kctl/gen/1/", "/opt/kctl/gen/2/");
        prop_assert_eq!(String::from_utf8(next).unwrap(), renamed);
        let back = after.edit(&take(&["x"]), &ours()).unwrap();
        prop_assert_eq!(String::from_utf8(back).unwrap(), text);
    }

    #[test]
    fn bytes_outside_the_two_values_stay(
        before in "[a-z]{0,5} = [a-z #]{0,9}\n",
        after in "(# [a-z]{0,9}\n|z[a-z]{0,4} = [a-z]{0,5}\r\n){0,3}",
    ) {
        let text = format!("{before}plugins = bundled # end\n{after}");
        let edited = edit(&text, &Change { add: set(&["x"]), ..Change::default() }).unwrap();
        prop_assert_eq!(edited, format!("{before}plugins = bundled,x # end\n{after}"));
    }
}

fn nginx(settings: &[&str]) -> Change {
    let settings = settings.iter().map(|s| NginxSetting::parse(s).unwrap()).collect();
    Change { nginx: Some(settings), ..Change::default() }
}

const A: &str = "nginx_http_lua_shared_dict=a 1m";
const B: &str = "nginx_http_lua_shared_dict=b 2m";

#[test]
fn what_nginx_needs_stands_in_lines_of_ours_and_goes_with_them() {
    for (text, wanted, expected) in [
        ("", &[A][..], "nginx_http_lua_shared_dict = a 1m # added by kctl\n"),
        (
            "x = 1\n",
            &[A, B],
            "x = 1\nnginx_http_lua_shared_dict = a 1m; lua_shared_dict b 2m # added by kctl\n",
        ),
        // What the user says already is the user's, however it is spaced.
        ("nginx_http_lua_shared_dict = a  1m;\n", &[A], "nginx_http_lua_shared_dict = a  1m;\n"),
        (
            "nginx_http_lua_shared_dict = mine 1m # why\nx = 1\n",
            &[A],
            "nginx_http_lua_shared_dict = mine 1m # why\nnginx_http_lua_shared_dict = mine 1m; lua_shared_dict a 1m # added by \
             kctl\nx = 1\n",
        ),
        (
            "nginx_http_lua_shared_dict = mine 1m; lua_shared_dict a 1m",
            &[A, B],
            "nginx_http_lua_shared_dict = mine 1m; lua_shared_dict a 1m\nnginx_http_lua_shared_dict = mine 1m; lua_shared_dict a \
             1m; lua_shared_dict b 2m # added by kctl",
        ),
    ] {
        let edited = edit(text, &nginx(wanted)).unwrap();
        assert_eq!(edited, expected, "{text}");
        assert_eq!(edit(&edited, &nginx(wanted)).unwrap(), edited, "again");
        assert_eq!(edit(&edited, &Change { nginx: None, ..Change::default() }).unwrap(), edited, "not asked");
        let conf = KongConf::parse(edited.as_bytes()).unwrap();
        assert!(wanted.iter().all(|s| conf.nginx().contains(&NginxSetting::parse(s).unwrap())), "{edited}");
        assert_eq!(edit(&edited, &nginx(&[])).unwrap(), text, "taken away");
        if wanted.len() > 1 {
            let one = edit(&edited, &nginx(&wanted[..1])).unwrap();
            assert_eq!(one, edit(text, &nginx(&wanted[..1])).unwrap(), "one of two goes");
        }
    }
}

#[test]
fn a_users_line_that_was_edited_counts_again() {
    let text = edit("nginx_http_lua_shared_dict = mine 1m\n", &nginx(&[A])).unwrap();
    let text = text.replacen("mine 1m", "mine 5m", 1);
    let a = NginxSetting::parse(A).unwrap();
    assert!(!KongConf::parse(text.as_bytes()).unwrap().nginx().contains(&a), "it has to be written anew");
    let again = edit(&text, &nginx(&[A])).unwrap();
    assert!(
        again.ends_with("nginx_http_lua_shared_dict = mine 5m; lua_shared_dict a 1m # added by kctl\n"),
        "{again}"
    );
}

#[test]
fn what_contradicts_the_file_or_cannot_be_read_is_refused() {
    for (text, wanted, code) in [
        ("nginx_http_lua_shared_dict = a 2m\n", &[A][..], "NGINX_CONFLICT"),
        ("nginx_http_etag = off; lua_shared_dict a 2m\n", &[A], "NGINX_CONFLICT"),
        ("nginx_http_client_body_timeout = 5s\n", &["nginx_http_client_body_timeout=9s"], "NGINX_CONFLICT"),
        ("", &[A, "nginx_http_lua_shared_dict=a 9m"], "NGINX_CONFLICT"),
        ("nginx_http_lua_shared_dict = {vault://env/x}\n", &[A], "UNMANAGED_VALUE"),
        ("nginx_http_lua_shared_dict = NONE\n", &[A], "UNMANAGED_VALUE"),
    ] {
        assert_eq!(edit(text, &nginx(wanted)), Err(code), "{text}");
    }
}
