//! A configuration as `GET /` shows it.

use serde_json::{Map, Value, json};

use super::listen::Listener;
use crate::kong::version::since;

use super::{Conf, Kind, LISTENS, defaults, grammar, kind};

/// Values that are never shown.
const SECRETS: [&str; 5] =
    ["pg_password", "ssl_cert_key", "admin_ssl_cert_key", "status_ssl_cert_key", "admin_gui_ssl_cert_key"];

/// The blocks of nginx.conf that take injected directives.
const BLOCKS: [&str; 16] = [
    "main",
    "events",
    "http",
    "stream",
    "proxy",
    "sproxy",
    "upstream",
    "supstream",
    "admin",
    "status",
    "location",
    "wasm_main",
    "wasm_main_shm_kv",
    "wasm_v8",
    "wasm_wasmer",
    "wasm_wasmtime",
];

impl Conf {
    /// The `configuration` object of `GET /`.
    pub fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        for (key, kind) in defaults::OPTIONAL {
            if *kind == Kind::List {
                object.insert((*key).to_owned(), json!({}));
            }
        }
        for (key, value) in &self.values {
            object.insert(key.clone(), typed(key, value));
        }
        for key in LISTENS {
            let listeners: Vec<Value> = self.listeners(key).iter().map(Listener::to_json).collect();
            let listeners = if listeners.is_empty() { json!({}) } else { json!(listeners) };
            object.insert(format!("{key}ers"), listeners);
        }
        for secret in SECRETS {
            if object.contains_key(secret) {
                object.insert(secret.to_owned(), json!("******"));
            }
        }
        for block in BLOCKS {
            let directives = self.injected(block);
            let directives = if directives.is_empty() { json!({}) } else { json!(directives) };
            object.insert(format!("nginx_{block}_directives"), directives);
        }
        object.insert("pluginservers".to_owned(), json!({}));
        object.insert("enabled_headers_upstream".to_owned(), json!({"X-Kong-Request-Id": true}));
        let headers = [
            "Server",
            "Via",
            "server_tokens",
            "latency_tokens",
            "X-Kong-Proxy-Latency",
            "X-Kong-Request-Id",
            "X-Kong-Response-Latency",
            "X-Kong-Admin-Latency",
            "X-Kong-Upstream-Latency",
        ];
        let mut enabled: Map<String, Value> =
            headers.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
        enabled.insert("X-Kong-Upstream-Status".to_owned(), json!(false));
        object.insert("enabled_headers".to_owned(), Value::Object(enabled));
        object.entry("lua_package_cpath").or_insert(json!(""));
        let loaded: serde_json::Map<String, Value> =
            self.loaded_plugins().into_iter().map(|name| (name, json!(true))).collect();
        // Before 0.14 the list of what is loaded went by the name that the setting has since.
        let key = if since(0, 14, 0) { "loaded_plugins" } else { "plugins" };
        object.insert(key.to_owned(), Value::Object(loaded));
        object.insert("loaded_vaults".to_owned(), json!({"env": true}));
        Value::Object(object)
    }

    /// The directives that settings inject into a block.
    fn injected(&self, block: &str) -> Vec<Value> {
        let family = format!("nginx_{block}_");
        self.settings()
            .filter_map(|(key, value)| Some(json!({"name": key.strip_prefix(&family)?, "value": value})))
            .collect()
    }
}

fn typed(key: &str, value: &str) -> Value {
    match kind(key) {
        Some(Kind::Bool) => json!(value == "true"),
        Some(Kind::Number) => match (value.parse::<i64>(), value.parse::<f64>()) {
            (Ok(integer), _) => json!(integer),
            (_, Ok(float)) => json!(float),
            _ => json!(value),
        },
        Some(Kind::List) => {
            let items = grammar::items(value);
            if items.is_empty() { json!({}) } else { json!(items) }
        }
        _ if key.ends_with("_ssl_enabled") => json!(value == "true"),
        _ => json!(value),
    }
}
