//! Where a node's Kong is, when its configuration does not say.

use std::env;
use std::path::{Path, PathBuf};

use kctl_shared::fault::Fault;

use super::process;

/// Where Kong itself looks for its configuration, in its order.
const CONFS: [&str; 2] = ["/etc/kong/kong.conf", "/etc/kong.conf"];
/// Kong's default.
const PREFIX: &str = "/usr/local/kong";

/// The only running Kong's prefix; Kong's default one while none runs.
///
/// # Errors
/// `KONG_NOT_LOCATED` when several run, or none and there is no default one either.
pub fn prefix() -> Result<PathBuf, Fault> {
    let mut running = process::prefixes();
    match (running.len(), running.pop()) {
        (1, Some(prefix)) => Ok(prefix),
        (0, _) if Path::new(PREFIX).is_dir() => Ok(PREFIX.into()),
        (0, _) => Err(not_located(format!("no Kong runs here, and there is no {PREFIX}"), "prefix")),
        (_, last) => {
            let all: Vec<_> = running.iter().chain(&last).map(|p| p.display().to_string()).collect();
            Err(not_located(format!("several Kongs run here, in {}", all.join(", ")), "prefix"))
        }
    }
}

/// # Errors
/// `KONG_NOT_LOCATED`.
pub fn conf() -> Result<PathBuf, Fault> {
    let found = CONFS.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| not_located(format!("there is neither {} nor {}", CONFS[0], CONFS[1]), "conf"))
}

/// # Errors
/// `KONG_NOT_LOCATED`.
pub fn bin() -> Result<PathBuf, Fault> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain(["/usr/local/bin".into(), "/usr/bin".into()]);
    let found = places.find_map(|dir| Some(dir.join("kong")).filter(|path| path.is_file()));
    found.ok_or_else(|| not_located("there is no kong in PATH".into(), "bin"))
}

fn not_located(why: String, key: &str) -> Fault {
    Fault::new("KONG_NOT_LOCATED", why)
        .hint(format!("say where: {key} = \"…\" below [kong] in the agent's configuration"))
}
