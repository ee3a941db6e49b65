//! The proxy: routes, plugin phases, upstreams.

mod request;
mod router;
mod upstream;

use std::rc::Rc;

use axum::response::Response;
use http::header::{HeaderValue, VIA};
use serde_json::{Value, json};

use crate::kong::lua::{Paused, drive};
use crate::kong::nginx::{Incoming, Reply};
use crate::kong::node::Node;
use crate::kong::{log, version};

pub use request::LuaRequest;
use router::Match;
pub use router::Router;

/// Answers a request to the proxy.
pub async fn handle(node: &Rc<Node>, incoming: Incoming) -> Reply {
    node.adopt_if_due();
    let router = node.router();
    let Some(found) = router.find(&incoming) else {
        let id = uuid::Uuid::new_v4().simple().to_string();
        return Reply::Response(error_response(404, "no Route matched with those values", &id));
    };
    let request = match LuaRequest::new(node, &incoming, Some(&found)) {
        Ok(request) => request,
        Err(error) => return internal(&error.to_string()),
    };
    warn_if_unsafe(node, &request);
    if let Err(error) = access(node, &request).await {
        return internal(&error);
    }
    let mut upgrade = None;
    let response = if request.exited() {
        request.own_response()
    } else {
        match upstream::send(node, incoming, &found, &request).await {
            Ok((response, tunnel)) => {
                upgrade = tunnel;
                request.absorb(&response);
                Some(response)
            }
            Err(failure) => {
                request.fail();
                let response = error_response(failure.status, failure.message, &request.id());
                request.absorb(&response);
                Some(response)
            }
        }
    };
    let reply = finish(node, &request, response).await;
    if let Some(tunnel) = upgrade {
        tunnel.start(node);
    }
    reply
}

/// rewrite and access of every plugin in scope.
async fn access(node: &Node, request: &LuaRequest) -> Result<(), String> {
    let thread = node.engine.coroutine("access").map_err(|error| error.to_string())?;
    match drive(&thread, request.table()).await {
        Paused::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

/// header_filter, body_filter and log over a response. `None` stands for an error of the plugin's own.
async fn finish(node: &Rc<Node>, request: &LuaRequest, response: Option<Response>) -> Reply {
    let response = response.unwrap_or_else(|| {
        let response = error_response(500, "An unexpected error occurred", &request.id());
        request.absorb(&response);
        response
    });
    match node.engine.call::<Option<String>>("header_filter", request.table()) {
        Ok(None) => {}
        Ok(Some(error)) => {
            log::write(
                "error",
                &format!(
                    "*5 failed to run header_filter_by_lua*: {error} while reading response header from upstream{}",
                    request.tail()
                ),
            );
            return Reply::Abort;
        }
        Err(error) => return internal(&error.to_string()),
    }
    let needs_body = node.engine.call::<bool>("needs_body", request.table()).unwrap_or_default();
    let (parts, body) = response.into_parts();
    let body = if needs_body {
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(bytes) => request.filter_body(node, &bytes),
            Err(_) => return Reply::Abort,
        }
    } else {
        body
    };
    let mut response = request.render(parts, body, needs_body);
    if let Ok(via) = HeaderValue::try_from(format!("1.1 kong/{}", version::played())) {
        response.headers_mut().entry(VIA).or_insert(via);
    }
    if let Err(error) = node.engine.call::<()>("log", request.table()) {
        log::write("error", &format!("[kong] init.lua:462 {error}"));
    }
    if let Some(labels) = request.counted() {
        node.shared.count(&labels);
    }
    Reply::Response(response)
}

fn internal(error: &str) -> Reply {
    log::write("error", &format!("*5 [kong] init.lua:406 {error}"));
    Reply::Response(error_response(
        500,
        "An unexpected error occurred",
        &uuid::Uuid::new_v4().simple().to_string(),
    ))
}

/// Kong's own error body.
fn error_response(status: u16, message: &str, request_id: &str) -> Response {
    let body = format!("{{\n  \"message\":{},\n  \"request_id\":\"{request_id}\"\n}}", json!(message));
    let mut response = crate::kong::api::json_response(status, &Value::Null);
    *response.body_mut() = axum::body::Body::from(body);
    let headers = response.headers_mut();
    headers.remove("x-kong-admin-latency");
    headers.remove(http::header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.insert("x-kong-response-latency", HeaderValue::from_static("1"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-kong-request-id", id);
    }
    response
}

fn warn_if_unsafe(node: &Node, request: &LuaRequest) {
    if let Some(error) = node.init_error.borrow().as_ref() {
        log::write(
            "alert",
            &format!(
                "*5 [lua] init.lua:1165: rewrite(): unsafe request processing due to earlier initialization errors; this \
                 node must be restarted ({error}){}",
                request.tail()
            ),
        );
    }
}

/// A matched route: which service it leads to and what was cut off the path.
pub type Matched = Match;
