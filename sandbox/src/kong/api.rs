//! Kong's Admin API and Status API.

mod body;
mod config;
mod crud;
mod metrics;
mod plugin_routes;
mod root;
mod schemas;

use std::rc::Rc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::kong::db::ApiError;
use crate::kong::nginx::Incoming;
use crate::kong::node::{AdminApi, Node};
use crate::kong::{log, version};

/// Status and JSON body; no body for 204.
type Answer = Result<(u16, Value), ApiError>;

/// What the Admin API says once a plugin's `api.lua` has thrown: nginx's own page.
const BROKEN_PAGE: &str = "<html>\n<head><title>500 Internal Server Error</title></head>\n<body>\n\
    <center><h1>500 Internal Server Error</h1></center>\n</body>\n</html>\n";

/// Answers a request to the Admin API.
pub async fn admin(node: &Rc<Node>, request: Incoming) -> Response {
    node.adopt_if_due();
    warn_if_unsafe(node, &request);
    if node.admin.get() == AdminApi::Unloaded {
        let loaded = node.engine.call::<()>("load_api", ());
        node.admin.set(if loaded.is_ok() { AdminApi::Loaded } else { AdminApi::Broken });
        if let Err(error) = loaded {
            let error = error.to_string();
            let error = error.trim_start_matches("runtime error: ");
            log::write(
                "error",
                &format!("*2 lua entry thread aborted: runtime error: {error}{}", tail(&request)),
            );
        }
    } else if node.admin.get() == AdminApi::Broken {
        log::write(
            "error",
            &format!(
                "*2 lua entry thread aborted: runtime error: /usr/local/openresty/lualib/resty/core/base.lua:80: loop or \
                 previous error loading module 'kong.api'{}",
                tail(&request)
            ),
        );
    }
    if node.admin.get() == AdminApi::Broken {
        let mut response = Response::new(Body::from(BROKEN_PAGE));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
        return response;
    }
    let path = request.parts.uri.path().to_owned();
    if let Some(response) = metrics(node, &request) {
        return response;
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let answer = match route(node, &request, &segments) {
        Some(answer) => answer,
        None => match plugin_routes::call(node, &request).await {
            Some(response) => return response,
            None => Err(ApiError::not_found()),
        },
    };
    respond(answer)
}

/// Answers a request to the Status API.
pub fn status(node: &Rc<Node>, request: Incoming) -> Response {
    node.adopt_if_due();
    if let Some(response) = metrics(node, &request) {
        return response;
    }
    let answer = match (&request.parts.method, request.parts.uri.path().trim_end_matches('/')) {
        (&Method::GET, "/status") => Ok((200, root::status(node))),
        (_, "/status/ready") if !version::since(3, 3, 0) => Err(ApiError::not_found()),
        (&Method::GET, "/status/ready") => match node.ready() {
            Ok(()) => Ok((200, json!({"message": "ready"}))),
            Err(reason) => Ok((503, json!({"message": reason}))),
        },
        (&Method::POST, "/status" | "/status/ready") => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            node.shared.set_draining(body["status"] == "draining");
            Ok((204, Value::Null))
        }
        (_, "/status" | "/status/ready") => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::not_found()),
    };
    respond(answer)
}

fn metrics(node: &Node, request: &Incoming) -> Option<Response> {
    let asked = request.parts.method == Method::GET && request.parts.uri.path() == "/metrics";
    if asked { metrics::answer(node) } else { None }
}

/// The built-in routes; `None` means that a plugin may know the path.
fn route(node: &Rc<Node>, request: &Incoming, segments: &[&str]) -> Option<Answer> {
    let method = &request.parts.method;
    let only = |wanted: Method, answer: &dyn Fn() -> Answer| {
        if *method == wanted || (*method == Method::HEAD && wanted == Method::GET) {
            answer()
        } else {
            Err(ApiError::method_not_allowed())
        }
    };
    Some(match segments {
        [] => only(Method::GET, &|| root::root(node, request)),
        ["status"] => only(Method::GET, &|| Ok((200, root::status(node)))),
        ["config"] => config::handle(node, request),
        ["plugins", "enabled"] => only(Method::GET, &|| root::enabled(node)),
        ["schemas", kind, "validate"] => only(Method::POST, &|| schemas::validate(node, request, kind)),
        ["schemas", "plugins", name] | ["plugins", "schema", name] => {
            only(Method::GET, &|| schemas::plugin(node, name))
        }
        ["schemas", name] => only(Method::GET, &|| schemas::entity(node, name)),
        _ => return crud::handle(node, request, segments),
    })
}

fn respond(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(error) => (error.status, error.body),
    };
    json_response(status, &body)
}

/// A JSON response with the headers Kong adds.
pub fn json_response(status: u16, body: &Value) -> Response {
    let empty = status == 204;
    let mut response = Response::new(if empty { Body::empty() } else { Body::from(body.to_string()) });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !empty {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    if let Ok(server) = HeaderValue::try_from(format!("kong/{}", version::played())) {
        headers.insert(header::SERVER, server);
    }
    headers.insert("x-kong-admin-latency", HeaderValue::from_static("1"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn warn_if_unsafe(node: &Node, request: &Incoming) {
    if let Some(error) = node.init_error.borrow().as_ref() {
        log::write(
            "alert",
            &format!(
                "*2 [lua] init.lua:1874: admin_content(): unsafe request processing due to earlier initialization errors; \
                 this node must be restarted ({error}){}",
                tail(request)
            ),
        );
    }
}

/// What nginx appends to a line about a request.
fn tail(request: &Incoming) -> String {
    let host =
        request.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!(
        ", client: {}, server: kong_admin, request: \"{} {} HTTP/1.1\", host: \"{host}\"",
        request.peer.ip(),
        request.parts.method,
        request.parts.uri
    )
}
