//! Generated protobuf messages and services.

#![allow(missing_debug_implementations, clippy::all)]

pub mod v1 {
    tonic::include_proto!("kctl.v1");
}

pub mod agent {
    tonic::include_proto!("kctl.agent.v1");
}

pub mod raft {
    tonic::include_proto!("kctl.raft.v1");
}

/// Encoded `FileDescriptorSet` of all of the above, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
