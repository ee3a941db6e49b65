//! Configuration of one member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kctl_shared::endpoint;
use kctl_shared::fault::Fault;
use serde::Deserialize;

use crate::raft::MemberAddress;
use crate::state::SealingKey;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Never used again for another member, not even after this one is gone.
    pub id: u64,
    pub data_dir: PathBuf,
    /// Permits addresses off loopback without transport security.
    #[serde(default)]
    pub insecure: bool,
    pub listen: Listen,
    /// The members a new cluster starts with, this one included: 1, 3 or 5. With `join`: this one alone.
    pub members: BTreeMap<String, MemberAddress>,
    /// 64 hex digits that plugin configurations taken out of Kong are sealed with, the same on every member; without it
    /// the cluster mints a key and keeps it in its replicated state.
    pub sealing_key_file: Option<PathBuf>,
    /// With an empty store this member starts no cluster but waits to be let into one that runs; it asks these members,
    /// gRPC URLs, to be. Empty: somebody runs `kctl cluster join`.
    pub join: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub raft: SocketAddr,
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("CONFIG_INVALID", message).hint("see deploy/member.example.toml")
}

impl Config {
    /// Reads and checks a TOML file.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `INSECURE_ADDRESS`, `ADDRESS_INVALID`.
    pub fn load(path: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| invalid(format!("cannot read {}: {e}", path.display())))?;
        let config: Self = toml::from_str(&text).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Fault> {
        for address in [self.listen.grpc, self.listen.http, self.listen.raft] {
            endpoint::check_bind(address, self.insecure)?;
        }
        let members = self.members()?;
        if !members.contains_key(&self.id) {
            return Err(invalid(format!("member {} is not among the members", self.id)));
        }
        if self.join.is_some() && members.len() > 1 {
            return Err(invalid("with `join` only this member's own addresses stand under members"));
        }
        if !matches!(members.len(), 1 | 3 | 5) {
            return Err(invalid(format!("a cluster starts with 1, 3 or 5 members, not {}", members.len())));
        }
        for member in members.values() {
            for url in [&member.grpc, &member.http, &member.raft] {
                endpoint::check_dial(url, self.insecure)?;
            }
        }
        for url in self.join.iter().flatten() {
            endpoint::check_dial(url, self.insecure)?;
        }
        Ok(())
    }

    /// The member's own key, if it is given one.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a file that others may read, or that holds no key.
    pub fn sealing_key(&self) -> Result<Option<SealingKey>, Fault> {
        let Some(path) = &self.sealing_key_file else { return Ok(None) };
        let failed = |why: String| invalid(format!("sealing_key_file {}: {why}", path.display()));
        let mode = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(failed("others than its owner may read it; chmod 600".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key)
            .map_err(|_| failed("it has to hold 64 hex digits: openssl rand -hex 32".into()))?;
        Ok(Some(SealingKey(key)))
    }

    /// Where this member is reached.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn address(&self) -> Result<MemberAddress, Fault> {
        let missing = || invalid(format!("member {} is not among the members", self.id));
        self.members()?.remove(&self.id).ok_or_else(missing)
    }

    /// # Errors
    /// `CONFIG_INVALID` for an id that is not a positive number.
    pub fn members(&self) -> Result<BTreeMap<u64, MemberAddress>, Fault> {
        let parse = |id: &str| id.parse::<u64>().ok().filter(|id| *id > 0);
        let entry = |(id, address): (&String, &MemberAddress)| {
            Ok((
                parse(id).ok_or_else(|| invalid(format!("member id {id:?} is not a positive number")))?,
                address.clone(),
            ))
        };
        self.members.iter().map(entry).collect()
    }
}
