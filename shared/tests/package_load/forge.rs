//! Archives written by hand, so that they can lie.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use kctl_shared::package::{Evaluated, Evaluator, Key, LoadOptions, Package, PackageError, Value, load};

pub const HANDLER: &str =
    "local H = { PRIORITY = 1000, VERSION = \"1.2.0\" }\nfunction H:access(conf) end\nreturn H\n";
pub const SCHEMA: &str =
    "return { name = \"probe\", fields = { { config = { type = \"record\", fields = {} } } } }\n";

/// The plugin `probe`, below `prefix` (which ends with a slash or is empty).
pub fn probe(prefix: &str) -> Vec<(String, Vec<u8>)> {
    vec![
        (format!("{prefix}handler.lua"), HANDLER.into()),
        (format!("{prefix}schema.lua"), SCHEMA.into()),
        (format!("{prefix}sub/x.lua"), b"return {}\n".to_vec()),
    ]
}

/// Loads bytes as a file of that name.
pub fn load_bytes(name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Package, PackageError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    load(&path, options, &Lua)
}

/// Runs rockspecs as kctl does, but in this process: what is tested here is what is made of them.
#[derive(Debug)]
pub struct Lua;

impl Evaluator for Lua {
    fn evaluate(&self, name: &str, source: &[u8]) -> Result<Evaluated, PackageError> {
        let invalid =
            |e: mlua::Error| PackageError::new("ROCKSPEC_INVALID", format!("{name}: {e}").replace('\n', " "));
        let lua = mlua::Lua::new();
        let globals = lua.create_table().map_err(invalid)?;
        lua.load(source).set_environment(globals.clone()).exec().map_err(invalid)?;
        let all = plain(&mlua::Value::Table(globals));
        let named = |(key, value)| match key {
            Key::Name(name) => Some((name, value)),
            Key::Index(_) => None,
        };
        let globals = match all {
            Value::Table(entries) => entries.into_iter().filter_map(named).collect(),
            _ => Vec::new(),
        };
        Ok(Evaluated { globals, undefined: Vec::new() })
    }
}

fn plain(value: &mlua::Value) -> Value {
    match value {
        mlua::Value::String(text) => Value::Text(text.to_string_lossy()),
        mlua::Value::Boolean(flag) => Value::Bool(*flag),
        mlua::Value::Table(table) => {
            let entries = table.pairs::<mlua::Value, mlua::Value>().map(|entry| {
                let (key, value) = entry.unwrap();
                let key = match key {
                    mlua::Value::Integer(n) => Key::Index(n),
                    key => Key::Name(key.to_string().unwrap()),
                };
                (key, plain(&value))
            });
            Value::Table(entries.collect())
        }
        other => other.as_f64().map_or_else(|| Value::Other(other.type_name().into()), Value::Number),
    }
}

pub fn write_tree(dir: &Path, files: &[(String, Vec<u8>)]) -> PathBuf {
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir.to_owned()
}

/// An error as a person and a program need it: the code that was promised, one sentence, and a way on.
pub fn assert_refused(case: &str, result: Result<Package, PackageError>, code: &str) {
    let error = match result {
        Err(error) => error,
        Ok(package) => {
            panic!("{case}: taken as {} {}, not refused with {code}", package.plugin, package.version)
        }
    };
    assert_eq!(error.code, code, "{case}: {}", error.message);
    assert!(
        !error.message.is_empty() && !error.message.contains(['\n', '\0', '\x1b']),
        "{case}: {:?}",
        error.message
    );
    assert!(!error.hint.is_empty(), "{case}: {} has no hint", error.code);
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed zeros, many times over: gzip members may follow each other.
pub fn zeros_gz(mib: usize) -> Vec<u8> {
    const MEMBER: usize = 64;
    gz(&vec![0; MEMBER << 20]).repeat(mib.div_ceil(MEMBER))
}

#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// One tar header, all fields free.
#[derive(Clone)]
pub struct Header<'a> {
    pub name: &'a [u8],
    pub kind: u8,
    pub mode: u32,
    pub size: u64,
    pub link: &'a [u8],
}

impl<'a> Header<'a> {
    pub fn file(name: &'a [u8], size: u64) -> Self {
        Self { name, kind: b'0', mode: 0o644, size, link: b"" }
    }

    pub fn bytes(&self) -> [u8; 512] {
        let mut b = [0; 512];
        b[..self.name.len()].copy_from_slice(self.name);
        b[100..108].copy_from_slice(format!("{:07o}\0", self.mode).as_bytes());
        b[108..116].copy_from_slice(b"0000000\0");
        b[116..124].copy_from_slice(b"0000000\0");
        if self.size < 1 << 33 {
            b[124..136].copy_from_slice(format!("{:011o}\0", self.size).as_bytes());
        } else {
            b[124] = 0x80;
            b[128..136].copy_from_slice(&self.size.to_be_bytes());
        }
        b[136..148].copy_from_slice(b"00000000000\0");
        b[156] = self.kind;
        b[157..157 + self.link.len()].copy_from_slice(self.link);
        b[257..265].copy_from_slice(b"ustar\x0000");
        b[148..156].copy_from_slice(b"        ");
        let sum: u32 = b.iter().map(|b| u32::from(*b)).sum();
        b[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        b
    }
}

impl Tar {
    /// The plugin `probe`, to which something evil is added.
    pub fn probe() -> Self {
        Self::of(&probe("kong/plugins/probe/"))
    }

    pub fn of(files: &[(String, Vec<u8>)]) -> Self {
        files.iter().fold(Self::default(), |tar, (path, bytes)| tar.file(path.as_bytes(), bytes))
    }

    pub fn header(mut self, header: &Header<'_>) -> Self {
        self.0.extend_from_slice(&header.bytes());
        self
    }

    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &[u8], bytes: &[u8]) -> Self {
        self.header(&Header::file(name, bytes.len() as u64)).data(bytes)
    }

    /// An entry without content, of any type.
    pub fn odd(self, name: &[u8], kind: u8, link: &[u8]) -> Self {
        self.header(&Header { kind, link, ..Header::file(name, 0) })
    }

    /// An extended header before the next entry.
    pub fn extension(self, kind: u8, body: &[u8]) -> Self {
        self.header(&Header { kind, ..Header::file(b"extension", body.len() as u64) }).data(body)
    }

    pub fn pax(self, key: &str, value: &[u8]) -> Self {
        self.extension(b'x', &record(key, value))
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub fn tgz(self) -> Vec<u8> {
        gz(&self.end())
    }
}

/// One pax record; its length counts itself.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (1..).find(|d| format!("{}", body + d).len() == *d).map(|d| body + d).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A zip entry, all fields free.
#[derive(Clone)]
pub struct Member {
    pub name: Vec<u8>,
    /// As it lies in the archive.
    pub data: Vec<u8>,
    pub method: u16,
    pub mode: u32,
    pub flags: u16,
    pub crc: u32,
    pub size: u32,
    /// In the local header, if other than the name.
    pub local_name: Option<Vec<u8>>,
    /// Where the list says that the entry is, if elsewhere.
    pub offset: Option<u32>,
}

impl Member {
    pub fn stored(name: &[u8], bytes: &[u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        Self {
            name: name.to_vec(),
            data: bytes.to_vec(),
            method: 0,
            mode: 0o100_644,
            flags: 0,
            crc: crc.sum(),
            size: u32::try_from(bytes.len()).unwrap(),
            local_name: None,
            offset: None,
        }
    }

    pub fn deflated(name: &[u8], bytes: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        Self { data: encoder.finish().unwrap(), method: 8, ..Self::stored(name, bytes) }
    }
}

pub fn probe_members(prefix: &str) -> Vec<Member> {
    probe(prefix).iter().map(|(p, b)| Member::deflated(p.as_bytes(), b)).collect()
}

pub fn zip(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut list = Vec::new();
    for m in members {
        let at = u32::try_from(out.len()).unwrap();
        let packed = u32::try_from(m.data.len()).unwrap();
        let name = m.local_name.as_ref().unwrap_or(&m.name);
        let middle: Vec<u8> = [
            &m.flags.to_le_bytes()[..],
            &m.method.to_le_bytes(),
            &[0; 4],
            &m.crc.to_le_bytes(),
            &packed.to_le_bytes(),
            &m.size.to_le_bytes(),
        ]
        .concat();
        out.extend([b"PK\x03\x04", &20u16.to_le_bytes()[..], &middle].concat());
        out.extend([&(name.len() as u16).to_le_bytes()[..], &[0; 2], name, &m.data].concat());
        list.extend([b"PK\x01\x02", &[20, 3, 20, 0][..], &middle].concat());
        list.extend([&(m.name.len() as u16).to_le_bytes()[..], &[0; 8]].concat());
        list.extend(
            [&(m.mode << 16).to_le_bytes()[..], &m.offset.unwrap_or(at).to_le_bytes(), &m.name].concat(),
        );
    }
    let (start, size, count) = (out.len() as u32, list.len() as u32, (members.len() as u16).to_le_bytes());
    out.extend(list);
    out.extend(
        [b"PK\x05\x06", &[0; 4][..], &count, &count, &size.to_le_bytes(), &start.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    out
}
