//! A new cluster from a backup: an empty data directory becomes that of a member which has applied the backup's state.
//!
//! Every member of the new cluster is made of the same file with the same epoch. The epoch is one that no cluster had, so
//! that members and agents of the former one are told apart; the log goes on far behind the former one's end, so that no
//! grant is ever given twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kctl_shared::fault::Fault;
use kctl_shared::time::Timestamp;
use serde::Serialize;

use super::read::read;
use crate::artifacts::file_name;
use crate::raft::seed;
use crate::state::members::MemberAddress;
use crate::state::{LogStamp, restored};

/// How far the new log begins behind the backup's end: more than the former cluster can have written after it.
const GAP: u64 = 1_000_000_000;

/// What a restored member is to be.
#[derive(Clone, Debug)]
pub struct Wish {
    pub id: u64,
    pub data_dir: PathBuf,
    /// Of the new cluster, this one included.
    pub members: BTreeMap<u64, MemberAddress>,
    /// Greater than the backup's; the present time in seconds unless given.
    pub epoch: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub data_dir: PathBuf,
    pub member: u64,
    pub epoch: u64,
    /// Of the cluster that was backed up.
    pub former_epoch: u64,
    pub index: u64,
    pub members: Vec<u64>,
    /// Operations that had not ended and are aborted now.
    pub aborted: Vec<String>,
}

/// # Errors
/// Those of [`read`]; `RESTORE_NOT_EMPTY`, `EPOCH_USED`, `RESTORE_FAILED`. Nothing is in the data directory then.
pub fn restore(file: &Path, wish: &Wish) -> Result<Restored, Fault> {
    let dir = &wish.data_dir;
    let failed = |e: io::Error| {
        Fault::new("RESTORE_FAILED", format!("{}: {e}", dir.display()))
            .hint("check the directory and the disk")
    };
    if dir.exists() && fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(Fault::new("RESTORE_NOT_EMPTY", format!("{} is not empty", dir.display()))
            .hint("restore into a new directory; what is there stays untouched"));
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed)?;
    // Beside its place, so that it appears there whole or not at all.
    let made = tempfile::Builder::new().prefix(".kctl-restore-").tempdir_in(parent).map_err(failed)?;
    let artifacts = made.path().join("artifacts");
    fs::create_dir(&artifacts).map_err(failed)?;
    let whole = read(file, |digest, bytes| {
        let write = || {
            let mut file = File::create(artifacts.join(file_name(digest, bytes)))?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(failed)
    })?;
    let mut state = whole.state;
    let former_epoch = state.epoch;
    let now = Timestamp::now();
    let epoch = wish.epoch.unwrap_or_else(|| (former_epoch + 1).max(now.0 / 1_000));
    if epoch <= former_epoch {
        return Err(Fault::new(
            "EPOCH_USED",
            format!("epoch {epoch} is not greater than {former_epoch}, that of the backup"),
        )
        .hint("leave --epoch out, or give the one that the first restored member was given"));
    }
    let index = whole.manifest.index + GAP;
    // Not by this machine's clock: every member of the new cluster must begin with the same state.
    let at = LogStamp { index, offset: 0, proposed_at: state.clock };
    let aborted = restored(&mut state, at, epoch, &wish.members, whole.manifest.index);
    File::open(&artifacts).and_then(|d| d.sync_all()).map_err(failed)?;
    seed(made.path(), wish.id, &wish.members, index, &state)?;
    File::open(made.path()).and_then(|d| d.sync_all()).map_err(failed)?;
    let path = made.keep();
    if let Err(e) = fs::rename(&path, dir) {
        drop(fs::remove_dir_all(&path));
        return Err(failed(e));
    }
    File::open(parent).and_then(|d| d.sync_all()).map_err(failed)?;
    Ok(Restored {
        data_dir: dir.clone(),
        member: wish.id,
        epoch,
        former_epoch,
        index,
        members: wish.members.keys().copied().collect(),
        aborted,
    })
}
