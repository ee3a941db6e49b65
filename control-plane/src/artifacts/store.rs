//! Files named by digest in one directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kctl_shared::digest::Digest;
use kctl_shared::fault::Fault;
use kctl_shared::package::{Limits, Package};

#[derive(Debug)]
pub(super) struct FileStore {
    dir: PathBuf,
}

fn failed(e: &io::Error) -> Fault {
    Fault::new("ARTIFACT_STORE", format!("the artifact store failed: {e}")).hint("check the member's disk")
}

impl FileStore {
    pub(super) fn open(dir: &Path) -> Result<Self, Fault> {
        fs::create_dir_all(dir).map_err(|e| failed(&e))?;
        // What a crash left half written was never acknowledged.
        for entry in fs::read_dir(dir).map_err(|e| failed(&e))?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "part") {
                fs::remove_file(entry.path()).map_err(|e| failed(&e))?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}.tar", digest.hex()))
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Temporary file in the same directory, synced, renamed, directory synced.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        let mut file = tempfile::Builder::new().suffix(".part").tempfile_in(&self.dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(self.path(digest)).map_err(|e| e.error)?;
        File::open(&self.dir)?.sync_all()
    }

    fn read(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        fs::read(self.path(digest))
    }
}

/// The bytes are the canonical artifact of `digest`, nothing else.
fn check(digest: &Digest, bytes: &[u8]) -> Result<(), Fault> {
    let package = Package::from_artifact(bytes, &Limits::default())
        .map_err(|e| Fault::new(e.code, e.message.clone()).hint(e.hint.clone()))?;
    if &package.digest() == digest {
        return Ok(());
    }
    Err(Fault::new("DIGEST_MISMATCH", format!("the bytes are {}, not {digest}", package.digest()))
        .hint("send it again"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Fault::new("INTERNAL", e.to_string())))
}

pub(super) async fn put(store: Arc<FileStore>, digest: Digest, bytes: Bytes) -> Result<(), Fault> {
    blocking(move || {
        check(&digest, &bytes)?;
        store.write(&digest, &bytes).map_err(|e| failed(&e))
    })
    .await
}

pub(super) async fn get(store: Arc<FileStore>, digest: Digest) -> Result<Bytes, Fault> {
    blocking(move || match store.read(&digest) {
        Ok(bytes) => Ok(bytes.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Fault::new("ARTIFACT_NOT_FOUND", format!("{digest} is not on this member")))
        }
        Err(e) => Err(failed(&e)),
    })
    .await
}
