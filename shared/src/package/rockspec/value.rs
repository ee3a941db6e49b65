//! What a run of a rockspec leaves behind: its globals, as plain values.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    Text(String),
    Number(f64),
    Bool(bool),
    /// In Lua's order: the list part first.
    Table(Vec<(Key, Value)>),
    /// Anything else; Lua's name of its type.
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    Name(String),
    /// From 1, as Lua counts.
    Index(i64),
}

/// The globals of a rockspec that was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub globals: Vec<(String, Value)>,
    /// Names that were read although nothing had assigned them.
    pub undefined: Vec<String>,
}

impl Evaluated {
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.globals.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
}

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn table(&self) -> Option<&[(Key, Self)]> {
        match self {
            Self::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// The field of a table.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.table()?.iter().find(|(key, _)| matches!(key, Key::Name(n) if n == name)).map(|(_, value)| value)
    }

    /// Lua's name of its type.
    pub fn kind(&self) -> &str {
        match self {
            Self::Text(_) => "string",
            Self::Number(_) => "number",
            Self::Bool(_) => "boolean",
            Self::Table(_) => "table",
            Self::Other(kind) => kind,
        }
    }
}
