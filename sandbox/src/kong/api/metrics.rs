//! `/metrics` of the plugin `prometheus`: what a node is asked for by those who watch it, as far as the stand-in counts.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};

use crate::kong::node::Node;
use crate::kong::version;

/// `None` when the plugin is not loaded: then nobody knows the path.
pub fn answer(node: &Node) -> Option<Response> {
    if node.engine.host().conf.loaded_plugins().iter().all(|name| name != "prometheus") {
        return None;
    }
    let mut response = Response::new(Body::from(text(node)));
    let kind = HeaderValue::from_static("text/plain; charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if let Ok(server) = HeaderValue::try_from(format!("kong/{}", version::played())) {
        response.headers_mut().insert(header::SERVER, server);
    }
    Some(response)
}

fn text(node: &Node) -> String {
    let mut text = String::new();
    let mut say = |name: &str, help: &str, kind: &str, rows: &mut dyn Iterator<Item = (String, u64)>| {
        let mut rows = rows.peekable();
        if rows.peek().is_some() {
            let _ = write!(text, "# HELP kong_{name} {help}\n# TYPE kong_{name} {kind}\n");
        }
        for (labels, value) in rows {
            let _ = writeln!(text, "kong_{name}{labels} {value}");
        }
    };
    let reachable = u64::from(!node.store().is_shared() || node.store().reachable());
    let one = (String::new(), reachable);
    say(
        "datastore_reachable",
        "Datastore reachable from Kong, 0 is unreachable",
        "gauge",
        &mut std::iter::once(one),
    );
    // Since 3.0 what requests were counted is only told while the plugin is configured anywhere.
    let told = node.configures("prometheus") || !version::since(3, 0, 0);
    let (name, help) = if version::since(3, 0, 0) {
        ("http_requests_total", "HTTP status codes per consumer/service/route in Kong")
    } else {
        ("http_status", "HTTP status codes per service/route in Kong")
    };
    let counted = node.shared.counted().into_iter().filter(|_| told);
    say(name, help, "counter", &mut counted.map(|(labels, value)| (format!("{{{labels}}}"), value)));
    let none = (String::new(), 0);
    say(
        "nginx_metric_errors_total",
        "Number of nginx-lua-prometheus errors",
        "counter",
        &mut std::iter::once(none),
    );
    text
}
