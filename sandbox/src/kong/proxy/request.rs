//! A request as plugins see it, and the answer as they leave it.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mlua::{Lua, LuaString, Table, Value as LuaValue};

use super::Matched;
use crate::kong::lua::host::request_tail;
use crate::kong::lua::json;
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;

/// The Lua table of one request.
#[derive(Debug)]
pub struct LuaRequest {
    lua: Lua,
    table: Table,
}

/// What plugins changed about the request to the upstream.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Headers to set.
    pub headers: HeaderMap,
    /// Headers to leave out.
    pub cleared: Vec<String>,
    /// Other values by name: `scheme`, `host`, `port`, `path`, `query`, `method`, `body`.
    pub values: std::collections::BTreeMap<&'static str, String>,
}

impl LuaRequest {
    /// Makes the table for a request; `matched` is the route, for requests to the proxy.
    pub fn new(node: &Rc<Node>, request: &Incoming, matched: Option<&Matched>) -> mlua::Result<Self> {
        let lua = node.engine.lua().clone();
        let raw = lua.create_table()?;
        let host =
            request.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let started =
            SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs_f64()).unwrap_or_default();
        raw.set("method", request.parts.method.as_str())?;
        raw.set("scheme", "http")?;
        raw.set("authority", host)?;
        raw.set("host", host.rsplit_once(':').map_or(host, |(name, _)| name))?;
        raw.set("port", request.local.port())?;
        raw.set("path", request.parts.uri.path())?;
        raw.set("query", request.parts.uri.query().unwrap_or_default())?;
        raw.set("client_ip", request.peer.ip().to_string())?;
        raw.set("client_port", request.peer.port())?;
        raw.set("request_id", uuid::Uuid::new_v4().simple().to_string())?;
        raw.set("start_time", (started * 1000.0).round() / 1000.0)?;
        raw.set("body", lua.create_string(&request.body)?)?;
        let headers = lua.create_table()?;
        for name in request.parts.headers.keys() {
            let values: Vec<LuaString> = request
                .parts
                .headers
                .get_all(name)
                .iter()
                .map(|value| lua.create_string(value.as_bytes()))
                .collect::<mlua::Result<_>>()?;
            headers.set(name.as_str(), values)?;
        }
        raw.set("headers", headers)?;
        if let Some(matched) = matched {
            raw.set("route", json::to_lua(&lua, &matched.route)?)?;
            if !matched.service.is_null() {
                raw.set("service", json::to_lua(&lua, &matched.service)?)?;
            }
        }
        let table = node.engine.call("new_request", raw)?;
        Ok(Self { lua, table })
    }

    /// The table, to hand to a phase.
    pub fn table(&self) -> Table {
        self.table.clone()
    }

    /// Id of the request.
    pub fn id(&self) -> String {
        self.table.get("request_id").unwrap_or_default()
    }

    /// Whether a plugin has answered already.
    pub fn exited(&self) -> bool {
        self.table.get("exited").unwrap_or_default()
    }

    /// What nginx appends to a log line about the request.
    pub fn tail(&self) -> String {
        request_tail(&self.table)
    }

    /// The answer a plugin gave, or `None` when it threw instead.
    pub fn own_response(&self) -> Option<Response> {
        if self.table.get::<bool>("internal_error").unwrap_or_default() {
            return None;
        }
        Some(self.response())
    }

    /// The answer as it stands in the table.
    pub fn response(&self) -> Response {
        let body: Option<LuaString> = self.table.get("response_body").unwrap_or_default();
        let body = body.map(|body| body.as_bytes().to_vec()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status().unwrap_or(StatusCode::OK);
        self.apply_headers(response.headers_mut());
        response
    }

    fn status(&self) -> Option<StatusCode> {
        let status: u16 = self.table.get("status").ok()?;
        StatusCode::from_u16(status).ok()
    }

    fn apply_headers(&self, headers: &mut HeaderMap) {
        let Ok(entries) = self.table.get::<Table>("resp_headers") else { return };
        for pair in entries.pairs::<String, Table>() {
            let Ok((name, entry)) = pair else { continue };
            let Ok(name) = HeaderName::try_from(name) else { continue };
            let values: Vec<String> = entry.get("values").unwrap_or_default();
            headers.remove(&name);
            for value in values {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.append(&name, value);
                }
            }
        }
    }

    /// No upstream answered: what is said is Kong's own.
    pub fn fail(&self) {
        // Only the counters tell the difference.
        let _ = self.table.set("failed", true);
    }

    /// How the plugin `prometheus` counted the answer, if it did.
    pub fn counted(&self) -> Option<String> {
        self.table.get("counted").ok().flatten()
    }

    /// Takes over status and headers of a response, for the later phases to read and change.
    pub fn absorb(&self, response: &Response) {
        let fill = || -> mlua::Result<()> {
            self.table.set("status", response.status().as_u16())?;
            self.table.set("upstream_status", response.status().as_u16())?;
            let headers: Table = self.table.get("resp_headers")?;
            for name in response.headers().keys() {
                let values: Vec<String> = response
                    .headers()
                    .get_all(name)
                    .iter()
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                    .collect();
                let entry = self.lua.create_table()?;
                entry.set("name", name.as_str())?;
                entry.set("values", values)?;
                headers.set(name.as_str(), entry)?;
            }
            Ok(())
        };
        if let Err(error) = fill() {
            crate::kong::log::write("error", &format!("[kong] init.lua:1641 {error}"));
        }
    }

    /// Runs the body through the plugins.
    pub fn filter_body(&self, node: &Node, body: &[u8]) -> Body {
        let filtered = self
            .lua
            .create_string(body)
            .and_then(|body| node.engine.call::<Option<LuaString>>("body_filter", (self.table(), body)));
        match filtered {
            Ok(Some(filtered)) => Body::from(filtered.as_bytes().to_vec()),
            Ok(None) => Body::empty(),
            Err(error) => {
                crate::kong::log::write("error", &format!("[kong] init.lua:1660 {error}"));
                Body::from(body.to_vec())
            }
        }
    }

    /// The final response: what the upstream or a plugin sent, with the headers and status the table has now.
    pub fn render(&self, mut parts: Parts, body: Body, body_changed: bool) -> Response {
        if let Some(status) = self.status() {
            parts.status = status;
        }
        parts.headers.clear();
        self.apply_headers(&mut parts.headers);
        if body_changed {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        parts.headers.remove(header::TRANSFER_ENCODING);
        Response::from_parts(parts, body)
    }

    /// What the plugins want changed on the way to the upstream.
    pub fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        let Ok(upstream) = self.table.get::<Table>("upstream") else { return overrides };
        if let Ok(headers) = upstream.get::<Table>("headers") {
            for pair in headers.pairs::<String, Vec<String>>() {
                let Ok((name, values)) = pair else { continue };
                let Ok(name) = HeaderName::try_from(name) else { continue };
                for value in values {
                    if let Ok(value) = HeaderValue::from_str(&value) {
                        overrides.headers.append(&name, value);
                    }
                }
            }
        }
        if let Ok(cleared) = upstream.get::<Table>("cleared") {
            overrides.cleared =
                cleared.pairs::<String, LuaValue>().filter_map(Result::ok).map(|(name, _)| name).collect();
        }
        for name in ["scheme", "host", "port", "path", "query", "method", "body"] {
            if let Ok(Some(value)) = upstream.get::<Option<String>>(name) {
                overrides.values.insert(name, value);
            }
        }
        overrides
    }

    /// The request headers as plugins left them (`ngx.req.set_header`).
    pub fn request_headers(&self) -> HeaderMap {
        let mut out = HeaderMap::new();
        let Ok(headers) = self.table.get::<Table>("headers") else { return out };
        for pair in headers.pairs::<String, Vec<LuaString>>() {
            let Ok((name, values)) = pair else { continue };
            let Ok(name) = HeaderName::try_from(name) else { continue };
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value.as_bytes()) {
                    out.append(&name, value);
                }
            }
        }
        out
    }
}
