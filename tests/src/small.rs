//! A small file system, gone again with the test that filled it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug)]
pub struct Small {
    at: PathBuf,
}

impl Small {
    /// Options as `mount -o` takes them for a tmpfs. `None`, and why on stderr, where nothing can be mounted.
    pub fn mount(at: &Path, options: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can mount a small file system; not tried");
            return None;
        }
        fs::create_dir_all(at).unwrap();
        if !mount(at, options) {
            eprintln!("nothing can be mounted here; not tried");
            return None;
        }
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { at: at.to_owned() })
    }

    /// Gives it other limits while it is in use.
    pub fn remount(&self, options: &str) {
        assert!(mount(&self.at, &format!("remount,{options}")));
    }

    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.at).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it up to `free` bytes, with a file that is to be deleted to make room.
    pub fn fill(&self, free: u64) -> PathBuf {
        let ballast = self.at.join("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        let page = [1; 4096];
        while self.free() > free && file.write_all(&page).is_ok() {}
        ballast
    }
}

fn mount(at: &Path, options: &str) -> bool {
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
    mounted.is_ok_and(|status| status.success())
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ended = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
