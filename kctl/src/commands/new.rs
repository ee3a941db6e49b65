//! `kctl plugin new`: the smallest plugin that does something, to start from.

use std::fs;
use std::path::PathBuf;

use kctl_shared::fault::Fault;
use kctl_shared::name::PluginName;
use kctl_shared::package::{Limits, Package, rock};
use serde::Serialize;

use crate::cli::NewArgs;
use crate::fail::Outcome;
use crate::output::Printer;

const HANDLER: &str = r#"local Handler = {
  -- When it runs among all plugins of a request: higher is earlier. Kong's own are between 2000000 and 1.
  PRIORITY = 900,
  VERSION = "0.1.0",
}

function Handler:header_filter(conf)
  kong.response.set_header(conf.header, Handler.VERSION)
end

return Handler
"#;

const SCHEMA: &str = r#"local typedefs = require "kong.db.schema.typedefs"

return {
  name = "NAME",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          { header = typedefs.header_name { required = true, default = "X-NAME" } },
        },
    } },
  },
}
"#;

#[derive(Serialize)]
struct Made {
    plugin: String,
    directory: PathBuf,
    files: Vec<String>,
}

pub fn run(printer: &Printer, args: &NewArgs) -> Outcome {
    let name = PluginName::parse(&args.name).map_err(|e| Fault::new(e.code, e.message))?;
    let root = args.directory.clone().unwrap_or_else(|| name.as_str().into());
    if root.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} is not empty", root.display());
        return Err(Fault::new("DIRECTORY_NOT_EMPTY", message)
            .hint("choose another with --directory")
            .into());
    }
    let sources =
        [("handler.lua", HANDLER.to_owned()), ("schema.lua", SCHEMA.replace("NAME", name.as_str()))];
    let files = sources.iter().map(|(path, text)| ((*path).to_owned(), text.clone().into_bytes())).collect();
    let package = Package::new(name.clone(), files, &Limits::default()).map_err(Fault::from)?;
    let mut written = vec![(format!("{}.rockspec", rock::stem(&package)), rock::rockspec(&package))];
    written.extend(sources.map(|(path, text)| (format!("kong/plugins/{name}/{path}"), text)));
    for (path, text) in &written {
        let path = root.join(path);
        let failed = |e: std::io::Error| {
            Fault::new("NOT_WRITTEN", format!("{}: {e}", path.display())).hint("choose another --directory")
        };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
    }
    let made = Made {
        plugin: name.to_string(),
        directory: root,
        files: written.into_iter().map(|(path, _)| path).collect(),
    };
    printer.one(&made, &made.plugin, || {
        let files = made.files.iter().map(|f| format!("  {f}\n")).collect::<String>();
        let root = made.directory.display();
        format!("✔ {} in {root}\n{files}try it: kctl plugin install {root} --all-nodes\n", made.plugin)
    })
}
