//! `kctl cluster`: members, who leads, backups.

mod backup;
mod members;

use crate::cli::ClusterCommand;
use crate::fail::Outcome;
use crate::output::Printer;

use super::{Verb, read};

/// Verbs that ask no member.
pub fn offline(printer: &Printer, command: &ClusterCommand) -> Option<Outcome> {
    match command {
        ClusterCommand::Inspect { file } => Some(backup::inspect(printer, file)),
        ClusterCommand::Restore(args) => Some(backup::restore(printer, args)),
        _ => None,
    }
}

pub async fn run(verb: &Verb, command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Status => read::cluster(verb).await,
        ClusterCommand::Members => members::list(verb).await,
        ClusterCommand::Join { address, change } => members::join(verb, address, change).await,
        ClusterCommand::Remove { id, change, yes } => members::remove(verb, id, change, yes).await,
        ClusterCommand::TransferLeader { id } => members::transfer(verb, id).await,
        ClusterCommand::Backup { file, force } => backup::write(verb, &file, force).await,
        ClusterCommand::Inspect { .. } | ClusterCommand::Restore(_) => {
            offline(&verb.printer, &command).unwrap_or(Ok(()))
        }
    }
}
