//! Which files of a tree are the plugin, and taking them out of it.

mod search;

use super::error::{PackageError, shown};
use super::naming::{self, Clues};
use super::rockspec::Rockspec;
use super::tree::{Body, Node, Tree, link_inside};
use super::{archive, artifact, path};
use crate::name::PluginName;
use search::{Listing, Search};

/// A directory with one of these is a plugin's. Kong needs both parts and says so itself when one is missing.
pub(super) const MARKS: [&str; 4] = ["handler.lua", "handler/init.lua", "schema.lua", "schema/init.lua"];
const ELF: &[u8] = b"\x7fELF";
/// What is listed as left out, at most.
const MAX_LEFT_OUT: usize = 100;

type Files = Vec<(String, Vec<u8>)>;

#[derive(Debug)]
pub(super) struct Query<'a> {
    pub wanted: Option<&'a PluginName>,
    pub allow_native: bool,
    /// The name of the file or directory as it was given, without what says that it is an archive.
    pub stem: &'a str,
    pub archive: bool,
    /// Of the archive around this one.
    pub rockspecs: Vec<Rockspec>,
}

#[derive(Debug)]
pub(super) struct Chosen {
    pub plugin: PluginName,
    pub files: Files,
    pub left_out: Vec<String>,
    pub rockspecs: Vec<Rockspec>,
}

#[derive(Debug)]
pub(super) enum Found {
    Plugin(Chosen),
    /// No plugin, but one archive that may hold it.
    Inner {
        stem: String,
        bytes: Vec<u8>,
        rockspecs: Vec<Rockspec>,
    },
}

/// Looks for `kong/plugins/NAME` first; failing that for what the rockspec lists; failing that for a directory where
/// handler.lua lies bare; failing that for an archive inside.
pub(super) fn find(mut tree: Tree<'_>, mut query: Query<'_>) -> Result<Found, PackageError> {
    let search = Search::new(&tree, query.archive);
    if !query.allow_native
        && let Some(file) = tree.nodes.keys().find(|p| search.usable(p) && path::native(p))
    {
        return Err(native(file));
    }
    let mut rockspecs = search.rockspecs(&tree);
    if rockspecs.is_empty() {
        rockspecs = std::mem::take(&mut query.rockspecs);
    }
    let (plugin, files, bare) = if let Some((name, root)) = search.canonical(&tree, query.wanted)? {
        // The name stands in the path and binds: it is what Kong will look for.
        (PluginName::parse(&name)?, take_below(&mut tree, &root, false)?, None)
    } else if let Some((name, list)) = search.listed(&tree, &rockspecs, query.wanted)? {
        (PluginName::parse(&name)?, take_listed(&mut tree, list)?, None)
    } else if let Some(root) = search.bare(&tree, query.wanted)? {
        let files = take_below(&mut tree, &root, true)?;
        let own = root.rsplit('/').next().unwrap_or_default();
        let mut around = vec![own, search.wrapping.as_str(), query.stem];
        around.retain(|n| !n.is_empty());
        let clues = Clues { wanted: query.wanted, around, rockspecs: &rockspecs, files: &files };
        (naming::plugin_name(&clues)?, files, Some(root))
    } else if query.archive {
        return inner(tree, rockspecs, &search);
    } else {
        return Err(nothing());
    };
    let elf = files.iter().find(|(_, bytes)| bytes.starts_with(ELF));
    if let (false, Some((file, _))) = (query.allow_native, elf) {
        return Err(native(file));
    }
    let told = tree
        .nodes
        .iter()
        .filter(|(p, n)| matches!(n, Node::File(_)) && search.usable(p) && worth_telling(p, bare.as_deref()));
    let left_out = told.map(|(p, _)| p.clone()).take(MAX_LEFT_OUT).collect();
    Ok(Found::Plugin(Chosen { plugin, files, left_out, rockspecs }))
}

/// For artifacts: the files of one `kong/plugins/NAME` at the root, and modules beside it.
pub(super) fn only_plugin(tree: Tree<'_>) -> Result<(PluginName, Files, Files), PackageError> {
    let marked = |path: &str| {
        let place = path::canonical(path).filter(|c| c.above.is_empty() && MARKS.contains(&c.rest))?;
        Some(place.name.to_owned())
    };
    let mut names: Vec<String> = tree.nodes.keys().filter_map(|p| marked(p)).collect();
    names.dedup();
    let plugin = match names.as_slice() {
        [] => return Err(nothing()),
        [one] => PluginName::parse(one)?,
        _ => return Err(artifact::not_canonical("it holds two plugins")),
    };
    let own = format!("kong/plugins/{plugin}/");
    let (mut files, mut extras) = (Files::new(), Files::new());
    for (file, node) in tree.nodes {
        let bytes = match node {
            Node::Directory => continue,
            Node::Link => return Err(link_inside(&file)),
            Node::File(Body::Kept(bytes)) => bytes,
            Node::File(Body::Dropped(size)) => return Err(over(&file, size)),
            Node::File(Body::Foreign) => {
                return Err(artifact::not_canonical("it holds files that are not the plugin's"));
            }
        };
        match file.strip_prefix(&own) {
            Some(rest) => files.push((rest.to_owned(), bytes)),
            None if file.ends_with(".lua") => extras.push((file, bytes)),
            None => return Err(artifact::not_canonical("it holds files that are not the plugin's")),
        }
    }
    Ok((plugin, files, extras))
}

/// Everything below `root` but dotfiles; of a bare directory Lua and libraries only, without tests.
fn take_below(tree: &mut Tree<'_>, root: &str, bare: bool) -> Result<Files, PackageError> {
    let below = search::below(&tree.nodes, root);
    let wanted = below.filter(|(_, rest, node)| {
        let skipped = path::hidden(rest) || bare && path::aside(rest);
        let lua = rest.ends_with(".lua") || path::native(rest);
        !skipped && (!bare || lua || matches!(node, Node::Link))
    });
    let paths: Vec<(String, String)> =
        wanted.map(|(path, rest, _)| (path.to_owned(), rest.to_owned())).collect();
    let mut files = Vec::new();
    for (path, rest) in paths {
        if !matches!(tree.nodes.get(&path), Some(Node::Directory)) {
            files.push((rest, take(tree, &path)?));
        }
    }
    Ok(files)
}

/// One file may be listed as two modules.
fn take_listed(tree: &mut Tree<'_>, list: Listing) -> Result<Files, PackageError> {
    let mut files: Files = Vec::new();
    let mut taken = std::collections::BTreeMap::new();
    for (rest, path) in list {
        let bytes = match taken.get(&path) {
            Some(at) => files.get(*at).map(|(_, b): &(String, Vec<u8>)| b.clone()).unwrap_or_default(),
            None => take(tree, &path)?,
        };
        taken.entry(path).or_insert(files.len());
        files.push((rest, bytes));
    }
    Ok(files)
}

fn take(tree: &mut Tree<'_>, path: &str) -> Result<Vec<u8>, PackageError> {
    match tree.nodes.remove(path) {
        Some(Node::File(Body::Kept(bytes))) => Ok(bytes),
        Some(Node::File(Body::Dropped(size))) => Err(over(path, size)),
        Some(Node::Link) => Err(link_inside(path)),
        Some(Node::Directory | Node::File(Body::Foreign)) | None => {
            Err(archive::corrupt(format!("{} is not a file of the plugin", shown(path))))
        }
    }
}

/// The plugin may be in an archive inside this one.
fn inner(mut tree: Tree<'_>, rockspecs: Vec<Rockspec>, search: &Search) -> Result<Found, PackageError> {
    let files = tree.nodes.iter().filter(|(_, n)| matches!(n, Node::File(Body::Kept(_) | Body::Dropped(_))));
    let mut archives = files.map(|(p, _)| p).filter(|p| search.usable(p) && path::archive(p));
    let (Some(path), None) = (archives.next().cloned(), archives.next()) else { return Err(nothing()) };
    let stem = naming::stem(path.rsplit('/').next().unwrap_or(&path)).to_owned();
    Ok(Found::Inner { stem, bytes: take(&mut tree, &path)?, rockspecs })
}

/// Whether a file beside the plugin may have been meant to be part of it.
fn worth_telling(path: &str, bare: Option<&str>) -> bool {
    if path::canonical(path).is_some() {
        return false;
    }
    let code = path.ends_with(".lua") || path::native(path);
    code || bare.is_some_and(|root| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let document = [".md", ".rockspec", ".rock"].iter().any(|e| name.ends_with(e)) || !name.contains('.');
        !document && (root.is_empty() || path.strip_prefix(root).is_some_and(|p| p.starts_with('/')))
    })
}

fn nothing() -> PackageError {
    PackageError::new("NO_PLUGIN_FOUND", "there is neither a handler.lua nor a schema.lua of a plugin in it")
}

fn native(path: &str) -> PackageError {
    PackageError::new("NATIVE_NOT_ALLOWED", format!("{} is a native library", shown(path)))
}

fn over(path: &str, size: u64) -> PackageError {
    PackageError::new(
        "ARCHIVE_TOO_LARGE",
        format!("{} ({size} bytes) is more than a release can hold", shown(path)),
    )
}
