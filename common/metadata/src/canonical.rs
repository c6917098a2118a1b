//! Canonical JSON, the form that is signed, and the strict reader for what arrives.
//!
//! Canonical form (reference "Fuchsia formats" §5): keys sorted by bytes, no whitespace, integers only, string escapes as
//! `serde_json` writes them. The reader refuses what makes one text mean two things: duplicate keys, floats, deep nesting.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits;

/// Why a value has no canonical form, or a text is not strict JSON. The text says where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A number is not a 64-bit integer.
    #[error("the number {0} is not an integer: signed metadata holds no floats")]
    Float(String),
    /// Arrays and objects are nested deeper than [`limits::JSON_DEPTH_MAX`].
    #[error("JSON is nested deeper than {} levels", limits::JSON_DEPTH_MAX)]
    Depth,
    /// Not JSON, or JSON with a duplicate key, a float, or too deep.
    #[error("not strict JSON: {0}")]
    Parse(String),
}

/// The canonical form of `value`.
///
/// # Errors
/// A float, or nesting beyond the limit.
pub fn encode(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::with_capacity(256);
    write(value, 0, &mut out)?;
    Ok(out)
}

fn write(value: &Value, depth: u64, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    if depth > limits::JSON_DEPTH_MAX {
        return Err(CanonicalError::Depth);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::Number(number) => return Err(CanonicalError::Float(number.to_string())),
        Value::String(text) => write_string(text, out)?,
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, depth + 1, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // Sorted here, not by the map: another crate of the build may switch serde_json to insertion order.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by(|left, right| left.0.cmp(right.0));
            out.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(key, out)?;
                out.push(b':');
                write(item, depth + 1, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    serde_json::to_writer(&mut *out, text).map_err(|e| CanonicalError::Parse(e.to_string()))
}

/// Reads JSON strictly: one value and nothing after it, no duplicate key in any object, no float, bounded depth.
///
/// # Errors
/// Says what is wrong and at which line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, CanonicalError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|e| CanonicalError::Parse(e.to_string()))?;
    reader.end().map_err(|e| CanonicalError::Parse(e.to_string()))?;
    Ok(value)
}

/// Builds a value while counting depth and refusing duplicates.
#[derive(Clone, Copy)]
struct Strict {
    depth: u64,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == limits::JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {} levels", limits::JSON_DEPTH_MAX)));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without floats")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Err(E::custom(format_args!("the number {value} is not a 64-bit integer")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} appears twice in one object")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_form_sorts_and_has_no_whitespace() {
        let value = json!({"b": [1, -2, true, null], "a": {"z": "\"\\\n\u{1}é", "y": u64::MAX}});
        assert_eq!(
            String::from_utf8(encode(&value).unwrap()).unwrap(),
            r#"{"a":{"y":18446744073709551615,"z":"\"\\\n\u0001é"},"b":[1,-2,true,null]}"#
        );
    }

    #[test]
    fn floats_have_no_canonical_form() {
        assert_eq!(encode(&json!({"a": 1.5})), Err(CanonicalError::Float("1.5".into())));
        for text in ["1.0", "1e3", "-0", "18446744073709551616", "[0.1]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_reader_refuses_duplicates_depth_and_tails() {
        assert_eq!(parse(br#" {"a":1,"b":{"a":2}} "#).unwrap(), json!({"a": 1, "b": {"a": 2}}));
        let said = parse(br#"{"a":1,"b":{"c":1,"c":1}}"#).unwrap_err().to_string();
        assert!(said.contains("\"c\" appears twice"), "{said}");
        // The same key written in two ways is one key.
        assert!(parse(br#"{"a":1,"\u0061":2}"#).is_err());
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let deepest = usize::try_from(limits::JSON_DEPTH_MAX).unwrap();
        assert!(parse(nested(deepest).as_bytes()).is_ok());
        assert!(parse(nested(deepest + 1).as_bytes()).unwrap_err().to_string().contains("nested deeper"));
        assert!(parse(nested(100_000).as_bytes()).is_err());
        for text in ["", "{", "{}{}", "{} x", "nul", "\"\u{1}\"", "[1,]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }
}
