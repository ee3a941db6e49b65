//! `pause | resume | promote | retry | excuse | abort`: ask the leader, then watch or say what comes next.

use std::future::Future;

use kctl_shared::proto::v1::operation_service_client::OperationServiceClient;
use kctl_shared::proto::v1::{ExcuseRequest, OperationView, RetryRequest, StepInRequest};
use tonic::{Response, Status};

use super::{describe, several};
use crate::cli::{FollowArgs, StepInArgs};
use crate::client::Connection;
use crate::commands::Verb;
use crate::commands::install::parse_request_id;
use crate::fail::Outcome;
use crate::progress;

type Client = OperationServiceClient<Connection>;

fn request(args: &StepInArgs) -> Outcome<StepInRequest> {
    Ok(StepInRequest {
        request_id: parse_request_id(args.request_id.as_deref())?,
        id: args.id.clone(),
        reason: args.reason.clone(),
        dry_run: args.dry_run,
    })
}

async fn ask<R, F>(verb: &Verb, request: R, call: impl Fn(Client, R) -> F) -> Outcome<OperationView>
where
    R: Clone,
    F: Future<Output = Result<Response<OperationView>, Status>>,
{
    let sent = verb.client.call(|channel| {
        let answer = call(Client::new(channel), request.clone());
        async move { Ok(answer.await?.into_inner()) }
    });
    Ok(sent.await?)
}

pub async fn pause(verb: &Verb, args: StepInArgs) -> Outcome {
    let view = ask(verb, request(&args)?, |mut c, r| async move { c.pause(r).await }).await?;
    told(verb, &view, &args, &format!("paused; go on: kctl operation resume {}", args.id))
}

pub async fn excuse(verb: &Verb, args: StepInArgs, node: String) -> Outcome {
    let wish = ExcuseRequest { step_in: Some(request(&args)?), node: node.clone() };
    let view = ask(verb, wish, |mut c, r| async move { c.excuse(r).await }).await?;
    let next = if view.phase == "Paused" {
        format!("; go on: kctl operation resume {}", args.id)
    } else {
        String::new()
    };
    told(verb, &view, &args, &format!("goes on without {node}{next}"))
}

pub async fn resume(verb: &Verb, args: FollowArgs) -> Outcome {
    let view = ask(verb, request(&args.step_in)?, |mut c, r| async move { c.resume(r).await }).await?;
    follow(verb, view, &args, "goes on").await
}

pub async fn promote(verb: &Verb, args: FollowArgs) -> Outcome {
    let view = ask(verb, request(&args.step_in)?, |mut c, r| async move { c.promote(r).await }).await?;
    follow(verb, view, &args, "promoted").await
}

pub async fn retry(verb: &Verb, args: FollowArgs, failed_only: bool) -> Outcome {
    let wish = RetryRequest { step_in: Some(request(&args.step_in)?), failed_only };
    let view = ask(verb, wish, |mut c, r| async move { c.retry(r).await }).await?;
    follow(verb, view, &args, "tries again").await
}

/// Ends well when everything is as before: that is what was asked for.
pub async fn abort(verb: &Verb, args: FollowArgs) -> Outcome {
    let view = call_off(verb, request(&args.step_in)?).await?;
    follow(verb, view, &args, "called off").await
}

pub async fn call_off(verb: &Verb, request: StepInRequest) -> Outcome<OperationView> {
    ask(verb, request, |mut c, r| async move { c.abort(r).await }).await
}

/// A batch was named, and the view is of the first of its operations.
fn is_of_batch(view: &OperationView, args: &StepInArgs) -> bool {
    view.batch == args.id
}

fn told(verb: &Verb, view: &OperationView, args: &StepInArgs, what: &str) -> Outcome {
    verb.printer.one(view, &view.id, || {
        let named = if is_of_batch(view, args) { "batch" } else { "operation" };
        if args.dry_run { describe(view) } else { format!("{named} {} {what}\n", args.id) }
    })
}

async fn follow(verb: &Verb, view: OperationView, args: &FollowArgs, what: &str) -> Outcome {
    if args.detach || args.step_in.dry_run {
        return told(verb, &view, &args.step_in, what);
    }
    let views = if is_of_batch(&view, &args.step_in) {
        several::of_batch(verb, &view.batch).await?
    } else {
        vec![view]
    };
    let views = several::follow(verb, &views, args.progress, args.timeout, progress::is_done).await?;
    several::show(verb, &args.step_in.id, &views)?;
    if what == "called off" && views.iter().all(|view| view.phase == "Aborted") {
        return Ok(());
    }
    progress::verdicts(&views)
}
