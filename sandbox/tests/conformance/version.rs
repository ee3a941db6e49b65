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

#[test]
fn more_words_come_with_their_level() {
    let node = Node::dbless();
    let stamps = regex::Regex::new(r"(?m)^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ").unwrap();
    let said = |line: &str| {
        let ran = node.kong(line);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        assert_eq!(stamps.find_iter(&ran.out).count(), ran.out.lines().count(), "{line}: {}", ran.out);
        stamps.replace_all(&ran.out, "").into_owned()
    };
    let versions = "[verbose] Kong: 3.9.1\n[debug] ngx_lua: 10026\n[debug] nginx: 1025003\n[debug] Lua: LuaJIT \
                    2.1-20231117\n";
    let reload = said("reload -c <CONF> -p <PREFIX> --vv");
    assert!(
        reload.starts_with(&format!("{versions}[verbose] prefix in use: <PREFIX>\n[debug] ")),
        "{reload}"
    );
    let end = "[debug] sending signal to pid at: <PREFIX>/pids/nginx.pid\n[debug] reloading nginx: \
               <OPENRESTY>/nginx/sbin/nginx -p <PREFIX> -c nginx.conf -s reload\n[info] Kong reloaded\n";
    assert!(reload.ends_with(end), "{reload}");
    for line in [
        "anonymous_reports = false",
        "admin_ssl_cert_key = \"******\"",
        "admin_gui_listen = {\"off\"}",
        "plugins = {\"bundled\",\"golden\"}",
        "cluster_data_plane_purge_delay = 1209600",
        "nginx_worker_processes = \"2\"",
    ] {
        assert!(reload.contains(&format!("[debug] {line}\n")), "{line}: {reload}");
    }
    let check = said("check <CONF> --vv");
    let start = format!(
        "{versions}[verbose] reading config file at <CONF>\n[debug] reading environment variables\n[verbose] prefix in use: \
         <PREFIX>\n"
    );
    assert!(check.starts_with(&start), "{check}");
    assert!(check.ends_with("[info] configuration at <CONF> is valid\n"), "{check}");
    assert_eq!(said("check <CONF> --v").lines().count(), 4);
}
