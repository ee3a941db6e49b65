//! Which control plane to talk to: flags, then environment, then the configuration file, then the default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kctl_shared::endpoint;
use kctl_shared::fault::Fault;
use serde::Deserialize;

use crate::cli::Global;

const DEFAULT: &str = "http://127.0.0.1:7101";

#[derive(Debug, Default, Deserialize)]
struct File {
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Context {
    pub endpoints: Vec<String>,
    #[serde(default)]
    pub insecure: bool,
}

fn path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KCTL_CONFIG") {
        return Some(path.into());
    }
    let home = std::env::var_os("HOME")?;
    Some(PathBuf::from(home).join(".config/kctl/config.toml"))
}

/// # Errors
/// `CONFIG_INVALID`, `CONTEXT_NOT_FOUND`, `ADDRESS_INVALID`, `INSECURE_ADDRESS`.
pub fn resolve(global: &Global) -> Result<Context, Fault> {
    let mut context = if global.server.is_empty() {
        from_file(global)?
    } else {
        Context { endpoints: global.server.clone(), insecure: false }
    };
    context.insecure |= global.insecure;
    for url in &context.endpoints {
        endpoint::check_dial(url, context.insecure)?;
    }
    Ok(context)
}

fn from_file(global: &Global) -> Result<Context, Fault> {
    let explicit = std::env::var_os("KCTL_CONFIG").is_some();
    let default = Context { endpoints: vec![DEFAULT.into()], insecure: false };
    let Some(path) = path() else { return Ok(default) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if explicit => {
            return Err(Fault::new("CONFIG_INVALID", format!("cannot read {}: {e}", path.display()))
                .hint("check KCTL_CONFIG"));
        }
        Err(_) => return Ok(default),
    };
    let file: File = toml::from_str(&text).map_err(|e| {
        Fault::new("CONFIG_INVALID", format!("{}: {}", path.display(), e.message())).hint("mend the file")
    })?;
    let Some(name) = global.context.clone().or(file.current) else { return Ok(default) };
    file.contexts.get(&name).filter(|c| !c.endpoints.is_empty()).cloned().ok_or_else(|| {
        Fault::new("CONTEXT_NOT_FOUND", format!("{} has no context {name:?} with endpoints", path.display()))
            .hint("name another one with --context")
    })
}
