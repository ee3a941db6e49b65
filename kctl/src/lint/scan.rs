//! What can be seen of a plugin without running it: what it requires, and what it may do to its node.

use std::collections::{BTreeMap, BTreeSet};

use kctl_shared::package::Scan;

use super::job::{PluginJob, Raw};
use super::{dicts, modules};

/// What Kong or its worker loads by itself, below `kong.plugins.NAME`.
const ENTRIES: [&str; 7] =
    ["handler", "schema", "daos", "api", "status_api", "migrations", "migrations.init"];

/// The plugin's files by key, read once.
#[derive(Debug)]
pub struct Sources<'a> {
    job: &'a PluginJob,
    scans: BTreeMap<&'a str, Scan>,
}

impl<'a> Sources<'a> {
    pub fn new(job: &'a PluginJob, files: &'a [Vec<u8>]) -> Self {
        let lua = job.files.iter().zip(files).filter(|(head, _)| head.key.ends_with(".lua"));
        Self { job, scans: lua.map(|(head, bytes)| (head.key.as_str(), Scan::of(bytes))).collect() }
    }

    fn own(&self) -> String {
        format!("kong.plugins.{}.", self.job.plugin)
    }

    /// The key of a module's file.
    fn file(&self, module: &str) -> Option<&'a str> {
        let path = module.replace('.', "/");
        let ways = [format!("{path}.lua"), format!("{path}/init.lua")];
        ways.iter().find_map(|w| self.scans.get_key_value(w.as_str()).map(|(key, _)| *key))
    }

    /// Files that are loaded or required by one that is, at once or later.
    pub fn reachable(&self) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<&str> =
            ENTRIES.iter().filter_map(|e| self.file(&format!("{}{e}", self.own()))).collect();
        while let Some(file) = todo.pop() {
            if found.insert(file) {
                let requires = self.scans.get(file).into_iter().flat_map(Scan::modules);
                todo.extend(requires.filter_map(|m| self.file(m)));
            }
        }
        // Migrations are required by the names in their list.
        let migrations = format!("kong/plugins/{}/migrations/", self.job.plugin);
        found.extend(self.scans.keys().filter(|k| k.starts_with(&migrations)));
        found
    }

    /// Everything there is to say, each thing once. `listed` tells what Kong brings beside its own modules.
    pub fn findings(&self, listed: &dyn Fn(&str) -> bool) -> Vec<Raw> {
        let mut found: Vec<Raw> = Vec::new();
        let mut seen = BTreeSet::new();
        let reachable = self.reachable();
        for (file, scan) in self.scans.iter().filter(|(file, _)| reachable.contains(*file)) {
            for require in &scan.requires {
                let said = match &require.module {
                    None => Some((
                        "DYNAMIC_REQUIRE",
                        "what is required here is worked out when it runs".to_owned(),
                    )),
                    Some(module) => self.required(module, require.optional, listed),
                };
                let Some((rule, message)) = said else { continue };
                if seen.insert((rule, message.clone())) || rule == "DYNAMIC_REQUIRE" {
                    found.push(raw(rule, file, require.line, message));
                }
            }
            for dict in &scan.dicts {
                if dicts::provides(&dict.name, self.job.kong) || self.job.dicts.contains(&dict.name) {
                    continue;
                }
                let message = format!(
                    "ngx.shared.{} is nil unless nginx makes it: the plugin does not declare `nginx_http_lua_shared_dict = {0} 10m`",
                    dict.name
                );
                if seen.insert(("SHARED_DICT_UNDECLARED", message.clone())) {
                    found.push(raw("SHARED_DICT_UNDECLARED", file, dict.line, message));
                }
            }
            for mention in &scan.mentions {
                let (rule, what) = meaning(&mention.name);
                if seen.insert((rule, format!("{file} {}", mention.name))) {
                    found.push(raw(rule, file, mention.line, format!("{} {what}", mention.name)));
                }
            }
        }
        found
    }

    fn required(
        &self,
        module: &str,
        optional: bool,
        listed: &dyn Fn(&str) -> bool,
    ) -> Option<(&'static str, String)> {
        let kong = self.job.kong;
        if self.file(module).is_some() {
            return None;
        }
        if let Some((_, file)) = self.job.beside.iter().find(|(m, _)| m == module) {
            if modules::provides(module, kong) || listed(module) {
                return Some((
                    "MODULE_KONGS_OWN",
                    format!("{module} is required; Kong's own is loaded, {file} is not packed in its place"),
                ));
            }
            return Some((
                "MODULE_LEFT_OUT",
                format!("{module} is required; {file} lies beside the plugin and is not packed"),
            ));
        }
        if module.starts_with(&self.own()) {
            let rule = if optional { "DEPENDENCY_OPTIONAL" } else { "MODULE_NOT_PACKAGED" };
            return Some((rule, format!("{module} is required and not packed")));
        }
        if module == "kong" || module.starts_with("kong.") {
            let other =
                module.strip_prefix("kong.plugins.").and_then(|m| m.split_once('.')).map(|(name, _)| name);
            return match other {
                Some(name) if modules::provides(module, kong) => {
                    Some(("BUNDLED_MODULE", format!("{module} is a part of Kong's own plugin {name}")))
                }
                Some(name) if !modules::bundles(name, kong) => {
                    Some(("OTHER_PLUGIN", format!("{module} is a part of the plugin {name}")))
                }
                _ if modules::provides(module, kong) || optional => None,
                _ => Some(("MODULE_GONE", format!("{module} is required, which Kong {kong} does not have"))),
            };
        }
        match module {
            "ffi" => Some(("FFI", "ffi is required".to_owned())),
            _ if listed(module) => None,
            _ if optional => Some((
                "DEPENDENCY_OPTIONAL",
                format!("{module} is used if it is there; Kong does not bring it"),
            )),
            _ => Some((
                "DEPENDENCY",
                format!(
                    "{module} is required, which Kong does not bring: a node without it refuses the plugin"
                ),
            )),
        }
    }
}

fn meaning(name: &str) -> (&'static str, &'static str) {
    match name {
        "os.exit" => ("OS_EXIT_CALL", "ends the worker, with all requests in it"),
        "os.execute" | "io.popen" => {
            ("RUNS_COMMANDS", "runs commands, and holds the whole worker up meanwhile")
        }
        "package.loadlib" => ("NATIVE_CODE", "loads a shared library"),
        "loadstring" | "load" | "loadfile" | "dofile" | "string.dump" => {
            ("LOADS_CODE", "makes code out of text or files")
        }
        _ => ("TOUCHES_FILES", "touches files of the node"),
    }
}

fn raw(rule: &str, file: &str, line: usize, message: String) -> Raw {
    Raw { rule: rule.to_owned(), file: file.to_owned(), line: u32::try_from(line).unwrap_or(0), message }
}
