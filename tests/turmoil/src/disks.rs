//! Disks of members, in memory: they outlive a crash of the host, with what was written and nothing that was on its way.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kctl_control_plane::raft::{Change, Disk, Disks, Record};
use kctl_shared::fault::Fault;

/// All disks of one member, by directory.
#[derive(Debug)]
pub struct Memory {
    latency: Duration,
    disks: Mutex<BTreeMap<PathBuf, Arc<MemoryDisk>>>,
}

impl Memory {
    /// A write to the log takes `latency`.
    pub fn new(latency: Duration) -> Self {
        Self { latency, disks: Mutex::default() }
    }
}

impl Disks for Memory {
    fn open(&self, path: &Path) -> Result<Arc<dyn Disk>, Fault> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(MemoryDisk { latency: self.latency, records: Mutex::default() });
        Ok(disks.entry(path.to_owned()).or_insert_with(new).clone())
    }
}

#[derive(Debug)]
struct MemoryDisk {
    latency: Duration,
    records: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Disk for MemoryDisk {
    fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put(key, value) => records.insert(key, value),
                Change::Delete(key) => records.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Record>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let from = records.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn simulated(&self) -> Option<Duration> {
        Some(self.latency)
    }
}
