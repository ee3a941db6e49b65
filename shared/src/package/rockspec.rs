//! What a rockspec says about where a plugin's modules are.
//!
//! A rockspec is Lua and is run, as LuaRocks runs it, by whoever has a Lua at hand ([`Evaluator`]); here its globals are
//! read and checked. Nothing that it describes (builds, hooks) is ever run.

mod check;
mod modules;
mod value;

use super::error::{PackageError, shown};
use super::path;
pub use value::{Evaluated, Key, Value};

/// Runs a rockspec: with nothing around it, and with an end to its time and memory.
pub trait Evaluator {
    /// Runs the source; `name` is what Lua calls it in its messages.
    ///
    /// # Errors
    /// `ROCKSPEC_INVALID` with Lua's words, `ROCKSPEC_ENDLESS` for one that does not end or takes too much memory.
    fn evaluate(&self, name: &str, source: &[u8]) -> Result<Evaluated, PackageError>;
}

/// For whoever has no Lua: rockspecs are seen, never followed.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Evaluator for Unread {
    fn evaluate(&self, _: &str, _: &[u8]) -> Result<Evaluated, PackageError> {
        Err(PackageError::new("ROCKSPEC_UNREAD", "no Lua is at hand to read it"))
    }
}

/// What one rockspec says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rockspec {
    /// The directory it is in, within the tree; empty for the root.
    pub dir: String,
    /// `NAME-VERSION-REVISION`, its file name without the extension.
    pub stem: String,
    pub package: String,
    /// `VERSION-REVISION`.
    pub version: String,
    /// (module with `.` between its parts, its Lua file relative to the sources)
    pub modules: Vec<(String, String)>,
    /// A module that is built from C.
    pub native: Option<String>,
    /// As LuaRocks writes them, e.g. `lua-resty-http ~> 0.11`.
    pub dependencies: Vec<String>,
    /// What it would need that is never done here.
    pub refusal: Option<PackageError>,
    /// What is odd about it but does no harm; (rule, sentence).
    pub oddities: Vec<(&'static str, String)>,
}

/// One rockspec of a tree: what it says, or why it says nothing.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub dir: String,
    pub stem: String,
    pub read: Result<Rockspec, PackageError>,
}

impl Found {
    pub fn read(file: &str, source: &[u8], lua: &dyn Evaluator) -> Self {
        let (dir, name) = file.rsplit_once('/').unwrap_or(("", file));
        let stem = name.strip_suffix(".rockspec").unwrap_or(name).to_owned();
        let read = lua.evaluate(name, source).and_then(|globals| Rockspec::of(dir, &stem, &globals));
        Self { dir: dir.to_owned(), stem, read }
    }
}

impl Rockspec {
    fn of(dir: &str, stem: &str, globals: &Evaluated) -> Result<Self, PackageError> {
        check::fields(stem, globals)?;
        let text = |key: &str| globals.get(key).and_then(Value::text).unwrap_or_default().to_owned();
        let mut spec = Self {
            dir: dir.to_owned(),
            stem: stem.to_owned(),
            package: text("package"),
            version: text("version"),
            modules: Vec::new(),
            native: None,
            dependencies: Vec::new(),
            refusal: None,
            oddities: Vec::new(),
        };
        spec.name_fits()?;
        let dependencies = globals.get("dependencies").and_then(Value::table).unwrap_or_default();
        spec.dependencies = dependencies.iter().filter_map(|(_, v)| v.text()).map(str::to_owned).collect();
        modules::read(&mut spec, globals);
        Ok(spec)
    }

    /// LuaRocks wants the file to be called after what is in it.
    fn name_fits(&mut self) -> Result<(), PackageError> {
        let (package, version) = (self.package.to_lowercase(), &self.version);
        if self.stem == "rockspec" || self.stem == format!("{package}-{version}") {
            return Ok(());
        }
        let message = format!(
            "{} says that it is {package} {version}, which LuaRocks expects in {package}-{version}.rockspec",
            shown(&format!("{}.rockspec", self.stem))
        );
        let stem = self.stem.to_lowercase();
        let bare = |name: &str| {
            let short = name.strip_prefix("kong-plugin-").or_else(|| name.strip_prefix("kong-"));
            short.unwrap_or(name).to_owned()
        };
        let (said, called) = (bare(&package), bare(&stem));
        if called == said || called.starts_with(&format!("{said}-")) {
            self.oddities.push(("ROCKSPEC_VERSION_MISMATCH", message));
            return Ok(());
        }
        Err(PackageError::new("ROCKSPEC_NAME_MISMATCH", message))
    }

    /// Names of the plugins whose handler or schema it lists.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().filter_map(|(module, _)| {
            let (name, module) = module.strip_prefix("kong.plugins.")?.split_once('.')?;
            matches!(module, "handler" | "schema" | "handler.init" | "schema.init").then_some(name)
        })
    }

    /// Whether it lists any module of that plugin.
    pub fn knows(&self, plugin: &str) -> bool {
        self.files(plugin).next().is_some()
    }

    /// (path below `kong/plugins/NAME`, file relative to the sources) of one plugin's modules.
    pub fn files<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        let own = format!("kong/plugins/{plugin}/");
        self.placed().filter_map(move |(path, file)| Some((path.strip_prefix(&own)?.to_owned(), file)))
    }

    /// (path below a Lua root, file relative to the sources) of all modules, as LuaRocks places them: a file called
    /// init.lua stays one.
    pub fn placed(&self) -> impl Iterator<Item = (String, &str)> {
        self.modules.iter().map(|(module, file)| {
            let path = module.replace('.', "/");
            let init =
                file.rsplit('/').next() == Some("init.lua") && !(path == "init" || path.ends_with("/init"));
            (if init { format!("{path}/init.lua") } else { format!("{path}.lua") }, file.as_str())
        })
    }

    /// Where a listed file is in the tree, if it is one of `base`'s.
    pub fn place(&self, base: &str, file: &str, max: usize) -> Option<String> {
        let full = if base.is_empty() { file.to_owned() } else { format!("{base}/{file}") };
        path::clean(full.as_bytes(), max).ok()
    }

    /// Whether this one is the newer of two of the same package: numbers are compared as numbers.
    pub fn newer_than(&self, other: &Self) -> bool {
        version_key(&self.version) > version_key(&other.version)
    }
}

fn version_key(version: &str) -> Vec<(u64, String)> {
    let parts = version.split(['.', '-', '_']);
    parts
        .map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            (part[..digits].parse().unwrap_or(0), part[digits..].to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests;
