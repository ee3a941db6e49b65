//! One statement at the top level of a handler: what `config parse`, a boot and a reload make of it.

use crate::node::{Datastore, GOLDEN_SCHEMA, Node};

/// Statement, then whether parse, boot and reload let it pass.
const STATEMENTS: &[(&str, bool, bool, bool)] = &[
    ("local v = ngx.shared.nosuch and 1", true, true, true),
    ("assert(ngx.timer.at(0, function() end))", true, false, false),
    ("kong.timer:at(0, function() end)", false, false, false),
    ("local dao = kong.db.plugins", false, true, true),
    ("for p in kong.db.plugins:each() do break end", false, true, true),
    ("kong.cache:get(\"k\", nil, function() return 1 end)", false, false, false),
    ("ngx.sleep(0.001)", true, true, true),
    ("assert(kong.configuration.role == \"traditional\")", true, true, true),
    ("assert(kong.configuration.database == \"postgres\")", false, false, false),
    ("assert(os.getenv(\"STANDIN_UNSET\"))", false, false, false),
    ("local f = io.popen(\"true\"):close()", true, true, true),
    ("require(\"ffi\").cdef[[ int standin_nothing(void); ]]", true, true, true),
    ("require(\"ffi\").load(\"standin-no-such-library\")", false, false, false),
    ("local http = require \"resty.http\" local c = http.new()", true, true, true),
    ("require \"nosuch\"", false, false, false),
    ("require \"kong.plugins.broken.util\"", false, false, false),
    ("local u = require \"kong.tools.utils\"", true, true, true),
    ("require \"kong.singletons\"", false, false, false),
    ("local h = ngx.var.host", false, false, false),
    ("local h = ngx.req.get_headers()", false, false, false),
    ("kong.log.notice(\"hello\")", true, true, true),
    ("kong.response.set_header(\"X\", \"y\")", false, false, false),
    ("local id = ngx.worker.id()", true, true, true),
    ("local id = \"w\" .. ngx.worker.id()", true, true, false),
    ("local id = assert(kong.node.get_id())", true, true, true),
    ("golden_global = 1", true, true, true),
    ("local B = require(\"kong.plugins.base_plugin\"):extend()", false, false, false),
    (
        "local cjson = require \"cjson.safe\" assert(cjson.decode(cjson.encode({ a = { 1 } })).a[1] == 1)",
        true,
        true,
        true,
    ),
    ("assert(ngx.re.match(\"a1\", [[\\d]])[0] == \"1\")", true, true, true),
];

fn handler(statement: &str) -> String {
    format!("local H = {{ PRIORITY = 10, VERSION = \"1.0.0\" }}\n{statement}\nreturn H\n")
}

#[test]
fn statements_pass_and_fail_where_kong_lets_them() {
    let node = Node::dbless();
    std::fs::write(node.path("empty.yml"), "_format_version: \"3.0\"\n").unwrap();
    let root = node.root.path().display().to_string();
    for (statement, parse, boot, reload) in STATEMENTS {
        node.plugin("broken", &[("handler", &handler(statement)), ("schema", GOLDEN_SCHEMA)]);
        node.set("plugins", "bundled,golden,broken");
        let ran = node.kong(&format!("config parse {root}/empty.yml -c <CONF> -p {root}/scratch"));
        assert_eq!(ran.code == 0, *parse, "parse of {statement}: {ran:?}");

        let scratch = Node::new(&Datastore::Declarative("_format_version: \"3.0\"\n"));
        scratch.plugin("broken", &[("handler", &handler(statement)), ("schema", GOLDEN_SCHEMA)]);
        scratch.set("plugins", "broken");
        let ran = scratch.kong("start -c <CONF>");
        assert_eq!(ran.code == 0, *boot, "boot of {statement}: {ran:?}");

        if *reload {
            node.reload_through();
        } else {
            let log = node.reload_refused();
            assert!(
                log.contains("error loading module 'kong.plugins.broken.handler':\n"),
                "{statement}: {log}"
            );
        }
        node.set("plugins", "bundled,golden");
        node.reload_through();
    }
}

#[test]
fn exit_at_top_level_ends_the_master_and_leaves_the_workers() {
    let node = Node::dbless();
    let old = node.workers();
    node.plugin("broken", &[("handler", &handler("os.exit(0)")), ("schema", GOLDEN_SCHEMA)]);
    node.set("plugins", "bundled,golden,broken");
    std::fs::write(node.path("empty.yml"), "_format_version: \"3.0\"\n").unwrap();
    let root = node.root.path().display().to_string();
    assert_eq!(node.kong(&format!("config parse {root}/empty.yml -c <CONF> -p {root}/scratch")).code, 0);
    let master = node.master().unwrap();
    node.reload();
    node.until("the master is gone", || !std::path::Path::new(&format!("/proc/{master}")).exists());
    assert_eq!(node.get("/status").status, 200, "the old workers live on");
    assert_eq!(node.ready().0, 503);
    for pid in old.keys() {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(*pid).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
}

#[test]
fn a_lazy_require_finds_what_is_on_disk_at_that_moment() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    let lazy = "local H = { PRIORITY = 10, VERSION = \"1.0.0\" }\nfunction H:access() kong.response.exit(200, require(\"kong.plugins.broken.late\").text) end\nreturn H\n";
    node.plugin("broken", &[("handler", lazy), ("schema", GOLDEN_SCHEMA)]);
    node.set("plugins", "bundled,golden,broken");
    node.apply("{\"name\":\"broken\"}");
    node.until("the plugin acts", || node.proxy("/a").status == 500);
    assert!(node.log().contains("module 'kong.plugins.broken.late' not found:"), "{}", node.log());
    std::fs::write(node.lua().join("kong/plugins/broken/late.lua"), "return { text = \"late\" }\n").unwrap();
    assert_eq!(node.proxy("/a").body, "late");
}

/// A plugin written the way most are: typedefs with overrides, checks over fields, modules of Kong and OpenResty.
const USUAL_HANDLER: &str = r#"local cjson = require "cjson.safe"
local lock = require "resty.lock"
local constants = require "kong.constants"
local split = require("kong.tools.string").split
local fmt, null = string.format, ngx.null

local Usual = { PRIORITY = 1005, VERSION = "0.3.1-2" }

function Usual:init_worker()
  kong.cache:get("usual", nil, function() return 1 end)
  ngx.timer.at(0, function(premature) if not premature then ngx.shared.kong:set("usual", "ticked") end end)
end

function Usual:access(conf)
  local guard = lock:new("kong_locks")
  kong.log.debug("header is ", conf.request_header, " ", constants.HEADERS.CONSUMER_ID)
  kong.service.request.set_header(conf.request_header, fmt("%s-%d", #split("a,b", ","), conf.ttl))
  kong.ctx.shared.note = cjson.encode({ path = kong.request.get_path(), none = null })
  local hits = ngx.shared.kong:incr("hits", 1, 0)
  if hits < 0 then return kong.response.error(429) end
  local body = ngx.re.gsub(kong.request.get_raw_query(), [[(\w+)=(\w+)]], "$2:$1", "jo")
  kong.response.set_header("X-Query", body)
end

function Usual:header_filter(conf)
  kong.response.add_header(conf.response_header, kong.ctx.shared.note)
  kong.response.set_header("X-Tick", ngx.shared.kong:get("usual"))
end

function Usual:log() kong.log.serialize() end

return Usual
"#;

const USUAL_SCHEMA: &str = r#"local typedefs = require "kong.db.schema.typedefs"
local PLUGIN_NAME = "usual"
return {
  name = PLUGIN_NAME,
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols_http },
    { config = { type = "record", fields = {
        { request_header = typedefs.header_name { required = true, default = "Hello-World" } },
        { response_header = typedefs.header_name { required = true, default = "Bye-World" } },
        { ttl = { type = "integer", default = 600, required = true, gt = 0 } },
        { url = typedefs.url },
        { limits = { type = "map", keys = { type = "string" }, values = { type = "number" } } },
        { inner = { type = "record", fields = { { on = { type = "boolean", default = true } } } } },
        { hosts = { type = "array", elements = { type = "string", match = "^[%w.]+$" }, default = { "a.b" } } },
      }, entity_checks = {
        { at_least_one_of = { "request_header", "response_header" } },
        { distinct = { "request_header", "response_header" } },
      } } },
  },
}
"#;

#[test]
fn a_plugin_as_most_are_written_loads_validates_and_runs() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::database(directory.path());
    node.plugin("usual", &[("handler", USUAL_HANDLER), ("schema", USUAL_SCHEMA)]);
    node.set("plugins", "bundled,golden,usual");
    let entity = node.apply("{\"name\":\"usual\",\"config\":{\"limits\":{\"a\":1.5},\"inner\":{}}}");
    assert_eq!(
        entity["config"],
        serde_json::json!({
            "request_header": "Hello-World", "response_header": "Bye-World", "ttl": 600, "url": null,
            "limits": {"a": 1.5}, "inner": {"on": true}, "hosts": ["a.b"],
        })
    );
    node.until("the timer has ticked in the answering worker", || {
        node.proxy("/a").headers.get("x-tick").is_some_and(|tick| tick == "ticked")
    });
    let answer = node.proxy("/a?k=v&n=1");
    assert_eq!(answer.headers["x-query"], "v:k&1:n");
    let note: serde_json::Value = serde_json::from_str(&answer.headers["bye-world"]).unwrap();
    assert_eq!(note, serde_json::json!({"path": "/a", "none": null}));
    assert_eq!(node.get("/").json()["plugins"]["available_on_server"]["usual"]["version"], "0.3.1");
    for (config, message) in [
        (r#"{"ttl":0}"#, "schema violation (config.ttl: value must be greater than 0)"),
        (r#"{"url":"nothing"}"#, "schema violation (config.url: missing scheme in url)"),
        (
            r#"{"request_header":"a b"}"#,
            "schema violation (config.request_header: bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-')",
        ),
        (r#"{"hosts":["ok","b d"]}"#, "schema violation (config.hosts.2: invalid value: b d)"),
        (r#"{"inner":{"on":1}}"#, "schema violation (config.inner.on: expected a boolean)"),
        (
            r#"{"request_header":"x","response_header":"x"}"#,
            "schema violation (config: values of these fields must be distinct: 'request_header', 'response_header')",
        ),
    ] {
        let refused =
            node.post("/schemas/plugins/validate", &format!("{{\"name\":\"usual\",\"config\":{config}}}"));
        assert_eq!((refused.status, refused.json()["message"].as_str()), (400, Some(message)), "{refused:?}");
    }
    let refused = node.post(
        "/plugins",
        "{\"name\":\"usual\",\"consumer\":{\"id\":\"11111111-1111-4111-8111-111111111111\"}}",
    );
    assert_eq!(refused.json()["message"], "schema violation (consumer: value must be null)");
}
