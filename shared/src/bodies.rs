//! Whole plugin entities on their way between an agent and the control plane: a JSON list, bounded.

use bytes::Bytes;

use crate::fault::Fault;
use crate::spec::Entity;

/// Longest list in bytes. Kong's own configurations are a few hundred bytes each.
pub const MAX_BODIES: usize = 32 << 20;

fn too_large(size: usize) -> Fault {
    Fault::new(
        "ENTITIES_TOO_LARGE",
        format!("{size} bytes of plugin configurations, at most {MAX_BODIES} are saved"),
    )
    .hint("delete some of the plugin's configurations in Kong first")
}

/// # Errors
/// `ENTITIES_TOO_LARGE`.
pub fn encode(entities: &[Entity]) -> Result<Bytes, Fault> {
    let bytes = serde_json::to_vec(entities).map_err(|e| Fault::new("INTERNAL", e.to_string()))?;
    check_size(bytes.len())?;
    Ok(bytes.into())
}

/// # Errors
/// `ENTITIES_TOO_LARGE`; `BAD_MESSAGE` for anything but whole entities, each once.
pub fn decode(bytes: &[u8]) -> Result<Vec<Entity>, Fault> {
    check_size(bytes.len())?;
    let bad = |why: String| Fault::new("BAD_MESSAGE", format!("saved entities: {why}"));
    let entities: Vec<Entity> = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    let mut ids = std::collections::BTreeSet::new();
    for entity in &entities {
        let body: serde_json::Value = serde_json::from_str(&entity.body).map_err(|e| bad(e.to_string()))?;
        if body.get("id").and_then(serde_json::Value::as_str) != Some(entity.id.as_str()) {
            return Err(bad(format!("the body of {:?} is of another one", entity.id)));
        }
        if !ids.insert(&entity.id) {
            return Err(bad(format!("{:?} is there twice", entity.id)));
        }
    }
    Ok(entities)
}

/// # Errors
/// `ENTITIES_TOO_LARGE`.
pub fn check_size(size: usize) -> Result<(), Fault> {
    if size > MAX_BODIES { Err(too_large(size)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(id: &str, body: &str) -> Entity {
        let text = str::to_owned;
        Entity {
            id: text(id),
            scope: text("global"),
            target: text(""),
            body: text(body),
            workspace: text(""),
        }
    }

    #[test]
    fn what_was_encoded_is_read_again_and_nothing_else_is() {
        let whole = [entity("a", r#"{"id":"a","name":"x"}"#), entity("b", r#"{"id":"b"}"#)];
        assert_eq!(decode(&encode(&whole).unwrap()).unwrap(), whole);
        for bad in [
            vec![entity("a", r#"{"id":"b"}"#)],
            vec![entity("a", "{")],
            vec![entity("a", r#"{"id":"a"}"#), entity("a", r#"{"id":"a"}"#)],
        ] {
            assert_eq!(decode(&encode(&bad).unwrap()).unwrap_err().code, "BAD_MESSAGE", "{bad:?}");
        }
        assert_eq!(decode(b"[{}]").unwrap_err().code, "BAD_MESSAGE");
        let large = [entity("a", &"x".repeat(MAX_BODIES))];
        assert_eq!(encode(&large).unwrap_err().code, "ENTITIES_TOO_LARGE");
    }
}
