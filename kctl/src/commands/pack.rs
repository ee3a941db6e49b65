//! `kctl plugin pack`: a plugin as one file that LuaRocks, tar and kctl itself take.

use std::path::{Path, PathBuf};

use kctl_shared::fault::Fault;
use kctl_shared::package::{Package, rock};
use serde::Serialize;

use super::lint;
use crate::cli::{PackArgs, PackFormat};
use crate::fail::Outcome;
use crate::output::Printer;

#[derive(Serialize)]
struct Packed {
    plugin: String,
    version: String,
    /// Of the release; the file's own bytes may differ between formats.
    digest: String,
    file: PathBuf,
    /// Bytes of the file.
    size: u64,
    files: Vec<String>,
    /// What travels with it beside its own directory, relative to a Lua root.
    modules: Vec<String>,
    left_out: Vec<String>,
    /// Directives that nginx has to be given for it, as settings of kong.conf.
    nginx: Vec<String>,
}

pub fn run(printer: &Printer, args: &PackArgs) -> Outcome {
    let loaded = lint::take(&args.source)?;
    lint::pass(&loaded, &args.judge, &[args.judge.kong.unwrap_or_default()])?;
    let package = loaded.package;
    let unpacked = |e: std::io::Error| Fault::new("PACK_FAILED", e.to_string());
    let (bytes, suffix) = match args.format {
        PackFormat::Rock => (rock::rock(&package).map_err(unpacked)?, "all.rock"),
        PackFormat::TarGz => (rock::archive(&package).map_err(unpacked)?, "tar.gz"),
    };
    let file = args.file.clone().unwrap_or_else(|| format!("{}.{suffix}", rock::stem(&package)).into());
    write(&file, &bytes)?;
    let packed = describe(&package, file, bytes.len());
    printer.one(&packed, &packed.file.display().to_string(), || {
        let with = packed.modules.iter().map(|path| format!("  with       {path}\n"));
        let needs = packed.nginx.iter().map(|setting| format!("  needs      {setting}\n"));
        let left = packed.left_out.iter().map(|path| format!("  left out   {path}\n"));
        format!(
            "✔ packed     {} {}   {} files, {:.1} KiB   {}\n{}  {}\n",
            packed.plugin,
            packed.version,
            packed.files.len(),
            packed.size as f64 / 1024.0,
            packed.digest,
            with.chain(needs).chain(left).collect::<String>(),
            packed.file.display()
        )
    })
}

fn describe(package: &Package, file: PathBuf, size: usize) -> Packed {
    Packed {
        plugin: package.plugin.to_string(),
        version: package.version.clone(),
        digest: package.digest().to_string(),
        file,
        size: size as u64,
        files: package.files.iter().map(|f| f.entry.path.clone()).collect(),
        modules: package.extras.iter().map(|f| f.entry.path.clone()).collect(),
        left_out: package.left_out.clone(),
        nginx: package.nginx().unwrap_or_default().iter().map(ToString::to_string).collect(),
    }
}

/// The whole file or none.
fn write(path: &Path, bytes: &[u8]) -> Outcome {
    let failed = |e: std::io::Error| {
        Fault::new("PACK_FAILED", format!("{}: {e}", path.display())).hint("choose another place with --file")
    };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut part = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    std::io::Write::write_all(&mut part, bytes).map_err(failed)?;
    part.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
