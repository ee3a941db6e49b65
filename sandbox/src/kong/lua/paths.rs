//! Where Lua looks for modules: in nginx, and in the command line.

use super::KONG_LUA;
use crate::kong::conf::Conf;

/// Search paths of a VM.
#[derive(Debug, Clone)]
pub struct Search {
    /// `package.path`.
    pub path: String,
    /// `package.cpath`.
    pub cpath: String,
    /// The part of `path` that the node's configuration added.
    pub user_path: String,
}

const OPENRESTY: &str = "/usr/local/openresty";

fn default_path() -> String {
    let mut entries = Vec::new();
    for suffix in ["ljbc", "lua"] {
        for root in [format!("{OPENRESTY}/site/lualib"), format!("{OPENRESTY}/lualib")] {
            entries.push(format!("{root}/?.{suffix}"));
            entries.push(format!("{root}/?/init.{suffix}"));
        }
    }
    entries.push("./?.lua".to_owned());
    entries.push(format!("{OPENRESTY}/luajit/share/luajit-2.1/?.lua"));
    for root in [KONG_LUA.to_owned(), format!("{OPENRESTY}/luajit/share/lua/5.1")] {
        entries.push(format!("{root}/?.lua"));
        entries.push(format!("{root}/?/init.lua"));
    }
    entries.join(";")
}

fn default_cpath() -> String {
    [
        format!("{OPENRESTY}/site/lualib/?.so"),
        format!("{OPENRESTY}/lualib/?.so"),
        "./?.so".to_owned(),
        "/usr/local/lib/lua/5.1/?.so".to_owned(),
        format!("{OPENRESTY}/luajit/lib/lua/5.1/?.so"),
        "/usr/local/lib/lua/5.1/loadall.so".to_owned(),
    ]
    .join(";")
}

/// Paths for nginx, from `lua_package_path` and `lua_package_cpath` as rendered; each `;;` stands for the defaults.
pub fn nginx(package_path: &str, package_cpath: &str) -> Search {
    Search {
        path: package_path.replace(";;", &format!(";{};", default_path())),
        cpath: package_cpath.replace(";;", &format!(";{};", default_cpath())),
        user_path: user_part(package_path),
    }
}

/// Paths for the command line, which looks into its working directory and never expands `;;`.
pub fn command_line(conf: &Conf) -> Search {
    let configured = conf.text("lua_package_path");
    Search {
        path: format!("{configured};./?.lua;./?/init.lua;{}", default_path()),
        cpath: default_cpath(),
        user_path: user_part(configured),
    }
}

/// `lua_package_path` as `nginx-kong.conf` has it: the `LUA_PATH` of the command line's environment leaks in.
pub fn rendered_path(conf: &Conf) -> String {
    let leaked = std::env::var("LUA_PATH").unwrap_or_default();
    format!("{};{leaked};;", conf.text("lua_package_path"))
}

/// `lua_package_cpath` as `nginx-kong.conf` has it.
pub fn rendered_cpath(conf: &Conf) -> String {
    let leaked = std::env::var("LUA_CPATH").unwrap_or_default();
    format!("{};{leaked};;", conf.text("lua_package_cpath"))
}

fn user_part(path: &str) -> String {
    let entries: Vec<&str> = path.split(';').filter(|entry| !entry.is_empty()).collect();
    entries.join(";")
}
