//! kctl as scripts see it: exit codes, stable codes, what is printed where, and JSON that others rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

use kctl_tests::cluster::{Cluster, Ran, kctl_binary};
use kctl_tests::{plugins, until};
use serde_json::Value;

/// Runs kctl with no context and no server that answers.
fn alone(args: &[&str]) -> Ran {
    let mut command = Command::new(kctl_binary());
    for key in ["KCTL_SERVER", "KCTL_CONTEXT", "KCTL_INSECURE", "KCTL_CONFIG", "XDG_CONFIG_HOME"] {
        command.env_remove(key);
    }
    command.args(args).env("HOME", "/nonexistent").output().unwrap().into()
}

fn refused(ran: &Ran, exit: i32, code: &str) {
    assert_eq!(ran.code, exit, "{code}: {ran:?}");
    assert!(ran.err.contains(code), "{code}: {ran:?}");
    assert_eq!(ran.out, "", "an error has no result: {ran:?}");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn has(value: &Value, wanted: &[&str]) {
    for key in wanted {
        assert!(keys(value).contains(key), "{key} is not in {value:#}");
    }
}

#[test]
fn a_change_needs_a_target_and_consent() {
    let temp = tempfile::tempdir().unwrap();
    let path = plugins::good(temp.path(), "probe", "1.0.0");
    let path = path.to_str().unwrap();
    refused(&alone(&["plugin", "install", path]), 64, "--all-nodes");
    refused(&alone(&["plugin", "remove", "probe"]), 64, "--all-nodes");
    refused(&alone(&["plugin", "remove", "probe", "--all-nodes"]), 64, "--yes");
    refused(&alone(&["plugin", "install"]), 64, "REF");
    refused(&alone(&["no-such-verb"]), 64, "no-such-verb");
}

#[test]
fn a_control_plane_that_does_not_answer_is_exit_7() {
    let dead = ["--server", "http://127.0.0.1:1"];
    for verb in [&["status"][..], &["plugin", "list"], &["cluster", "status"], &["node", "list"]] {
        refused(&alone(&[verb, &dead].concat()), 7, "UNREACHABLE");
    }
}

#[test]
fn addresses_off_loopback_need_a_word() {
    let ran = alone(&["status", "--server", "http://192.0.2.1:7101"]);
    refused(&ran, 1, "--insecure");
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let config = temp.path().join("member.toml");
    let listen = r#"listen = { grpc = "0.0.0.0:0", http = "127.0.0.1:0", raft = "127.0.0.1:0" }"#;
    let member = r#"members.1 = { grpc = "http://127.0.0.1:1", http = "http://127.0.0.1:2", raft = "http://127.0.0.1:3" }"#;
    std::fs::write(&config, format!("id = 1\ndata_dir = {data:?}\n{listen}\n{member}\n")).unwrap();
    let ran = alone(&["control-plane", "--config", config.to_str().unwrap()]);
    refused(&ran, 1, "insecure");
    assert!(!data.exists(), "a member that does not start leaves nothing behind");
}

/// A tar.gz of the given entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut tar = tar::Builder::new(gz);
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        // Written as it is: the library's own setter refuses what is tried here.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn bad_names_and_archives_are_refused_before_anybody_is_asked() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good: [(&str, &[u8]); 2] = [
        ("kong/plugins/probe/handler.lua", b"return { PRIORITY = 1, VERSION = \"1.0.0\" }"),
        ("kong/plugins/probe/schema.lua", b"return { name = \"probe\", fields = {} }"),
    ];
    let whole = archive(&good);
    let cut = &whole[..whole.len() / 2];
    let zeros = vec![0_u8; 96 << 20];
    let cases = [
        (write("text.tar.gz", b"not an archive at all"), "NOT_AN_ARCHIVE"),
        (write("cut.tar.gz", cut), "ARCHIVE_"),
        (write("escape.tar.gz", &archive(&[&good[..], &[("../../x.lua", b"x")]].concat())), "PATH_ESCAPE"),
        (write("absolute.tar.gz", &archive(&[&good[..], &[("/etc/x.lua", b"x")]].concat())), "PATH_"),
        (
            write("bomb.tar.gz", &archive(&[&good[..], &[("kong/plugins/probe/z", &zeros)]].concat())),
            "ARCHIVE_TOO_LARGE",
        ),
        (write("nothing.tar.gz", &archive(&[("README.md", b"x")])), "NO_PLUGIN"),
        (
            write("native.tar.gz", &archive(&[&good[..], &[("kong/plugins/probe/x.so", b"x")]].concat())),
            "NATIVE_NOT_ALLOWED",
        ),
        (plugins::good(temp.path(), "rate-limiting", "1.0.0"), "PLUGIN_BUNDLED"),
        (plugins::good(temp.path(), "bundled", "1.0.0"), "NAME_RESERVED"),
        (temp.path().join("absent"), "SOURCE_UNREADABLE"),
    ];
    for (path, code) in cases {
        // A server that would be asked does not exist: exit 7 would say that it was.
        let ran = alone(&[
            "plugin",
            "install",
            path.to_str().unwrap(),
            "--all-nodes",
            "--server",
            "http://127.0.0.1:1",
        ]);
        refused(&ran, 1, code);
    }
    let path = write("good.tar.gz", &whole);
    for name in ["../etc", "a b", "a;rm -rf /", "a,b", "", "-rf", "\u{440}robe"] {
        let name = format!("--name={name}");
        let ran = alone(&["plugin", "install", path.to_str().unwrap(), &name, "--all-nodes"]);
        assert!([1, 64].contains(&ran.code) && ran.err.contains("NAME_"), "{name}: {ran:?}");
    }
}

#[test]
fn completions_and_versions_need_no_control_plane() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = alone(&["completion", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("kctl") && ran.out.len() > 1000);
    }
    assert_eq!(alone(&["--version"]).code, 0);
}

#[test]
fn reads_and_changes_have_their_shapes_and_codes() {
    let cluster = Cluster::start(1, 1);
    let path = plugins::good(cluster.temp(), "probe", "1.0.0");
    let path = path.to_str().unwrap();

    let planned = cluster.kctl(&["plugin", "install", path, "--all-nodes", "--dry-run", "-o", "json"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    assert_eq!(cluster.json(&["operation", "list"]).as_array().unwrap().len(), 0, "a plan starts nothing");
    assert_eq!(cluster.loaded_on("probe"), [None]);

    let id = uuid::Uuid::new_v4().to_string();
    let install = ["plugin", "install", path, "--all-nodes", "--request-id", &id, "-o", "json"];
    let first: Value = serde_json::from_str(&cluster.kctl(&install).out).unwrap();
    let again: Value = serde_json::from_str(&cluster.kctl(&install).out).unwrap();
    assert_eq!(first["id"], again["id"], "a retry of a request is the same operation");
    assert_eq!(cluster.json(&["operation", "list"]).as_array().unwrap().len(), 1);
    let other = plugins::good(cluster.temp(), "probe", "2.0.0");
    let reused =
        cluster.kctl(&["plugin", "install", other.to_str().unwrap(), "--all-nodes", "--request-id", &id]);
    refused(&reused, 6, "REQUEST_ID_REUSED");

    let operation = cluster.operation(first["id"].as_str().unwrap());
    has(
        &operation,
        &[
            "id",
            "kind",
            "plugins",
            "group",
            "phase",
            "created_at",
            "finished_at",
            "error",
            "waiting_on",
            "steps",
        ],
    );
    has(&operation["steps"][0], &["name", "wave", "phase", "started_at", "finished_at", "nodes"]);
    assert!(operation["error"].is_null());
    assert!(operation["created_at"].as_str().unwrap().contains('T'));
    let status = cluster.json(&["status"]);
    has(&status, &["cluster", "nodes", "plugins", "operations"]);
    has(&status["cluster"], &["leader", "term", "members"]);
    has(&status["cluster"]["members"][0], &["id", "address", "role", "state", "applied_index"]);
    assert!(status["cluster"]["leader"].is_number() && status["cluster"]["term"].is_number());
    has(&status["nodes"][0], &["id", "group", "state", "kong_version", "plugins"]);
    has(&status["nodes"][0]["plugins"][0], &["name", "version", "digest", "stage", "state"]);
    has(
        &status["plugins"][0],
        &["name", "version", "digest", "group", "stage", "nodes_enabled", "nodes_total"],
    );
    assert_eq!(status["cluster"], cluster.json(&["cluster", "status"]));

    for format in ["table", "wide", "yaml", "jsonl", "name"] {
        for read in [&["plugin", "list"][..], &["node", "list"], &["operation", "list"]] {
            let ran = cluster.kctl(&[read, &["-o", format]].concat());
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(!ran.out.is_empty() && !ran.out.contains('\u{1b}'), "{ran:?}");
        }
    }
    let unknown = uuid::Uuid::new_v4().to_string();
    for read in [
        &["plugin", "get", "absent"][..],
        &["node", "get", "absent"],
        &["operation", "status", &unknown],
        &["plugin", "remove", "absent", "--all-nodes", "--yes"],
    ] {
        let ran = cluster.kctl(read);
        assert_eq!(ran.code, 5, "{read:?}: {ran:?}");
        assert!(!ran.err.is_empty());
    }
    let lower = plugins::good(cluster.temp(), "probe", "0.9.0");
    refused(&cluster.kctl(&["plugin", "install", lower.to_str().unwrap(), "--all-nodes"]), 6, "DOWNGRADE");
    let late = cluster.kctl(&["plugin", "remove", "probe", "--all-nodes", "--yes", "--timeout", "1ms"]);
    assert_eq!(late.code, 8, "{late:?}");
    let id = cluster.newest_operation()["id"].as_str().unwrap().to_owned();
    assert_eq!(cluster.wait_ended(&id, 60)["phase"], "Succeeded");
    assert_eq!(cluster.kctl(&["operation", "status", &id, "-w"]).code, 0);
}

#[test]
fn a_cluster_that_was_taken_down_leaves_nothing_running() {
    let cluster = Cluster::start(1, 1);
    let dev = cluster.dev();
    let down = cluster.kctl(&["dev", "down", "--dir", cluster.dir.to_str().unwrap()]);
    assert_eq!(down.code, 0, "{down:?}");
    for pid in [&dev["members"][0]["pid"], &dev["nodes"][0]["kong_pid"], &dev["nodes"][0]["agent_pid"]] {
        until("the processes to end", 10, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
}
