//! Compiles the protobuf files with protox, so that no protoc is needed on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const TIMES: &[&str] =
    &["created_at", "finished_at", "started_at", "since", "last_seen", "installed_at", "opens_at"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    let files = [
        "kctl/v1/views.proto",
        "kctl/v1/services.proto",
        "kctl/agent/v1/agent.proto",
        "kctl/raft/v1/raft.proto",
    ];
    println!("cargo:rerun-if-changed={}", root.display());
    let set = protox::compile(files, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    // The public messages are the JSON shape too: snake_case names, numbers as numbers, RFC 3339 times.
    let mut config = tonic_prost_build::configure()
        .build_transport(true)
        .codec_path("crate::codec::Lean")
        .type_attribute(".kctl.v1", "#[derive(serde::Serialize, serde::Deserialize)]");
    for field in TIMES {
        config = config.field_attribute(field, "#[serde(with = \"crate::time::rfc3339\", default)]");
    }
    config.compile_fds(set)?;
    Ok(())
}
