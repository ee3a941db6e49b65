//! What a rockspec says about where a plugin's modules are. It is read, never run.

use super::lua::Scan;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rockspec {
    /// The directory it is in, within the tree; empty for the root.
    pub dir: String,
    /// `NAME-VERSION-REVISION`, its file name without the extension.
    pub stem: String,
    pub package: Option<String>,
    /// (module below `kong.plugins`, e.g. `x.handler`; its file relative to the sources)
    pub modules: Vec<(String, String)>,
}

impl Rockspec {
    pub fn parse(path: &str, source: &[u8]) -> Self {
        let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
        let scan = Scan::of(source);
        let modules = scan.assignments.iter().filter(|a| !a.member && a.depth > 0).filter_map(|a| {
            let module = a.key.strip_prefix("kong.plugins.")?;
            let file = a.value.as_ref().filter(|f| f.ends_with(".lua"))?;
            module.contains('.').then(|| (module.to_owned(), file.clone()))
        });
        Self {
            dir: dir.to_owned(),
            stem: file.strip_suffix(".rockspec").unwrap_or(file).to_owned(),
            package: scan.variable("package").map(str::to_owned),
            modules: modules.collect(),
        }
    }

    /// Names of the plugins whose handler or schema it lists.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().filter_map(|(module, _)| {
            let (name, module) = module.split_once('.')?;
            matches!(module, "handler" | "schema").then_some(name)
        })
    }

    /// (path below `kong/plugins/NAME`, file relative to the sources) of one plugin's modules, as LuaRocks places them: a
    /// file called init.lua stays one.
    pub fn files<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = (String, &'a str)> {
        self.modules.iter().filter_map(move |(module, file)| {
            let module = module.strip_prefix(plugin)?.strip_prefix('.')?;
            let path = module.replace('.', "/");
            let init =
                file.rsplit('/').next() == Some("init.lua") && !(path == "init" || path.ends_with("/init"));
            Some((if init { format!("{path}/init.lua") } else { format!("{path}.lua") }, file.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_template_with_concatenated_names() {
        let source = br#"
            local plugin_name = "myplugin"
            local package_name = "kong-plugin-" .. plugin_name
            package = package_name
            version = "0.1.0-1"
            build = { type = "builtin", modules = {
              ["kong.plugins." .. plugin_name .. ".handler"] = "kong/plugins/" .. plugin_name .. "/handler.lua",
              ["kong.plugins.myplugin.schema"] = "./src/schema.lua",
              ["kong.plugins.myplugin.migrations"] = "src/migrations/init.lua",
              ["resty.other"] = "lib/other.lua",
            } }"#;
        let spec = Rockspec::parse("w/kong-plugin-myplugin-0.1.0-1.rockspec", source);
        assert_eq!(spec.dir, "w");
        assert_eq!(spec.package.as_deref(), Some("kong-plugin-myplugin"));
        assert_eq!(spec.plugins().collect::<Vec<_>>(), ["myplugin", "myplugin"]);
        let files: Vec<_> = spec.files("myplugin").collect();
        assert_eq!(
            files,
            [
                ("handler.lua".to_owned(), "kong/plugins/myplugin/handler.lua"),
                ("schema.lua".to_owned(), "./src/schema.lua"),
                ("migrations/init.lua".to_owned(), "src/migrations/init.lua"),
            ]
        );
    }
}
