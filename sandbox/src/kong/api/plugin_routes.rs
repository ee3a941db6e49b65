//! Admin API routes that plugins bring along.

use std::rc::Rc;

use axum::response::Response;

use crate::kong::lua::{Paused, drive};
use crate::kong::nginx::Incoming;
use crate::kong::node::Node;
use crate::kong::proxy::LuaRequest;

/// Lets the plugins' `api.lua` answer; `None` when none of them knows the path.
pub async fn call(node: &Rc<Node>, request: &Incoming) -> Option<Response> {
    let lua_request = LuaRequest::new(node, request, None).ok()?;
    let thread = node.engine.coroutine("api").ok()?;
    match drive(&thread, lua_request.table()).await {
        Paused::Finished(values) => {
            let known = values.into_iter().next().and_then(|value| value.as_boolean()).unwrap_or(true);
            known.then(|| lua_request.response())
        }
        Paused::Failed(error) => {
            crate::kong::log::write(
                "error",
                &format!("*2 [lua] api_helpers.lua:526: handle_error(): {error}"),
            );
            Some(super::json_response(500, &serde_json::json!({"message": "An unexpected error occurred"})))
        }
        Paused::Exited | Paused::Sleeping(_) => Some(lua_request.response()),
    }
}
