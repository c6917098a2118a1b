//! Targets roles written straight in canonical form: no tree of values in between, so a hundred thousand targets cost little
//! more than their bytes.
//!
//! What is signed has no control character and no float: clients disagree on their canonical form, so both are refused here,
//! at the input. Which targets there are and who signs is said elsewhere (`offer`, `draft`).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::{BlobId, hex};
use colibri_metadata::{KeyId, TargetName, canonical};
use serde_json::{Map, Value};

/// Why something cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A control character, which clients write in different ways.
    #[error("{what} holds the control character U+{code:04X}: clients disagree on how it is signed")]
    Control {
        /// Where.
        what: String,
        /// Which.
        code: u32,
    },
    /// A float, or nesting that is too deep.
    #[error("{what}: {reason}")]
    NotCanonical {
        /// Where.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a targets role says of one target, in canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry(Bytes);

/// Targets in the order in which they are signed.
pub type Entries = BTreeMap<TargetName, Entry>;

impl Entry {
    /// A package's meta.far as the real tools list it: `custom` with merkle root and size, one hash.
    pub fn package(merkle: BlobId, length: u64, sha512_hex: &str) -> Self {
        let (merkle, length) = (hex(merkle.as_bytes()), length.to_string());
        let parts = [
            "{\"custom\":{\"merkle\":\"",
            &merkle,
            "\",\"size\":",
            &length,
            "},\"hashes\":{\"sha512\":\"",
            sha512_hex,
            "\"},\"length\":",
            &length,
            "}",
        ];
        Self(parts.concat().into())
    }

    /// Any file.
    ///
    /// # Errors
    /// `custom` cannot be signed.
    pub fn file(length: u64, sha512_hex: &str, custom: Option<&Value>) -> Result<Self, Unfit> {
        let mut description = Map::new();
        description.insert("hashes".into(), serde_json::json!({ "sha512": sha512_hex }));
        description.insert("length".into(), length.into());
        if let Some(custom) = custom {
            description.insert("custom".into(), custom.clone());
        }
        Self::of(&Value::Object(description))
    }

    /// A description as it was signed before, with all that it says.
    ///
    /// # Errors
    /// It cannot be signed, though somebody did.
    pub fn of(description: &Value) -> Result<Self, Unfit> {
        let what = "the description of a target";
        check(description, what)?;
        let bytes = canonical::encode(description);
        let bytes = bytes.map_err(|error| Unfit::NotCanonical { what: what.to_owned(), reason: error.to_string() })?;
        Ok(Self(bytes.into()))
    }

    /// The package hash, if it is the entry of a package.
    pub(crate) fn merkle(&self) -> Option<BlobId> {
        let description: Value = serde_json::from_slice(&self.0).ok()?;
        description.get("custom")?.get("merkle")?.as_str()?.parse().ok()
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The `signed` part of a targets role, in canonical form: `rest` is everything in it but the targets.
///
/// # Errors
/// Something in it cannot be signed.
pub fn write(rest: &Map<String, Value>, entries: &Entries) -> Result<Vec<u8>, Unfit> {
    let room: usize = entries.iter().map(|(name, entry)| name.as_str().len() + entry.0.len() + 4).sum();
    write_around(rest, "targets", room + room / 64, |out| write_entries(entries, out))
}

/// A `signed` part in canonical form: `rest` is everything in it but the field `large`, of about `room` bytes, which
/// `write_large` writes.
pub(crate) fn write_around(
    rest: &Map<String, Value>,
    large: &str,
    room: usize,
    write_large: impl FnOnce(&mut Vec<u8>) -> Result<(), Unfit>,
) -> Result<Vec<u8>, Unfit> {
    let mut out = Vec::with_capacity(room + 4096);
    let mut write_large = Some(write_large);
    let mut fields: Vec<(&str, Option<&Value>)> =
        rest.iter().filter(|(name, _)| *name != large).map(|(name, value)| (name.as_str(), Some(value))).collect();
    fields.push((large, None));
    fields.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (index, (name, value)) in fields.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name, "a field", &mut out)?;
        out.push(b':');
        match value {
            Some(value) => {
                check(value, name)?;
                let bytes = canonical::encode(value);
                let reason = |error: canonical::CanonicalError| error.to_string();
                let bytes = bytes.map_err(|e| Unfit::NotCanonical { what: name.to_owned(), reason: reason(e) })?;
                out.extend_from_slice(&bytes);
            }
            None => write_large.take().map_or(Ok(()), |write| write(&mut out))?,
        }
    }
    out.push(b'}');
    Ok(out)
}

fn write_entries(entries: &Entries, out: &mut Vec<u8>) -> Result<(), Unfit> {
    out.push(b'{');
    for (index, (name, entry)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name.as_str(), "the name of a target", out)?;
        out.push(b':');
        out.extend_from_slice(&entry.0);
    }
    out.push(b'}');
    Ok(())
}

/// The file of a `signed` part that is in canonical form, with these signatures (in hex).
pub fn envelope(signed: &[u8], signatures: &[(KeyId, String)]) -> Vec<u8> {
    let listed = signatures.iter().map(|(id, signature)| serde_json::json!({"keyid": id, "sig": signature}));
    let head = Value::Array(listed.collect()).to_string();
    let mut file = Vec::with_capacity(head.len() + signed.len() + 32);
    file.extend_from_slice(b"{\"signatures\":");
    file.extend_from_slice(head.as_bytes());
    file.extend_from_slice(b",\"signed\":");
    file.extend_from_slice(signed);
    file.push(b'}');
    file
}

pub(crate) fn write_text(text: &str, what: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if text.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return Ok(());
    }
    plain(text, what)?;
    let written = serde_json::to_writer(out, text);
    written.map_err(|error| Unfit::NotCanonical { what: what.to_owned(), reason: error.to_string() })
}

/// Refuses control characters: those of ASCII and those above.
pub(crate) fn plain(text: &str, what: &str) -> Result<(), Unfit> {
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err(Unfit::Control { what: format!("{what} ({text:?})"), code: letter.into() }),
        None => Ok(()),
    }
}

/// Refuses control characters and floats anywhere in `value`.
fn check(value: &Value, what: &str) -> Result<(), Unfit> {
    match value {
        Value::String(text) => plain(text, what),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, what)),
        Value::Object(map) => {
            map.iter().try_for_each(|(name, item)| match item {
                // A key in PEM has lines, in everybody's metadata.
                Value::Object(_) if name == "keyval" => Ok(()),
                item => plain(name, what).and_then(|()| check(item, what)),
            })
        }
        Value::Number(number) if number.is_f64() => {
            Err(Unfit::NotCanonical { what: what.to_owned(), reason: format!("the number {number} is not an integer") })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(text: &str) -> TargetName {
        text.parse().unwrap()
    }

    /// What the writer writes is what the canonical encoder makes of the same as a tree.
    #[test]
    fn written_straight_is_the_canonical_form() {
        let custom = json!({"z": [1, -2, {"b": null, "a": "ü \" \\ \u{1F426}"}], "a": true});
        let entries: Entries = [
            (name("package/0"), Entry::package(BlobId::from_digest([7; 32]), 4096, &"ab".repeat(64))),
            (name("a \"quoted\" name"), Entry::file(0, &"00".repeat(64), None).unwrap()),
            (name("ünïcode/ﬀ"), Entry::file(1, &"01".repeat(64), Some(&custom)).unwrap()),
            (name("\u{1F426}"), Entry::file(2, &"02".repeat(64), Some(&json!({}))).unwrap()),
            (name("~"), Entry::file(3, &"03".repeat(64), Some(&json!("text"))).unwrap()),
        ]
        .into();
        for rest in [json!({}), json!({"_type": "targets", "version": 3, "custom": custom, "targets": "old", "zz": []})]
        {
            let rest = rest.as_object().unwrap();
            let mut tree = rest.clone();
            let decoded = entries
                .iter()
                .map(|(name, entry)| (name.to_string(), serde_json::from_slice(entry.as_bytes()).unwrap()))
                .collect();
            tree.insert("targets".into(), Value::Object(decoded));
            let expected = canonical::encode(&Value::Object(tree)).unwrap();
            let written = write(rest, &entries).unwrap();
            assert_eq!(String::from_utf8(written.clone()).unwrap(), String::from_utf8(expected).unwrap());
            let id: KeyId = "ab".repeat(32).parse().unwrap();
            let file = envelope(&written, &[(id.clone(), "00ff".into())]);
            let parsed = canonical::parse(&file).unwrap();
            assert_eq!(canonical::encode(&parsed).unwrap(), file);
            assert_eq!(parsed["signatures"], json!([{"keyid": id, "sig": "00ff"}]));
        }
    }

    #[test]
    fn control_characters_and_floats_are_refused_wherever_they_are() {
        for bad in [json!({"a": "\n"}), json!(["\u{7f}"]), json!({"\u{1}": 1}), json!([[{"a": "\u{85}"}]]), json!(1.5)]
        {
            assert!(Entry::file(1, "00", Some(&bad)).is_err(), "{bad}");
            let rest = json!({ "custom": bad });
            assert!(write(rest.as_object().unwrap(), &Entries::new()).is_err(), "{bad}");
        }
        for bad in ["a\nb", "a\u{7f}", "\u{9b}x"] {
            let error = write(&Map::new(), &[(name(bad), Entry::file(1, "00", None).unwrap())].into()).unwrap_err();
            assert!(error.to_string().contains("control character U+00"), "{error}");
        }
    }
}
