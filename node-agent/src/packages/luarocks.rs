//! The node's own LuaRocks, told nothing but what it has to do: a private configuration without hooks and servers, a
//! directory and home of its own, no dependencies, a time limit, and never `--force`.
//!
//! Its word is not taken for what it did: who calls hashes the files afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kctl_shared::package::{Package, rock};
use kctl_shared::spec::Failure;
use rustix::process::{Pid, Signal};
use tokio::process::Command;

use super::disk::{failed, write_all_new, write_new};
use super::slot::TREE_LUA;

/// A rock of two thousand files takes a few seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// Of its words, in bytes, as much as is passed on.
const MAX_WORDS: usize = 2_000;
const CONFIG: &str = "hooks_enabled = false\nlocal_by_default = false\nrocks_servers = {}\n";
/// LuaRocks gives files and directories the modes that the umask leaves, and Kong's workers must read them.
const SHELL: &str = "umask 022 && exec \"$0\" \"$@\"";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Clone, Debug, Default)]
pub(super) struct Luarocks {
    /// As configured; else it is looked for.
    bin: Option<PathBuf>,
}

/// A rock as a tree names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rock {
    pub name: String,
    pub version: String,
}

impl Rock {
    pub fn of(plugin: &kctl_shared::name::PluginName, version: &str) -> Self {
        Self { name: rock::name(plugin), version: rock::version(version) }
    }

    /// What LuaRocks puts before the first directory of the rock's modules while another version has their place.
    pub fn aside(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        format!("{}_{}", self.name, self.version).chars().map(plain).chain(['-']).collect()
    }

    /// Where a tree keeps what it knows of the rock.
    pub fn dir(&self, tree: &Path) -> PathBuf {
        rocks(tree).join(&self.name).join(&self.version)
    }
}

fn rocks(tree: &Path) -> PathBuf {
    tree.join("lib/luarocks/rocks-5.1")
}

/// All rocks of a tree, by the names of its directories.
pub(super) fn installed(tree: &Path) -> Vec<Rock> {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let dirs = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.filter_map(|e| e.file_name().into_string().ok()).collect()
    };
    let root = rocks(tree);
    let versions = |name: String| {
        let found = names(&root.join(&name));
        found.into_iter().map(move |version| Rock { name: name.clone(), version })
    };
    names(&root).into_iter().flat_map(versions).collect()
}

fn manifest(tree: &Path) -> String {
    fs::read_to_string(rocks(tree).join("manifest")).unwrap_or_default()
}

/// Whether the tree has this version of the rock and no other, and its manifest says just that.
pub(super) fn is_settled(tree: &Path, rock: &Rock) -> bool {
    let manifest = manifest(tree);
    installed(tree).iter().all(|r| r.name != rock.name || r == rock)
        && rock.dir(tree).join("rock_manifest").exists()
        && manifest.contains(&format!("\"{}/{}\"", rock.name, rock.version))
        && !tells_too_much(&manifest, tree, &rock.name)
}

/// Whether the tree's manifest names a version of the rock that is not there, or not wholly: LuaRocks was stopped between
/// the one and the other, and stumbles over it the next time.
pub(super) fn is_stale(tree: &Path, name: &str) -> bool {
    tells_too_much(&manifest(tree), tree, name)
}

fn tells_too_much(manifest: &str, tree: &Path, name: &str) -> bool {
    let provider = format!("\"{name}/");
    let told = manifest.match_indices(&provider).map(|(at, found)| &manifest[at + found.len()..]);
    let mut versions = told.filter_map(|rest| rest.split('"').next());
    let place = rocks(tree).join(name);
    versions.any(|version| !place.join(version).join("rock_manifest").exists())
        || manifest.contains(&format!("[\"{name}\"]")) && !place.exists()
}

impl Luarocks {
    pub fn new(bin: Option<PathBuf>) -> Self {
        Self { bin }
    }

    /// # Errors
    /// `LUAROCKS_NOT_FOUND`.
    pub fn find(&self) -> Result<PathBuf, Failure> {
        let missing = |what: String| {
            let message = format!(
                "{what}; install LuaRocks on the node, name it in the agent's configuration ([kong] luarocks), or use \
                 --method store, which needs none"
            );
            Failure::new("LUAROCKS_NOT_FOUND", message)
        };
        if let Some(bin) = &self.bin {
            let found = bin.is_file().then(|| bin.clone());
            return found.ok_or_else(|| missing(format!("there is no LuaRocks at {}", bin.display())));
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
        let mut places = std::env::split_paths(&path).chain(std::env::split_paths(PATH));
        places
            .find_map(|dir| Some(dir.join("luarocks")).filter(|bin| bin.is_file()))
            .ok_or_else(|| missing("there is no luarocks on the PATH".into()))
    }

    /// Puts a package into `tree`, as a rock or from sources; `work` is an empty directory for it to work in.
    ///
    /// # Errors
    /// `LUAROCKS_NOT_FOUND`, `LUAROCKS_FAILED` with its words, `LUAROCKS_HANGS`, `DISK_FULL`, `PLACING_FAILED`.
    pub async fn install(
        &self,
        work: &Path,
        tree: &Path,
        package: &Package,
        make: bool,
    ) -> Result<(), Failure> {
        let stem = rock::stem(package);
        let (source, command, file) = if make {
            (work.join("source"), "make", format!("{stem}.rockspec"))
        } else {
            (work.join("rock"), "install", format!("{stem}.all.rock"))
        };
        let (main, copy) = (source.join(&file), package.clone());
        let root = source.clone();
        super::blocking(move || {
            let written = if make {
                unpack(&copy, &root).and_then(|()| write_new(&main, rock::rockspec(&copy).as_bytes()))
            } else {
                rock::rock(&copy).and_then(|bytes| write_new(&main, &bytes))
            };
            written.map_err(|e| failed("cannot write", &root, &e))
        })
        .await?;
        self.run(work, &source, tree, &[command, "--deps-mode=none", &file]).await?;
        let rock = Rock { name: rock::name(&package.plugin), version: rock::version(&package.version) };
        let listed = self.run(work, work, tree, &["list", "--porcelain"]).await?;
        let line = format!("{}\t{}\tinstalled\t", rock.name, rock.version);
        if listed.lines().any(|l| l.starts_with(&line)) {
            return Ok(());
        }
        let message = format!(
            "it ended well, but {} {} is not in the list of {}",
            rock.name,
            rock.version,
            tree.display()
        );
        Err(Failure::new("LUAROCKS_FAILED", message))
    }

    /// Takes one version of a rock out of `tree`.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn remove(&self, work: &Path, tree: &Path, rock: &Rock) -> Result<(), Failure> {
        self.run(work, work, tree, &["remove", "--deps-mode=none", &rock.name, &rock.version]).await.map(drop)
    }

    /// Modules of a rock, as the tree records them.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn modules(&self, work: &Path, tree: &Path, rock: &Rock) -> Result<Vec<String>, Failure> {
        let shown = self.run(work, work, tree, &["show", "--porcelain", &rock.name, &rock.version]).await?;
        let module = |line: &str| Some(line.strip_prefix("module\t")?.split('\t').next()?.to_owned());
        Ok(shown.lines().filter_map(module).collect())
    }

    /// Writes the manifest of `tree` anew from the rocks that are there.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn rebuild(&self, work: &Path, tree: &Path) -> Result<(), Failure> {
        let bin = self.find()?.with_file_name("luarocks-admin");
        self.run_bin(&bin, work, work, tree, &["make_manifest", "--local-tree"]).await.map(drop)
    }

    async fn run(&self, work: &Path, dir: &Path, tree: &Path, args: &[&str]) -> Result<String, Failure> {
        self.run_bin(&self.find()?, work, dir, tree, args).await
    }

    async fn run_bin(
        &self,
        bin: &Path,
        work: &Path,
        dir: &Path,
        tree: &Path,
        args: &[&str],
    ) -> Result<String, Failure> {
        let config = work.join("config.lua");
        if !config.exists() {
            write_new(&config, CONFIG.as_bytes()).map_err(|e| failed("cannot write", &config, &e))?;
        }
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SHELL])
            .arg(bin)
            .args(["--lua-version=5.1", "--tree"])
            .arg(tree)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .env("HOME", work)
            .env("LUAROCKS_CONFIG", &config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let not_run = |e: std::io::Error| {
            Failure::new("LUAROCKS_FAILED", format!("{} could not be run ({e})", bin.display()))
        };
        let child = command.spawn().map_err(not_run)?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let what = args.first().unwrap_or(&"");
        let Ok(ended) = tokio::time::timeout(LIMIT, child.wait_with_output()).await else {
            let message = format!("`luarocks {what}` did not end within {LIMIT:?} and was stopped");
            return Err(Failure::new("LUAROCKS_HANGS", message));
        };
        let ended = ended.map_err(not_run)?;
        group.ended();
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let words = [&ended.stderr, &ended.stdout].map(|s| String::from_utf8_lossy(s).trim().to_owned());
        let words = words.into_iter().find(|w| !w.is_empty()).unwrap_or_else(|| "not a word".into());
        let words: String = words.chars().take(MAX_WORDS).collect();
        Err(Failure::new("LUAROCKS_FAILED", format!("`luarocks {what}` said: {words}")))
    }
}

/// Whatever LuaRocks started ends with it when it is given up.
struct Group(Option<Pid>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody may be left in it, which is what is wanted.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// A package's files below the Lua root `root`.
pub(super) fn unpack(package: &Package, root: &Path) -> std::io::Result<()> {
    let files: Vec<_> = package.placed().map(|(path, bytes)| (root.join(path), bytes)).collect();
    write_all_new(&files)
}

/// Where a tree keeps a plugin's modules.
pub(super) fn plugin_dir(tree: &Path, plugin: &kctl_shared::name::PluginName) -> PathBuf {
    tree.join(TREE_LUA).join("kong/plugins").join(plugin.as_str())
}
