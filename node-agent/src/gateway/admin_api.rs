//! A small client for Kong's Admin and Status API on this machine.
//!
//! Every request uses a connection of its own: a kept one may be answered by an old worker long after a reload. Nothing
//! that comes back is trusted to be JSON, small, or finite.

mod metrics;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use kctl_shared::name::PluginName;
use kctl_shared::spec::{Entity, Failure};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// Largest answer read, in bytes: a page of a thousand plugins with large configurations fits.
const MAX_BODY: usize = 64 << 20;
/// Pages of a thousand rows.
const MAX_PAGES: usize = 10_000;
const PAGE_SIZE: usize = 1000;
/// All that is asked here can be asked again.
const TRIES: usize = 3;

#[derive(Clone, Debug)]
pub struct AdminApi {
    base: String,
    client: Client,
}

/// `GET /`, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Root {
    pub version: String,
    /// Loaded plugins with the version that Kong read from the handler.
    pub available: BTreeMap<String, Option<String>>,
    /// Names that any entity of the datastore uses.
    pub enabled: BTreeSet<String>,
    /// `plugins` and `lua_package_path` as the answering worker was started with.
    pub configured_plugins: Option<Vec<String>>,
    pub lua_package_path: Option<String>,
}

/// What `/status/ready` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// With Kong's reason.
    NotReady(String),
    /// This Kong does not know that question.
    Unknown,
}

impl AdminApi {
    pub fn new(address: SocketAddr, limit: Duration) -> Result<Self, Failure> {
        let client = Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(limit)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Failure::new("ADMIN_API_UNREACHABLE", e.to_string()))?;
        Ok(Self { base: format!("http://{address}"), client })
    }

    /// # Errors
    /// `ADMIN_API_UNREACHABLE`, `ADMIN_API_REFUSED` (401, 403), `ADMIN_API_BROKEN` (5xx), `ADMIN_API_BAD_ANSWER`.
    pub async fn root(&self) -> Result<Root, Failure> {
        let value = self.json("/").await?;
        let object = value.as_object().ok_or_else(|| bad("GET / is not an object"))?;
        let plugins =
            object.get("plugins").and_then(Value::as_object).ok_or_else(|| bad("GET / names no plugins"))?;
        let available =
            plugins.get("available_on_server").ok_or_else(|| bad("GET / names no loaded plugins"))?;
        let configuration = object.get("configuration");
        let text =
            |key: &str| configuration.and_then(|c| c.get(key)).and_then(Value::as_str).map(str::to_owned);
        Ok(Root {
            version: object.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
            available: versions(available),
            enabled: strings(plugins.get("enabled_in_cluster")).into_iter().collect(),
            configured_plugins: configuration.map(|c| {
                // Before 0.14 `plugins` is everything that is loaded, as an object, and what was added has its own list.
                let lists = ["plugins", "custom_plugins"].map(|key| strings(c.get(key)));
                lists.concat()
            }),
            lua_package_path: text("lua_package_path"),
        })
    }

    /// Whether the database answers; `None` for a node without one.
    ///
    /// # Errors
    /// As [`Self::root`].
    pub async fn database_reachable(&self) -> Result<Option<bool>, Failure> {
        let value = self.json("/status").await?;
        Ok(value.get("database").and_then(|d| d.get("reachable")).and_then(Value::as_bool))
    }

    /// # Errors
    /// `ADMIN_API_UNREACHABLE`, `ADMIN_API_BAD_ANSWER`.
    pub async fn readiness(&self) -> Result<Readiness, Failure> {
        let (status, body) = self.ask(Method::GET, "/status/ready").await?;
        let message = serde_json::from_slice::<Value>(&body).ok();
        let message =
            message.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str).unwrap_or_default();
        Ok(match status {
            StatusCode::OK => Readiness::Ready,
            StatusCode::NOT_FOUND => Readiness::Unknown,
            _ => {
                Readiness::NotReady(if message.is_empty() { status.to_string() } else { message.to_owned() })
            }
        })
    }

    /// All entities of `plugin`, from every page of every workspace.
    ///
    /// # Errors
    /// As [`Self::root`]; pages that repeat themselves are `ADMIN_API_BAD_ANSWER`.
    pub async fn entities(&self, plugin: &PluginName) -> Result<Vec<Entity>, Failure> {
        let mut found = Vec::new();
        for workspace in self.workspaces().await? {
            self.entities_of(&workspace, plugin, &mut found).await?;
        }
        found.sort();
        Ok(found)
    }

    async fn entities_of(
        &self,
        workspace: &str,
        plugin: &PluginName,
        found: &mut Vec<Entity>,
    ) -> Result<(), Failure> {
        let mut offsets: HashSet<String> = HashSet::new();
        let mut ids: HashSet<String> = HashSet::new();
        let base = format!("{}/plugins?size={PAGE_SIZE}", prefix(workspace));
        let mut path = base.clone();
        for _ in 0..MAX_PAGES {
            let page = self.json(&path).await?;
            let rows = page
                .get("data")
                .and_then(Value::as_array)
                .ok_or_else(|| bad("a page of /plugins has no data"))?;
            for row in rows {
                let id = row
                    .get("id")
                    .and_then(Value::as_str)
                    .ok_or_else(|| bad("a row of /plugins has no id"))?;
                if !ids.insert(id.to_owned()) {
                    return Err(bad(&format!("/plugins names {id} twice")));
                }
                if row.get("name").and_then(Value::as_str) == Some(plugin.as_str()) {
                    found.push(entity(id, row, workspace));
                }
            }
            let Some(offset) = page.get("offset").and_then(Value::as_str) else {
                return match page.get("next") {
                    None | Some(Value::Null) => Ok(()),
                    Some(_) => Err(bad("a page of /plugins has a next one but does not say where")),
                };
            };
            if !offsets.insert(offset.to_owned()) {
                return Err(bad("the pages of /plugins go round in a circle"));
            }
            path = format!("{base}&offset={}", encoded(offset));
        }
        Err(bad("/plugins has no end"))
    }

    /// What people call what a plugin entity is attached to.
    ///
    /// # Errors
    /// As [`Self::root`].
    pub async fn name_of(&self, workspace: &str, kind: &str, id: &str) -> Result<Option<String>, Failure> {
        check_id(id)?;
        let found = self.json(&format!("{}/{kind}s/{id}", prefix(workspace))).await?;
        let text = |key: &str| found.get(key).and_then(Value::as_str).filter(|name| !name.is_empty());
        Ok(["name", "username", "custom_id"].into_iter().find_map(text).map(plain))
    }

    /// Deletes by id, in every workspace; what is not there is done.
    ///
    /// # Errors
    /// As [`Self::root`]; `BAD_ENTITY_ID` for what is not an id.
    pub async fn delete(&self, id: &str) -> Result<(), Failure> {
        check_id(id)?;
        for workspace in self.workspaces().await? {
            let path = format!("{}/plugins/{id}", prefix(&workspace));
            let (status, body) = self.ask(Method::DELETE, &path).await?;
            if !matches!(status, StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::NOT_FOUND) {
                return Err(refusal(&format!("DELETE {path}"), status, &body));
            }
        }
        Ok(())
    }

    /// Makes the entity be there under its id, in its workspace, as its body says.
    ///
    /// # Errors
    /// `ENTITY_REFUSED` with Kong's words when Kong will not take it as it is: what it refers to is gone, another one is
    /// in its place, or it fits the schema no more. Else as [`Self::delete`].
    pub async fn put(&self, entity: &Entity) -> Result<(), Failure> {
        check_id(&entity.id)?;
        let path = format!("{}/plugins/{}", prefix(&entity.workspace), entity.id);
        let (status, body) = self.send(Method::PUT, &path, Some(&entity.body)).await?;
        match status {
            StatusCode::OK | StatusCode::CREATED => Ok(()),
            // Whoever answered does not load the plugin yet: that passes.
            StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::NOT_FOUND
            // Kong before 1.0 has no such request.
            | StatusCode::METHOD_NOT_ALLOWED
                if !shown(&body).contains("not enabled") =>
            {
                Err(Failure::new("ENTITY_REFUSED", shown(&body)))
            }
            _ => Err(refusal(&format!("PUT {path}"), status, &body)),
        }
    }

    /// Names; Kong without workspaces answers 404 and has the default one only, which is then nameless.
    async fn workspaces(&self) -> Result<Vec<String>, Failure> {
        let (status, body) = self.ask(Method::GET, &format!("/workspaces?size={PAGE_SIZE}")).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(vec![String::new()]);
        }
        let value = answer("/workspaces", status, &body)?;
        let rows =
            value.get("data").and_then(Value::as_array).ok_or_else(|| bad("/workspaces has no data"))?;
        if !matches!(value.get("next"), None | Some(Value::Null)) {
            return Err(bad("there are more workspaces than one page holds"));
        }
        let names = rows.iter().map(|row| row.get("name").and_then(Value::as_str));
        names.map(|name| name.map(str::to_owned).ok_or_else(|| bad("a workspace has no name"))).collect()
    }

    async fn json(&self, path: &str) -> Result<Value, Failure> {
        let (status, body) = self.ask(Method::GET, path).await?;
        answer(path, status, &body)
    }

    /// A worker that is going may take a connection along without an answer; another one will answer.
    async fn answered(
        &self,
        method: Method,
        path: &str,
        json: Option<&str>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut tries = 1;
        loop {
            let url = format!("{}{path}", self.base);
            let mut request = self.client.request(method.clone(), url).header("connection", "close");
            if let Some(json) = json {
                request = request.header("content-type", "application/json").body(json.to_owned());
            }
            match request.send().await {
                Err(error) if tries < TRIES && !error.is_timeout() && !error.is_connect() => tries += 1,
                answer => return answer,
            }
        }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Vec<u8>), Failure> {
        self.send(method, path, None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        json: Option<&str>,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        let response = self.answer_to(method, path, json).await?;
        let status = response.status();
        let mut body = Vec::new();
        read(path, response, MAX_BODY, |chunk| body.extend_from_slice(chunk)).await?;
        Ok((status, body))
    }

    async fn answer_to(
        &self,
        method: Method,
        path: &str,
        json: Option<&str>,
    ) -> Result<reqwest::Response, Failure> {
        self.answered(method, path, json).await.map_err(|error| {
            let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(&error) };
            Failure::new("ADMIN_API_UNREACHABLE", format!("{}{path}: {why}", self.base))
        })
    }
}

/// Hands on a body as it comes.
async fn read(
    path: &str,
    response: reqwest::Response,
    most: usize,
    mut take: impl FnMut(&[u8]) + Send,
) -> Result<(), Failure> {
    let (mut length, mut stream) = (0, response.bytes_stream());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| bad(&format!("{path} broke off: {}", innermost(&error))))?;
        length += chunk.len();
        if length > most {
            return Err(bad(&format!("the answer to {path} is larger than {most} bytes")));
        }
        take(&chunk);
    }
    Ok(())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut source = error;
    while let Some(next) = source.source() {
        source = next;
    }
    source.to_string()
}

fn bad(message: &str) -> Failure {
    Failure::new("ADMIN_API_BAD_ANSWER", message)
}

fn answer(path: &str, status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    if status != StatusCode::OK {
        return Err(refusal(path, status, body));
    }
    serde_json::from_slice(body)
        .map_err(|_| bad(&format!("{path} answered something that is not JSON: {}", shown(body))))
}

fn refusal(path: &str, status: StatusCode, body: &[u8]) -> Failure {
    let code = match status.as_u16() {
        401 | 403 => "ADMIN_API_REFUSED",
        500..=599 => "ADMIN_API_BROKEN",
        _ => "ADMIN_API_BAD_ANSWER",
    };
    Failure::new(code, format!("{path} answered {status}: {}", shown(body)))
}

/// The message of Kong's error object, or the beginning of whatever it is.
fn shown(body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body).ok();
    let message = message.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str).map(str::to_owned);
    plain(&message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()))
}

/// One line of bounded length that does nothing to a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Since Kong 3.0 name → `{version, priority}`, since 0.9 name → `true`, before it a list of names.
fn versions(value: &Value) -> BTreeMap<String, Option<String>> {
    let Some(object) = value.as_object() else {
        return strings(Some(value)).into_iter().map(|name| (name, None)).collect();
    };
    let version = |v: &Value| v.get("version").and_then(Value::as_str).map(str::to_owned);
    object.iter().map(|(name, v)| (name.clone(), version(v))).collect()
}

/// An array of strings; Lua's empty table is an empty object in JSON.
fn strings(value: Option<&Value>) -> Vec<String> {
    let array = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    array.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Of the paths of a workspace.
fn prefix(workspace: &str) -> String {
    if workspace.is_empty() { String::new() } else { format!("/{}", encoded(workspace)) }
}

fn check_id(id: &str) -> Result<(), Failure> {
    if uuid::Uuid::parse_str(id).is_ok() {
        return Ok(());
    }
    let shown: String = id.chars().take(80).collect();
    Err(Failure::new("BAD_ENTITY_ID", format!("{shown:?} is not the id of a plugin entity")))
}

fn entity(id: &str, row: &Value, workspace: &str) -> Entity {
    let mut scopes = Vec::new();
    let mut targets = Vec::new();
    for scope in ["service", "route", "consumer", "consumer_group"] {
        if let Some(target) = row.get(scope).and_then(|v| v.get("id")).and_then(Value::as_str) {
            scopes.push(scope);
            targets.push(format!("{scope}={target}"));
        }
    }
    let scope = if scopes.is_empty() { "global".to_owned() } else { scopes.join("+") };
    let (id, workspace) = (id.to_owned(), workspace.to_owned());
    Entity { id, scope, target: targets.join(","), body: row.to_string(), workspace }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
