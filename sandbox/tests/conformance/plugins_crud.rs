//! Plugin entities through the Admin API: create, read, change, replace, delete, list.

use serde_json::{Value, json};

use crate::node::Node;

fn node() -> (tempfile::TempDir, Node) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    assert_eq!(node.post("/consumers", "{\"username\":\"bob\"}").status, 201);
    (directory, node)
}

fn id(entity: &Value) -> &str {
    entity["id"].as_str().unwrap()
}

#[test]
fn an_entity_shows_every_field() {
    let (_database, node) = node();
    let created = node.post(
        "/plugins",
        "{\"name\":\"golden\",\"config\":{\"value\":\"global\"},\"tags\":[\"t1\",\"managed\"]}",
    );
    assert_eq!(created.status, 201);
    assert_eq!(created.headers["content-type"], "application/json; charset=utf-8");
    let mut entity = created.json();
    assert!(entity["created_at"].is_u64() && entity["updated_at"].is_u64() && entity["id"].is_string());
    for key in ["id", "created_at", "updated_at"] {
        entity.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(
        entity,
        json!({
            "name": "golden", "instance_name": null, "service": null, "route": null, "consumer": null, "enabled": true,
            "tags": ["t1", "managed"], "config": {"value": "global", "limit": null, "mode": null},
            "protocols": ["grpc", "grpcs", "http", "https"],
        })
    );
    assert_eq!(node.get("/plugins?tags=managed").json()["data"].as_array().unwrap().len(), 1);
    assert_eq!(node.get("/plugins?tags=managed,other").json()["data"], json!([]));
    assert_eq!(node.get("/plugins?tags=managed/other").json()["data"].as_array().unwrap().len(), 1);
}

#[test]
fn one_entity_per_scope_and_name() {
    let (_database, node) = node();
    assert_eq!(node.post("/plugins", "{\"name\":\"golden\"}").status, 201);
    let again = node.post("/plugins", "{\"name\":\"golden\"}");
    assert_eq!(again.status, 409);
    assert_eq!(
        again.json(),
        json!({
            "code": 5, "name": "unique constraint violation",
            "message": "UNIQUE violation detected on '{consumer=null,name=\"golden\",route=null,service=null}'",
            "fields": {"consumer": null, "name": "golden", "route": null, "service": null},
        })
    );
    let service =
        node.post("/services/s1/plugins", "{\"name\":\"golden\",\"config\":{\"value\":\"svc\"}}").json();
    let parent = id(&service["service"]).to_owned();
    let again = node.post("/plugins", "{\"name\":\"golden\",\"service\":{\"name\":\"s1\"}}");
    assert_eq!(again.status, 409);
    assert_eq!(
        again.json()["message"],
        format!(
            "UNIQUE violation detected on '{{consumer=null,name=\"golden\",route=null,service={{id=\"{parent}\"}}}}'"
        )
    );
    let route = node.post("/routes/r1/plugins", "{\"name\":\"golden\",\"instance_name\":\"golden-route\"}");
    assert_eq!((route.status, route.json()["instance_name"].as_str()), (201, Some("golden-route")));
    assert_eq!(node.post("/consumers/bob/plugins", "{\"name\":\"golden\"}").status, 201);
    let named = node.post("/plugins", "{\"name\":\"key-auth\",\"instance_name\":\"golden-route\"}");
    assert_eq!(named.status, 409);
    assert_eq!(named.json()["message"], "UNIQUE violation detected on '{instance_name=\"golden-route\"}'");

    // Lists and members below a parent.
    for (path, count) in [
        ("/plugins", 4),
        ("/services/s1/plugins", 1),
        ("/routes/r1/plugins", 1),
        ("/consumers/bob/plugins", 1),
    ] {
        let list = node.get(path).json();
        assert_eq!((list["data"].as_array().unwrap().len(), &list["next"]), (count, &Value::Null), "{path}");
    }
    let route_id = id(&route.json()).to_owned();
    assert_eq!(node.get(&format!("/services/s1/plugins/{route_id}")).status, 404);
    assert_eq!(node.get(&format!("/routes/r1/plugins/{route_id}")).status, 200);
    assert_eq!(node.get("/plugins/golden-route").status, 200);
    assert_eq!(node.get("/plugins/golden").status, 404, "not by plugin name");
}

#[test]
fn forms_are_read_by_the_schema() {
    let (_database, node) = node();
    let created =
        node.post("/routes/r1/plugins", "name=key-auth&config.key_names=apikey&config.key_in_body=true");
    assert_eq!(created.status, 201, "{created:?}");
    let config = created.json()["config"].clone();
    assert_eq!((&config["key_names"], &config["key_in_body"]), (&json!(["apikey"]), &json!(true)));
    assert_eq!(config["run_on_preflight"], true);
    let created = node.post("/plugins", "name=golden&config.limit=3&tags[]=a&tags[]=b");
    assert_eq!(
        (created.json()["config"]["limit"].clone(), created.json()["tags"].clone()),
        (json!(3), json!(["a", "b"]))
    );
}

#[test]
fn patch_merges_the_configuration() {
    let (_database, node) = node();
    let created = node.post("/plugins", "{\"name\":\"golden\",\"config\":{\"value\":\"global\"}}").json();
    let path = format!("/plugins/{}", id(&created));
    let patched = node.send("PATCH", &path, "{\"config\":{\"limit\":3}}");
    assert_eq!(
        (patched.status, &patched.json()["config"]),
        (200, &json!({"value": "global", "limit": 3, "mode": null}))
    );
    let patched = node.send("PATCH", &path, "{\"config\":{\"limit\":null},\"enabled\":false}").json();
    assert_eq!((&patched["config"]["limit"], &patched["enabled"]), (&Value::Null, &json!(false)));
    let renamed = node.send("PATCH", &path, "{\"name\":\"cors\"}");
    assert_eq!(renamed.status, 400);
    assert_eq!(
        renamed.json()["message"],
        "3 schema violations (config.limit: unknown field; config.mode: unknown field; config.value: unknown field)"
    );
    assert_eq!(
        node.send("PATCH", "/plugins/11111111-1111-4111-8111-111111111111", "{\"enabled\":true}").status,
        404
    );
}

#[test]
fn put_replaces_or_creates_under_the_given_id() {
    let (_database, node) = node();
    let created = node.post("/plugins", "{\"name\":\"golden\",\"tags\":[\"x\"]}").json();
    let path = format!("/plugins/{}", id(&created));
    let put = node.send("PUT", &path, "{\"name\":\"golden\",\"config\":{\"value\":\"put\"}}");
    assert_eq!((put.status, &put.json()["tags"], id(&put.json())), (200, &Value::Null, id(&created)));
    let fresh = "/plugins/22222222-2222-4222-8222-222222222222";
    let put = node.send("PUT", fresh, "{\"name\":\"correlation-id\"}");
    assert_eq!(
        (put.status, &put.json()["config"]),
        (
            200,
            &json!({"generator": "uuid#counter", "header_name": "Kong-Request-ID", "echo_downstream": false})
        )
    );
    assert_eq!(
        node.send("PUT", "/plugins/33333333-3333-4333-8333-333333333333", "{\"name\":\"golden\"}").status,
        409
    );
    // A saved entity comes back whole: this is how a deletion is undone.
    assert_eq!(node.delete(&path).status, 204);
    let saved = created.to_string();
    let restored = node.send("PUT", &path, &saved);
    assert_eq!(
        (restored.status, id(&restored.json()), &restored.json()["created_at"]),
        (200, id(&created), &created["created_at"])
    );
    let orphan = node.send(
        "PUT",
        fresh,
        "{\"name\":\"cors\",\"service\":{\"id\":\"11111111-1111-4111-8111-111111111111\"}}",
    );
    assert_eq!((orphan.status, orphan.json()["code"].as_u64()), (400, Some(4)));
}

#[test]
fn delete_is_idempotent_and_cascades() {
    let (_database, node) = node();
    let created = node.post("/services/s1/plugins", "{\"name\":\"golden\"}").json();
    let path = format!("/plugins/{}", id(&created));
    assert_eq!((node.delete(&path).status, node.delete(&path).status), (204, 204));
    assert_eq!(node.post("/routes/r1/plugins", "{\"name\":\"golden\",\"instance_name\":\"x\"}").status, 201);
    assert_eq!(node.delete("/plugins/x").status, 204);
    assert_eq!(node.post("/routes/r1/plugins", "{\"name\":\"golden\"}").status, 201);
    let held = node.delete("/services/s1");
    assert_eq!(held.status, 400);
    assert_eq!(
        held.json(),
        json!({
            "code": 4, "name": "foreign key violation", "fields": {"@referenced_by": "routes"},
            "message": "an existing 'routes' entity references this 'services' entity",
        })
    );
    assert_eq!((node.delete("/routes/r1").status, node.delete("/services/s1").status), (204, 204));
    assert_eq!(node.get("/plugins").json()["data"], json!([]), "the rows went with their parents");
}

#[test]
fn lists_come_in_pages() {
    let (_database, node) = node();
    for number in 0..12 {
        let service = format!("{{\"name\":\"p{number}\",\"url\":\"http://standin-delay\"}}");
        assert_eq!(node.post("/services", &service).status, 201);
        assert_eq!(
            node.post(&format!("/services/p{number}/plugins"), "{\"name\":\"golden\",\"tags\":[\"n1\"]}")
                .status,
            201
        );
    }
    let mut seen = Vec::new();
    let mut next = Some("/plugins?tags=n1&size=5".to_owned());
    let mut sizes = Vec::new();
    while let Some(path) = next {
        let page = node.get(&path).json();
        let data = page["data"].as_array().unwrap().clone();
        sizes.push(data.len());
        seen.extend(data.iter().map(|entity| id(entity).to_owned()));
        next = page["next"].as_str().map(str::to_owned);
        if let Some(next) = &next {
            let offset = page["offset"].as_str().unwrap();
            assert_eq!(*next, format!("/plugins?offset={offset}&tags=n1&size=5"));
        }
    }
    assert_eq!(sizes, [5, 5, 2]);
    seen.dedup();
    assert_eq!(seen.len(), 12);
    assert_eq!(
        node.get("/plugins?name=nothing").json()["data"].as_array().unwrap().len(),
        12,
        "no filter by name"
    );
    for (size, message) in [
        ("1001", "size must be an integer between 1 and 1000"),
        ("0", "size must be an integer between 1 and 1000"),
        ("-1", "size must be an integer between 1 and 1000"),
        ("abc", "size must be a number"),
    ] {
        let refused = node.get(&format!("/plugins?size={size}"));
        assert_eq!(
            (refused.status, refused.json()),
            (400, json!({"code": 9, "name": "invalid size", "message": message}))
        );
    }
    let refused = node.get("/plugins?offset=bogus");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["message"], "'bogus' is not a valid offset: bad base64 encoding");
}
