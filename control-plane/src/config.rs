//! Configuration of one member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kctl_shared::endpoint;
use kctl_shared::fault::Fault;
use serde::Deserialize;

use crate::raft::MemberAddress;

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
    /// The members a new cluster starts with, this one included: 1, 3 or 5.
    pub members: BTreeMap<String, MemberAddress>,
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
        if !matches!(members.len(), 1 | 3 | 5) {
            return Err(invalid(format!("a cluster starts with 1, 3 or 5 members, not {}", members.len())));
        }
        for member in members.values() {
            for url in [&member.grpc, &member.http, &member.raft] {
                endpoint::check_dial(url, self.insecure)?;
            }
        }
        Ok(())
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
