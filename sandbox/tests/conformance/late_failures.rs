//! Plugins that load and fail later: in init_worker, in the Admin API, in a request.

use crate::node::{GOLDEN_SCHEMA, Node};

fn add(node: &Node, modules: &[(&str, &str)]) {
    node.plugin("broken", modules);
    node.set("plugins", "bundled,golden,broken");
}

#[test]
fn a_throwing_init_worker_leaves_only_log_lines() {
    for database in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let node = if database { Node::database(directory.path()) } else { Node::dbless() };
        add(
            &node,
            &[
                (
                    "handler",
                    "local H = { PRIORITY = 10, VERSION = \"1.0.0\" }\nfunction H:init_worker() error(\"boom in init_worker\") end\nreturn H\n",
                ),
                ("schema", GOLDEN_SCHEMA),
            ],
        );
        node.reload_through();
        assert_eq!(node.kong("health -p <PREFIX>").code, 0);
        assert_eq!(node.ready().0, 200);
        let complaint = "failed to execute the \"init_worker\" handler for plugin \"broken\": \
                         <LUA_PATH>/kong/plugins/broken/handler.lua:2: boom in init_worker";
        let crit = format!(
            "init_worker(): worker initialization error: {complaint}; this node must be restarted, context: init_worker_by_lua*"
        );
        node.until("both workers have complained", || node.log().matches(&crit).count() >= 2);
        assert!(node.enabled("broken"), "it is listed all the same");
        let alert = format!(
            "unsafe request processing due to earlier initialization errors; this node must be restarted ({complaint})"
        );
        node.until("requests are called unsafe", || {
            node.get("/").status == 200 && node.log().contains(&alert)
        });
        assert_eq!(node.proxy("/a").status, 200);
        let ran = node.kong("restart -c <CONF> -p <PREFIX>");
        assert_eq!((ran.code, ran.out.as_str()), (0, "Kong stopped\nKong started\n"));
    }
}

#[test]
fn a_throwing_api_takes_the_whole_admin_api_down() {
    for database in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let node = if database { Node::database(directory.path()) } else { Node::dbless() };
        add(
            &node,
            &[
                ("handler", "return { PRIORITY = 10, VERSION = \"1.0.0\" }\n"),
                ("schema", GOLDEN_SCHEMA),
                ("api", "error(\"boom in api.lua\")\n"),
            ],
        );
        node.reload_through();
        for path in ["/", "/status", "/plugins/enabled"] {
            let answer = node.get(path);
            assert_eq!(answer.status, 500, "{path}");
            assert_eq!(answer.headers["content-type"], "text/html; charset=UTF-8");
            assert!(answer.body.contains("<title>500 Internal Server Error</title>"), "{}", answer.body);
        }
        assert_eq!(node.ready().0, 200, "readiness does not look at the Admin API");
        assert_eq!(node.proxy("/a").status, 200);
        let log = node.log();
        assert!(log.contains(
            "lua entry thread aborted: runtime error: <KONG_LUA>/kong/tools/module.lua:29: error loading module \
             'kong.plugins.broken.api':\n<LUA_PATH>/kong/plugins/broken/api.lua:1: boom in api.lua\n"
        ), "{log}");
        node.until("later requests find the module half loaded", || {
            node.get("/");
            node.log().contains(
                "<OPENRESTY>/lualib/resty/core/base.lua:80: loop or previous error loading module 'kong.api'",
            )
        });
    }
}

#[test]
fn an_api_module_adds_routes_to_the_admin_api() {
    let node = Node::dbless();
    assert_eq!(node.get("/golden-hello").status, 404);
    add(
        &node,
        &[
            ("handler", "return { PRIORITY = 10, VERSION = \"1.0.0\" }\n"),
            ("schema", GOLDEN_SCHEMA),
            (
                "api",
                "return { [\"/golden-hello\"] = { GET = function() return kong.response.exit(200, { hello = \"golden\" }) end } }\n",
            ),
        ],
    );
    node.reload_through();
    assert_eq!(node.get("/golden-hello").body, "{\"hello\":\"golden\"}");
    assert_eq!(node.post("/golden-hello", "{}").status, 405);
}

#[test]
fn a_throwing_access_phase_answers_500_and_is_logged() {
    let database = tempfile::tempdir().unwrap();
    let node = Node::database(database.path());
    add(
        &node,
        &[
            (
                "handler",
                "local H = { PRIORITY = 10, VERSION = \"1.0.0\" }\nfunction H:access() error(\"boom in access\") end\nreturn H\n",
            ),
            ("schema", GOLDEN_SCHEMA),
        ],
    );
    node.apply("{\"name\":\"broken\"}");
    node.until("the plugin acts", || node.proxy("/a").status == 500);
    assert!(
        node.log()
            .contains("[broken] <LUA_PATH>/kong/plugins/broken/handler.lua:2: boom in access, client: ")
    );
}

#[test]
fn a_plugin_can_answer_and_change_what_goes_upstream() {
    let database = tempfile::tempdir().unwrap();
    let node = Node::database(database.path());
    add(
        &node,
        &[
            (
                "handler",
                r#"local H = { PRIORITY = 10, VERSION = "1.0.0" }
function H:access(conf)
  kong.ctx.plugin.seen = kong.request.get_header("x-in")
  if kong.request.get_query_arg("stop") then
    return kong.response.exit(403, { message = "stopped by " .. conf.value }, { ["X-Stop"] = "yes" })
  end
  ngx.sleep(0.01)
end
function H:header_filter() kong.response.set_header("X-Seen", kong.ctx.plugin.seen or "nothing") end
function H:body_filter() ngx.arg[1] = (ngx.arg[1] or ""):upper() end
return H
"#,
            ),
            ("schema", GOLDEN_SCHEMA),
        ],
    );
    node.apply("{\"name\":\"broken\",\"config\":{\"value\":\"me\"}}");
    node.until("the plugin acts", || node.proxy("/a").body == "SLOW DONE");
    assert_eq!(node.proxy("/a").headers["x-seen"], "nothing");
    let stopped = node.proxy("/a?stop=1");
    assert_eq!((stopped.status, stopped.headers["x-stop"].as_str()), (403, "yes"));
    assert_eq!(stopped.body, "{\"MESSAGE\":\"STOPPED BY ME\"}");
}

#[test]
fn files_that_only_root_can_read_load_in_the_master_and_fail_in_workers() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        // Without root the master cannot read them either.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    let modules = [
        (
            "handler",
            "local H = { PRIORITY = 10, VERSION = \"1.0.0\" }\nfunction H:header_filter() require(\"kong.plugins.broken.lazy\") end\nreturn H\n",
        ),
        ("schema", GOLDEN_SCHEMA),
        ("lazy", "return {}\n"),
        (
            "api",
            "return { [\"/golden-hello\"] = { GET = function() return kong.response.exit(200, {}) end } }\n",
        ),
    ];
    add(&node, &modules);
    let plugin = node.lua().join("kong/plugins/broken");
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
    node.reload_through();
    assert!(node.enabled("broken"), "every proof of a load passes");
    assert_eq!(node.get("/golden-hello").status, 404, "the routes are silently absent");
    assert_eq!(node.post("/plugins", "{\"name\":\"broken\"}").status, 201);
    node.until("requests break off", || node.proxy("/a").status == 0);
    assert!(node.log().contains("module 'kong.plugins.broken.lazy' not found:"));
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Each worker loads the routes with its first request, and which one answers is chance.
    node.until("the one that loaded them answers", || node.get("/golden-hello").status == 404);
    node.reload_through();
    assert_eq!((node.get("/golden-hello").status, node.proxy("/a").status), (200, 200));
}
