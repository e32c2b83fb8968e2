//! The fields of a document, taken out one by one.
//!
//! Nothing stops at the first mistake: each field that is wrong is noted and read as
//! absent. What is left when all known fields are taken is unknown, and noted too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
};

use krb_proto::text::shown;
use serde_json::{Map, Value};

use super::problems::Problems;

/// The most entries of a list or a map.
const MAX_ENTRIES: usize = 10_000;

/// What is left of a mapping, and where it stands.
pub struct Fields<'a> {
    map: Map<String, Value>,
    place: &'a str,
    prefix: &'static str,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    /// The fields of a document; nothing and a note when it is no mapping.
    pub fn of(document: Value, place: &'a str, problems: &'a mut Problems) -> Option<Self> {
        let Value::Object(map) = document else {
            problems.add_whole(place, "is not a mapping of fields");
            return None;
        };
        Some(Self { map, place, prefix: "", problems })
    }

    /// The fields of a mapping in this one, if it is there.
    pub fn nested(&mut self, field: &'static str) -> Option<Fields<'_>> {
        match self.map.shift_remove(field)? {
            Value::Object(map) => {
                Some(Fields { map, place: self.place, prefix: field, problems: self.problems })
            }
            other => {
                self.note(field, format_args!("is {}, not a mapping", kind(&other)));
                None
            }
        }
    }

    /// A field that must be there with this text.
    pub fn constant(&mut self, field: &str, wanted: &str) {
        match self.map.shift_remove(field) {
            Some(Value::String(found)) if found == wanted => {}
            Some(_) => self.note(field, format_args!("is not {wanted}, the only kind there is")),
            None => self.note(field, "is missing"),
        }
    }

    /// A text that must be there.
    pub fn required<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        let Some(value) = self.map.shift_remove(field) else {
            self.note(field, "is missing");
            return None;
        };
        self.parse(field, &value)
    }

    /// A text, if it is there.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, field: &str) -> Option<T> {
        let value = self.map.shift_remove(field)?;
        self.parse(field, &value)
    }

    /// A number of at least 1 that must be there.
    pub fn required_number(&mut self, field: &str) -> Option<u32> {
        if !self.map.contains_key(field) {
            self.note(field, "is missing");
        }
        self.number(field)
    }

    /// A number of at least 1, if it is there.
    pub fn number(&mut self, field: &str) -> Option<u32> {
        let value = self.map.shift_remove(field)?;
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
        if number.is_none() {
            self.note(field, "is not a number from 1 to 4294967295");
        }
        number
    }

    /// `true` or `false`; absent means `false`.
    pub fn flag(&mut self, field: &str) -> bool {
        match self.map.shift_remove(field) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.note(field, "is neither true nor false");
                false
            }
        }
    }

    /// A list of texts, no two alike; absent means none.
    pub fn names<T: FromStr<Err: Display> + Ord>(&mut self, field: &str) -> BTreeSet<T> {
        let list = match self.map.shift_remove(field) {
            None => return BTreeSet::new(),
            Some(Value::Array(list)) if list.len() <= MAX_ENTRIES => list,
            Some(Value::Array(_)) => {
                self.note(field, format_args!("has more than {MAX_ENTRIES} entries"));
                return BTreeSet::new();
            }
            Some(other) => {
                self.note(field, format_args!("is {}, not a list", kind(&other)));
                return BTreeSet::new();
            }
        };
        let mut names = BTreeSet::new();
        for value in &list {
            let parsed = self.parse(field, value);
            if parsed.is_some_and(|name| !names.insert(name)) {
                self.note(field, format_args!("has {} twice", display(value)));
            }
        }
        names
    }

    /// A mapping of texts to texts; absent means none.
    pub fn labels(&mut self, field: &str) -> BTreeMap<String, String> {
        let map = match self.map.shift_remove(field) {
            None => return BTreeMap::new(),
            Some(Value::Object(map)) if map.len() <= MAX_ENTRIES => map,
            Some(_) => {
                self.note(field, "is not a mapping of texts to texts");
                return BTreeMap::new();
            }
        };
        let mut labels = BTreeMap::new();
        for (key, value) in map {
            match value {
                Value::String(value) => drop(labels.insert(key, value)),
                _ => self.note(field, format_args!("{:?} is not a text: quote it", shown(&key))),
            }
        }
        labels
    }

    /// Notes what nobody took.
    pub fn finish(mut self) {
        for field in std::mem::take(&mut self.map).keys() {
            self.note(&shown(field), "is not a field");
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, value: &Value) -> Option<T> {
        let Value::String(text) = value else {
            self.note(field, format_args!("{} is not a text: quote it", display(value)));
            return None;
        };
        let parsed = text.parse().map_err(|why| format!("{:?} {why}", shown(text)));
        parsed.map_err(|message| self.note(field, message)).ok()
    }

    fn note(&mut self, field: &str, message: impl Display) {
        if self.prefix.is_empty() {
            self.problems.add(self.place, field, message);
        } else {
            self.problems.add(self.place, &format!("{}.{field}", self.prefix), message);
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn display(value: &Value) -> String {
    shown(&value.to_string())
}
