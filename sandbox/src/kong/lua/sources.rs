//! The Lua side of the stand-in, and the names and lines it goes by.
//!
//! Kong's error texts carry tracebacks through its own files. A source here may stand for such a file: it is compiled
//! under that file's name, and a line `--@N` moves what follows to line N, so that Lua itself writes Kong's traceback.

/// Where Kong's own Lua tree is installed.
pub const KONG_LUA: &str = "/usr/local/share/lua/5.1";

/// One source of the prelude: its name, the file it stands for (below [`KONG_LUA`] unless it starts with `=` or `@`)
/// and its text.
type Source = (&'static str, &'static str, &'static str);

const SOURCES: &[Source] = &[
    ("ages", "=ages", include_str!("prelude/ages.lua")),
    ("base_plugin", "kong/plugins/base_plugin.lua", include_str!("prelude/base_plugin.lua")),
    ("boot", "=boot", include_str!("prelude/boot.lua")),
    ("builtin", "=builtin", include_str!("prelude/builtin.lua")),
    ("bundled", "=bundled", include_str!("prelude/bundled.lua")),
    ("classic", "kong/vendor/classic.lua", include_str!("prelude/classic.lua")),
    ("cmd_config", "kong/cmd/config.lua", include_str!("prelude/cmd_config.lua")),
    ("cmd_init", "kong/cmd/init.lua", include_str!("prelude/cmd_init.lua")),
    ("cmd_worker", "=init_worker_by_lua(nginx.conf:NNN)", include_str!("prelude/cmd_worker.lua")),
    ("command_line", "=(command line -e)", include_str!("prelude/command_line.lua")),
    ("dao_plugins", "kong/db/dao/plugins.lua", include_str!("prelude/dao_plugins.lua")),
    ("declarative", "kong/db/schema/others/declarative_config.lua", include_str!("prelude/declarative.lua")),
    ("declarative_init", "kong/db/declarative/init.lua", include_str!("prelude/declarative_init.lua")),
    ("entities", "=entities", include_str!("prelude/entities.lua")),
    ("init", "kong/init.lua", include_str!("prelude/init.lua")),
    ("init_by_lua", "=init_by_lua(nginx-kong.conf:NN)", include_str!("prelude/init_by_lua.lua")),
    ("module", "kong/tools/module.lua", include_str!("prelude/module.lua")),
    ("modules", "=modules", include_str!("prelude/modules.lua")),
    ("ngx", "=ngx", include_str!("prelude/ngx.lua")),
    ("pdk", "=pdk", include_str!("prelude/pdk.lua")),
    ("plugin_loader", "kong/db/schema/plugin_loader.lua", include_str!("prelude/plugin_loader.lua")),
    ("provided", "=provided", include_str!("prelude/provided.lua")),
    ("request", "@/usr/local/openresty/lualib/resty/core/ctx.lua", include_str!("prelude/request.lua")),
    ("runtime", "=runtime", include_str!("prelude/runtime.lua")),
    ("schema", "=schema", include_str!("prelude/schema.lua")),
    ("timerng", "resty/timerng/init.lua", include_str!("prelude/timerng.lua")),
    ("typedefs", "kong/db/schema/typedefs.lua", include_str!("prelude/typedefs.lua")),
    ("validators", "=validators", include_str!("prelude/validators.lua")),
    ("version", "=version", include_str!("prelude/version.lua")),
];

/// The chunk name and the laid-out text of a source.
pub fn find(name: &str) -> Option<(String, String)> {
    let (_, file, text) = SOURCES.iter().find(|(known, _, _)| *known == name)?;
    let chunk = if file.starts_with(['=', '@']) { (*file).to_owned() } else { format!("@{KONG_LUA}/{file}") };
    Some((chunk, lay_out(text)))
}

/// Moves the text after each `--@N` to line N. A mark that is already passed has no effect.
fn lay_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    let mut line = 1;
    for source in text.lines() {
        if let Some(target) = source.strip_prefix("--@").and_then(|mark| mark.parse::<usize>().ok()) {
            while line < target {
                out.push('\n');
                line += 1;
            }
            continue;
        }
        out.push_str(source);
        out.push('\n');
        line += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_lines_land_where_kong_has_them() {
        for (name, needle, line) in [
            ("module", "xpcall(require", 18),
            ("module", "error(message)", 29),
            ("plugin_loader", "load_module_if_exists(module_name)", 18),
            ("dao_plugins", "ok, handler = load_module_if_exists", 163),
            ("dao_plugins", "handler, err = load_plugin_handler", 276),
            ("dao_plugins", "schema, err = plugin_loader", 281),
            ("dao_plugins", "handler, err = load_plugin(", 328),
            ("dao_plugins", "handler.PRIORITY", 331),
            ("init", "load_plugin_schemas", 708),
            ("init", "error parsing declarative", 731),
            ("init", "error building initial", 743),
            ("init_by_lua", "Kong.init()", 3),
            ("declarative", "plugin_loader.load_subschema", 283),
            ("declarative", "load_plugin_subschemas(names, depth - 1)", 291),
            ("cmd_config", "load_plugin_schemas", 87),
            ("cmd_init", "xpcall", 31),
            ("command_line", "runs[1]", 5),
            ("cmd_worker", "inline_gen()", 44),
            ("timerng", "the timer module", 381),
        ] {
            let text = find(name).unwrap().1;
            let found: Vec<usize> =
                text.lines().enumerate().filter(|(_, l)| l.contains(needle)).map(|(at, _)| at + 1).collect();
            assert!(found.contains(&line), "{name}: {needle} stands on {found:?}, not {line}");
        }
    }
}
