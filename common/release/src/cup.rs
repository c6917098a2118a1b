//! CUPv2 (client update protocol, ECDSA): proof that an answer was made by the holder of a key, for this very request.
//!
//! The client side: which parameter a request carries, and whether an answer is to be believed (reference "Omaha v3 and
//! CUPv2" §3). An answer that was believed can be kept as a [`CupExchange`] and is verified again whenever it is used.
//! Deliberately absent: randomness (the caller brings the nonce), HTTP, what the bodies say (`omaha`), signing.

use colibri_common::{Digest, hex, sha256, unhex};
use colibri_metadata::PublicKey;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

/// Name of the query parameter of a request.
const PARAMETER: &str = "cup2key";

/// The keys of a versioning authority: requests name the latest, kept answers may rest on an older one.
#[derive(Debug, Clone)]
pub struct CupKeys {
    /// The latest first.
    keys: Vec<(u64, PublicKey)>,
}

/// Why an answer is not believed; the names are those of the stock client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CupError {
    /// The keys are not in their form.
    #[error("keys of the versioning authority: {0}")]
    Keys(String),
    /// A body that is longer than an exchange holds.
    #[error("the {what} has {bytes} bytes; at most {limit} are taken")]
    TooLarge {
        /// Request or answer.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// No `ETag`.
    #[error("the answer has no ETag, so nothing proves who made it")]
    EtagHeaderMissing,
    /// Not two parts in hexadecimal digits with a colon between.
    #[error("the answer's ETag is not SIGNATURE:REQUEST-HASH")]
    EtagMalformed,
    /// The second part is no SHA-256.
    #[error("the request hash in the answer's ETag is not a SHA-256")]
    RequestHashMalformed,
    /// An answer to something else: the request was changed on its way, or the answer is an old one.
    #[error("the answer was made for another request body")]
    RequestHashMismatch,
    /// The first part is no signature.
    #[error("the signature in the answer's ETag is not hexadecimal")]
    SignatureMalformed,
    /// The key is none of ours.
    #[error("key {0} is not among the keys of the versioning authority")]
    SpecifiedPublicKeyIdMissing(u64),
    /// Another key's, or over other bytes.
    #[error("the answer's signature by key {0} is wrong")]
    SignatureError(u64),
}

impl CupKeys {
    /// Reads `{"latest":{"id":N,"key":"PEM"},"historical":[…]}`.
    ///
    /// # Errors
    /// [`CupError::Keys`] says what is wrong.
    pub fn parse(json: &[u8]) -> Result<Self, CupError> {
        #[derive(Deserialize)]
        struct Key {
            id: u64,
            key: String,
        }
        #[derive(Deserialize)]
        struct Keys {
            latest: Key,
            #[serde(default)]
            historical: Vec<Key>,
        }
        if json.len() as u64 > limits::CUP_KEYS_BYTES_MAX {
            return Err(CupError::Keys(format!("more than {} bytes", limits::CUP_KEYS_BYTES_MAX)));
        }
        let Keys { latest, historical } =
            serde_json::from_slice(json).map_err(|error| CupError::Keys(error.to_string()))?;
        let mut keys: Vec<(u64, PublicKey)> = Vec::with_capacity(1 + historical.len());
        for Key { id, key } in std::iter::once(latest).chain(historical) {
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(CupError::Keys(format!("key {id} is listed twice")));
            }
            let key = PublicKey::ecdsa_p256(&key).map_err(|error| CupError::Keys(format!("key {id}: {error}")))?;
            keys.push((id, key));
        }
        Ok(Self { keys })
    }

    /// Id of the key that a new request names.
    pub fn latest(&self) -> u64 {
        self.keys[0].0
    }

    fn key(&self, id: u64) -> Option<&PublicKey> {
        self.keys.iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// A request that is on its way, and what its answer must prove.
#[derive(Debug, Clone)]
pub struct CupRequest {
    body: String,
    key_id: u64,
    nonce: [u8; NONCE_BYTES],
}

impl CupRequest {
    /// A request for an answer by the latest of `keys`. The nonce is random and used once.
    ///
    /// # Errors
    /// [`CupError::TooLarge`].
    pub fn new(keys: &CupKeys, nonce: [u8; NONCE_BYTES], body: String) -> Result<Self, CupError> {
        check_length("request", body.len())?;
        Ok(Self { body, key_id: keys.latest(), nonce })
    }

    /// The body to send.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// `url` with the parameter added to its query.
    pub fn url(&self, url: &str) -> String {
        let (url, fragment) = url.split_once('#').map_or((url, ""), |(url, fragment)| (url, fragment));
        let separator = match url.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        let fragment = if fragment.is_empty() { String::new() } else { format!("#{fragment}") };
        format!("{url}{separator}{PARAMETER}={}{fragment}", parameter(self.key_id, &self.nonce))
    }

    /// The exchange, once its answer is proven. `etag` is the answer's header as it came: bare, quoted or weak.
    ///
    /// # Errors
    /// Why the answer is not believed.
    pub fn answered(self, keys: &CupKeys, body: String, etag: Option<&str>) -> Result<CupExchange, CupError> {
        let (signature, request_sha256) = parse_etag(etag.ok_or(CupError::EtagHeaderMissing)?)?;
        if request_sha256 != sha256(self.body.as_bytes()) {
            return Err(CupError::RequestHashMismatch);
        }
        let Self { body: request, key_id, nonce } = self;
        let exchange = CupExchange { request, response: body, key_id, nonce: hex(&nonce), signature: hex(&signature) };
        exchange.verify(keys)?;
        Ok(exchange)
    }
}

/// A request with its answer, in the form in which it is kept. Where it comes from does not matter: it proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CupExchange {
    request: String,
    response: String,
    key_id: u64,
    nonce: String,
    signature: String,
}

impl CupExchange {
    /// An exchange as somebody else kept it.
    pub fn new(request: String, response: String, key_id: u64, nonce: [u8; NONCE_BYTES], signature: &[u8]) -> Self {
        Self { request, response, key_id, nonce: hex(&nonce), signature: hex(signature) }
    }

    /// The answer's body, if one of `keys` made it for this request.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, keys: &CupKeys) -> Result<&str, CupError> {
        check_length("request", self.request.len())?;
        check_length("answer", self.response.len())?;
        let key = keys.key(self.key_id).ok_or(CupError::SpecifiedPublicKeyIdMissing(self.key_id))?;
        let signature = unhex(&self.signature).ok_or(CupError::SignatureMalformed)?;
        let mut message = Vec::with_capacity(160);
        message.extend_from_slice(&sha256(self.request.as_bytes()));
        message.extend_from_slice(&sha256(self.response.as_bytes()));
        message.extend_from_slice(format!("{}:{}", self.key_id, self.nonce).as_bytes());
        // The signature's own hash comes on top of this one.
        if key.verifies(&sha256(&message), &signature) {
            Ok(&self.response)
        } else {
            Err(CupError::SignatureError(self.key_id))
        }
    }
}

fn check_length(what: &'static str, bytes: usize) -> Result<(), CupError> {
    let (bytes, limit) = (bytes as u64, limits::CUP_BODY_BYTES_MAX);
    if bytes > limit { Err(CupError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

fn parameter(key_id: u64, nonce: &[u8]) -> String {
    format!("{key_id}:{}", hex(nonce))
}

/// Signature and request hash.
fn parse_etag(etag: &str) -> Result<(Vec<u8>, Digest), CupError> {
    let etag = etag.strip_prefix("W/").unwrap_or(etag);
    let etag = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag);
    let (signature, hash) = etag.split_once(':').ok_or(CupError::EtagMalformed)?;
    let hash = unhex(&hash.to_ascii_lowercase()).and_then(|hash| hash.try_into().ok());
    let hash = hash.ok_or(CupError::RequestHashMalformed)?;
    let signature = unhex(&signature.to_ascii_lowercase()).ok_or(CupError::SignatureMalformed)?;
    Ok((signature, hash))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn vector() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/cup.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
        vector[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
    }

    fn keys(vector: &Value) -> CupKeys {
        let latest = json!({"id": vector["public_key_id"], "key": vector["public_key_pem"]});
        CupKeys::parse(json!({"latest": latest}).to_string().as_bytes()).unwrap()
    }

    fn request(vector: &Value, keys: &CupKeys) -> CupRequest {
        let nonce = unhex(text(vector, "nonce_hex")).unwrap().try_into().unwrap();
        CupRequest::new(keys, nonce, text(vector, "request_body").to_owned()).unwrap()
    }

    #[test]
    fn the_golden_exchange_is_believed_and_can_be_kept() {
        let vector = vector();
        let keys = keys(&vector);
        let request = request(&vector, &keys);
        let parameter = format!("cup2key={}", text(&vector, "cup2key"));
        for (url, expected) in [
            ("https://updates.example/v3", format!("https://updates.example/v3?{parameter}")),
            ("https://updates.example/v3?", format!("https://updates.example/v3?{parameter}")),
            ("https://updates.example/v3?a=b#top", format!("https://updates.example/v3?a=b&{parameter}#top")),
        ] {
            assert_eq!(request.url(url), expected);
        }
        let (body, etag) = (text(&vector, "response_body"), text(&vector, "etag"));
        for etag in [etag.to_owned(), format!("\"{etag}\""), format!("W/\"{etag}\""), etag.to_ascii_uppercase()] {
            let exchange = request.clone().answered(&keys, body.to_owned(), Some(&etag)).unwrap();
            let kept = serde_json::to_vec(&exchange).unwrap();
            let again: CupExchange = serde_json::from_slice(&kept).unwrap();
            assert_eq!(again.verify(&keys), Ok(body));
        }
    }

    /// The second vector of the reference, RFC 6979's key, was checked with two implementations.
    #[test]
    fn the_references_own_vector_is_believed() {
        let pem = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7\n\
            Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==\n-----END PUBLIC KEY-----\n";
        let keys = CupKeys::parse(json!({"latest": {"id": 42, "key": pem}, "historical": []}).to_string().as_bytes());
        let nonce: [u8; 32] = std::array::from_fn(|index| index as u8);
        let signature = "304502203025ed69af6f531028295a949651e2718001618804e1ad681171a850f55d5a4c\
            022100c8468262326267c274505a92e1e338ce7b4a2b78e1131130a51d047d63d0bf6c";
        let exchange = CupExchange::new(
            r#"{"request":{"protocol":"3.0"}}"#.to_owned(),
            r#"{"response":{"protocol":"3.0","app":[]}}"#.to_owned(),
            42,
            nonce,
            &unhex(signature).unwrap(),
        );
        assert!(exchange.verify(&keys.unwrap()).is_ok());
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let vector = vector();
        let keys = keys(&vector);
        let (body, etag) = (text(&vector, "response_body"), text(&vector, "etag"));
        let (signature, hash) = etag.split_once(':').unwrap();
        let id = keys.latest();
        let answered = |body: &str, etag: Option<&str>| {
            request(&vector, &keys).answered(&keys, body.to_owned(), etag).map(drop).unwrap_err()
        };
        assert_eq!(answered(body, None), CupError::EtagHeaderMissing);
        assert_eq!(answered(body, Some("")), CupError::EtagMalformed);
        assert_eq!(answered(body, Some(signature)), CupError::EtagMalformed);
        assert_eq!(answered(body, Some(&format!("{signature}:{}", &hash[2..]))), CupError::RequestHashMalformed);
        assert_eq!(answered(body, Some(&format!("xy:{hash}"))), CupError::SignatureMalformed);
        assert_eq!(answered(body, Some(&format!("{signature}:{}", "0".repeat(64)))), CupError::RequestHashMismatch);
        assert_eq!(answered("{}", Some(etag)), CupError::SignatureError(id));
        assert_eq!(answered(body, Some(&format!("00:{hash}"))), CupError::SignatureError(id));
        let other = request(&vector, &keys);
        let other = CupRequest { nonce: [1; NONCE_BYTES], ..other };
        assert_eq!(other.answered(&keys, body.to_owned(), Some(etag)), Err(CupError::SignatureError(id)));
        let other = CupRequest { key_id: 1, ..request(&vector, &keys) };
        assert_eq!(other.answered(&keys, body.to_owned(), Some(etag)), Err(CupError::SpecifiedPublicKeyIdMissing(1)));
        let long = "x".repeat(limits::CUP_BODY_BYTES_MAX as usize + 1);
        assert!(matches!(CupRequest::new(&keys, [0; 32], long), Err(CupError::TooLarge { what: "request", .. })));
    }

    #[test]
    fn keys_that_contradict_are_refused() {
        let vector = vector();
        let key = json!({"id": 7, "key": vector["public_key_pem"]});
        let parse = |keys: Value| CupKeys::parse(keys.to_string().as_bytes());
        assert!(parse(json!({"latest": key, "historical": [{"id": 8, "key": vector["public_key_pem"]}]})).is_ok());
        for bad in [
            json!({}),
            json!({"latest": key, "historical": [key]}),
            json!({"latest": {"id": 7, "key": "not a key"}}),
            json!({"latest": {"id": -1, "key": vector["public_key_pem"]}}),
        ] {
            assert!(matches!(parse(bad.clone()), Err(CupError::Keys(_))), "{bad}");
        }
    }
}
