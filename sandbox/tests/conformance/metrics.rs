//! What the plugin `prometheus` counts and tells, as far as the stand-in has it.

use crate::node::{Answer, DECLARATIVE, Datastore, Node};

const COUNTED: &str = "plugins:\n- name: prometheus\n  config:\n    status_code_metrics: true\n- name: request-termination\n  \
    route: broken\n  config:\n    status_code: 503\n";
const ROUTES: &str =
    "- name: dead\n  url: http://127.0.0.1:9\n  routes:\n  - name: r2\n    paths: [\"/dead\"]\n";

fn node(plugins: &str) -> Node {
    let broken = "  - name: broken\n    paths: [\"/broken\"]\n";
    let node = Node::new(&Datastore::Declarative(&format!("{DECLARATIVE}{broken}{ROUTES}{plugins}")));
    node.start();
    node
}

fn metrics(node: &Node, port: u16) -> Answer {
    node.http("GET", port, "/metrics", None)
}

fn counters(node: &Node) -> Vec<String> {
    let [admin, status] = [8001, 8007].map(|port| metrics(node, port));
    assert_eq!((admin.status, status.status), (200, 200), "{admin:?} {status:?}");
    assert_eq!(admin.body, status.body);
    assert_eq!(admin.headers["content-type"], "text/plain; charset=UTF-8");
    assert!(admin.body.contains("# TYPE kong_datastore_reachable gauge\nkong_datastore_reachable 1\n"));
    let lines = admin.body.lines().filter(|line| line.starts_with("kong_http"));
    lines.map(str::to_owned).collect()
}

#[test]
fn answers_are_counted_by_code_until_the_node_is_restarted() {
    let node = node(COUNTED);
    assert_eq!(counters(&node), [""; 0], "nobody came yet");
    for path in ["/a", "/a", "/broken", "/dead", "/nowhere"] {
        node.proxy(path);
    }
    let known = |service: &str, route: &str, code: u16, source: &str, count: u32| {
        format!(
            "kong_http_requests_total{{service=\"{service}\",route=\"{route}\",code=\"{code}\",source=\"{source}\",\
             workspace=\"default\",consumer=\"\"}} {count}"
        )
    };
    let expected = [
        known("dead", "r2", 502, "kong", 1),
        known("s1", "broken", 503, "kong", 1),
        known("s1", "r1", 200, "service", 2),
    ];
    assert_eq!(counters(&node), expected, "{:#?}", metrics(&node, 8001));
    node.reload_through();
    node.proxy("/a");
    assert_eq!(counters(&node)[2], known("s1", "r1", 200, "service", 3));
    node.kong("restart -c <CONF> -p <PREFIX>");
    node.until("the node answers", || metrics(&node, 8001).status == 200);
    assert_eq!(counters(&node), [""; 0]);
}

#[test]
fn what_is_not_configured_is_not_counted_and_what_is_not_loaded_not_known() {
    let bare = node("plugins:\n- name: prometheus\n");
    bare.proxy("/a");
    assert_eq!(counters(&bare), [""; 0]);
    let none = Node::new(&Datastore::Declarative(DECLARATIVE));
    none.set("plugins", "golden");
    none.start();
    assert_eq!((metrics(&none, 8001).status, metrics(&none, 8007).status), (404, 404));
}
