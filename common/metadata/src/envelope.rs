//! The signed envelope `{"signatures":[{"keyid","sig"}],"signed":{…}}` (specification §4.2), and counting distinct keys
//! with a valid signature.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::unhex;

use crate::canonical::{self, CanonicalError, Form};
use crate::error::Rule;
use crate::fields::malformed;
use crate::json::{Notes, Reader, Span};
use crate::key::PublicKey;
use crate::key_id::KeyId;
use crate::limits;
use crate::role::{Document, ReadError, RoleKeys};

/// The keys of one role, as the role above gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyring<'a> {
    /// All usable keys that the role above lists.
    pub keys: &'a BTreeMap<KeyId, PublicKey>,
    /// Which of them, and how many.
    pub role: &'a RoleKeys,
}

impl Keyring<'_> {
    /// Whether it names the same keys by the same ids and asks for as many signatures.
    pub fn says_the_same(self, other: Keyring<'_>) -> bool {
        self.role == other.role && self.role.key_ids.iter().all(|id| self.keys.get(id) == other.keys.get(id))
    }
}

/// A file split into its signatures and what they are over.
#[derive(Debug)]
pub(crate) struct Envelope<T> {
    pub signatures: Signatures,
    /// The signed part, or why it is not of the role's form: to be asked only after the signatures.
    pub signed: Result<T, Rule>,
}

/// The signatures of a file and where in it they are over.
#[derive(Debug)]
pub(crate) struct Signatures {
    /// Key id as written, and the signature's bytes. Ids are distinct.
    list: Vec<(String, Vec<u8>)>,
    span: Span,
    notes: Notes,
}

impl<T: Document> Envelope<T> {
    /// Reads a file that is already known to be within its cap, in one pass.
    pub fn parse(file: &Bytes) -> Result<Self, Rule> {
        let wrong = |error: CanonicalError| Rule::Malformed(error.to_string());
        let mut reader = Reader::new(file).map_err(wrong)?;
        if !reader.is_object() {
            reader.skip().and_then(|_| reader.end()).map_err(wrong)?;
            return Err(malformed("it is not a JSON object"));
        }
        let (mut list, mut signed) = (None, None);
        let read = reader.object(|reader, key| {
            match &*reader.text(key) {
                "signatures" if reader.is_array() => list = Some(read_signatures(reader)?),
                "signed" if reader.is_object() => signed = Some(read_signed(reader, file)?),
                _ => _ = reader.skip()?,
            }
            Ok(())
        });
        match read.and_then(|_| Ok(reader.end()?)) {
            Ok(()) => {}
            Err(ReadError::Json(error)) => return Err(wrong(error)),
            Err(ReadError::Rule(rule)) => return Err(rule),
        }
        let (signed, span, notes) = signed.ok_or_else(|| malformed("it has no signed object"))?;
        let list = list.ok_or_else(|| malformed("it has no list of signatures"))?;
        Ok(Self { signatures: Signatures { list, span, notes }, signed })
    }
}

type Signed<T> = (Result<T, Rule>, Span, Notes);

fn read_signed<T: Document>(reader: &mut Reader<'_>, file: &Bytes) -> Result<Signed<T>, ReadError> {
    let mark = reader.mark();
    match reader.noted(|reader| T::read(reader, file)) {
        Ok((role, span, notes)) => Ok((Ok(role), span, notes)),
        Err(ReadError::Json(error)) => Err(error.into()),
        Err(ReadError::Rule(rule)) => {
            // Not of the role's form: the rest of it must be strict JSON all the same, and its signatures come first.
            reader.rewind(mark);
            let (_, span, notes) = reader.noted(Reader::skip)?;
            Ok((Err(rule), span, notes))
        }
    }
}

fn read_signatures(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
    let mut list: Vec<(String, Vec<u8>)> = Vec::new();
    reader.array(|reader| {
        if list.len() as u64 == limits::SIGNATURES_MAX {
            return Err(malformed("it has too many signatures").into());
        }
        let entry = reader.value()?;
        let text = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
        let (Some(key_id), Some(signature)) = (text("keyid"), text("sig")) else {
            return Err(malformed("a signature has no keyid or no sig").into());
        };
        // §4.2: the keyid is unique among the signatures.
        if list.iter().any(|(seen, _)| seen == key_id) {
            return Err(Rule::DuplicateKeyId(key_id.to_owned()).into());
        }
        // A signature that is not hex cannot be valid; it may belong to a key type we do not know.
        list.push((key_id.to_owned(), unhex(signature).unwrap_or_default()));
        Ok::<_, ReadError>(())
    })?;
    Ok(list)
}

impl Signatures {
    /// Checks that enough distinct keys of a role signed `file`. Two ids of one key count once.
    pub fn check(&self, file: &[u8], ring: Keyring<'_>, signers: &'static str) -> Result<(), Rule> {
        let find = |key_id: &str| {
            let (id, key) = ring.keys.get_key_value(key_id)?;
            ring.role.key_ids.contains(id).then_some(key)
        };
        self.count(file, find, ring.role.threshold, signers)
    }

    /// Checks that `threshold` of `trusted` signed `file`, which itself lists `keys` by ids of its own.
    pub fn check_trusted(
        &self,
        file: &[u8],
        keys: &BTreeMap<KeyId, PublicKey>,
        trusted: &[PublicKey],
        threshold: u32,
    ) -> Result<(), Rule> {
        let find = |key_id: &str| {
            let id: KeyId = key_id.parse().ok()?;
            let named = keys.get(&id).and_then(|key| trusted.iter().find(|known| *known == key));
            named.or_else(|| trusted.iter().find(|key| key.ids().contains(&id)))
        };
        self.count(file, find, threshold, "the configured root keys")
    }

    fn count<'k>(
        &self,
        file: &[u8],
        find: impl Fn(&str) -> Option<&'k PublicKey>,
        threshold: u32,
        signers: &'static str,
    ) -> Result<(), Rule> {
        let known: Vec<_> = self.list.iter().filter_map(|(id, signature)| Some((find(id)?, signature))).collect();
        let mut valid = BTreeSet::new();
        if !known.is_empty() {
            let messages = self.messages(file).map_err(|error| Rule::Malformed(error.to_string()))?;
            for (key, signature) in known {
                if !valid.contains(key) && messages.iter().any(|message| key.verifies(message, signature)) {
                    valid.insert(key);
                }
            }
        }
        let valid = u32::try_from(valid.len()).unwrap_or(u32::MAX);
        if valid < threshold {
            return Err(Rule::Threshold { valid, threshold, signers });
        }
        Ok(())
    }

    /// What the signatures may be over: the signed part as it lies there if that is canonical, else rewritten; and the
    /// second canonical form if there is one (see [`Form`]).
    fn messages<'f>(&self, file: &'f [u8]) -> Result<Vec<Cow<'f, [u8]>>, CanonicalError> {
        let signed = &file[self.span.range()];
        let mut messages = Vec::with_capacity(1);
        messages.push(match self.notes.canonical {
            true => Cow::Borrowed(signed),
            false => Cow::Owned(canonical::rewrite(signed, Form::Escaped)?),
        });
        if !self.notes.plain {
            messages.push(Cow::Owned(canonical::rewrite(signed, Form::Bare)?));
        }
        Ok(messages)
    }
}
