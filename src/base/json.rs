//! A strict JSON reader for what strangers send: no duplicate members, bounded depth and width, no
//! trailing bytes (rows J14, J16, J18, O18). `serde_json` alone lets the last duplicate win.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::error::ParseError;

const DEPTH: usize = 16;
/// Most members of one object.
pub(crate) const MEMBERS: usize = 256;
/// Reads a member of a whole text's object, for readers that take their members one by one.
pub(crate) const MEMBER: Level = Level(DEPTH - 1);

/// Reads one JSON value that takes up the whole input.
pub(crate) fn parse(text: &[u8]) -> Result<Value, ParseError> {
    serde_json::from_slice::<Strict>(text).map(|strict| strict.0).map_err(|_| ParseError::new("JSON value"))
}

/// Reads one JSON object that takes up the whole input.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, ParseError> {
    match parse(text)? {
        Value::Object(members) => Ok(members),
        _ => Err(ParseError::new("JSON object")),
    }
}

/// Adds a member that must not be there yet (row J14).
pub(crate) fn insert<E: serde::de::Error>(
    members: &mut Map<String, Value>,
    name: String,
    value: Value,
) -> Result<(), E> {
    match members.insert(name, value) {
        None => Ok(()),
        Some(_) => Err(E::custom("duplicate member")),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Level(DEPTH).deserialize(deserializer).map(Strict)
    }
}

/// How many levels may still be opened.
#[derive(Clone, Copy)]
pub(crate) struct Level(usize);

impl Level {
    fn down<E: serde::de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Level).ok_or_else(|| E::custom("too deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let level = self.down()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(level)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let level = self.down()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() == MEMBERS {
                return Err(A::Error::custom("too many members"));
            }
            insert(&mut members, name, map.next_value_seed(level)?)?;
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_j14_duplicates_are_refused_at_every_level() {
        for text in
            [r#"{"a":1,"a":2}"#, r#"{"sub":1,"\u0073ub":2}"#, r#"{"x":{"y":1,"y":1}}"#, r#"[{"a":1,"a":1}]"#]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(parse(br#"{"a":{"a":1},"b":[null,true,1.5]}"#).unwrap()["a"]["a"], 1);
    }

    #[test]
    fn sec_j16_depth_and_width_are_bounded() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        parse(deep(16).as_bytes()).unwrap();
        parse(deep(17).as_bytes()).unwrap_err();
        parse("[".repeat(100_000).as_bytes()).unwrap_err();
        let wide =
            |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(","));
        parse(wide(256).as_bytes()).unwrap();
        parse(wide(257).as_bytes()).unwrap_err();
    }

    #[test]
    fn sec_j18_text_tricks() {
        for bad in
            [&b"\xef\xbb\xbf{}"[..], b"{} x", b"{}{}", b"\"\xff\"", br#""\ud800""#, b"", b"1e400", b"NaN"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        parse(b" {} \n").unwrap();
    }
}
