//! Modules beside a plugin's own directory that are other ones elsewhere: Lua loads one of a name for a whole Kong, so two
//! plugins of a group may bring the same module only if it is the same. What the control plane refuses as
//! `MODULE_CONFLICT` is found here before anything is uploaded.

use std::fmt;

use kctl_shared::package::Package;
use kctl_shared::proto::v1::PluginView;

/// A release that a plugin is compared with: of the catalogue, or one that was given along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    pub plugin: String,
    pub version: String,
    /// (path below a Lua root, sha256) of what travels with it.
    pub modules: Vec<(String, String)>,
}

impl From<&Package> for Others {
    fn from(package: &Package) -> Self {
        let module =
            |f: &kctl_shared::package::PackagedFile| (f.entry.path.clone(), f.entry.sha256.to_string());
        Self {
            plugin: package.plugin.to_string(),
            version: package.version.clone(),
            modules: package.extras.iter().map(module).collect(),
        }
    }
}

impl From<&PluginView> for Others {
    fn from(view: &PluginView) -> Self {
        Self {
            plugin: view.name.clone(),
            version: view.version.clone(),
            modules: view.modules.iter().map(|f| (f.path.clone(), f.sha256.clone())).collect(),
        }
    }
}

/// One module in two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    pub path: String,
    pub plugin: String,
    pub other: String,
    pub version: String,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, plugin, other, version } = self;
        write!(f, "{path} comes with {plugin} and is another one in {other} {version}")
    }
}

/// What of `package` is another one in one of `others`, or would lie in its directory, and the other way round.
pub fn clashes(package: &Package, others: &[Others]) -> Vec<Clash> {
    let mine = Others::from(package);
    let inside = |release: &Others, plugin: &str| {
        let own = format!("kong/plugins/{plugin}/");
        release
            .modules
            .iter()
            .filter(move |(path, _)| path.starts_with(&own))
            .map(|(p, _)| p.clone())
            .collect()
    };
    let of = |other: &Others| -> Vec<Clash> {
        let mut paths: Vec<String> = inside(&mine, &other.plugin);
        paths.extend::<Vec<String>>(inside(other, &mine.plugin));
        let differs = |(path, sum): &&(String, String)| {
            other.modules.iter().any(|(p, theirs)| p == path && theirs != sum)
        };
        paths.extend(mine.modules.iter().filter(differs).map(|(path, _)| path.clone()));
        paths.sort_unstable();
        paths.dedup();
        let clash = |path| Clash {
            path,
            plugin: mine.plugin.clone(),
            other: other.plugin.clone(),
            version: other.version.clone(),
        };
        paths.into_iter().map(clash).collect()
    };
    others.iter().filter(|other| other.plugin != mine.plugin).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kctl_shared::name::PluginName;
    use kctl_shared::package::Limits;

    fn package(name: &str, extras: &[(&str, &str)]) -> Package {
        let handler = vec![("handler.lua".to_owned(), b"return {}".to_vec())];
        let extras = extras.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
        let package = Package::new(PluginName::parse(name).unwrap(), handler, &Limits::default()).unwrap();
        package.with_extras(extras, &Limits::default()).unwrap()
    }

    #[test]
    fn only_what_differs_clashes() {
        let mine = package("mine", &[("resty/a.lua", "1"), ("resty/b.lua", "1")]);
        let others = [
            package("other", &[("resty/a.lua", "1"), ("resty/b.lua", "2")]),
            package("mine", &[("resty/a.lua", "3")]),
            package("third", &[("kong/plugins/mine/extra.lua", "1")]),
        ];
        let found = clashes(&mine, &others.each_ref().map(Others::from));
        let found: Vec<_> = found.iter().map(|c| (c.path.as_str(), c.other.as_str())).collect();
        assert_eq!(found, [("resty/b.lua", "other"), ("kong/plugins/mine/extra.lua", "third")]);
    }
}
