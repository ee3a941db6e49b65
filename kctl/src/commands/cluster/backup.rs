//! `backup | inspect | restore`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use kctl_control_plane::backup::{Manifest, read, restore::Wish, restore::restore as make};
use kctl_control_plane::config::Config;
use kctl_shared::fault::Fault;
use kctl_shared::proto::v1::BackupRequest;
use kctl_shared::proto::v1::cluster_service_client::ClusterServiceClient;
use serde::Serialize;

use crate::cli::RestoreArgs;
use crate::commands::Verb;
use crate::fail::Outcome;
use crate::output::Printer;

/// What `-o json` says of a backup: `{"file","bytes","manifest":{…}}`.
#[derive(Serialize)]
struct Told<'a> {
    file: String,
    bytes: u64,
    manifest: &'a Manifest,
}

fn not_written(path: &Path, e: impl std::fmt::Display) -> Fault {
    Fault::new("BACKUP_NOT_WRITTEN", format!("{}: {e}", path.display()))
        .hint("check the directory and its disk")
}

/// Written beside its place, read back and compared, then put there: a file that is there is whole.
pub async fn write(verb: &Verb, path: &Path, force: bool) -> Outcome {
    if path.exists() && !force {
        return Err(Fault::new("BACKUP_EXISTS", format!("{} is there already", path.display()))
            .hint("give another name, or --force to replace it")
            .into());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut part = tempfile::Builder::new()
        .prefix(".kctl-backup-")
        .tempfile_in(parent)
        .map_err(|e| not_written(path, e))?;
    let mut stream = verb
        .client
        .call(|channel| async move {
            Ok(ClusterServiceClient::new(channel).backup(BackupRequest {}).await?.into_inner())
        })
        .await?;
    while let Some(chunk) = stream.message().await.map_err(|s| Fault::from_status(&s).0)? {
        part.write_all(&chunk.data).map_err(|e| not_written(path, e))?;
    }
    part.as_file().sync_all().map_err(|e| not_written(path, e))?;
    let whole = read::inspect(part.path())?;
    part.persist(path).map_err(|e| not_written(path, e.error))?;
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| not_written(path, e))?;
    tell(&verb.printer, path, &whole.manifest)
}

pub fn inspect(printer: &Printer, path: &Path) -> Outcome {
    let whole = read::inspect(path)?;
    tell(printer, path, &whole.manifest)
}

fn tell(printer: &Printer, path: &Path, manifest: &Manifest) -> Outcome {
    let bytes = std::fs::metadata(path)?.len();
    let told = Told { file: path.display().to_string(), bytes, manifest };
    printer.one(&told, &format!("backup/{}", path.display()), || {
        let m = manifest;
        let mut out = format!(
            "✔ {} is whole: {bytes} bytes, written {} by kctl {}\n  epoch {}, log index {}, {} nodes, {} releases\n",
            path.display(),
            m.created_at,
            m.kctl,
            m.epoch,
            m.index,
            m.nodes,
            m.releases
        );
        for p in &m.plugins {
            out.push_str(&format!("  {} {} in group {}   {}\n", p.name, p.version, p.group, p.digest));
        }
        for id in &m.live_operations {
            out.push_str(&format!("  operation {id} had not ended; restoring aborts it\n"));
        }
        out
    })
}

pub fn restore(printer: &Printer, args: &RestoreArgs) -> Outcome {
    let config = Config::load(&args.config)?;
    let wish = Wish {
        id: config.id,
        data_dir: args.data_dir.clone().unwrap_or_else(|| config.data_dir.clone()),
        members: config.members()?,
        epoch: args.epoch,
    };
    let done = make(&args.file, &wish)?;
    printer.one(&done, &format!("member/{}", done.member), || {
        let mut out = format!(
            "✔ member {} of a new cluster is in {} (epoch {}, the backup's was {})\n",
            done.member,
            done.data_dir.display(),
            done.epoch,
            done.former_epoch
        );
        for id in &done.aborted {
            out.push_str(&format!("  operation {id} had not ended and is aborted\n"));
        }
        if done.members.len() > 1 {
            out.push_str(&format!(
                "  on each of the other members: kctl cluster restore {} --epoch {} --config ITS-CONFIGURATION\n",
                args.file.display(),
                done.epoch
            ));
        }
        out.push_str("  start it, then let the agents go over to it: kctl node approve --all-nodes\n");
        out
    })
}
