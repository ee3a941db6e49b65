//! What a plugin says about itself that neither Kong nor LuaRocks reads: `kctl.toml` beside its handler.lua.
//!
//! A file of the release like any other, so the digest covers it, every copy of the release has it, and members and
//! agents read the same. A rockspec has no place for it: LuaRocks refuses fields that it does not know.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{FileEntry, Limits, Package, PackageError, PackagedFile, check};
use crate::digest::Digest;
use crate::nginx::{MAX_SETTINGS, NginxSetting, contradiction};

/// Below `kong/plugins/NAME`.
pub const DECLARATION: &str = "kctl.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    /// Settings of kong.conf that the plugin needs.
    #[serde(default)]
    nginx: BTreeMap<String, OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Package {
    /// Directives of nginx that the plugin needs, as it declares them; sorted, none twice.
    ///
    /// # Errors
    /// `DECLARATION_INVALID`.
    pub fn nginx(&self) -> Result<Vec<NginxSetting>, PackageError> {
        self.file(DECLARATION).map_or(Ok(Vec::new()), read)
    }

    /// The package with these settings declared too; they stand in the place of what they contradict.
    ///
    /// # Errors
    /// `DECLARATION_INVALID`, `ARCHIVE_TOO_LARGE`.
    pub fn with_nginx(mut self, more: &[NginxSetting], limits: &Limits) -> Result<Self, PackageError> {
        let mut all = self.nginx()?;
        all.retain(|old| !more.iter().any(|new| new.contradicts(old)));
        all.extend(more.iter().cloned());
        sound(&mut all)?;
        if all == self.nginx()? {
            return Ok(self);
        }
        let bytes = written(&all).into_bytes();
        let path = DECLARATION.to_owned();
        let entry = FileEntry { path, sha256: Digest::of(&bytes), size: bytes.len() as u64 };
        self.files.retain(|f| f.entry.path != DECLARATION);
        self.files.push(PackagedFile { entry, bytes });
        self.files.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        let files: Vec<_> = self.files.iter().map(|f| (f.entry.path.clone(), f.bytes.clone())).collect();
        check::files(&self.plugin, &files, limits)?;
        if self.version.starts_with("0.0.0-") {
            self.version = format!("0.0.0-{}", self.digest().short());
        }
        Ok(self)
    }
}

fn read(bytes: &[u8]) -> Result<Vec<NginxSetting>, PackageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8 text"))?;
    let declared: Declaration = toml::from_str(text).map_err(|e| invalid(e.message()))?;
    let mut all = Vec::new();
    for (key, values) in declared.nginx {
        let values = match values {
            OneOrMore::One(value) => vec![value],
            OneOrMore::More(values) => values,
        };
        for value in values {
            all.push(NginxSetting::new(&key, &value).map_err(|e| invalid(&e.message))?);
        }
    }
    sound(&mut all)?;
    Ok(all)
}

/// In order, and nothing in it that nginx would refuse for the rest of it.
fn sound(all: &mut Vec<NginxSetting>) -> Result<(), PackageError> {
    all.sort_unstable();
    all.dedup();
    if all.len() > MAX_SETTINGS {
        return Err(invalid(&format!("{} settings, at most {MAX_SETTINGS} are taken", all.len())));
    }
    match contradiction(all.iter()) {
        Some((one, other)) => Err(invalid(&format!("`{one}` and `{other}` contradict each other"))),
        None => Ok(()),
    }
}

fn written(all: &[NginxSetting]) -> String {
    let mut keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for setting in all {
        // Neither a control character nor a backslash is in a value.
        keys.entry(&setting.key).or_default().push(format!("\"{}\"", setting.value.replace('"', "\\\"")));
    }
    let lines = keys.into_iter().map(|(key, values)| format!("{key} = [{}]\n", values.join(", ")));
    format!("[nginx]\n{}", lines.collect::<String>())
}

fn invalid(why: &str) -> PackageError {
    PackageError::new("DECLARATION_INVALID", format!("{DECLARATION}: {}", why.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::PluginName;

    fn package(declaration: Option<&str>) -> Package {
        let mut files = vec![("handler.lua".to_owned(), b"return { VERSION = \"1.0.0\" }".to_vec())];
        files.extend(declaration.map(|text| (DECLARATION.to_owned(), text.as_bytes().to_vec())));
        Package::new(PluginName::parse("x").unwrap(), files, &Limits::default()).unwrap()
    }

    #[test]
    fn what_is_declared_and_what_is_added() {
        assert_eq!(package(None).nginx(), Ok(vec![]));
        assert_eq!(package(Some("")).nginx(), Ok(vec![]));
        let text = "[nginx]\nnginx_http_lua_shared_dict = [\"b 1m\", \"a 1m\"]\nnginx_http_etag = \"off\"\n";
        let declared = package(Some(text));
        let shown = |p: &Package| p.nginx().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            shown(&declared),
            [
                "nginx_http_etag = off",
                "nginx_http_lua_shared_dict = a 1m",
                "nginx_http_lua_shared_dict = b 1m"
            ]
        );
        let more = [NginxSetting::parse("nginx_http_lua_shared_dict=a 5m").unwrap()];
        let limits = Limits::default();
        let added = declared.clone().with_nginx(&more, &limits).unwrap();
        assert_eq!(
            shown(&added)[1..],
            ["nginx_http_lua_shared_dict = a 5m", "nginx_http_lua_shared_dict = b 1m"]
        );
        assert_ne!(added.digest(), declared.digest());
        let same = declared.clone().with_nginx(&declared.nginx().unwrap(), &limits).unwrap();
        assert_eq!(same, declared, "nothing new, nothing changed");
        let again = Package::from_artifact(&added.to_artifact(), &limits).unwrap();
        assert_eq!(again.nginx(), added.nginx());
    }

    #[test]
    fn what_is_not_a_declaration() {
        for text in [
            "nginx",
            "[ngnix]\na = \"b\"",
            "[nginx]\nnginx_http_x = 1",
            "[nginx]\nplugins = \"bundled\"",
            "[nginx]\nnginx_http_lua_shared_dict = \"a 1m; b\"",
            "[nginx]\nnginx_http_lua_shared_dict = [\"a 1m\", \"a 2m\"]",
        ] {
            assert_eq!(package(Some(text)).nginx().unwrap_err().code, "DECLARATION_INVALID", "{text}");
        }
    }
}
