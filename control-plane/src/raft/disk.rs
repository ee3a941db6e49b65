//! A sled database that tells the truth: checksummed records, writes that reach the disk before they are acknowledged, and
//! one error, `STORE_CORRUPT`, for everything that cannot be trusted.
//!
//! `sled::Db::flush` stops short of fsync: after a power cut acknowledged writes are missing or the store does not open. So
//! every durable write is batch, flush, then fdatasync of sled's `db` file, and the directory is synced once after opening.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kctl_shared::fault::Fault;
use kctl_shared::mutant;

use super::journal::Journal;

/// Pages sled may keep in memory; the working set is small and cached above anyway.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// As long as sled may take to let go of a store that was closed.
const LET_GO: Duration = Duration::from_secs(2);
/// Records larger than this are split: sled keeps bigger values in files of their own, which are synced one by one.
const CHUNK: usize = 32 * 1024;

/// The port the log and the snapshots are written through; a test may put something unreliable behind it.
pub trait Disk: Send + Sync + 'static {
    /// Applies the changes in order and returns once they are on the disk.
    fn write(&self, changes: Vec<Change>) -> io::Result<()>;
    /// All records whose key begins with `prefix`, in key order, checksums verified.
    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Record>>;
    /// How long a write to the log takes in a simulated world, where a task waits for it; otherwise a thread waits for the disk.
    fn simulated(&self) -> Option<Duration> {
        None
    }
}

/// Where a member's disks come from, by directory.
pub trait Disks: std::fmt::Debug + Send + Sync + 'static {
    /// # Errors
    /// `STORE_IN_USE`, `STORE_CORRUPT`, `STORE_UNREADABLE`.
    fn open(&self, path: &Path) -> Result<Arc<dyn Disk>, Fault>;

    /// The one of the log: every proposal waits for it.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn open_log(&self, path: &Path) -> Result<Arc<dyn Disk>, Fault> {
        self.open(path)
    }
}

/// [`SledDisk`]s, that of the log with a [`Journal`] in front.
#[derive(Clone, Copy, Debug)]
pub struct Sled;

impl Disks for Sled {
    fn open(&self, path: &Path) -> Result<Arc<dyn Disk>, Fault> {
        Ok(Arc::new(SledDisk::open(path)?))
    }

    fn open_log(&self, path: &Path) -> Result<Arc<dyn Disk>, Fault> {
        Ok(Arc::new(Journal::open(path)?))
    }
}

/// Key and value.
pub type Record = (Vec<u8>, Vec<u8>);

#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

#[derive(Debug)]
pub struct SledDisk {
    db: sled::Db,
    file: File,
    path: PathBuf,
    /// Files of large values that are on the disk.
    blobs: Mutex<BTreeSet<OsString>>,
    _lock: File,
}

pub(super) fn corrupt(path: &Path, what: impl std::fmt::Display) -> Fault {
    Fault::new("STORE_CORRUPT", format!("the store in {} cannot be trusted: {what}", path.display()))
        .hint("replace this member by a new one with a new id and an empty data directory; it is not repaired by guess")
}

impl SledDisk {
    /// # Errors
    /// `STORE_IN_USE` while another process has it, `STORE_CORRUPT` for any damage.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let io = |e: io::Error| {
            Fault::new("STORE_UNREADABLE", format!("{}: {e}", path.display()))
                .hint("check the data directory")
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let lock = File::create(path.join("lock")).map_err(io)?;
        if lock.try_lock().is_err() {
            return Err(Fault::new("STORE_IN_USE", format!("{} is open in another process", path.display()))
                .hint("stop the other copy of this member"));
        }
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        // sled panics on a truncated file.
        let open = || catch_unwind(AssertUnwindSafe(|| config.open()));
        let (mut opened, begun) = (open(), Instant::now());
        // Our lock says that nobody else has it: sled's threads let go of a store only a moment after it was dropped.
        while matches!(&opened, Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock"))
            && begun.elapsed() < LET_GO
        {
            std::thread::sleep(LET_GO / 100);
            opened = open();
        }
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(e)) => return Err(corrupt(path, e)),
            Err(_) => return Err(corrupt(path, "its file is damaged")),
        };
        let file = File::options().write(true).open(path.join("db")).map_err(io)?;
        db.flush().map_err(|e| corrupt(path, e))?;
        file.sync_data().map_err(io)?;
        File::open(path).and_then(|d| d.sync_all()).map_err(io)?;
        let disk = Self { db, file, path: path.to_owned(), blobs: Mutex::default(), _lock: lock };
        disk.sync_blobs().map_err(io)?;
        Ok(disk)
    }
}

impl SledDisk {
    /// sled writes a large value, or a page that many values together made large, to a file of its own and never syncs it.
    fn sync_blobs(&self) -> io::Result<()> {
        let dir = self.path.join("blobs");
        let mut synced = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let present: BTreeSet<OsString> = match std::fs::read_dir(&dir) {
            Ok(entries) => entries.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<_>>()?,
            // Without the directory there is nothing in it; sled itself fails where it needs one.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(other) => return Err(other),
        };
        for name in present.difference(&synced) {
            match File::open(dir.join(name)) {
                Ok(blob) => blob.sync_all()?,
                // sled takes those away that it has copied elsewhere.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(other) => return Err(other),
            }
        }
        if *synced != present {
            File::open(&dir)?.sync_all()?;
        }
        *synced = present;
        Ok(())
    }
}

impl Disk for SledDisk {
    fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for change in changes {
            match change {
                Change::Delete(key) => batch.remove(key),
                Change::Put(key, value) => {
                    let mut record = crc(&key, &value).to_be_bytes().to_vec();
                    record.extend_from_slice(&value);
                    batch.insert(key, record);
                }
            }
        }
        self.db.apply_batch(batch).map_err(io::Error::other)?;
        self.db.flush().map_err(io::Error::other)?;
        if mutant::is("no-fdatasync") {
            return Ok(());
        }
        self.sync_blobs()?;
        self.file.sync_data()
    }

    fn scan(&self, prefix: &[u8]) -> io::Result<Vec<Record>> {
        let read = || {
            self.db.scan_prefix(prefix).map(|record| {
                let (key, record) = record.map_err(io::Error::other)?;
                let damaged =
                    || io::Error::new(io::ErrorKind::InvalidData, "a record does not fit its checksum");
                let (sum, value) = record.split_first_chunk::<4>().ok_or_else(damaged)?;
                if u32::from_be_bytes(*sum) != crc(&key, value) {
                    return Err(damaged());
                }
                Ok((key.to_vec(), value.to_vec()))
            })
        };
        catch_unwind(AssertUnwindSafe(|| read().collect()))
            .unwrap_or_else(|_| Err(io::Error::other("its file is damaged")))
    }
}

fn crc(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// Splits a large value over several keys below `prefix`.
pub(super) fn put_large(prefix: &[u8], value: &[u8]) -> Vec<Change> {
    let key = |n: usize| [prefix, &(n as u32).to_be_bytes()].concat();
    value.chunks(CHUNK).enumerate().map(|(n, chunk)| Change::Put(key(n), chunk.to_vec())).collect()
}

/// Puts a split value together again.
pub(super) fn join_large(records: Vec<Record>) -> Vec<u8> {
    records.into_iter().flat_map(|(_, chunk)| chunk).collect()
}

/// Directory of one of the member's databases.
pub(super) fn directory(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_files_of_their_own_are_synced_too() {
        let temp = tempfile::tempdir().unwrap();
        let disk = SledDisk::open(temp.path()).unwrap();
        let large = vec![7; 1 << 20];
        disk.write(vec![Change::Put(b"large".to_vec(), large.clone())]).unwrap();
        let synced = disk.blobs.lock().unwrap().clone();
        assert!(!synced.is_empty(), "sled put it elsewhere: {:?}", temp.path());
        assert!(synced.iter().all(|name| temp.path().join("blobs").join(name).exists()));
        assert_eq!(disk.scan(b"large").unwrap(), [(b"large".to_vec(), large)]);
    }
}
