//! The nginx directives that may be injected through `nginx_<block>_<directive>` settings.

use crate::kong::conf::Conf;

const BLOCKS: [&str; 13] = [
    "main",
    "events",
    "http",
    "proxy",
    "upstream",
    "admin",
    "status",
    "location",
    "debug",
    "stream",
    "sproxy",
    "supstream",
    "wasm",
];

/// Settings that begin like an injected directive but are settings of Kong's own.
const OWN: [&str; 9] = [
    "conf",
    "kong_conf",
    "pid",
    "daemon",
    "worker_processes",
    "user",
    "err_logs",
    "acc_logs",
    "optimizations",
];

/// Prefixes of the directives nginx, OpenResty and Kong's modules know.
const KNOWN: &[&str] = &[
    "absolute_redirect",
    "accept_mutex",
    "access_log",
    "add_header",
    "aio",
    "allow",
    "auth_",
    "autoindex",
    "brotli",
    "charset",
    "chunked_transfer_encoding",
    "client_",
    "connection_pool_size",
    "daemon",
    "debug_",
    "default_type",
    "deny",
    "directio",
    "disable_symlinks",
    "env",
    "error_",
    "etag",
    "expires",
    "fastcgi_",
    "grpc_",
    "gzip",
    "hash",
    "http2_",
    "http3",
    "if_modified_since",
    "ignore_invalid_headers",
    "include",
    "init_",
    "ip_hash",
    "keepalive",
    "large_client_header_buffers",
    "least_conn",
    "limit_",
    "lingering_",
    "listen",
    "lmdb_",
    "load_module",
    "lock_file",
    "log_",
    "lua_",
    "map_",
    "master_process",
    "max_ranges",
    "memcached_",
    "merge_slashes",
    "multi_accept",
    "open_",
    "output_buffers",
    "pcre_jit",
    "pid",
    "port_in_redirect",
    "postpone_output",
    "proxy_",
    "quic_",
    "random",
    "read_ahead",
    "real_ip_",
    "recursive_error_pages",
    "request_pool_size",
    "reset_timedout_connection",
    "resolver",
    "root",
    "satisfy",
    "scgi_",
    "send_",
    "sendfile",
    "server_",
    "set_real_ip_from",
    "shm_kv",
    "ssl_",
    "stub_status",
    "subrequest_",
    "tcp_",
    "thread_pool",
    "timer_resolution",
    "try_files",
    "types",
    "underscores_in_headers",
    "use",
    "user",
    "uwsgi_",
    "variables_",
    "worker_",
    "working_directory",
    "zone",
    "socket_",
    "tls_",
    "max_wasm",
    "wasm",
    "v8_",
    "wasmtime_",
    "wasmer_",
    "backtraces",
    "compiler",
    "flag",
    "cache_config",
];

/// Names of the dictionaries that `nginx_http_lua_shared_dict` makes: the first by its value, others by directives of that
/// name behind a semicolon.
pub fn shared_dicts(conf: &Conf) -> Vec<String> {
    let value = conf.text("nginx_http_lua_shared_dict");
    let name = |(at, part): (usize, &str)| {
        let part = part.trim();
        let made = if at == 0 { part } else { part.strip_prefix("lua_shared_dict ")? };
        made.split_whitespace().next().map(str::to_owned)
    };
    value.split(';').enumerate().filter_map(name).collect()
}

/// The complaint of `nginx -t` about the first injected directive that nginx does not know.
pub fn check(conf: &Conf) -> Result<(), String> {
    for (key, _) in conf.settings() {
        let Some(rest) = key.strip_prefix("nginx_") else { continue };
        let Some((block, directive)) = rest.split_once('_') else { continue };
        if OWN.contains(&rest) || !BLOCKS.contains(&block) {
            continue;
        }
        if !KNOWN.iter().any(|known| directive.starts_with(known)) {
            return Err(format!(
                "unknown directive \"{directive}\" in {}/nginx-kong.conf:94",
                conf.text("prefix")
            ));
        }
    }
    Ok(())
}
