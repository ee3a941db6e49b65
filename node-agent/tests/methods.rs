//! Placing releases and undoing it, by every method, with the LuaRocks of this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use kctl_node_agent::gateway::Wanted;
use kctl_node_agent::packages::{Links, Packages};
use kctl_shared::method::Method;
use kctl_shared::name::PluginName;
use kctl_shared::package::{Limits, Package};
use kctl_shared::spec::ReleaseRef;
use tempfile::TempDir;

struct Node {
    dir: TempDir,
    packages: Packages,
}

fn name(text: &str) -> PluginName {
    PluginName::parse(text).unwrap()
}

/// A plugin of a few files, one of them no Lua and one a directory's init.
fn package(plugin: &str, version: &str) -> Package {
    let handler = format!("return {{ VERSION = \"{version}\", PRIORITY = 1 }}");
    let files = [
        ("handler.lua", handler.as_str()),
        ("schema.lua", "return { fields = {} }"),
        ("lib/init.lua", "return 1"),
        ("data/names.txt", "a\nb\n"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).to_vec();
    let mut package = Package::new(name(plugin), files, &Limits::default()).unwrap();
    package.version = version.to_owned();
    package
}

fn release(package: &Package, method: &Method) -> ReleaseRef {
    ReleaseRef::new(package.version.clone(), package.digest()).by(method.clone())
}

fn tree(dir: &Path, make: bool) -> Method {
    Method::Luarocks { tree: Some(dir.to_str().unwrap().to_owned()), make }
}

fn luarocks(tree: &Path, args: &[&str]) -> String {
    let mut command = Command::new("luarocks");
    command.args(["--lua-version=5.1", "--tree"]).arg(tree).args(args);
    let ran = command.output().expect("luarocks is installed (tests/run does it)");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn wanted(list: &[(&Package, &Method)]) -> Wanted {
    let listed = list.iter().map(|(p, m)| (p.plugin.clone(), release(p, m))).collect();
    Wanted { listed, ..Wanted::default() }
}

/// Plain files below `dir`, relative to it.
fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => todo.push(entry.path()),
                false => drop(found.insert(entry.path().strip_prefix(dir).unwrap().to_str().unwrap().into())),
            }
        }
    }
    found
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let packages = Packages::open(&dir.path().join("lua"), None).unwrap();
        Self { dir, packages }
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join(inner)
    }

    async fn stage(&self, package: &Package, method: &Method) -> Result<(), String> {
        let artifact = Bytes::from(package.to_artifact());
        let staged = self.packages.stage(&package.plugin, &release(package, method), artifact, None).await;
        staged.map_err(|f| f.code)
    }

    async fn deploy(&self, list: &[(&Package, &Method)]) -> Result<(), String> {
        self.packages.deploy(&wanted(list)).await.map_err(|f| f.code)
    }

    async fn remove(&self, package: &Package, method: &Method) -> Result<(), String> {
        let placement = release(package, method).placement();
        self.packages.remove(&package.plugin, &placement).await.map_err(|f| f.code)
    }

    fn stored(&self, package: &Package) -> usize {
        self.packages.stored().get(&package.plugin).map_or(0, BTreeSet::len)
    }

    /// Where the plugin of a configuration leads to.
    fn linked(&self, number: u64, list: &[(&Package, &Method)], links: Links) -> PathBuf {
        let generation = self.packages.link(number, &wanted(list), links).unwrap().unwrap();
        assert_eq!(self.packages.links_exactly(&generation, &wanted(list)), links == Links::Placed);
        generation.join("kong/plugins").join(list[0].0.plugin.as_str())
    }
}

/// Kong's workers are another user, whatever the agent's umask is: `dir` and what is above it up to `top`.
fn assert_readable(top: &Path, dir: &Path) {
    let top = fs::canonicalize(top).unwrap();
    for step in dir.ancestors().take_while(|d| d.starts_with(&top)) {
        assert_eq!(fs::metadata(step).unwrap().permissions().mode() & 0o777, 0o755, "{}", step.display());
    }
    for file in files(dir) {
        assert_eq!(fs::metadata(dir.join(&file)).unwrap().permissions().mode() & 0o777, 0o644, "{file}");
    }
}

#[tokio::test]
async fn every_method_of_the_agents_own_places_and_undoes() {
    let node = Node::new();
    let methods = [
        Method::Store,
        Method::Luarocks { tree: None, make: false },
        Method::Luarocks { tree: None, make: true },
    ];
    let package = package("hello_World", "1.2.3-rc1");
    for (number, method) in methods.iter().enumerate() {
        node.stage(&package, method).await.unwrap();
        // Again is no harm.
        node.stage(&package, method).await.unwrap();
        assert_eq!(node.stored(&package), 1);
        assert!(node.packages.verify(&package.plugin, &release(&package, method).placement()));
        let link = node.linked(number as u64, &[(&package, method)], Links::Placed);
        let real = fs::canonicalize(&link).unwrap();
        assert_eq!(files(&real).len(), 4, "{method}");
        assert_readable(&node.path("lua"), &real);
        if let Method::Luarocks { .. } = method {
            let root = real.ancestors().nth(6).unwrap();
            assert!(
                luarocks(root, &["list", "--porcelain"]).contains("kong-plugin-hello_world\t1.2.3.rc1-1\t")
            );
        }
        node.remove(&package, method).await.unwrap();
        node.remove(&package, method).await.unwrap();
        assert_eq!(node.stored(&package), 0);
        assert!(!real.exists());
    }
    assert_eq!(files(&node.path("lua")).len(), methods.len(), "only the links of the generations are left");
}

#[tokio::test]
async fn a_shared_tree_is_installed_into_upgraded_and_left_as_it_was() {
    for make in [false, true] {
        let node = Node::new();
        let root = node.path("tree");
        let method = tree(&root, make);
        // Somebody else's module is there before.
        let other = root.join("share/lua/5.1/resty/other.lua");
        fs::create_dir_all(other.parent().unwrap()).unwrap();
        fs::write(&other, "return 1").unwrap();
        let (old, new) = (package("hello", "1.0.0"), package("hello", "1.1.0"));
        let place = root.join("share/lua/5.1/kong/plugins/hello");

        node.stage(&old, &method).await.unwrap();
        assert!(!place.exists(), "staging does not touch the tree");
        node.deploy(&[(&old, &method)]).await.unwrap();
        assert_eq!(files(&place).len(), 4);
        assert_readable(&root, &fs::canonicalize(&place).unwrap());
        assert_eq!(
            fs::canonicalize(node.linked(1, &[(&old, &method)], Links::Placed)).unwrap(),
            fs::canonicalize(&place).unwrap()
        );
        assert!(
            node.linked(2, &[(&old, &method)], Links::Kept)
                .canonicalize()
                .unwrap()
                .starts_with(node.path("lua"))
        );

        node.stage(&new, &method).await.unwrap();
        assert!(node.packages.replaces(&wanted(&[(&new, &method)]), &wanted(&[(&old, &method)])));
        node.deploy(&[(&new, &method)]).await.unwrap();
        let listed = luarocks(&root, &["list", "--porcelain"]);
        assert!(listed.contains("\t1.1.0-1\t") && !listed.contains("\t1.0.0-1\t"), "{listed}");
        // The former release is let go of without touching the one that is there; then back to it.
        node.deploy(&[(&old, &method)]).await.unwrap();
        assert!(fs::read_to_string(place.join("handler.lua")).unwrap().contains("1.0.0"));
        node.remove(&new, &method).await.unwrap();
        assert_eq!(files(&place).len(), 4);

        node.remove(&old, &method).await.unwrap();
        assert!(!place.exists() && !root.join("lib/luarocks/kctl").exists());
        assert_eq!(luarocks(&root, &["list", "--porcelain"]), "");
        assert!(other.exists());
        assert_eq!((node.stored(&old), node.stored(&new)), (0, 0));
    }
}

#[tokio::test]
async fn what_others_own_in_a_tree_is_found_before_anything_is_touched() {
    let node = Node::new();
    let root = node.path("tree");
    let method = tree(&root, false);
    let package = package("hello", "1.0.0");
    let place = root.join("share/lua/5.1/kong/plugins/hello");

    // A copy by hand.
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("handler.lua"), "return 2").unwrap();
    let before = files(&root);
    assert_eq!(node.stage(&package, &method).await.unwrap_err(), "MODULE_OWNED_BY");
    assert_eq!((files(&root), node.stored(&package)), (before, 0));
    fs::remove_dir_all(&place).unwrap();

    // Another rock that has one of the modules.
    let sources = node.path("sources");
    fs::create_dir_all(&sources).unwrap();
    fs::write(sources.join("extra.lua"), "return 3").unwrap();
    let spec = "package = \"extras\"\nversion = \"1.0-1\"\nsource = { url = \"file://x\" }\n\
                build = { type = \"builtin\", modules = { [\"kong.plugins.hello.extra\"] = \"extra.lua\" } }\n";
    fs::write(sources.join("extras-1.0-1.rockspec"), spec).unwrap();
    let made = Command::new("luarocks")
        .args(["--lua-version=5.1", "--tree"])
        .arg(&root)
        .args(["make", "--deps-mode=none"])
        .current_dir(&sources)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let before = files(&root);
    let artifact = Bytes::from(package.to_artifact());
    let refused =
        node.packages.stage(&package.plugin, &release(&package, &method), artifact, None).await.unwrap_err();
    assert_eq!(refused.code, "MODULE_OWNED_BY");
    assert!(refused.message.contains("extras 1.0-1"), "{refused}");
    assert_eq!(files(&root), before);
    luarocks(&root, &["remove", "extras"]);

    // What came later and is not ours stays.
    node.stage(&package, &method).await.unwrap();
    node.deploy(&[(&package, &method)]).await.unwrap();
    fs::write(place.join("by-hand.lua"), "return 4").unwrap();
    node.remove(&package, &method).await.unwrap();
    assert_eq!(files(&place), BTreeSet::from(["by-hand.lua".to_owned()]));
    let notices = node.packages.notices();
    assert_eq!(notices[0].code, "FILES_LEFT");
    assert!(notices[0].message.contains("by-hand.lua"), "{notices:?}");
}

#[tokio::test]
async fn a_removal_that_was_stopped_in_the_middle_is_finished() {
    let node = Node::new();
    let root = node.path("tree");
    let method = tree(&root, false);
    let package = package("hello", "1.0.0");
    let place = root.join("share/lua/5.1/kong/plugins/hello");
    node.stage(&package, &method).await.unwrap();
    node.deploy(&[(&package, &method)]).await.unwrap();
    // LuaRocks forgot the rock, and half of its files are still there.
    let half = fs::read(place.join("lib/init.lua")).unwrap();
    luarocks(&root, &["remove", "kong-plugin-hello"]);
    fs::create_dir_all(place.join("lib")).unwrap();
    fs::write(place.join("lib/init.lua"), half).unwrap();
    node.remove(&package, &method).await.unwrap();
    assert!(!place.exists());
    // So is an installation.
    node.stage(&package, &method).await.unwrap();
    node.deploy(&[(&package, &method)]).await.unwrap();
    fs::remove_file(place.join("schema.lua")).unwrap();
    fs::remove_dir_all(root.join("lib/luarocks/rocks-5.1/kong-plugin-hello")).unwrap();
    node.deploy(&[(&package, &method)]).await.unwrap();
    assert_eq!(files(&place).len(), 4);
}

/// A LuaRocks that counts what it does to the disk and dies right before deed number N, N being what the file `die_at`
/// says (there is none: it lives).
const MORTAL: &str = r#"
local here = os.getenv("MORTAL")
local execute, open = os.execute, io.open
local function number(name)
   local file = open(here .. "/" .. name)
   local found = file and tonumber(file:read("*l"))
   if file then file:close() end
   return found
end
local die_at = number("die_at")
local function deed(what)
   local done = (number("done") or 0) + 1
   local file = open(here .. "/done", "w")
   file:write(done, "\n", what, "\n")
   file:close()
   if done == die_at then execute("kill -9 $PPID") end
end
local function changes(name, what)
   return name ~= "open" and (name ~= "execute" or not what:find(" 1> /dev/null 2> /dev/null$") or what:find(" && rm"))
end
for _, name in ipairs { "rename", "remove", "execute" } do
   local call = os[name]
   os[name] = function(what, ...)
      if changes(name, what or "") then deed(name .. " " .. tostring(what)) end
      return call(what, ...)
   end
end
io.open = function(path, mode)
   if mode and mode:find("[wa]") then deed("open " .. path) end
   return open(path, mode)
end
"#;

/// A tree with a rock of somebody else's in it, and a LuaRocks that dies at a given deed.
struct Mortal {
    node: Node,
    tree: PathBuf,
    foreign: BTreeSet<String>,
}

impl Mortal {
    fn new() -> Self {
        let mut node = Node::new();
        let dir = node.path("bin");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("mortal.lua"), MORTAL).unwrap();
        for bin in ["luarocks", "luarocks-admin"] {
            let at =
                std::env::split_paths(&std::env::var_os("PATH").unwrap()).find(|d| d.join(bin).is_file());
            let at = at.expect("LuaRocks is installed (tests/run does it)").join(bin);
            let (dir, at) = (dir.display(), at.display());
            let script =
                format!("#!/bin/sh\nMORTAL={dir} exec lua -e 'dofile(\"{dir}/mortal.lua\")' {at} \"$@\"\n");
            let path = node.path("bin").join(bin);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        node.packages = Packages::open(&node.path("mortal"), Some(dir.join("luarocks"))).unwrap();
        let (tree, sources) = (node.path("tree"), node.path("sources"));
        fs::create_dir_all(&sources).unwrap();
        fs::write(sources.join("other.lua"), "return 3").unwrap();
        let spec = "package = \"other\"\nversion = \"1.0-1\"\nsource = { url = \"file://x\" }\n\
                    build = { type = \"builtin\", modules = { [\"kong.plugins.other.handler\"] = \"other.lua\" } }\n";
        fs::write(sources.join("other-1.0-1.rockspec"), spec).unwrap();
        let mut make = Command::new("luarocks");
        make.args(["--lua-version=5.1", "--tree"]).arg(&tree).args(["make", "--deps-mode=none"]);
        let made = make.current_dir(&sources).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let foreign = files(&tree);
        Self { node, tree, foreign }
    }

    fn die_at(&self, deed: Option<u32>) {
        let path = |name: &str| self.node.path("bin").join(name);
        let _ = fs::remove_file(path("done"));
        match deed {
            Some(deed) => fs::write(path("die_at"), deed.to_string()).unwrap(),
            None => drop(fs::remove_file(path("die_at"))),
        }
    }

    /// What LuaRocks was about to do when it died.
    fn last_deed(&self) -> String {
        fs::read_to_string(self.node.path("bin/done")).unwrap_or_default().replace('\n', " ")
    }

    async fn place(&self, package: &Package) -> Result<(), String> {
        let method = tree(&self.tree, false);
        self.node.stage(package, &method).await?;
        self.node.deploy(&[(package, &method)]).await
    }

    /// The tree holds the other's rock as it was, and of ours just this release.
    fn assert_holds(&self, package: Option<&Package>, what: &str) {
        let listed = luarocks(&self.tree, &["list", "--porcelain"]);
        let mine: Vec<&str> = listed.lines().filter(|l| !l.starts_with("other\t1.0-1\t")).collect();
        assert_eq!(listed.lines().count(), mine.len() + 1, "{what}: {listed}");
        match package {
            None => {
                assert!(mine.is_empty(), "{what}: {listed}");
                assert_eq!(files(&self.tree), self.foreign, "{what}");
            }
            Some(package) => {
                let line = format!("kong-plugin-hello\t{}-1\t", package.version);
                assert!(mine.len() == 1 && mine[0].starts_with(&line), "{what}: {listed}");
                let method = tree(&self.tree, false);
                assert!(
                    self.node.packages.verify(&package.plugin, &release(package, &method).placement()),
                    "{what}"
                );
                assert_eq!(files(&self.tree.join("share/lua/5.1/kong/plugins/hello")).len(), 4, "{what}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Install,
    Upgrade,
    Remove,
}

/// LuaRocks dies before each of its deeds in turn; the same change asked for again ends as if nothing had happened.
async fn every_death_is_survived(change: Change) {
    let mortal = Mortal::new();
    let (one, two) = (package("hello", "1.0.0"), package("hello", "2.0.0"));
    let method = tree(&mortal.tree, false);
    for deed in 1.. {
        let (first, last) = match change {
            Change::Install => (None, Some(&one)),
            Change::Upgrade => (Some(&one), Some(&two)),
            Change::Remove => (Some(&one), None),
        };
        if let Some(first) = first {
            mortal.place(first).await.unwrap();
        }
        let go = async || match last {
            Some(last) => mortal.place(last).await,
            None => mortal.node.remove(&one, &method).await,
        };
        mortal.die_at(Some(deed));
        let died = go().await;
        let what = format!("{change:?}, death before deed {}", mortal.last_deed());
        mortal.die_at(None);
        if died.is_err() {
            go().await.unwrap_or_else(|code| panic!("{what}: {code}"));
        }
        mortal.assert_holds(last, &what);
        for package in [&two, &one] {
            mortal
                .node
                .remove(package, &method)
                .await
                .unwrap_or_else(|code| panic!("{what}, removal: {code}"));
        }
        mortal.assert_holds(None, &what);
        if died.is_ok() {
            assert!(deed > 5, "LuaRocks does more than {deed} things");
            return;
        }
    }
}

#[tokio::test]
async fn an_installation_survives_every_death_of_luarocks() {
    every_death_is_survived(Change::Install).await;
}

#[tokio::test]
async fn an_upgrade_survives_every_death_of_luarocks() {
    every_death_is_survived(Change::Upgrade).await;
}

#[tokio::test]
async fn a_removal_survives_every_death_of_luarocks() {
    every_death_is_survived(Change::Remove).await;
}

#[tokio::test]
async fn nodes_of_one_machine_may_share_a_tree() {
    let (one, two) = (Node::new(), Node::new());
    let root = one.path("tree");
    let method = tree(&root, false);
    let package = package("hello", "1.0.0");
    let place = root.join("share/lua/5.1/kong/plugins/hello");
    for node in [&one, &two] {
        node.stage(&package, &method).await.unwrap();
        node.deploy(&[(&package, &method)]).await.unwrap();
    }
    one.remove(&package, &method).await.unwrap();
    assert_eq!(files(&place).len(), 4, "the other node still needs it");
    two.remove(&package, &method).await.unwrap();
    assert!(!place.exists());
}

#[tokio::test]
async fn the_same_release_can_change_its_method() {
    let node = Node::new();
    let root = node.path("tree");
    let package = package("hello", "1.0.0");
    let place = root.join("share/lua/5.1/kong/plugins/hello");
    let (rock, made) = (tree(&root, false), tree(&root, true));
    for method in [&Method::Store, &rock, &made] {
        node.stage(&package, method).await.unwrap();
        node.deploy(&[(&package, method)]).await.unwrap();
    }
    assert_eq!(node.stored(&package), 3);
    node.remove(&package, &rock).await.unwrap();
    assert_eq!(files(&place).len(), 4, "it is still there by the other method");
    node.remove(&package, &made).await.unwrap();
    assert!(!place.exists());
    assert!(node.packages.verify(&package.plugin, &release(&package, &Method::Store).placement()));
}

#[tokio::test]
async fn a_tree_that_cannot_be_written_and_a_luarocks_that_is_not_there_are_said() {
    let node = Node::new();
    let package = package("hello", "1.0.0");
    fs::write(node.path("file"), "").unwrap();
    assert_eq!(
        node.stage(&package, &tree(&node.path("file/tree"), false)).await.unwrap_err(),
        "TREE_NOT_WRITABLE"
    );
    let none = Packages::open(&node.path("lua"), Some("/nowhere/luarocks".into())).unwrap();
    for method in [Method::Luarocks { tree: None, make: false }, tree(&node.path("tree"), false)] {
        let artifact = Bytes::from(package.to_artifact());
        let refused =
            none.stage(&package.plugin, &release(&package, &method), artifact, None).await.unwrap_err();
        assert_eq!(refused.code, "LUAROCKS_NOT_FOUND");
    }
    assert_eq!(node.stored(&package), 0);
}

#[tokio::test]
async fn files_of_others_are_compared_linked_and_left_alone() {
    let node = Node::new();
    let package = package("hello", "1.0.0");
    let root = node.path("by-hand");
    let place = root.join("kong/plugins/hello");
    for file in &package.files {
        let path = place.join(&file.entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.bytes).unwrap();
    }
    let by = |dir: &Path| Method::Path { dir: Some(dir.to_str().unwrap().into()) };
    // The directory itself, one above, or wherever Lua finds it.
    for (number, method) in [by(&root), by(&place)].iter().enumerate() {
        node.stage(&package, method).await.unwrap();
        let link = node.linked(number as u64, &[(&package, method)], Links::Placed);
        assert_eq!(link.canonicalize().unwrap(), place.canonicalize().unwrap());
        node.remove(&package, method).await.unwrap();
        assert_eq!((files(&place).len(), node.stored(&package)), (4, 0));
    }
    let found = Method::Path { dir: None };
    let lua_path = format!("/nowhere/?.lua;{}/?.lua", root.display());
    let artifact = Bytes::from(package.to_artifact());
    node.packages
        .stage(&package.plugin, &release(&package, &found), artifact, Some(&lua_path))
        .await
        .unwrap();
    assert!(node.packages.verify(&package.plugin, &release(&package, &found).placement()));

    fs::write(place.join("schema.lua"), "return 7").unwrap();
    fs::write(place.join("more.lua"), "return 8").unwrap();
    assert!(!node.packages.verify(&package.plugin, &release(&package, &found).placement()));
    let artifact = Bytes::from(package.to_artifact());
    let refused = node
        .packages
        .stage(&package.plugin, &release(&package, &by(&root)), artifact, None)
        .await
        .unwrap_err();
    assert_eq!(refused.code, "PATH_DIFFERS");
    assert!(
        refused.message.contains("more.lua is not part of it, schema.lua has other content"),
        "{refused}"
    );
    assert_eq!(node.stage(&package, &by(&node.path("nowhere"))).await.unwrap_err(), "PATH_NOT_FOUND");
    assert_eq!(node.stage(&package, &found).await.unwrap_err(), "PATH_NOT_FOUND");
}

#[tokio::test]
async fn what_was_placed_before_there_were_methods_is_the_stores() {
    let node = Node::new();
    let package = package("hello", "1.0.0");
    let slot = node.path("lua/store/hello").join(package.digest().hex()).join("kong/plugins/hello");
    for file in &package.files {
        let path = slot.join(&file.entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.bytes).unwrap();
    }
    let placement = release(&package, &Method::Store).placement();
    assert!(node.packages.stored()[&package.plugin].contains(&placement));
    assert!(node.packages.verify(&package.plugin, &placement));
}

fn with_extra(package: Package, content: &str) -> Package {
    let version = package.version.clone();
    let extras = vec![("resty/foo.lua".to_owned(), content.as_bytes().to_vec())];
    let mut package = package.with_extras(extras, &Limits::default()).unwrap();
    package.version = version;
    package
}

#[tokio::test]
async fn modules_beside_a_plugin_are_placed_linked_and_taken_away_by_every_method() {
    let node = Node::new();
    let root = node.path("tree");
    let by_hand = node.path("by-hand");
    let package = with_extra(package("hello", "1.0.0"), "return 1");
    for (path, bytes) in package.placed() {
        let path = by_hand.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let methods = [
        Method::Store,
        Method::Luarocks { tree: None, make: false },
        Method::Luarocks { tree: None, make: true },
        tree(&root, false),
        tree(&root, true),
        Method::Path { dir: Some(by_hand.to_str().unwrap().into()) },
    ];
    for (number, method) in methods.iter().enumerate() {
        node.stage(&package, method).await.unwrap();
        node.deploy(&[(&package, method)]).await.unwrap();
        assert!(node.packages.verify(&package.plugin, &release(&package, method).placement()), "{method}");
        let list = [(&package, method)];
        for (number, links) in [(10 + number, Links::Kept), (20 + number, Links::Placed)] {
            let generation = node.packages.link(number as u64, &wanted(&list), links).unwrap().unwrap();
            assert_eq!(fs::read_to_string(generation.join("resty/foo.lua")).unwrap(), "return 1", "{method}");
        }
        node.remove(&package, method).await.unwrap();
        assert_eq!(node.stored(&package), 0);
        assert!(!root.join("share/lua/5.1/resty").exists(), "{method}");
    }
    assert_eq!(fs::read_to_string(by_hand.join("resty/foo.lua")).unwrap(), "return 1");
    // What is by hand is compared as a whole.
    fs::write(by_hand.join("resty/foo.lua"), "return 2").unwrap();
    assert_eq!(node.stage(&package, &methods[5]).await.unwrap_err(), "PATH_DIFFERS");
    // In a tree, a module of others is not written over.
    let other = root.join("share/lua/5.1/resty/foo.lua");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "return 3").unwrap();
    assert_eq!(node.stage(&package, &methods[3]).await.unwrap_err(), "MODULE_OWNED_BY");
    assert_eq!(fs::read_to_string(other).unwrap(), "return 3");
}

#[tokio::test]
async fn two_plugins_may_bring_the_same_module_only_if_it_is_the_same() {
    let node = Node::new();
    let store = Method::Store;
    let (one, two) =
        (with_extra(package("one", "1.0.0"), "return 1"), with_extra(package("two", "1.0.0"), "return 1"));
    let three = with_extra(package("three", "1.0.0"), "return 3");
    for package in [&one, &two, &three] {
        node.stage(package, &store).await.unwrap();
    }
    let generation =
        node.packages.link(1, &wanted(&[(&one, &store), (&two, &store)]), Links::Placed).unwrap().unwrap();
    assert!(generation.join("resty/foo.lua").exists());
    assert!(node.packages.links_exactly(&generation, &wanted(&[(&one, &store), (&two, &store)])));
    let refused =
        node.packages.link(2, &wanted(&[(&one, &store), (&three, &store)]), Links::Placed).unwrap_err();
    assert_eq!(refused.code, "MODULE_CONFLICT");
    assert!(!node.path("lua/gen/2").exists());
}

#[tokio::test]
async fn a_generation_can_hide_a_plugin() {
    let node = Node::new();
    let root = node.path("tree");
    let method = tree(&root, false);
    let package = with_extra(package("hello", "1.0.0"), "return 1");
    node.stage(&package, &method).await.unwrap();
    node.deploy(&[(&package, &method)]).await.unwrap();
    let placement = release(&package, &method).placement();
    assert!(node.packages.is_reachable(&package.plugin, &placement));
    let hidden = node.packages.link_without(1, &Wanted::default(), &package.plugin, &placement).unwrap();
    for (file, module) in [
        ("kong/plugins/hello/handler.lua", "kong.plugins.hello.handler"),
        ("kong/plugins/hello/lib/init.lua", "kong.plugins.hello.lib"),
        ("resty/foo.lua", "resty.foo"),
    ] {
        let stub = fs::read_to_string(hidden.join(file)).unwrap();
        assert!(stub.contains(&format!("module '{module}' not found")), "{stub}");
    }
}
