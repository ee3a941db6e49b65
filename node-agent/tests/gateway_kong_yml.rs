//! kong.yml of Kong before 0.9 is edited without losing a byte, or not at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kctl_node_agent::gateway::dialect::YmlKey;
use kctl_node_agent::gateway::kong_conf::{Change, OurPath};
use kctl_node_agent::gateway::kong_yml::KongYml;
use proptest::prelude::*;

const CUSTOM: YmlKey = YmlKey::CustomPlugins;
const MARK: &str = "# added by kctl";

fn ours() -> OurPath {
    OurPath::new(Path::new("/opt/kctl"))
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn edit(text: &str, add: &[&str], remove: &[&str]) -> Result<String, &'static str> {
    let change = Change { add: set(add), remove: set(remove), generation: None, nginx: None };
    changed(text, CUSTOM, &change)
}

fn changed(text: &str, key: YmlKey, change: &Change) -> Result<String, &'static str> {
    let yml = KongYml::parse(text.as_bytes(), key).map_err(|e| e.code)?;
    let edited = yml.edit(change, &ours()).map_err(|e| e.code)?;
    Ok(String::from_utf8(edited).unwrap())
}

#[test]
fn a_name_comes_into_every_form_of_list() {
    for (text, expected) in [
        ("custom_plugins:\n  - a\n", "custom_plugins:\n  - a\n  - x\n"),
        ("custom_plugins:\n- a\nb: 1\n", "custom_plugins:\n- a\n- x\nb: 1\n"),
        (
            "custom_plugins: # mine\n    - a # first\n\n# next\nb: 1\n",
            "custom_plugins: # mine\n    - a # first\n    - x\n\n# next\nb: 1\n",
        ),
        ("custom_plugins:\n  - \"a\"\n  - 'b'\n", "custom_plugins:\n  - \"a\"\n  - 'b'\n  - x\n"),
        ("custom_plugins:\r\n  - a\r\nb: 1\r\n", "custom_plugins:\r\n  - a\r\n  - x\r\nb: 1\r\n"),
        ("custom_plugins:\n  - a", "custom_plugins:\n  - a\n  - x"),
        ("custom_plugins: [a, \"b\"] # c\n", "custom_plugins: [a, \"b\", x] # c\n"),
        ("custom_plugins: []\n", "custom_plugins: [x]\n"),
        ("custom_plugins : [ a ]", "custom_plugins : [ a, x ]"),
        ("custom_plugins:\n# - a\nb: 1\n", &format!("custom_plugins:\n  - x {MARK}\n# - a\nb: 1\n")),
        (
            "a: 1\n# custom_plugins:\n  # - hello\n  # - ...\n\nb: 1\n",
            &format!(
                "a: 1\n# custom_plugins:\n  # - hello\n  # - ...\ncustom_plugins: {MARK}\n  - x\n\nb: 1\n"
            ),
        ),
        ("a: 1\n", &format!("a: 1\ncustom_plugins: {MARK}\n  - x\n")),
        ("", &format!("custom_plugins: {MARK}\n  - x\n")),
        ("---\na: |\n  text", &format!("---\ncustom_plugins: {MARK}\n  - x\na: |\n  text")),
        (
            "a: |\n  custom_plugins:\n    - a\ncustom_plugins:\n  - b\n",
            "a: |\n  custom_plugins:\n    - a\ncustom_plugins:\n  - b\n  - x\n",
        ),
    ] {
        assert_eq!(edit(text, &["x"], &[]).as_deref(), Ok(expected), "{text:?}");
        assert_eq!(edit(expected, &[], &["x"]).as_deref(), Ok(text), "{expected:?}");
        assert_eq!(edit(expected, &["x"], &[]).as_deref(), Ok(expected), "{expected:?}");
    }
}

#[test]
fn a_name_goes_with_what_belongs_to_it() {
    for (text, expected) in [
        ("custom_plugins:\n  - a\n  - x # why\n  - b\n", "custom_plugins:\n  - a\n  - b\n"),
        ("custom_plugins:\n  - x\n", "custom_plugins: []\n"),
        ("custom_plugins: # mine\n  - x\nb: 1\n", "custom_plugins: [] # mine\nb: 1\n"),
        ("custom_plugins:\n  - a\n  - x", "custom_plugins:\n  - a"),
        ("custom_plugins: [x]\n", "custom_plugins: []\n"),
        ("custom_plugins: [x, a]\n", "custom_plugins: [a]\n"),
        ("custom_plugins: [a, 'x', b]\n", "custom_plugins: [a, b]\n"),
        ("custom_plugins:\n  - xx\n", "custom_plugins:\n  - xx\n"),
        ("a: x\n", "a: x\n"),
    ] {
        assert_eq!(edit(text, &[], &["x"]).as_deref(), Ok(expected), "{text:?}");
    }
    assert_eq!(edit("custom_plugins:\n  - x\n", &["z"], &["x"]).as_deref(), Ok("custom_plugins:\n  - z\n"));
    assert_eq!(edit("custom_plugins: [x]\n", &["z"], &["x"]).as_deref(), Ok("custom_plugins: [z]\n"));
}

#[test]
fn names_that_yaml_could_take_for_something_else_are_quoted() {
    assert_eq!(
        edit("custom_plugins: [a]\n", &["1claw"], &[]).as_deref(),
        Ok("custom_plugins: [a, \"1claw\"]\n")
    );
    assert_eq!(
        edit("custom_plugins:\n- a\n", &["on"], &[]).as_deref(),
        Ok("custom_plugins:\n- a\n- \"on\"\n")
    );
}

#[test]
fn what_lines_do_not_show_is_refused() {
    for (text, code) in [
        ("custom_plugins: hello\n", "UNMANAGED_VALUE"),
        ("custom_plugins: {a: 1}\n", "UNMANAGED_VALUE"),
        ("custom_plugins: [1, a]\n", "UNMANAGED_VALUE"),
        ("custom_plugins: ~\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins: [a,\n  b]\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins: [\"a b\"]\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins:\n  - a\n  -   - b\n", "UNMANAGED_VALUE"),
        ("custom_plugins:\n  [a]\n", "CONF_YAML_UNSAFE"),
        ("\"custom_plugins\":\n  - a\n", "CONF_YAML_UNSAFE"),
        ("{custom_plugins: [a]}\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins: &list\n  - a\n", "CONF_YAML_UNSAFE"),
        ("a: &list [b]\ncustom_plugins: *list\n", "CONF_YAML_UNSAFE"),
        ("a: &b {custom_plugins: [c]}\n<<: *b\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins: !!set [a]\n", "CONF_YAML_UNSAFE"),
        ("custom_plugins: [a]\ncustom_plugins: [b]\n", "CONF_UNPARSABLE"),
        ("a: 1\n---\ncustom_plugins: [b]\n", "CONF_YAML_UNSAFE"),
        ("a: 1\n...\n", "CONF_YAML_UNSAFE"),
        ("\u{feff}a: 1\n", "CONF_YAML_UNSAFE"),
        ("%YAML 1.1\n---\na: 1\n", "CONF_YAML_UNSAFE"),
        ("a: [1\n", "CONF_UNPARSABLE"),
        ("just text\n", "CONF_YAML_UNSAFE"),
        ("- a\n", "CONF_YAML_UNSAFE"),
        ("a: \"two\ncustom_plugins:\n - lines\"\n", "CONF_YAML_UNSAFE"),
    ] {
        assert_eq!(edit(text, &["x"], &[]), Err(code), "{text:?}");
    }
    assert_eq!(KongYml::parse(b"a: \xff\n", CUSTOM).unwrap_err().code, "CONF_UNPARSABLE");
    assert_eq!(KongYml::parse(&vec![b'#'; (1 << 20) + 1], CUSTOM).unwrap_err().code, "CONF_TOO_LARGE");
}

#[test]
fn the_lua_path_of_the_nginx_block_names_the_generation() {
    let text = "custom_plugins:\n  - a\nnginx: |\n  http {\n    lua_package_path ';;';\n    lua_code_cache on;\n  }\n";
    let change = |n: Option<u64>| Change {
        add: set(&["x"]),
        generation: n.map(|n| PathBuf::from(format!("/opt/kctl/gen/{n}"))),
        ..Change::default()
    };
    let path = "/opt/kctl/gen/1/?.lua;/opt/kctl/gen/1/?/init.lua;;;";
    let one = changed(text, CUSTOM, &change(Some(1))).unwrap();
    assert_eq!(one, text.replace("- a\n", "- a\n  - x\n").replace("';;'", &format!("'{path}'")));
    let two = changed(&one, CUSTOM, &change(Some(2))).unwrap();
    assert_eq!(two, one.replace("gen/1", "gen/2"));
    let back = Change { remove: set(&["x"]), ..Change::default() };
    assert_eq!(changed(&two, CUSTOM, &back).as_deref(), Ok(text));
    for text in ["a: 1\n", "nginx: |\n  lua_package_path ';;';\n  lua_package_path ';;';\n"] {
        assert_eq!(changed(text, CUSTOM, &change(Some(1))), Err("LUA_PATH_NOT_FOUND"), "{text:?}");
        assert!(changed(text, CUSTOM, &change(None)).is_ok(), "{text:?}");
    }
}

fn list() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b-c", "D_1", "\"q\"", "'r'"]);
    let names = prop::collection::vec(name, 0..4);
    let comment = prop::sample::select(vec!["", " # note", "   "]);
    prop_oneof![
        (names.clone(), comment.clone())
            .prop_map(|(n, c)| format!("custom_plugins: [{}]{c}\n", n.join(", "))),
        (names, prop::sample::select(vec!["", "  ", "    "]), comment).prop_map(|(names, indent, c)| {
            let items: String = names.iter().map(|n| format!("{indent}- {n}{c}\n")).collect();
            format!("custom_plugins:{c}\n{items}")
        }),
        Just(String::new()),
        Just("# custom_plugins:\n  # - hello\n".to_owned()),
    ]
}

fn block() -> impl Strategy<Value = String> {
    prop_oneof![
        "k[0-9]{1,6}: [a-z]{1,6}( # [a-z]{0,5})?\n",
        Just("# comment\n".to_owned()),
        Just("\n".to_owned()),
        Just("n: |\n  custom_plugins:\n    - a\n\n  #{}\n".to_owned()),
        Just("t:\n  u:\n    - a\n".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_fails_badly(text in "[ -~\n]{0,80}") {
        if let Ok(yml) = KongYml::parse(text.as_bytes(), CUSTOM) {
            let _ = yml.edit(&Change { add: set(&["x"]), ..Change::default() }, &ours());
        }
    }

    #[test]
    fn an_edit_is_the_set_operation_and_nothing_else(
        before in prop::collection::vec(block(), 0..4),
        list in list(),
        after in prop::collection::vec(block(), 0..4),
        crlf in any::<bool>(),
        cut in any::<bool>(),
    ) {
        let mut text = format!("{}{list}{}", before.concat(), after.concat());
        if cut {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        let Ok(yml) = KongYml::parse(text.as_bytes(), CUSTOM) else { return Ok(()) };
        let edited = edit(&text, &["x"], &[]).unwrap();
        let names = |text: &str| KongYml::parse(text.as_bytes(), CUSTOM).unwrap().plugins().unwrap().into_iter().collect::<BTreeSet<_>>();
        let mut expected: BTreeSet<String> = yml.plugins().unwrap().into_iter().collect();
        expected.insert("x".into());
        prop_assert_eq!(names(&edited), expected);
        prop_assert_eq!(&edit(&edited, &["x"], &[]).unwrap(), &edited);
        prop_assert_eq!(edit(&edited, &[], &["x"]).unwrap(), text);
    }
}
