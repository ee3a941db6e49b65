//! The YAML file of Kong before 0.9, in the terms of the files that came after it.

use serde_norway::{Mapping, Value};

use crate::kong::version::since;

/// Settings by the names that kong.conf has for them. The error is Kong's.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let root: Value =
        serde_norway::from_str(text).map_err(|error| format!("Could not parse configuration: {error}"))?;
    let empty = Mapping::new();
    let root = root.as_mapping().unwrap_or(&empty);
    let text = |key: &str| root.get(key).and_then(plain);
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: String| settings.push((key.to_owned(), value));
    set("prefix", text("nginx_working_dir").unwrap_or_else(|| "/usr/local/kong/".to_owned()));
    let listen = |key: &str, port: &str, default: &str| {
        text(key).unwrap_or_else(|| format!("0.0.0.0:{}", text(port).unwrap_or_else(|| default.to_owned())))
    };
    set("proxy_listen", listen("proxy_listen", "proxy_port", "8000"));
    set("admin_listen", listen("admin_api_listen", "admin_api_port", "8001"));
    let list = if since(0, 6, 0) { "custom_plugins" } else { "plugins_available" };
    match root.get(list) {
        None | Some(Value::Null) => {}
        Some(Value::Sequence(names)) => {
            set("custom_plugins", names.iter().filter_map(plain).collect::<Vec<_>>().join(","));
        }
        Some(_) => return Err(format!("{list}: must be a array")),
    }
    // Whatever database it is, the stand-in keeps it in the directory that its first host names.
    let database = text("database").unwrap_or_else(|| "cassandra".to_owned());
    let own =
        root.get(&*database).or_else(|| root.get("databases_available")?.get(&*database)?.get("properties"));
    let host = own.and_then(|own| {
        own.get("host").and_then(plain).or_else(|| own.get("contact_points")?.get(0).and_then(plain))
    });
    set("database", "postgres".to_owned());
    set("pg_host", host.unwrap_or_default());
    let nginx = text("nginx").unwrap_or_default();
    set("lua_package_path", quoted(&nginx, "lua_package_path").unwrap_or_default());
    set("nginx_worker_processes", word(&nginx, "worker_processes").unwrap_or_else(|| "auto".to_owned()));
    Ok(settings)
}

/// The nginx configuration that the file carries.
pub fn nginx(text: &str) -> String {
    let root: Value = serde_norway::from_str(text).unwrap_or_default();
    root.get("nginx").and_then(plain).unwrap_or_default()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The quoted argument of a directive.
pub fn quoted(nginx: &str, directive: &str) -> Option<String> {
    let line = nginx.lines().find(|line| line.trim_start().starts_with(directive))?;
    let (_, rest) = line.split_once('\'')?;
    rest.rsplit_once('\'').map(|(value, _)| value.to_owned())
}

fn word(nginx: &str, directive: &str) -> Option<String> {
    let line = nginx.lines().find_map(|line| line.trim_start().strip_prefix(directive))?;
    Some(line.trim().trim_end_matches(';').to_owned()).filter(|word| !word.is_empty())
}
