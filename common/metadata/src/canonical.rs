//! Canonical JSON, the form that is signed, and the strict reader for what arrives.
//!
//! Canonical form (reference "Fuchsia formats" §5): keys sorted by bytes, no whitespace, integers only, string escapes as
//! `serde_json` writes them. The reader refuses what makes one text mean two things: duplicate keys, floats, deep nesting.

use serde_json::Value;

use crate::json::Reader;
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
/// Says what is wrong and at which byte.
pub fn parse(bytes: &[u8]) -> Result<Value, CanonicalError> {
    let mut reader = Reader::new(bytes)?;
    let value = reader.value()?;
    reader.end()?;
    Ok(value)
}

/// How control characters stand in a signed message. Clients disagree, so a verifier reads both.
///
/// Accepting a signature over either is sound. Each form alone is injective: it can be read back without loss. So two
/// values could share a message only across the forms, if the one's [`Self::Escaped`] were the other's [`Self::Bare`]. An
/// escaped form never holds a bare control character, hence the other value holds none at all; and without control
/// characters both forms are the same text, hence the values are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `serde_json` writes them, `\n` or `\u0001`: what the real tools of this world and we sign.
    Escaped,
    /// As they are, only `"` and `\` being escaped: the form of the TUF reference implementation (OLPC).
    Bare,
}

/// Rewrites one JSON value, which must be strict, into canonical form without building a tree.
///
/// # Errors
/// The text is not one strict value.
pub fn rewrite(text: &[u8], form: Form) -> Result<Vec<u8>, CanonicalError> {
    let mut reader = Reader::new(text)?;
    let mut out = Vec::with_capacity(text.len());
    rewrite_value(&mut reader, text, form, &mut out)?;
    reader.end()?;
    Ok(out)
}

fn rewrite_value(reader: &mut Reader<'_>, text: &[u8], form: Form, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    if reader.is_object() {
        return rewrite_object(reader, text, form, out);
    }
    if reader.is_array() {
        out.push(b'[');
        let mut first = true;
        reader.array(|reader| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            rewrite_value(reader, text, form, out)
        })?;
        out.push(b']');
        return Ok(());
    }
    if reader.is_string() {
        let string = reader.string()?;
        return write_text(&reader.text(string), form, out);
    }
    // Numbers and words have only one strict spelling.
    let span = reader.skip()?;
    out.extend_from_slice(&text[span.range()]);
    Ok(())
}

fn rewrite_object(reader: &mut Reader<'_>, text: &[u8], form: Form, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    let mut members = Vec::new();
    let in_order = reader.object(|reader, key| {
        members.push((key, reader.skip()?));
        Ok::<_, CanonicalError>(())
    })?;
    if !in_order {
        members.sort_by(|left, right| reader.text(left.0).cmp(&reader.text(right.0)));
    }
    out.push(b'{');
    for (index, (key, span)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(&reader.text(key), form, out)?;
        out.push(b':');
        let inner = &text[span.range()];
        rewrite_value(&mut Reader::new(inner)?, inner, form, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_text(text: &str, form: Form, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match form {
        Form::Escaped => write_string(text, out)?,
        Form::Bare => {
            out.push(b'"');
            for byte in text.bytes() {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rewriting_is_parsing_and_encoding() {
        for text in [
            r#" { "b" : [ 1 , -2,true, null ], "a":{"z":"\"\\\n\u0001\u00e9\/", "y": 18446744073709551615} } "#,
            r#"{"\u0061b":{},"\"":[],"a":[[],[{"d":1,"c":{"f":1,"e":2}}]]}"#,
        ] {
            let value = parse(text.as_bytes()).unwrap();
            assert_eq!(rewrite(text.as_bytes(), Form::Escaped).unwrap(), encode(&value).unwrap());
        }
        let text = r#"["\n\u0001é\"\\"]"#;
        assert_eq!(rewrite(text.as_bytes(), Form::Bare).unwrap(), "[\"\n\u{1}é\\\"\\\\\"]".as_bytes());
        assert!(rewrite(b"[1.0]", Form::Bare).is_err());
    }

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
