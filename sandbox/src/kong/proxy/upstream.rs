//! Sending a request on to its service.

use std::cell::OnceCell;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::StreamExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::{LuaRequest, Matched};
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;

/// A service with this host is answered by the stand-in itself, after the seconds that the query's `delay` asks for
/// (`forever` streams without end), so that a long request needs no upstream of its own.
const DELAY_HOST: &str = "standin-delay";

/// Headers that belong to one connection.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Why there is no answer from the upstream.
#[derive(Debug)]
pub struct Failure {
    /// Status for the client.
    pub status: u16,
    /// Kong's words for it.
    pub message: &'static str,
}

const INVALID: Failure =
    Failure { status: 502, message: "An invalid response was received from the upstream server" };
const TIMED_OUT: Failure = Failure { status: 504, message: "The upstream server is timing out" };
const UNRESOLVED: Failure = Failure { status: 503, message: "name resolution failed" };
const NO_SERVICE: Failure = Failure { status: 503, message: "no Service found with those values" };

/// Two upgraded connections that are to be joined once the client has its answer.
pub struct Tunnel {
    client: hyper::upgrade::OnUpgrade,
    upstream: reqwest::Upgraded,
}

impl Tunnel {
    /// Copies in both directions until one side closes.
    pub fn start(self, node: &Node) {
        node.tunnels.spawn_local(async move {
            let Ok(client) = self.client.await else { return };
            let mut client = hyper_util::rt::TokioIo::new(client);
            let mut upstream = self.upstream;
            // Either side may break off; that is how a tunnel ends.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        });
    }
}

thread_local! {
    /// One client per worker; a worker has one thread.
    static CLIENT: OnceCell<reqwest::Client> = const { OnceCell::new() };
}

fn client() -> reqwest::Client {
    CLIENT.with(|cell| {
        let build = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()
                .unwrap_or_default()
        };
        cell.get_or_init(build).clone()
    })
}

/// Sends the request and returns the upstream's response with a streaming body.
pub async fn send(
    _node: &Node,
    mut incoming: Incoming,
    matched: &Matched,
    request: &LuaRequest,
) -> Result<(Response, Option<Tunnel>), Failure> {
    let service = &matched.service;
    if service.is_null() {
        return Err(NO_SERVICE);
    }
    let mut overrides = request.overrides();
    let value = |name: &str, fallback: String| overrides.values.get(name).cloned().unwrap_or(fallback);
    let host = value("host", service["host"].as_str().unwrap_or_default().to_owned());
    let port = value("port", service["port"].as_u64().unwrap_or(80).to_string());
    let query = value("query", incoming.parts.uri.query().unwrap_or_default().to_owned());
    if host == DELAY_HOST {
        return Ok((delayed(&query).await, None));
    }
    let path = value("path", upstream_path(&incoming, matched));
    let mut url = format!("http://{host}:{port}{path}");
    if !query.is_empty() {
        url.push('?');
        url.push_str(&query);
    }
    let method = value("method", incoming.parts.method.to_string());
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
    let upgrade = incoming.parts.headers.get(header::UPGRADE).cloned();
    let body = overrides.values.get("body").map_or(incoming.body.clone(), |body| Bytes::from(body.clone()));
    let headers =
        upstream_headers(&incoming, matched, request, &mut overrides, &host, &port, upgrade.as_ref());
    let timeout = Duration::from_millis(service["connect_timeout"].as_u64().unwrap_or(60_000));
    let sending = client().request(method, &url).headers(headers).body(body).send();
    let answer =
        tokio::time::timeout(timeout.max(read_timeout(service)), sending).await.map_err(|_| TIMED_OUT)?;
    let answer = answer.map_err(|error| if is_unresolved(&error) { UNRESOLVED } else { INVALID })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response.headers_mut().insert("x-kong-upstream-latency", HeaderValue::from_static("1"));
    response.headers_mut().insert("x-kong-proxy-latency", HeaderValue::from_static("1"));
    if let Ok(id) = HeaderValue::from_str(&request.id()) {
        response.headers_mut().insert("x-kong-request-id", id);
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        for name in [header::UPGRADE, header::CONNECTION] {
            if let Some(value) = answer.headers().get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        let upstream = answer.upgrade().await.map_err(|_| INVALID)?;
        let client = incoming.parts.extensions.remove::<hyper::upgrade::OnUpgrade>().ok_or(INVALID)?;
        return Ok((response, Some(Tunnel { client, upstream })));
    }
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    Ok((response, None))
}

fn read_timeout(service: &serde_json::Value) -> Duration {
    Duration::from_millis(service["read_timeout"].as_u64().unwrap_or(60_000))
}

fn is_unresolved(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause.to_string().contains("dns error") || cause.to_string().contains("failed to lookup") {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The service's path, then what the route did not strip.
fn upstream_path(incoming: &Incoming, matched: &Matched) -> String {
    let path = incoming.parts.uri.path();
    let strip = matched.route["strip_path"] != false;
    let rest = if strip { path.strip_prefix(matched.matched.as_str()).unwrap_or(path) } else { path };
    let base = matched.service["path"].as_str().unwrap_or("/");
    let joined = format!("{}/{}", base.trim_end_matches('/'), rest.trim_start_matches('/'));
    if joined.starts_with('/') { joined } else { format!("/{joined}") }
}

fn upstream_headers(
    incoming: &Incoming,
    matched: &Matched,
    request: &LuaRequest,
    overrides: &mut super::request::Overrides,
    host: &str,
    port: &str,
    upgrade: Option<&HeaderValue>,
) -> HeaderMap {
    let mut headers = request.request_headers();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let authority = headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    let forwarded = [
        ("x-forwarded-for", incoming.peer.ip().to_string()),
        ("x-real-ip", incoming.peer.ip().to_string()),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-forwarded-host", authority.as_ref().and_then(|a| a.to_str().ok()).unwrap_or_default().to_owned()),
        ("x-forwarded-port", incoming.local.port().to_string()),
        ("x-forwarded-path", incoming.parts.uri.path().to_owned()),
        ("x-kong-request-id", request.id()),
    ];
    for (name, value) in forwarded {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let target = if port == "80" { host.to_owned() } else { format!("{host}:{port}") };
    let authority = if matched.route["preserve_host"] == true { authority } else { None };
    if let Some(authority) = authority.or_else(|| HeaderValue::from_str(&target).ok()) {
        headers.insert(header::HOST, authority);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade.clone());
    } else {
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    for name in &overrides.cleared {
        headers.remove(name.as_str());
    }
    for name in overrides.headers.keys().cloned().collect::<Vec<_>>() {
        headers.remove(&name);
        for value in overrides.headers.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers
}

async fn delayed(query: &str) -> Response {
    let delay = query.split('&').find_map(|pair| pair.strip_prefix("delay=")).unwrap_or("0");
    let body = if delay == "forever" {
        let ticks = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b".")), ()))
        });
        let first = futures_util::stream::once(async { Ok(Bytes::from_static(b".")) });
        Body::from_stream(first.chain(ticks))
    } else {
        let seconds = delay.parse::<f64>().unwrap_or_default().clamp(0.0, 3600.0);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        Body::from("slow done")
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}
