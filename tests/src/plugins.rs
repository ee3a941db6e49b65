//! Plugin sources for tests: good ones, and every kind of broken one.

use std::path::{Path, PathBuf};

pub const SCHEMA: &str = r#"local typedefs = require "kong.db.schema.typedefs"
return {
  name = "NAME",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", fields = { { header = { type = "string", default = "x-tried" } } } } },
  },
}
"#;

fn handler(version: &str, more: &str) -> String {
    format!(
        "local Handler = {{ PRIORITY = 801, VERSION = \"{version}\" }}\n{more}\nfunction Handler:header_filter(conf)\n  \
         kong.response.set_header(conf.header, \"{version}\")\nend\nreturn Handler\n"
    )
}

/// Writes `kong/plugins/NAME/{handler,schema}.lua` below a new directory in `root` and returns that directory.
pub fn write(root: &Path, dir: &str, name: &str, handler: Option<&str>, schema: Option<&str>) -> PathBuf {
    let base = root.join(dir);
    let lua = base.join("kong/plugins").join(name);
    std::fs::create_dir_all(&lua).unwrap();
    for (file, text) in [("handler.lua", handler), ("schema.lua", schema)] {
        if let Some(text) = text {
            std::fs::write(lua.join(file), text.replace("NAME", name)).unwrap();
        }
    }
    base
}

/// A plugin that sets a response header to its version.
pub fn good(root: &Path, name: &str, version: &str) -> PathBuf {
    write(root, &format!("{name}-{version}"), name, Some(&handler(version, "")), Some(SCHEMA))
}

/// The files of a plugin that [`write`] wrote below `base`, as a node must have them.
pub fn files(base: &Path, name: &str) -> crate::watched::Files {
    let dir = base.join("kong/plugins").join(name);
    let file = |f: &str| (f.to_owned(), std::fs::read_to_string(dir.join(f)).unwrap());
    ["handler.lua", "schema.lua"].map(file).into()
}

/// Loads only where nginx makes the shared dictionary `dict`; `more` stands in its kctl.toml.
pub fn needs_dict(root: &Path, name: &str, version: &str, dict: &str, more: Option<&str>) -> PathBuf {
    let code = format!("local cache = ngx.shared.{dict}\ncache:set(\"x\", 1)\n");
    let base = write(root, &format!("{name}-{version}"), name, Some(&handler(version, &code)), Some(SCHEMA));
    if let Some(text) = more {
        std::fs::write(base.join("kong/plugins").join(name).join("kctl.toml"), text).unwrap();
    }
    base
}

/// Loads everywhere, and answers every request that it sees with 500.
pub fn failing_access(root: &Path, name: &str, version: &str) -> PathBuf {
    let more = "function Handler:access(conf)\n  error(\"access went wrong\")\nend\n";
    write(root, &format!("{name}-{version}-access"), name, Some(&handler(version, more)), Some(SCHEMA))
}

/// Loads in every preflight, but `init_worker` throws once workers start.
pub fn broken_init_worker(root: &Path, name: &str, version: &str) -> PathBuf {
    let more = "function Handler:init_worker()\n  error(\"init_worker went wrong\")\nend\n";
    write(root, &format!("{name}-{version}-init"), name, Some(&handler(version, more)), Some(SCHEMA))
}

/// As [`broken_init_worker`], but only on a node with a file `poison` in its prefix.
pub fn poisonable(root: &Path, name: &str, version: &str) -> PathBuf {
    let more = "function Handler:init_worker()\n  if io.open(ngx.config.prefix() .. \"/poison\") then\n    \
                error(\"this node is poisoned\")\n  end\nend\n";
    write(root, &format!("{name}-{version}-poisonable"), name, Some(&handler(version, more)), Some(SCHEMA))
}

/// One way in which Kong refuses a plugin, and a piece of what Kong says about it.
#[derive(Clone, Copy, Debug)]
pub struct Broken {
    pub kind: &'static str,
    handler: Option<&'static str>,
    schema: Option<&'static str>,
    pub words: &'static str,
}

pub const BROKEN: [Broken; 8] = [
    Broken {
        kind: "syntax error",
        handler: Some(
            "local Handler = { PRIORITY = 1, VERSION = \"9.0.0\"\nfunction Handler:access() end\nreturn Handler",
        ),
        schema: Some(SCHEMA),
        words: "expected",
    },
    Broken {
        kind: "no schema",
        handler: Some("return { PRIORITY = 1, VERSION = \"9.0.1\" }"),
        schema: None,
        words: "no configuration schema found for plugin",
    },
    Broken { kind: "no handler", handler: None, schema: Some(SCHEMA), words: "not installed" },
    Broken {
        kind: "missing dependency",
        handler: Some(
            "local foo = require \"resty.nowhere.foo\"\nreturn { PRIORITY = 1, VERSION = \"9.0.2\" }",
        ),
        schema: Some(SCHEMA),
        words: "module 'resty.nowhere.foo' not found",
    },
    Broken {
        kind: "bad PRIORITY",
        handler: Some("return { PRIORITY = \"high\", VERSION = \"9.0.3\" }"),
        schema: Some(SCHEMA),
        words: "PRIORITY field is not a valid integer number",
    },
    Broken {
        kind: "bad VERSION",
        handler: Some("return { PRIORITY = 1, VERSION = \"9.0.4.1\" }"),
        schema: Some(SCHEMA),
        words: "VERSION field does not follow",
    },
    Broken {
        kind: "bad schema",
        handler: Some("return { PRIORITY = 1, VERSION = \"9.0.5\" }"),
        schema: Some("return { name = \"NAME\", fields = { { config = { type = \"nonsense\" } } } }"),
        words: "schema",
    },
    Broken {
        kind: "returns nothing",
        handler: Some("local Handler = { VERSION = \"9.0.6\" }"),
        schema: Some(SCHEMA),
        words: "",
    },
];

impl Broken {
    pub fn write(&self, root: &Path, name: &str) -> PathBuf {
        write(root, &format!("{name}-{}", self.kind.replace(' ', "-")), name, self.handler, self.schema)
    }
}
