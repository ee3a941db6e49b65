//! Settings of kong.conf that Kong hands on to nginx, `nginx_<block>_<directive> = value`: what a plugin may need beside
//! its own files, such as a shared dictionary.
//!
//! Kong writes `<directive> <value>;` into the block for each. A key counts once in kong.conf, so several directives of
//! one name are written as one value, `a 1m; lua_shared_dict b 1m`, which nginx reads as two (contract §2.1, Kong's
//! `conf_loader/parse.lua` and `templates/nginx_kong.lua`). Here each is a setting of its own.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Longest key and value, in bytes; nobody's line of kong.conf needs more.
const MAX_TEXT: usize = 200;
/// Settings that one plugin may ask for.
pub const MAX_SETTINGS: usize = 32;

/// Blocks that Kong injects directives into (3.9; older versions know fewer and let the others be).
const BLOCKS: [&str; 11] = [
    "main",
    "events",
    "http",
    "proxy",
    "upstream",
    "admin",
    "status",
    "location",
    "stream",
    "sproxy",
    "supstream",
];
/// What of the main block is the node's own business, and would change who or what Kong is.
const NODES_OWN: [&str; 6] = ["daemon", "pid", "user", "worker_processes", "load_module", "include"];
/// Directives that may be said several times, told apart by their first word.
const NAMED: [&str; 6] =
    ["lua_shared_dict", "env", "add_header", "proxy_set_header", "set_real_ip_from", "limit_req_zone"];

/// One directive that nginx has to be given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NginxSetting {
    /// `nginx_http_lua_shared_dict`.
    pub key: String,
    /// `my_cache 10m`: single blanks, nothing before or after.
    pub value: String,
}

impl NginxSetting {
    /// From `nginx_http_lua_shared_dict=my_cache 10m`.
    ///
    /// # Errors
    /// `NGINX_INVALID`.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text.split_once('=') {
            Some((key, value)) => Self::new(key.trim(), value),
            None => Err(invalid(format!("{text:?} is not nginx_<block>_<directive>=<value>"))),
        }
    }

    /// # Errors
    /// `NGINX_INVALID` for what is no injected directive of Kong's, several in one, or would end the line it stands in.
    pub fn new(key: &str, value: &str) -> Result<Self, Fault> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let split = key.strip_prefix("nginx_").and_then(|rest| rest.split_once('_'));
        let (block, directive) = split.unwrap_or_default();
        if !BLOCKS.contains(&block) || directive.is_empty() || !key.chars().all(plain) || key.len() > MAX_TEXT
        {
            return Err(invalid(format!(
                "{key:?} is not nginx_<block>_<directive> with one of Kong's blocks: {}",
                BLOCKS.join(", ")
            )));
        }
        if NODES_OWN.contains(&directive) && matches!(block, "main" | "http" | "stream") {
            return Err(invalid(format!("{key} is for the node's owner to say, not for a plugin")));
        }
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if value.is_empty() || value.len() > MAX_TEXT {
            return Err(invalid(format!("the value of {key} has 1 to {MAX_TEXT} bytes")));
        }
        if !value.chars().all(|c| (c.is_ascii_graphic() || c == ' ') && !";{}#\\".contains(c)) {
            return Err(invalid(format!(
                "the value of {key} is one directive in plain ASCII, without ; {{ }} # and \\; say each by itself"
            )));
        }
        Ok(Self { key: key.to_owned(), value })
    }

    /// The directive as nginx knows it.
    pub fn directive(&self) -> &str {
        self.key.strip_prefix("nginx_").and_then(|rest| rest.split_once('_')).unwrap_or_default().1
    }

    /// Whether nginx takes several of this directive.
    pub fn is_repeatable(&self) -> bool {
        NAMED.contains(&self.directive())
    }

    /// Whether nginx could not have both: one of a kind, said in two ways.
    pub fn contradicts(&self, other: &Self) -> bool {
        let first = |s: &Self| s.value.split(' ').next().map(str::to_owned);
        self.key == other.key
            && self.value != other.value
            && (!self.is_repeatable() || first(self) == first(other))
    }

    /// The name of the shared dictionary that it makes.
    pub fn shared_dict(&self) -> Option<&str> {
        let name = self.value.split(' ').next().filter(|_| self.key == "nginx_http_lua_shared_dict");
        name.filter(|name| !name.is_empty())
    }
}

impl fmt::Display for NginxSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

/// Two settings of a list that contradict each other.
pub fn contradiction<'a>(
    settings: impl IntoIterator<Item = &'a NginxSetting> + Clone,
) -> Option<(&'a NginxSetting, &'a NginxSetting)> {
    let all = settings.clone();
    settings.into_iter().find_map(|one| {
        let other = all.clone().into_iter().find(|other| one.contradicts(other))?;
        Some((one, other))
    })
}

/// What a line of kong.conf gives nginx, one setting for each directive in it. Nothing for a key of another kind.
pub fn settings_of(key: &str, value: &str) -> BTreeSet<NginxSetting> {
    let split = key.strip_prefix("nginx_").and_then(|rest| rest.split_once('_'));
    let Some((block, _)) = split.filter(|(block, _)| BLOCKS.contains(block)) else { return BTreeSet::new() };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for (at, part) in value.split(';').map(words).enumerate().filter(|(_, part)| !part.is_empty()) {
        let (key, value) = match (at, part.split_once(' ')) {
            (0, _) => (key.to_owned(), part),
            (_, Some((directive, value))) => (format!("nginx_{block}_{directive}"), value.to_owned()),
            (_, None) => (format!("nginx_{block}_{part}"), String::new()),
        };
        found.insert(NginxSetting { key, value });
    }
    found
}

fn invalid(message: String) -> Fault {
    Fault::new("NGINX_INVALID", message).hint("for example --nginx 'nginx_http_lua_shared_dict=my_cache 10m'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        let dict = NginxSetting::parse("nginx_http_lua_shared_dict =  my_cache\t10m ").unwrap();
        assert_eq!(dict.to_string(), "nginx_http_lua_shared_dict = my_cache 10m");
        assert_eq!((dict.directive(), dict.shared_dict()), ("lua_shared_dict", Some("my_cache")));
        for text in [
            "nginx_http_lua_shared_dict",
            "nginx_http_lua_shared_dict=",
            "nginx_http_lua_shared_dict=a 1m; lua_shared_dict b 1m",
            "nginx_http_lua_shared_dict=a 1m # b",
            "nginx_http_lua_shared_dict=a 1m\\",
            "nginx_http_lua_shared_dict={vault://env/x}",
            "nginx_http_=x",
            "nginx_nowhere_x=y",
            "nginx_http_X=y",
            "nginx_main_user=root",
            "nginx_main_daemon=off",
            "nginx_main_load_module=/tmp/x.so",
            "plugins=bundled",
        ] {
            assert_eq!(NginxSetting::parse(text).unwrap_err().code, "NGINX_INVALID", "{text}");
        }
    }

    #[test]
    fn one_of_a_kind_is_said_once() {
        let of = |text: &str| NginxSetting::parse(text).unwrap();
        let small = of("nginx_http_lua_shared_dict=a 1m");
        assert!(small.contradicts(&of("nginx_http_lua_shared_dict=a 2m")));
        assert!(!small.contradicts(&of("nginx_http_lua_shared_dict=b 2m")));
        assert!(!small.contradicts(&small));
        assert!(
            of("nginx_http_large_client_header_buffers=4 8k")
                .contradicts(&of("nginx_http_large_client_header_buffers=4 16k"))
        );
    }

    #[test]
    fn a_line_may_say_several() {
        let found = settings_of("nginx_http_lua_shared_dict", "a  1m; lua_shared_dict b 2m ; etag off;");
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "nginx_http_etag = off",
                "nginx_http_lua_shared_dict = a 1m",
                "nginx_http_lua_shared_dict = b 2m"
            ]
        );
        assert!(settings_of("nginx_user", "a b").is_empty() && settings_of("plugins", "a").is_empty());
    }
}
