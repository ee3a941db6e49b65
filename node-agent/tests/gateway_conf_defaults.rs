//! The editor on files that people really start from. Kong's own default files are not part of this repository: name a
//! directory with `KCTL_TEST_CONFS` that holds `kong-VERSION.conf.default` and `kong-VERSION.yml` files, as in Kong's
//! repository at its tags.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kctl_node_agent::gateway::dialect::{Dialect, Grammar};
use kctl_node_agent::gateway::kong_conf::{Change, Comments, OurPath};
use kctl_node_agent::gateway::node_conf::NodeConf;

fn version_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_prefix("kong-")?;
    let end = [".conf.default", ".conf", ".yml"].iter().find_map(|end| name.strip_suffix(end))?;
    Some(end.to_owned())
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|b| *b == b'\n').collect()
}

/// Lines that one text has and the other has not, when all the rest is the same in the same order.
fn changed<'a>(old: &'a [u8], new: &'a [u8]) -> (Vec<&'a [u8]>, Vec<&'a [u8]>) {
    let (old, new) = (lines(old), lines(new));
    let before = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - before;
    let after = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count().min(rest);
    (old[before..old.len() - after].to_vec(), new[before..new.len() - after].to_vec())
}

/// Adds a name, adds another, takes both away.
fn check(path: &Path, text: &[u8], grammar: Grammar) {
    let ours = OurPath::new(Path::new("/opt/kctl"));
    let shown = path.display();
    let parse = |text: &[u8]| NodeConf::parse(text, grammar).unwrap_or_else(|e| panic!("{shown}: {e}"));
    let edit = |text: &[u8], add: &[&str], remove: &[&str], generation: Option<&str>| {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let change = Change {
            add: set(add),
            remove: set(remove),
            generation: generation.map(PathBuf::from),
            nginx: None,
        };
        parse(text).edit(&change, &ours).unwrap_or_else(|e| panic!("{shown}: {e}"))
    };
    let names = |text: &[u8]| parse(text).plugins().unwrap().into_iter().collect::<BTreeSet<_>>();

    let one = edit(text, &["hello-world"], &[], None);
    let (gone, come) = changed(text, &one);
    // A key with an item; in 0.9.0, where nothing may follow a list, a comment with a list.
    let alone = matches!(grammar, Grammar::Conf(style) if style.comments != Comments::FirstButNotInLists);
    let list = if alone { 1 } else { 2 };
    assert!(gone.is_empty() && (1..=list).contains(&come.len()), "{shown}: {come:?}");
    let mut expected = names(text);
    expected.insert("hello-world".into());
    assert_eq!(names(&one), expected, "{shown}");
    assert_eq!(edit(&one, &["hello-world"], &[], None), one, "{shown}");
    assert_eq!(edit(&one, &[], &["hello-world"], None), text, "{shown}");

    let two = edit(&one, &["Other_1"], &[], None);
    let (gone, come) = changed(&one, &two);
    assert!(gone.len() <= 1 && come.len() == 1, "{shown}: {gone:?} {come:?}");
    let back = edit(&two, &[], &["hello-world"], None);
    assert_eq!(edit(&back, &[], &["Other_1"], None), text, "{shown}");

    let linked = edit(text, &["hello-world"], &[], Some("/opt/kctl/gen/1"));
    assert_eq!(parse(&linked).generation(&ours), Some("/opt/kctl/gen/1".into()), "{shown}");
    let next = edit(&linked, &["hello-world"], &[], Some("/opt/kctl/gen/2"));
    assert_eq!(changed(&linked, &next).1.len(), 1, "{shown}");
    assert_eq!(edit(&next, &[], &["hello-world"], None), text, "{shown}");
}

#[test]
#[ignore = "needs KCTL_TEST_CONFS, a directory with Kong's default files"]
fn kongs_own_default_files_come_and_go_unchanged() {
    let Some(directory) = std::env::var_os("KCTL_TEST_CONFS") else {
        eprintln!("skipped: KCTL_TEST_CONFS is not set");
        return;
    };
    let mut checked = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let Some(version) = version_of(&path) else { continue };
        let text = std::fs::read(&path).unwrap();
        check(&path, &text, Dialect::grammar_of(&version).unwrap());
        let crlf = String::from_utf8(text).unwrap().replace('\n', "\r\n");
        check(&path, crlf.as_bytes(), Dialect::grammar_of(&version).unwrap());
        checked += 1;
    }
    println!("{checked} files");
    assert!(checked > 0, "no file is named like kong-3.9.1.conf.default or kong-0.8.3.yml");
}

#[test]
fn files_like_kongs_own_come_and_go_unchanged() {
    let conf = "# Settings that are commented out have these values.\n\n#log_level = notice  # how much\n\n#KEY = VALUE      # Comma-separated\n      \
        # names of plugins.\n      #\n      # More about them.\n\n#lua_package_path = ./?.lua;./?/init.lua;  # where\n      # modules are\n\n#last = 1\n";
    for (version, key, value) in [
        ("0.9.9", "custom_plugins", ""),
        ("0.10.4", "custom_plugins", ""),
        ("0.13.1", "custom_plugins", ""),
        ("0.14.1", "plugins", "bundled"),
        ("1.5.1", "plugins", "bundled"),
        ("2.8.5", "plugins", "bundled"),
        ("3.9.1", "plugins", "bundled"),
    ] {
        let text = conf.replace("KEY", key).replace("VALUE", value);
        let grammar = Dialect::grammar_of(version).unwrap();
        for text in [text.clone(), text.replace('\n', "\r\n"), text.trim_end().to_owned()] {
            check(Path::new(version), text.as_bytes(), grammar);
        }
        let change = Change { add: BTreeSet::from(["x".to_owned()]), ..Change::default() };
        let ours = OurPath::new(Path::new("/opt/kctl"));
        let edited = NodeConf::parse(text.as_bytes(), grammar).unwrap().edit(&change, &ours).unwrap();
        let edited = String::from_utf8(edited).unwrap();
        let list = if key == "plugins" { "bundled,x" } else { "x" };
        let expected = text.replace(
            "# More about them.\n",
            &format!("# More about them.\n{key} = {list} # added by kctl\n"),
        );
        assert_eq!(edited, expected, "{version}");
    }
}
