//! `kong version` and command lines that are none.

use crate::node::{Datastore, Node};

#[test]
fn version_prints_just_the_number() {
    let node = Node::new(&Datastore::Declarative(""));
    let ran = node.kong("version");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "3.9.1\n", ""));
    let all = node.kong("version -a");
    assert_eq!(all.out, "Kong: 3.9.1\nngx_lua: 10026\nnginx: 1025003\nLua: LuaJIT 2.1-20231117\n");
    let verbose = node.kong("version --v");
    assert!(verbose.out.ends_with(" [verbose] Kong: 3.9.1\n3.9.1\n"), "{verbose:?}");
}

#[test]
fn unknown_commands_print_the_usage_to_stderr_and_exit_1() {
    let node = Node::new(&Datastore::Declarative(""));
    for (line, start) in [
        ("help", "No such command: help\n\nUsage: kong"),
        ("bogus", "No such command: bogus\n\nUsage: kong"),
        ("", "Usage: kong"),
    ] {
        let ran = node.kong(line);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
        assert!(ran.err.starts_with(start), "{line}: {}", ran.err);
        assert!(ran.err.contains("\n prepare\n quit\n reload\n restart\n"), "{}", ran.err);
    }
}
