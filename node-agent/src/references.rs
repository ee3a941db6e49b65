//! What refers to a plugin, looked for once when somebody asks: beside the spec, without a lease, changing nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kctl_shared::name::PluginName;
use kctl_shared::proto::agent as pb;
use kctl_shared::spec::{Entity, Failure};
use tokio::sync::Semaphore;

use crate::gateway::Gateway;

/// Whoever asks has forgotten the question by then.
const LIMIT: Duration = Duration::from_secs(4);
/// Of [`LIMIT`], for names: what is left without one is shown by its id.
const NAMING: Duration = Duration::from_secs(1);
/// Entities in an answer; about 200 KiB.
const LISTED: usize = 1_000;
/// Things that are looked up by name for one answer; more than a person reads.
const NAMED: usize = 20;
/// Questions that are worked on at once: each is a scan of all pages.
const AT_ONCE: usize = 1;

/// Answers questions about references; clones share the limits.
#[derive(Clone)]
pub struct References {
    gateway: Arc<dyn Gateway>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("References")
    }
}

impl References {
    pub fn new(gateway: Arc<dyn Gateway>) -> Self {
        Self { gateway, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Within a few seconds, whatever Kong does.
    pub async fn find(&self, asked: &pb::FindReferences) -> pb::References {
        let found = match tokio::time::timeout(LIMIT, self.scan(&asked.plugin)).await {
            Ok(found) => found,
            Err(_) => {
                let message = format!("the Admin API did not list its plugins within {LIMIT:?}");
                Err(Failure::new("ADMIN_API_UNREACHABLE", message))
            }
        };
        let entities = match found {
            Ok(entities) => entities,
            Err(why) => {
                return pb::References {
                    id: asked.id,
                    failure: Some((&why).into()),
                    ..pb::References::default()
                };
            }
        };
        let listed = &entities[..entities.len().min(LISTED)];
        let names = self.names(listed).await;
        pb::References {
            id: asked.id,
            total: u32::try_from(entities.len()).unwrap_or(u32::MAX),
            first: listed.iter().map(|e| reference(e, &names)).collect(),
            failure: None,
        }
    }

    async fn scan(&self, plugin: &str) -> Result<Vec<Entity>, Failure> {
        let plugin = PluginName::parse(plugin).map_err(|e| Failure::new(e.code, e.message))?;
        let _turn = self.turns.acquire().await;
        self.gateway.scan(&plugin).await
    }

    /// Names by what they are of, ("workspace", "route", id).
    async fn names(&self, entities: &[Entity]) -> BTreeMap<(String, String, String), String> {
        let mut wanted: Vec<(String, String, String)> = Vec::new();
        for entity in entities {
            let of = |(kind, id): (&str, &str)| (entity.workspace.clone(), kind.to_owned(), id.to_owned());
            for key in targets(&entity.target).map(of) {
                if wanted.len() < NAMED && !wanted.contains(&key) {
                    wanted.push(key);
                }
            }
        }
        let mut names = BTreeMap::new();
        let look = async {
            for key in wanted {
                if let Ok(Some(name)) = self.gateway.name_of(&key.0, &key.1, &key.2).await {
                    names.insert(key, name);
                }
            }
        };
        // Those that were found until then are kept.
        drop(tokio::time::timeout(NAMING, look).await);
        names
    }
}

/// (kind, id) of each part of `route=<id>,consumer=<id>`.
fn targets(target: &str) -> impl Iterator<Item = (&str, &str)> {
    target.split(',').filter_map(|part| part.split_once('='))
}

fn reference(entity: &Entity, names: &BTreeMap<(String, String, String), String>) -> pb::Reference {
    let attached_to = targets(&entity.target).map(|(kind, id)| {
        let key = (entity.workspace.clone(), kind.to_owned(), id.to_owned());
        format!("{} {}", kind.replace('_', " "), names.get(&key).map_or(id, String::as_str))
    });
    pb::Reference { attached_to: attached_to.collect(), entity: Some(entity.into()) }
}
