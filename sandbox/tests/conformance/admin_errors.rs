//! What the Admin API refuses, and how it says so.

use serde_json::json;

use crate::node::{GOLDEN_HANDLER, GOLDEN_SCHEMA, Node};

#[test]
fn schema_violations_name_every_field() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    for (body, message) in [
        (
            "{\"name\":\"golden\",\"config\":{\"limit\":99}}",
            "schema violation (config.limit: value should be between 1 and 10)",
        ),
        (
            "{\"name\":\"golden\",\"config\":{\"limit\":\"x\"}}",
            "schema violation (config.limit: expected an integer)",
        ),
        (
            "{\"name\":\"golden\",\"config\":{\"nosuch\":1}}",
            "schema violation (config.nosuch: unknown field)",
        ),
        (
            "{\"name\":\"golden\",\"config\":{\"mode\":\"z\",\"limit\":0,\"nosuch\":1,\"value\":null}}",
            "4 schema violations (config.limit: value should be between 1 and 10; config.mode: expected one of: a, b; \
             config.nosuch: unknown field; config.value: required field missing)",
        ),
        ("{\"name\":\"golden\",\"config\":\"str\"}", "schema violation (config: expected a record)"),
        (
            "{\"name\":\"golden\",\"protocols\":[\"tcp\"]}",
            "schema violation (protocols.1: expected one of: grpc, grpcs, http, https)",
        ),
        (
            "{\"name\":\"rate-limiting\",\"config\":{}}",
            "schema violation (at least one of these fields must be non-empty: 'config.second', 'config.minute', \
             'config.hour', 'config.day', 'config.month', 'config.year')",
        ),
        (
            "{\"name\":\"rate-limiting\",\"config\":{\"minute\":0,\"policy\":\"nope\"}}",
            "2 schema violations (config.minute: value must be greater than 0; config.policy: expected one of: local, \
             cluster, redis)",
        ),
        ("{\"name\":\"golden\",\"foo\":\"bar\"}", "schema violation (foo: unknown field)"),
        ("{}", "schema violation (name: required field missing)"),
        ("[]", "schema violation (name: required field missing)"),
        (
            "{\"name\":\"golden\",\"consumer_group\":{\"name\":\"g1\"}}",
            "schema violation (consumer_group: unknown field)",
        ),
    ] {
        let refused = node.post("/plugins", body);
        assert_eq!((refused.status, &refused.json()["message"]), (400, &json!(message)), "{body}");
        assert_eq!(
            (&refused.json()["code"], &refused.json()["name"]),
            (&json!(2), &json!("schema violation"))
        );
    }
    let fields =
        node.post("/plugins", "{\"name\":\"golden\",\"config\":{\"limit\":99}}").json()["fields"].clone();
    assert_eq!(fields, json!({"config": {"limit": "value should be between 1 and 10"}}));
}

#[test]
fn bodies_paths_and_verbs_that_are_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    for (method, path, body, status, message) in [
        ("POST", "/plugins", "{bad json", 400, "Cannot parse JSON body"),
        ("POST", "/plugins", "{\"name\":42}", 500, "An unexpected error occurred"),
        ("PATCH", "/plugins", "{\"x\":1}", 405, "Method not allowed"),
        ("GET", "/nope", "", 404, "Not found"),
        ("POST", "/consumer_groups", "{\"name\":\"g1\"}", 404, "Not found"),
        ("POST", "/services/nope/plugins", "{\"name\":\"cors\"}", 404, "Not found"),
        ("GET", "/plugins/11111111-1111-4111-8111-111111111111", "", 404, "Not found"),
        ("GET", "/schemas/nope", "", 404, "No entity named 'nope'"),
        ("POST", "/schemas/nope/validate", "{}", 404, "No entity named 'nope'"),
        ("GET", "/schemas/plugins/validate", "", 405, "Method not allowed"),
    ] {
        let answer = node.send(method, path, body);
        assert_eq!((answer.status, answer.json()), (status, json!({"message": message})), "{method} {path}");
    }
    let refused = node.post(
        "/plugins",
        "{\"name\":\"cors\",\"service\":{\"id\":\"11111111-1111-4111-8111-111111111111\"}}",
    );
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json(),
        json!({
            "code": 4, "name": "foreign key violation",
            "message": "the foreign key '{id=\"11111111-1111-4111-8111-111111111111\"}' does not reference an existing 'services' entity.",
            "fields": {"service": {"id": "11111111-1111-4111-8111-111111111111"}},
        })
    );
}

#[test]
fn plugins_that_are_not_enabled_are_unknown_to_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    node.plugin("ondisk", &[("handler", GOLDEN_HANDLER), ("schema", GOLDEN_SCHEMA)]);
    for name in ["ondisk", "doesnotexist"] {
        let words = format!("plugin '{name}' not enabled; add it to the 'plugins' configuration property");
        let wanted = json!({
            "message": format!("schema violation (name: {words})"), "code": 2, "name": "schema violation",
            "fields": {"name": words},
        });
        let body = format!("{{\"name\":\"{name}\"}}");
        for answer in [
            node.post("/plugins", &body),
            node.send("PUT", "/plugins/44444444-4444-4444-8444-444444444444", &body),
            node.post("/schemas/plugins/validate", &body),
        ] {
            assert_eq!((answer.status, answer.json()), (400, wanted.clone()));
        }
        let schema = node.get(&format!("/schemas/plugins/{name}"));
        assert_eq!(
            (schema.status, schema.json()),
            (404, json!({"message": format!("No plugin named '{name}'")}))
        );
    }
}

#[test]
fn a_node_without_a_database_refuses_entity_writes() {
    let node = Node::dbless();
    for (method, path, verb) in [
        ("POST", "/plugins", "create"),
        ("PATCH", "/plugins/11111111-1111-4111-8111-111111111111", "update"),
        ("PUT", "/plugins/11111111-1111-4111-8111-111111111111", "create or update"),
        ("DELETE", "/plugins/11111111-1111-4111-8111-111111111111", "remove"),
    ] {
        let refused = node.send(method, path, "{\"name\":\"golden\"}");
        assert_eq!((refused.status, refused.json()["code"].as_u64()), (405, Some(12)), "{method}");
        assert_eq!(
            refused.json()["message"],
            format!("cannot {verb} 'plugins' entities when not using a database")
        );
    }
}

#[test]
fn schemas_are_shown_with_defaults_and_without_functions() {
    let node = Node::dbless();
    let schema = node.get("/schemas/plugins/golden").json();
    assert_eq!(schema["entity_checks"], json!([]));
    assert_eq!(
        schema["fields"][1]["config"],
        json!({
            "type": "record", "required": true, "fields": [
                {"value": {"type": "string", "required": true, "default": "hi"}},
                {"limit": {"type": "integer", "between": [1, 10]}},
                {"mode": {"type": "string", "one_of": ["a", "b"]}},
            ],
        })
    );
    let key_auth = node.get("/schemas/plugins/key-auth").json();
    assert!(
        key_auth["fields"][0]["consumer"]["eq"].is_null()
            && key_auth["fields"][0]["consumer"]["reference"] == "consumers"
    );
    let valid = node.post("/schemas/plugins/validate", "{\"name\":\"golden\",\"config\":{\"limit\":2}}");
    assert_eq!((valid.status, valid.json()), (200, json!({"message": "schema validation successful"})));
}
