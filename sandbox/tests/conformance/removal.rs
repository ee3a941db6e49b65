//! The good order of removal: entities, list, reload, files.

use crate::node::Node;

#[test]
fn entities_first_then_the_list_then_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    let created = node.post("/plugins", "{\"name\":\"golden\"}");
    assert_eq!(created.status, 201);
    node.until("the plugin acts", || node.golden().is_some());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(node.delete(&format!("/plugins/{id}")).status, 204);
    node.until("the plugin acts no more", || node.golden().is_none());
    node.set("plugins", "bundled");
    std::fs::write(node.path("empty.yml"), "_format_version: \"3.0\"\n").unwrap();
    let root = node.root.path().display();
    assert_eq!(node.kong(&format!("config parse {root}/empty.yml -c <CONF> -p {root}/scratch")).code, 0);
    node.reload_through();
    assert!(!node.enabled("golden"));
    assert_eq!(node.get("/schemas/plugins/golden").status, 404);
    std::fs::remove_dir_all(node.lua().join("kong/plugins/golden")).unwrap();
    node.reload_through();
    assert_eq!(node.proxy("/a").status, 200);
}
