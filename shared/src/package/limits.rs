//! How much a package may be, and why that much.

/// Every bound a reader obeys. Together they keep the memory of packing and of checking an artifact below 64 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files of one release. Large public plugins have about a hundred.
    pub max_files: usize,
    /// Bytes of all files of one release. An artifact is held in memory when it is checked, sent and stored.
    pub max_total_bytes: u64,
    /// Bytes of one file. LuaJIT itself refuses a chunk with more than 65 536 constants long before this.
    pub max_file_bytes: u64,
    /// Entries of an archive or directory, directories and foreign files included: a plugin's repository with its tests.
    pub max_entries: usize,
    /// Bytes of one path, as ext4, xfs and Kong's own `lua_package_path` handling can bear without surprises.
    pub max_path: usize,
    /// Bytes of an archive as it comes: more than this is no Lua plugin.
    pub max_compressed: u64,
    /// Bytes that unpacking may yield, foreign files included: what stops a decompression bomb.
    pub max_unpacked: u64,
    /// Bytes of an archive inside an archive (a source rock holds one).
    pub max_inner: u64,
}

impl Limits {
    /// Bytes of an artifact, its headers and padding included.
    pub fn max_artifact(&self) -> u64 {
        self.max_total_bytes.saturating_mul(2)
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            max_files: 2_000,
            max_total_bytes: 12 * MIB,
            max_file_bytes: 4 * MIB,
            max_entries: 20_000,
            max_path: 255,
            max_compressed: 32 * MIB,
            max_unpacked: 128 * MIB,
            max_inner: 8 * MIB,
        }
    }
}
