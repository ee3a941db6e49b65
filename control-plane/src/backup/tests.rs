use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kctl_shared::package::{Limits, Package};

use super::read::inspect;
use super::restore::{Wish, restore};
use super::write::Writer;
use super::*;
use crate::raft::Captured;
use crate::state::ClusterState;
use crate::state::members::MemberAddress;
use crate::state::model::Release;

fn package() -> Package {
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    let files = vec![
        file("handler.lua", "return { PRIORITY = 1, VERSION = \"1.0.0\" }"),
        file("schema.lua", "return { name = \"golden\", fields = {} }"),
    ];
    Package::new("golden".parse().unwrap(), files, &Limits::default()).unwrap()
}

/// A backup of one release, at index 40 of epoch 3.
fn backup(dir: &Path) -> PathBuf {
    let package = package();
    let release = Release {
        plugin: package.plugin.clone(),
        version: "1.0.0".into(),
        digest: package.digest(),
        files: package.files.iter().map(|f| f.entry.clone()).collect(),
        registered_at: Timestamp(7),
        retained: true,
        extras: Vec::new(),
        nginx: Vec::new(),
    };
    let state = ClusterState {
        epoch: 3,
        generation: 30,
        releases: BTreeMap::from([(release.digest, release)]),
        ..ClusterState::default()
    };
    let (mut writer, mut bytes) = Writer::begin(&Captured { index: 40, state }, Timestamp(9)).unwrap();
    bytes.extend(writer.artifact(&package.digest(), &package.to_artifact()).unwrap());
    bytes.extend(writer.end().unwrap());
    let path = dir.join("backup");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn wish(dir: &Path) -> Wish {
    let members = BTreeMap::from([(5, MemberAddress::default())]);
    Wish { id: 5, data_dir: dir.join("data"), members, epoch: None }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole = inspect(&backup(dir.path())).unwrap();
    assert_eq!((whole.manifest.epoch, whole.manifest.index, whole.manifest.parts.len()), (3, 40, 2));
    assert_eq!(whole.state.releases.len(), 1);
}

#[test]
fn no_byte_can_change_and_no_end_can_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = backup(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    let refuse = |changed: &[u8], what: &str| {
        std::fs::write(&path, changed).unwrap();
        let fault = restore(&path, &wish(dir.path())).unwrap_err();
        let known = ["BACKUP_DAMAGED", "BACKUP_INVALID", "BACKUP_FORMAT"];
        assert!(known.contains(&fault.code.as_str()), "{what}: {fault}");
        assert!(!dir.path().join("data").exists(), "{what}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{what}: something was left");
    };
    for cut in (0..bytes.len() - 1024).step_by(512) {
        refuse(&bytes[..cut], &format!("cut at {cut}"));
    }
    // Padding carries nothing, and the tar's own words for owner and time are not believed; what is read is sealed.
    for at in (0..bytes.len() - 1024).step_by(97).filter(|at| bytes[*at] != 0) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        refuse(&changed, &format!("flipped at {at}"));
    }
    refuse(&[&bytes[..], &[1; 512]].concat(), "more behind its end");
    refuse(b"not a tar at all", "foreign");
    refuse(&package().to_artifact(), "another tar");
}

#[test]
fn a_data_directory_is_made_once_and_with_an_epoch_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = backup(dir.path());
    let used = restore(&path, &Wish { epoch: Some(3), ..wish(dir.path()) }).unwrap_err();
    assert_eq!(used.code, "EPOCH_USED");
    let done = restore(&path, &wish(dir.path())).unwrap();
    assert!(done.epoch > 3 && done.former_epoch == 3 && done.index > 40);
    assert!(dir.path().join("data/artifacts").read_dir().unwrap().count() == 1);
    assert_eq!(restore(&path, &wish(dir.path())).unwrap_err().code, "RESTORE_NOT_EMPTY");
}
