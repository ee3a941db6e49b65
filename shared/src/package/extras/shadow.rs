//! Modules that Kong itself loads: what lies beside a plugin must not take their place unasked.

use super::super::error::{PackageError, shown};

/// First parts of module names below `kong` that are Kong's own, of 0.14 to 3.x.
const KONG: &str = "
    admin_gui api api_router cache cache_warmup cluster_events clustering cmd concurrency conf_loader
    constants dao db deprecation dns dynamic_hook enterprise_edition error_handlers global globalpatches
    hooks include init llm meta observability pdk reports resty router runloop singletons status
    templates timing tls tools tracing vaults vendor workspaces
";
/// Below `resty`: OpenResty's, and those of the rocks that every Kong is built with.
const RESTY: &str = "
    acme ada aes aws core counter dns events evp gcp healthcheck hmac http http_connect
    http_headers iputils ipmatcher jit-uuid jq lmdb limit lock lrucache md5 memcached mlcache mysql
    openssl passwdqc random redis saml session sha sha1 sha224 sha256 sha384 sha512 shell signal simdjson
    snappy string timerng upload upstream websocket wasmx worker balancer
";
/// First parts of module names of Lua, LuaJIT, OpenResty, and of the rocks that every Kong is built with.
const OTHERS: &str = "
    _G atc bit cassandra cjson coroutine date debug ffi inspect io jit kong lapis lfs librestysignal
    loadkit lpeg lsyslog ltn12 luaxml lyaml math mime multipart ngx ngx_lua os package pb penlight pgmoon
    pl protoc random rds redis ring_balancer say socket ssl string table tablepool term version xmlua
";

/// Whose module a path would take the place of; `None` when nobody's.
pub fn shadows(path: &str) -> Option<&'static str> {
    let module = path.strip_suffix(".lua").unwrap_or(path);
    let mut parts = module.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    match (first, second) {
        ("kong", None) => Some("Kong"),
        ("kong", Some("plugins")) => None,
        ("kong", Some(second)) => has(KONG, second).then_some("Kong"),
        ("resty", Some(second)) => has(RESTY, second).then_some("OpenResty or Kong"),
        (first, _) => has(OTHERS, first).then_some("LuaJIT, OpenResty or Kong"),
    }
}

/// # Errors
/// `MODULE_SHADOWS` for the first path that would take the place of a module that Kong itself loads.
pub fn refuse_shadows<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), PackageError> {
    let found = paths.into_iter().find_map(|path| Some((path, shadows(path)?)));
    let Some((path, owner)) = found else { return Ok(()) };
    let message =
        format!("{} would be loaded in place of a module of {owner}, by everything in Kong", shown(path));
    Err(PackageError::new("MODULE_SHADOWS", message)
        .hint("leave it out, or add --allow-shadow if it is meant"))
}

fn has(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|n| n == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_kong_and_openresty_are_known() {
        for path in [
            "kong.lua",
            "kong/init.lua",
            "kong/db/init.lua",
            "kong/tools/utils.lua",
            "kong/cache.lua",
            "resty/core.lua",
            "resty/core/base.lua",
            "resty/http.lua",
            "cjson.lua",
            "cjson/safe.lua",
            "pl/path.lua",
            "ngx/re.lua",
            "string.lua",
        ] {
            assert!(shadows(path).is_some(), "{path}");
        }
        for path in [
            "resty/foo.lua",
            "kong/plugins/shared/util.lua",
            "kong/shared_by_us.lua",
            "my/cjson.lua",
            "foo.lua",
        ] {
            assert_eq!(shadows(path), None, "{path}");
        }
    }
}
