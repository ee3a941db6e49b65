//! Which route a request belongs to: by host, path and method.

use http::header::HOST;
use regex::Regex;
use serde_json::Value;

use crate::kong::db::Data;
use crate::kong::nginx::Incoming;

/// All routes of a node, the most specific first.
#[derive(Debug, Default)]
pub struct Router {
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    route: Value,
    service: Value,
    hosts: Vec<String>,
    paths: Vec<Pattern>,
    methods: Vec<String>,
}

#[derive(Debug)]
enum Pattern {
    Prefix(String),
    Regex(Regex),
}

/// What a request matched.
#[derive(Debug, Clone)]
pub struct Match {
    /// The route entity.
    pub route: Value,
    /// The service entity; null for a route without one.
    pub service: Value,
    /// The part of the path that the route's own path took.
    pub matched: String,
}

impl Router {
    /// Builds a router over the entities of a datastore.
    pub fn build(data: &Data) -> Self {
        let mut routes: Vec<Route> = data
            .all("routes")
            .map(|route| {
                let service = route["service"]["id"].as_str().and_then(|id| data.find("services", id));
                Route {
                    route: route.clone(),
                    service: service.cloned().unwrap_or_default(),
                    hosts: strings(&route["hosts"]),
                    paths: strings(&route["paths"]).into_iter().filter_map(Pattern::new).collect(),
                    methods: strings(&route["methods"]),
                }
            })
            .filter(|route| route.service.is_null() || route.service["enabled"] != false)
            .collect();
        // More criteria first, then longer paths, then the older route.
        routes.sort_by_key(|route| {
            let criteria = [!route.hosts.is_empty(), !route.paths.is_empty(), !route.methods.is_empty()]
                .map(usize::from);
            let longest = route.paths.iter().map(Pattern::weight).max().unwrap_or_default();
            let created = route.route["created_at"].as_i64().unwrap_or_default();
            (std::cmp::Reverse(criteria.iter().sum::<usize>()), std::cmp::Reverse(longest), created)
        });
        Self { routes }
    }

    /// The first route that fits.
    pub fn find(&self, request: &Incoming) -> Option<Match> {
        let host = request.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        let path = request.parts.uri.path();
        let method = request.parts.method.as_str();
        self.routes.iter().find_map(|route| {
            let fits = (route.hosts.is_empty()
                || route.hosts.iter().any(|pattern| host_fits(pattern, &host)))
                && (route.methods.is_empty() || route.methods.iter().any(|wanted| wanted == method));
            if !fits {
                return None;
            }
            let matched = if route.paths.is_empty() {
                String::new()
            } else {
                route.paths.iter().filter_map(|pattern| pattern.matched(path)).max_by_key(String::len)?
            };
            Some(Match { route: route.route.clone(), service: route.service.clone(), matched })
        })
    }
}

impl Pattern {
    fn new(path: String) -> Option<Self> {
        match path.strip_prefix('~') {
            Some(regex) => Regex::new(&format!("^(?:{regex})")).ok().map(Self::Regex),
            None => Some(Self::Prefix(path)),
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Prefix(prefix) => prefix.len(),
            Self::Regex(_) => usize::MAX,
        }
    }

    fn matched(&self, path: &str) -> Option<String> {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()).then(|| prefix.clone()),
            Self::Regex(regex) => regex.find(path).map(|found| found.as_str().to_owned()),
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn host_fits(pattern: &str, host: &str) -> bool {
    if let Some(suffix) = pattern.strip_prefix('*') {
        return host.ends_with(suffix);
    }
    if let Some(prefix) = pattern.strip_suffix('*') {
        return host.starts_with(prefix);
    }
    pattern.eq_ignore_ascii_case(host)
}
