//! A stored entity meets another schema of its plugin: a database shows it in the new shape, a file is refused.

use serde_json::{Value, json};

use crate::node::{DECLARATIVE, Datastore, GOLDEN_HANDLER, GOLDEN_SCHEMA, Node};

const LIMIT: &str = "          { limit = { type = \"integer\", between = { 1, 10 } } },\n";

/// The golden plugin's next version, with `fields` in place of the one that limits.
fn upgrade(node: &Node, fields: &str) {
    assert!(GOLDEN_SCHEMA.contains(LIMIT));
    let (handler, schema) = (GOLDEN_HANDLER.replace("1.0.0", "3.0.0"), GOLDEN_SCHEMA.replace(LIMIT, fields));
    node.plugin("golden", &[("handler", &handler), ("schema", &schema)]);
}

fn more(fields: &str) -> String {
    format!("{LIMIT}{fields}")
}

const REMOVED: &str = "";
const EXTRA: &str = "{ extra = { type = \"string\", default = \"dflt\" } },";
const MUST: &str = "{ must = { type = \"string\", required = true } },";
const STRING: &str = "{ limit = { type = \"string\" } },";
const NARROW: &str = "{ limit = { type = \"integer\", between = { 1, 3 } } },";

#[test]
fn a_database_shows_stored_entities_in_their_new_shape_and_judges_them_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    let created = node.post("/plugins", r#"{"name": "golden", "config": {"value": "one", "limit": 5}}"#);
    assert_eq!(
        (created.status, &created.json()["config"]),
        (201, &json!({"limit": 5, "mode": null, "value": "one"}))
    );
    let path = format!("/plugins/{}", created.json()["id"].as_str().unwrap());
    let shown = || {
        let listed = node.get("/plugins").json()["data"][0].clone();
        assert_eq!(node.get(&path).json(), listed);
        listed
    };
    let served = |value: &str| {
        let expected = format!("golden 3.0.0 {value}");
        node.until("the new code serves", || node.golden().as_deref() == Some(&*expected));
    };
    let changed = |body: Value, config: Value| {
        let answer = node.send("PATCH", &path, &body.to_string());
        assert_eq!((answer.status, &answer.json()["config"]), (200, &config), "{answer:?}");
    };
    let refused = |body: Value, field: &str, why: &str| {
        let answer = node.send("PATCH", &path, &body.to_string());
        let expected = json!({
            "message": format!("schema violation (config.{field}: {why})"), "code": 2, "name": "schema violation",
            "fields": {"config": {field: why}},
        });
        assert_eq!((answer.status, answer.json()), (400, expected));
    };
    let (two, one) = (json!({"config": {"value": "two"}}), json!({"config": {"value": "one", "limit": 5}}));

    upgrade(&node, REMOVED);
    node.reload_through();
    assert_eq!(shown()["config"], json!({"mode": null, "value": "one"}));
    assert_eq!(shown()["updated_at"], created.json()["updated_at"], "nothing was written");
    served("one");
    changed(two.clone(), json!({"value": "two", "mode": null}));
    refused(one.clone(), "limit", "unknown field");

    upgrade(&node, &more(EXTRA));
    node.reload_through();
    assert_eq!(shown()["config"], json!({"value": "two", "mode": null, "extra": "dflt", "limit": null}));
    served("two");
    changed(two.clone(), json!({"value": "two", "mode": null, "extra": "dflt", "limit": null}));
    changed(one.clone(), json!({"value": "one", "mode": null, "extra": "dflt", "limit": 5}));

    for (fields, field, why) in [
        (more(MUST).as_str(), "must", "required field missing"),
        (STRING, "limit", "expected a string"),
        (NARROW, "limit", "value should be between 1 and 3"),
    ] {
        upgrade(&node, fields);
        node.reload_through();
        assert_eq!(shown()["config"], json!({"mode": null, "limit": 5, "value": "one"}), "{fields}");
        served("one");
        refused(two.clone(), field, why);
        refused(one.clone(), field, why);
    }
    assert!(!node.log().contains("init_by_lua error"), "no reload was refused");
}

#[test]
fn a_declarative_file_is_judged_by_the_new_schema_and_refused_as_a_whole() {
    let text = format!("{DECLARATIVE}plugins:\n- name: golden\n  config:\n    value: one\n    limit: 5\n");
    let node = Node::new(&Datastore::Declarative(&text));
    node.start();
    let config = || node.get("/plugins").json()["data"][0]["config"].clone();
    let stored = json!({"limit": 5, "value": "one", "mode": null});
    let words = |field: &str, why: &str| {
        format!(
            "init_by_lua error: <KONG_LUA>/kong/init.lua:731: error parsing declarative config file <TMP>/config.yml:\nin \
             'plugins':\n  - in entry 1 of 'plugins':\n    in 'config':\n      in '{field}': {why}\nstack traceback:\n\t[C]: \
             in function 'error'\n\t<KONG_LUA>/kong/init.lua:731: in function 'init'\n\tinit_by_lua(nginx-kong.conf:44):3: \
             in main chunk\n"
        )
    };
    let refused = |fields: &str, field: &str, why: &str| {
        upgrade(&node, fields);
        let log = node.reload_refused();
        assert!(log.contains(&words(field, why)), "{log}");
        assert_eq!(config(), stored, "the workers have the old schema");
        assert_eq!(node.golden().as_deref(), Some("golden 1.0.0 one"));
    };
    refused(REMOVED, "limit", "unknown field");
    refused(&more(MUST), "must", "required field missing");
    refused(STRING, "limit", "expected a string");
    refused(NARROW, "limit", "value should be between 1 and 3");

    upgrade(&node, &more(EXTRA));
    node.reload_through();
    assert_eq!(config(), json!({"mode": null, "value": "one", "limit": 5, "extra": "dflt"}));
    assert_eq!(node.golden().as_deref(), Some("golden 3.0.0 one"));

    upgrade(&node, NARROW);
    let ran = node.kong("restart -c <CONF>");
    assert_eq!((ran.code, ran.out.as_str()), (1, "Kong stopped\n"));
    let error = format!(
        "Error: <KONG_LUA>/kong/cmd/start.lua:99: nginx: [error] {}\n\n  Run with --v (verbose) or --vv (debug) for more details\n",
        words("limit", "value should be between 1 and 3")
    );
    assert_eq!(ran.err, error);
    assert_eq!(node.master(), None);
}
