//! The property behind the catalogue: one set of sources is one release, whatever it was packed as.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};

use kctl_shared::package::{LoadOptions, Package, Unread, hash_tree, load};
use proptest::prelude::*;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::forge::{load_bytes, write_tree};

fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~\n]{0,300}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..2000)
            .prop_filter("neither bytecode nor a library", |b| !b.starts_with(b"\x1bL")
                && !b.starts_with(b"\x7fELF")),
    ]
}

/// Files of a plugin; names in lower case, and no file where a directory is needed.
fn sources() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let path = "([a-z][a-z0-9 _-]{0,12}/){0,3}[a-z0-9_]{1,20}\\.(lua|json|x)";
    (prop::collection::btree_map(path, contents(), 0..12), contents()).prop_map(|(mut files, handler)| {
        files.insert("handler.lua".into(), handler);
        files
    })
}

fn as_zip(prefix: &str, files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        zip.start_file(format!("{prefix}{path}"), SimpleFileOptions::default().unix_permissions(0o644))
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn as_tgz(prefix: &str, files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(1_700_000_000);
        header.set_uid(1000);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("{prefix}{path}"), bytes.as_slice()).unwrap();
    }
    crate::forge::gz(&tar.into_inner().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn all_forms_are_one_release(files in sources()) {
        let dir = tempfile::tempdir().unwrap();
        let list: Vec<_> = files.iter().map(|(p, b)| (format!("kong/plugins/probe/{p}"), b.clone())).collect();
        write_tree(dir.path(), &list);
        let options = LoadOptions::default();
        let package = load(dir.path(), &options, &Unread).unwrap();
        let digest = package.digest();
        prop_assert_eq!(package.files.len(), files.len());
        prop_assert!(package.files.iter().all(|f| files.get(&f.entry.path) == Some(&f.bytes)));

        let rock = load_bytes("p-1-1.all.rock", &as_zip("lua/kong/plugins/probe/", &files), &options).unwrap();
        prop_assert_eq!(rock.digest(), digest);
        let tgz = load_bytes("p.tar.gz", &as_tgz("probe-1.0/kong/plugins/probe/", &files), &options).unwrap();
        prop_assert_eq!(tgz.digest(), digest);

        let artifact = package.to_artifact();
        prop_assert_eq!(&artifact, &rock.to_artifact());
        prop_assert_eq!(&artifact, &tgz.to_artifact());
        let back = Package::from_artifact(&artifact, &options.limits).unwrap();
        prop_assert_eq!(&back.files, &package.files);
        prop_assert_eq!(back.digest(), digest);

        let (placed, entries) = hash_tree(&dir.path().join("kong/plugins/probe"), &package.plugin).unwrap();
        prop_assert_eq!(placed, digest);
        prop_assert_eq!(entries.len(), files.len());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096), magic in 0..4usize) {
        let head: &[u8] = [&b""[..], b"PK\x03\x04", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"PK\x05\x06"][magic];
        let bytes = [head, &bytes].concat();
        prop_assert!(load_bytes("p", &bytes, &LoadOptions::default()).is_err());
        prop_assert!(Package::from_artifact(&bytes, &LoadOptions::default().limits).is_err());
    }
}
