//! Which files of a tree are the plugin, and taking them out of it.

mod beside;
mod choose;
mod search;

use super::error::{PackageError, shown};
use super::naming::{self, Clues};
use super::rockspec::{Evaluator, Found, Rockspec};
use super::tree::{Body, Node, Tree, link_inside};
use super::{archive, artifact, path};
use crate::name::PluginName;
use beside::Own;
pub(super) use search::Search;

/// A directory with one of these is a plugin's. Kong needs both parts and says so itself when one is missing.
pub(super) const MARKS: [&str; 4] = ["handler.lua", "handler/init.lua", "schema.lua", "schema/init.lua"];
const ELF: &[u8] = b"\x7fELF";
/// What is listed as left out, at most.
const MAX_LEFT_OUT: usize = 100;

type Files = Vec<(String, Vec<u8>)>;
/// (path below `kong/plugins/NAME` or a Lua root, path in the tree)
pub(super) type Listing = Vec<(String, String)>;

#[derive(Debug)]
pub(super) struct Query<'a> {
    pub wanted: Option<&'a PluginName>,
    pub allow_native: bool,
    /// The name of the file or directory as it was given, without what says that it is an archive.
    pub stem: &'a str,
    pub archive: bool,
    /// Path of the one rockspec to follow, if one was named.
    pub rockspec: Option<String>,
    pub ignore_rockspec: bool,
    pub allow_shadow: bool,
    /// Of the archive around this one.
    pub outer: Vec<Found>,
}

#[derive(Debug)]
pub(super) struct Chosen {
    pub plugin: PluginName,
    pub files: Files,
    /// Modules that travel with it, paths below a Lua root.
    pub beside: Files,
    /// (path below a Lua root, path in the tree), of both.
    pub origins: Listing,
    pub left_out: Vec<String>,
    pub rockspecs: Vec<Found>,
    /// The one that speaks of this plugin.
    pub rockspec: Option<Rockspec>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Plugin(Box<Chosen>),
    /// No plugin, but one archive that may hold it.
    Inner {
        stem: String,
        bytes: Vec<u8>,
        rockspecs: Vec<Found>,
    },
}

/// Looks for `kong/plugins/NAME` first; failing that for what a rockspec lists; failing that for a directory where
/// handler.lua lies bare; failing that for an archive inside.
pub(super) fn find(
    mut tree: Tree<'_>,
    mut query: Query<'_>,
    lua: &dyn Evaluator,
) -> Result<Outcome, PackageError> {
    let search = Search::new(&tree, query.archive);
    if !query.allow_native
        && let Some(file) = tree.nodes.keys().find(|p| search.usable(p) && path::native(p))
    {
        return Err(native(file));
    }
    let mut rockspecs = match query.ignore_rockspec {
        true => Vec::new(),
        false => search.rockspecs(&tree, query.rockspec.as_deref(), lua),
    };
    if rockspecs.is_empty() {
        rockspecs = std::mem::take(&mut query.outer);
    }
    let read: Vec<&Rockspec> = rockspecs.iter().filter_map(|f| f.read.as_ref().ok()).collect();
    let wanted = query.wanted;
    let (name, list, rockspec, bare, root) = if let Some((name, root)) = search.canonical(&tree, wanted)? {
        // The name stands in the path and binds: it is what Kong will look for.
        let mut list = below(&tree, &root, false);
        let above = root.strip_suffix(&format!("kong/plugins/{name}")).unwrap_or_default().to_owned();
        let spec = choose::fitting(&rockspecs, &name, &above)?;
        if let Some(spec) = spec {
            choose::complete(&tree, &search, spec, &name, &mut list)?;
        }
        (Some(name), list, spec.cloned(), None, Some(above))
    } else if let Some((name, spec, base)) = search.listed(&tree, &read, wanted)? {
        let list = choose::listed(&tree, &search, spec, &base, &name)?;
        (Some(name), list, Some(spec.clone()), None, None)
    } else if let Some(root) = search.bare(&tree, wanted)? {
        let list = below(&tree, &root, true);
        (None, list, choose::fitting(&rockspecs, "", &root)?.cloned(), Some(root), None)
    } else if let Some(error) = choose::unreadable(&rockspecs) {
        return Err(error);
    } else if query.archive {
        return inner(tree, rockspecs, &search);
    } else {
        return Err(nothing(&tree));
    };
    if let Some(refusal) = rockspec.as_ref().and_then(|r| r.refusal.clone()) {
        return Err(refusal);
    }
    let files = take_listed(&mut tree, &list)?;
    let plugin = match name {
        Some(name) => PluginName::parse(&name)?,
        None => {
            let own = bare.as_deref().and_then(|b| b.rsplit('/').next()).unwrap_or_default();
            let mut around = vec![own, search.wrapping.as_str(), query.stem];
            around.retain(|n| !n.is_empty());
            naming::plugin_name(&Clues { wanted, around, rockspecs: &read, files: &files })?
        }
    };
    let elf = files.iter().find(|(_, bytes)| bytes.starts_with(ELF));
    if let (false, Some((file, _))) = (query.allow_native, elf) {
        return Err(native(file));
    }
    let own = Own { plugin: &plugin, list: &list, files: &files, root: root.as_deref() };
    let beside = beside::find(&tree, &search, &own, rockspec.as_ref(), query.allow_shadow);
    let taken = |path: &str| beside.listing.iter().any(|(_, from)| from == path);
    let told = tree
        .nodes
        .iter()
        .filter(|(p, n)| matches!(n, Node::File(_)) && search.usable(p) && worth_telling(p, bare.as_deref()));
    let mut left_out: Vec<String> = told.map(|(p, _)| p.clone()).filter(|p| !taken(p)).collect();
    left_out.extend(beside.unfit.into_iter().filter(|p| !taken(p)));
    left_out.sort_unstable();
    left_out.dedup();
    left_out.truncate(MAX_LEFT_OUT);
    let mut origins = beside.listing;
    origins.extend(list.into_iter().map(|(rest, from)| (artifact::full_path(&plugin, &rest), from)));
    let beside = beside.files;
    Ok(Outcome::Plugin(Box::new(Chosen { plugin, files, beside, origins, left_out, rockspecs, rockspec })))
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
        [] => return Err(none("there is neither a handler.lua nor a schema.lua of a plugin in it")),
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
fn below(tree: &Tree<'_>, root: &str, bare: bool) -> Listing {
    let below = search::below(&tree.nodes, root).filter(|(_, rest, node)| {
        let skipped = path::hidden(rest) || bare && path::aside(rest);
        let lua = rest.ends_with(".lua") || path::native(rest) || *rest == super::DECLARATION;
        !skipped && !matches!(node, Node::Directory) && (!bare || lua || matches!(node, Node::Link))
    });
    below.map(|(path, rest, _)| (rest.to_owned(), path.to_owned())).collect()
}

/// One file may be listed as two modules.
fn take_listed(tree: &mut Tree<'_>, list: &Listing) -> Result<Files, PackageError> {
    let mut files: Files = Vec::new();
    let mut taken = std::collections::BTreeMap::new();
    for (rest, path) in list {
        let bytes = match taken.get(path) {
            Some(at) => files.get(*at).map(|(_, b): &(String, Vec<u8>)| b.clone()).unwrap_or_default(),
            None => take(tree, path)?,
        };
        taken.entry(path).or_insert(files.len());
        files.push((rest.clone(), bytes));
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
fn inner(mut tree: Tree<'_>, rockspecs: Vec<Found>, search: &Search) -> Result<Outcome, PackageError> {
    let files = tree.nodes.iter().filter(|(_, n)| matches!(n, Node::File(Body::Kept(_) | Body::Dropped(_))));
    let mut archives = files.map(|(p, _)| p).filter(|p| search.usable(p) && path::archive(p));
    let (Some(path), None) = (archives.next().cloned(), archives.next()) else { return Err(nothing(&tree)) };
    let stem = naming::stem(path.rsplit('/').next().unwrap_or(&path)).to_owned();
    Ok(Outcome::Inner { stem, bytes: take(&mut tree, &path)?, rockspecs })
}

/// Whether a file beside the plugin may have been meant to be part of it.
fn worth_telling(path: &str, bare: Option<&str>) -> bool {
    if path::canonical(path).is_some() {
        return false;
    }
    let code = path.ends_with(".lua") || path::native(path) || path::declaration(path);
    code || bare.is_some_and(|root| {
        let name = path.rsplit('/').next().unwrap_or(path);
        let document = [".md", ".rockspec", ".rock"].iter().any(|e| name.ends_with(e)) || !name.contains('.');
        !document && (root.is_empty() || path.strip_prefix(root).is_some_and(|p| p.starts_with('/')))
    })
}

/// Says what it is instead, where that can be seen.
fn nothing(tree: &Tree<'_>) -> PackageError {
    let has = |end: &str| tree.nodes.keys().any(|p| p.ends_with(end) && !path::aside(p));
    let server = [
        ("go.mod", "Go"),
        (".go", "Go"),
        ("package.json", "JavaScript"),
        (".py", "Python"),
        (".wasm", "a Wasm filter"),
        (".js", "JavaScript"),
        (".ts", "JavaScript"),
    ];
    match server.iter().find(|(end, _)| has(end)) {
        Some((_, "a Wasm filter")) => none("there is no Lua plugin in it, only a Wasm filter")
            .hint("Kong takes filters through `wasm_filters_path`, not through `plugins`"),
        Some((_, language)) => none(&format!(
            "there is no Lua plugin in it; it seems to be one for a plugin server, in {language}"
        ))
        .hint("kctl handles plugins in Lua; Kong runs others through `pluginserver_names`"),
        None => none("there is neither a handler.lua nor a schema.lua of a plugin in it"),
    }
}

fn none(why: &str) -> PackageError {
    PackageError::new("NO_PLUGIN_FOUND", why)
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
