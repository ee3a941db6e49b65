//! A node to break, the doctor beside it, and what its report says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kctl_tests::cluster::{Ran, kctl_binary};
use serde_json::{Value, json};

use crate::node::{Node, SCHEMA, handler};

/// A node whose Lua path has a directory of the user's own.
pub fn with_plugins(directive: &str, plugins: &[&str]) -> Node {
    let node = Node::new("");
    let text = format!(
        "{}lua_package_path = {}/?.lua;;\n{directive}\n",
        node.read_conf(),
        node.path("lua").display()
    );
    node.write_conf(&text);
    for name in plugins {
        place(&node, name, "");
    }
    node
}

pub fn tree(node: &Node, name: &str) -> PathBuf {
    node.path("lua/kong/plugins").join(name)
}

pub fn place(node: &Node, name: &str, more: &str) {
    let directory = tree(node, name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("handler.lua"), handler("1.0.0", more)).unwrap();
    fs::write(directory.join("schema.lua"), SCHEMA.replace("NAME", name)).unwrap();
}

pub fn use_it(node: &Node, name: &str) {
    let config = json!({ "_format_version": "3.0", "plugins": [{ "name": name }] });
    assert_eq!(node.send("POST", "/config", config).0, 201);
}

pub fn load(node: &Node) {
    let (conf, prefix) = (node.conf(), node.prefix());
    let prepared = node.kong(&["prepare", "-c", conf.to_str().unwrap(), "-p", prefix.to_str().unwrap()]);
    assert!(prepared.status.success(), "{prepared:?}");
    let _refused_or_not = node.kong(&["reload", "-p", prefix.to_str().unwrap()]);
}

pub fn replace(node: &Node, from: &str, to: &str) {
    let text = node.read_conf();
    assert!(text.contains(from), "{text}");
    node.write_conf(&text.replace(from, to));
}

pub fn ran(node: &Node, args: &[&str]) -> Ran {
    command(node, &node.bin, args).output().unwrap().into()
}

/// The doctor as it is run for this node, with `bin` for Kong.
pub fn command(node: &Node, bin: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(kctl_binary());
    command.args(["doctor", "--local", "--conf"]).arg(node.conf()).arg("--prefix").arg(node.prefix());
    command.arg("--kong").arg(bin).args(args).env("HOME", "/nonexistent");
    command.stdin(std::process::Stdio::null()).env("XDG_STATE_HOME", node.path("state-home"));
    command
}

pub fn doctor(node: &Node, args: &[&str]) -> (i32, Value) {
    doctor_of(node, &node.bin, args)
}

/// With another executable than the node's own.
pub fn doctor_of(node: &Node, bin: &Path, args: &[&str]) -> (i32, Value) {
    let ran: Ran = command(node, bin, &[args, &["-o", "json"]].concat()).output().unwrap().into();
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    (ran.code, report)
}

pub fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

/// The first finding's code, and that it was an error.
pub fn first(node: &Node, code: &str) -> Value {
    let (exit, report) = doctor(node, &[]);
    assert_eq!(codes(&report).first(), Some(&code), "{report:#}");
    assert_eq!(exit, if report["findings"][0]["severity"] == "error" { 1 } else { 2 }, "{report:#}");
    report["findings"][0].clone()
}

pub fn healed(node: &Node, args: &[&str]) {
    let (exit, report) = doctor(node, &[&["--fix"], args].concat());
    assert_eq!(exit, 0, "{report:#}");
    assert_eq!(doctor(node, &[]).0, 0);
}
