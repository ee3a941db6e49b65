//! `kctl audit`: who changed what, and whether the chain of records holds.

use std::path::Path;

use kctl_shared::audit::{Record, verify};
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use kctl_shared::proto::v1::{AuditRecord, AuditRequest, AuditResponse};
use serde::Serialize;

use super::Verb;
use crate::cli::{AuditArgs, AuditCommand};
use crate::fail::Outcome;
use crate::output::{Printer, Table, time};

/// What `verify` found to hold: `{"records","first","last","head"}`.
#[derive(Serialize)]
struct Holds {
    records: usize,
    /// Numbers of the first and the last record that were looked at.
    first: u64,
    last: u64,
    /// Hash of the last; kept elsewhere, it proves later that nothing before it was changed.
    head: String,
}

pub async fn run(verb: &Verb, args: AuditArgs) -> Outcome {
    if let Some(AuditCommand::Verify { .. }) = args.command {
        let answer = ask(verb, AuditRequest::default()).await?;
        return prove(&verb.printer, answer.records, Some((answer.count, answer.head)));
    }
    let since_ms = args.since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let asked = AuditRequest { plugin: args.plugin, operation: args.operation, since_ms };
    let records = ask(verb, asked).await?.records;
    verb.printer.many(&records, |r| format!("record/{}", r.seq), |wide| table(&records, wide))
}

async fn ask(verb: &Verb, request: AuditRequest) -> Outcome<AuditResponse> {
    let answer = verb.client.call(|channel| {
        let request = request.clone();
        async move {
            let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
            Ok(client.audit(request).await?.into_inner())
        }
    });
    Ok(answer.await?)
}

/// Verifies what was written to a file before.
pub fn offline(printer: &Printer, args: &AuditArgs) -> Option<Outcome> {
    match &args.command {
        Some(AuditCommand::Verify { file: Some(file) }) => {
            Some(read(file).and_then(|r| prove(printer, r, None)))
        }
        _ => None,
    }
}

fn read(path: &Path) -> Outcome<Vec<AuditRecord>> {
    let bad = |why: String| {
        Fault::new("AUDIT_UNREADABLE", format!("{}: {why}", path.display()))
            .hint("name a file that kctl audit -o jsonl wrote")
    };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    if text.trim_start().starts_with('[') {
        return Ok(serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?);
    }
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    let records = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    Ok(records.map_err(|e: serde_json::Error| bad(e.to_string()))?)
}

/// `newest`: how many records there are, and the hash of the last, as the control plane has them.
fn prove(printer: &Printer, records: Vec<AuditRecord>, newest: Option<(u64, String)>) -> Outcome {
    let records = records.into_iter().map(Record::try_from).collect::<Result<Vec<_>, _>>()?;
    let broken = |why: String| {
        Fault::new("AUDIT_BROKEN", why)
            .hint("compare with an archive or another member: kctl audit verify --file FILE")
    };
    let head = verify(&records).map_err(|e| broken(e.to_string()))?;
    let (first, last) = (records.first().map_or(0, |r| r.seq), records.last().map_or(0, |r| r.seq));
    let head = head.map(|h| h.to_string()).unwrap_or_default();
    if let Some((count, newest)) = newest
        && (count != last || (count > 0 && newest != head))
    {
        return Err(broken(format!("record {last}: it is not the newest, which is record {count}")).into());
    }
    let holds = Holds { records: records.len(), first, last, head };
    printer.one(&holds, &format!("record/{last}"), || {
        format!("✔ {} records hold, {first} to {last}\n  head {}\n", holds.records, holds.head)
    })
}

fn table(records: &[AuditRecord], wide: bool) -> Table {
    let mut head: Vec<String> =
        ["SEQ", "TIME", "WHO", "WHAT", "ON", "REASON", "DETAIL"].map(str::to_owned).to_vec();
    if wide {
        head.extend(["REQUEST", "INDEX", "HASH"].map(str::to_owned));
    }
    let row = |r: &AuditRecord| {
        let on = [&r.plugin, &r.node, &r.operation, &r.member];
        let on: Vec<_> = on.into_iter().filter(|s| !s.is_empty()).map(String::as_str).collect();
        let mut row = vec![
            r.seq.to_string(),
            time(r.created_at.as_ref()),
            r.who.clone(),
            r.verb.clone(),
            on.join(" "),
            r.reason.clone(),
            r.detail.clone(),
        ];
        if wide {
            row.extend([r.request_id.clone(), r.index.to_string(), r.hash.clone()]);
        }
        row
    };
    std::iter::once(head).chain(records.iter().map(row)).collect()
}
