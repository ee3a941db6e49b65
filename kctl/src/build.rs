//! `--allow-build`: a rockspec that builds with commands (make, cmake, command, …) is built here, by this machine's
//! LuaRocks, and what comes out is packed like any other rock.
//!
//! Here and not on the nodes: a release is the files whose digest every node proves, so they have to be known before
//! there is a release. A build on each node could give each node other files. The sources are copied, so that nothing is
//! left in them; LuaRocks gets a configuration, a home and a tree of its own, hooks off, no servers and no dependencies.
//! The commands themselves are foreign code and run as whoever runs kctl: that is what the flag allows.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kctl_shared::package::{LoadOptions, Loaded, PackageError, load_all_about};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::lint::Sandboxed;

/// A plugin with a C library of its own and its tests takes a minute.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(20);
/// Of what is copied: many times a plugin's repository.
const MAX_FILES: usize = 20_000;
const MAX_BYTES: u64 = 256 << 20;
/// Characters of LuaRocks's words that are passed on.
const MAX_WORDS: usize = 2_000;
const CONFIG: &str = "hooks_enabled = false\nlocal_by_default = false\nrocks_servers = {}\n";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds what `reference` is and loads what came out.
///
/// # Errors
/// `BUILD_NEEDS_SOURCES`, `LUAROCKS_NOT_FOUND`, `BUILD_FAILED` with LuaRocks's words, `BUILD_HANGS`,
/// `NATIVE_NOT_ALLOWED`, `ARCHIVE_TOO_LARGE`, and those of loading.
pub fn built(reference: &Path, options: &LoadOptions) -> Result<Loaded, PackageError> {
    let (sources, rockspec) = sources(reference)?;
    let luarocks = luarocks()?;
    let scratch = tempfile::Builder::new().prefix("kctl-build-").tempdir().map_err(|e| failed(&e))?;
    let at = |name: &str| scratch.path().join(name);
    copy(&sources, &at("sources"), &mut Budget::default())?;
    fs::write(at("config.lua"), CONFIG).map_err(|e| failed(&e))?;
    run(&luarocks, scratch.path(), &rockspec)?;
    let version = arrange(&at("tree"), &at("rock")).map_err(|e| failed(&e))?;
    let native = fs::read_dir(at("tree/lib/lua/5.1")).into_iter().flatten().flatten().next();
    if let Some(library) = native {
        let message = format!("the build made {:?}, a native library", library.file_name());
        return Err(PackageError::new("NATIVE_NOT_ALLOWED", message));
    }
    // What was built is what counts; the rockspec says how it was, which nobody has to do again.
    let built = LoadOptions { ignore_rockspec: true, ..options.clone() };
    let mut loaded = load_all_about(&at("rock"), &built, &Sandboxed)?;
    if loaded.package.version.starts_with("0.0.0-")
        && options.version.is_none()
        && let Some((version, _)) = version.rsplit_once('-')
    {
        version.clone_into(&mut loaded.package.version);
    }
    Ok(loaded)
}

/// The directory to build in, and the name of its rockspec.
fn sources(reference: &Path) -> Result<(PathBuf, String), PackageError> {
    let needs = |why: String| {
        PackageError::new("BUILD_NEEDS_SOURCES", why)
            .hint("give the unpacked directory with one rockspec in it, or the rockspec itself")
    };
    let real = fs::canonicalize(reference).map_err(|e| failed(&e))?;
    let is_spec = |path: &Path| path.extension().is_some_and(|e| e == "rockspec");
    let named = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    if real.is_file() {
        let parts = real.parent().zip(named(&real)).filter(|_| is_spec(&real));
        let parts = parts.map(|(dir, name)| (dir.to_path_buf(), name));
        return parts.ok_or_else(|| needs(format!("{} is no directory to build in", reference.display())));
    }
    let entries = fs::read_dir(&real).map_err(|e| failed(&e))?;
    let mut specs: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_spec(p)).collect();
    match (specs.pop(), specs.is_empty()) {
        (Some(one), true) => Ok((real, named(&one).unwrap_or_default())),
        (None, _) => Err(needs(format!("there is no rockspec right in {}", reference.display()))),
        (Some(_), false) => Err(needs(format!("there are several rockspecs in {}", reference.display()))),
    }
}

fn luarocks() -> Result<PathBuf, PackageError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let found = std::env::split_paths(&path).map(|dir| dir.join("luarocks")).find(|bin| bin.is_file());
    found.ok_or_else(|| {
        PackageError::new(
            "LUAROCKS_NOT_FOUND",
            "--allow-build takes LuaRocks, and there is none on this machine",
        )
        .hint("install LuaRocks here, or build it elsewhere, `luarocks pack` it and give that rock")
    })
}

#[derive(Default)]
struct Budget {
    files: usize,
    bytes: u64,
}

/// Everything but version control; links stay links.
fn copy(from: &Path, to: &Path, spent: &mut Budget) -> Result<(), PackageError> {
    fs::create_dir(to).map_err(|e| failed(&e))?;
    for entry in fs::read_dir(from).map_err(|e| failed(&e))? {
        let entry = entry.map_err(|e| failed(&e))?;
        let (path, there) = (entry.path(), to.join(entry.file_name()));
        let found = entry.metadata().map_err(|e| failed(&e))?;
        (spent.files, spent.bytes) = (spent.files + 1, spent.bytes + found.len());
        if spent.files > MAX_FILES || spent.bytes > MAX_BYTES {
            let message = format!("more than {MAX_FILES} files or {MAX_BYTES} bytes to build from");
            return Err(PackageError::new("ARCHIVE_TOO_LARGE", message));
        }
        if found.is_symlink() {
            let linked = fs::read_link(&path).and_then(|target| std::os::unix::fs::symlink(target, &there));
            linked.map_err(|e| failed(&e))?;
        } else if found.is_dir() && entry.file_name() != ".git" {
            copy(&path, &there, spent)?;
        } else if found.is_file() {
            fs::copy(&path, &there).map_err(|e| failed(&e))?;
        }
    }
    Ok(())
}

/// `luarocks make`, in its own process group so that nothing of it outlives its time.
fn run(luarocks: &Path, scratch: &Path, rockspec: &str) -> Result<(), PackageError> {
    let log = scratch.join("log");
    let said = File::create(&log).map_err(|e| failed(&e))?;
    let mut command = Command::new(luarocks);
    command
        .args(["--lua-version=5.1", "--tree"])
        .arg(scratch.join("tree"))
        .args(["make", "--deps-mode=none", rockspec])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .env("HOME", scratch)
        .env("LUAROCKS_CONFIG", scratch.join("config.lua"))
        .current_dir(scratch.join("sources"))
        .stdin(Stdio::null())
        .stdout(said.try_clone().map_err(|e| failed(&e))?)
        .stderr(said)
        .process_group(0);
    let mut child = command.spawn().map_err(|e| failed(&e))?;
    let Some(ended) = wait(&mut child).map_err(|e| failed(&e))? else {
        let message = format!("the build did not end within {LIMIT:?} and was stopped");
        return Err(PackageError::new("BUILD_HANGS", message)
            .hint("build it elsewhere, `luarocks pack` it and give that rock"));
    };
    if ended.success() {
        return Ok(());
    }
    let words = fs::read(&log).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    // The reason stands at the end of what a build says.
    let skipped = words.trim().chars().count().saturating_sub(MAX_WORDS);
    let words: String = words.trim().chars().skip(skipped).collect();
    Err(PackageError::new("BUILD_FAILED", format!("`luarocks make {rockspec}` said: {words}"))
        .hint("run it by hand in the plugin's directory until it ends well"))
}

/// `None`: it did not end in time, and was ended with all it started.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(Some(ended));
        }
        if Instant::now() >= deadline {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // Nobody may be left in it, which is what is wanted.
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Lays a tree with one rock out as that rock, and says its version with its revision.
fn arrange(tree: &Path, rock: &Path) -> io::Result<String> {
    let only = |dir: PathBuf| {
        let found = fs::read_dir(dir)?.flatten().find(|e| e.path().is_dir()).map(|e| e.path());
        found.ok_or_else(|| io::Error::other("LuaRocks ended well and installed nothing"))
    };
    let place = only(only(tree.join("lib/luarocks/rocks-5.1"))?)?;
    fs::create_dir(rock)?;
    fs::copy(place.join("rock_manifest"), rock.join("rock_manifest"))?;
    let lua = tree.join("share/lua/5.1");
    if lua.is_dir() {
        fs::rename(lua, rock.join("lua"))?;
    }
    Ok(place.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn failed(error: &io::Error) -> PackageError {
    PackageError::new("BUILD_FAILED", format!("it cannot be built here: {error}"))
}
