//! [`Tokens`]: who may read, where an operator wants that bounded: tokens signed with a key whose private half is never on an edge.
//!
//! A token is `PAYLOAD.SIGNATURE`, both base64url without padding. The payload is a JSON object: `key` names the key, `expires` is
//! in seconds since 1970, `paths` lists path prefixes, `blobs` lists blobs, `id` says who has it, and `requests_per_s` and
//! `bytes_per_s` how much all may have together who have that `id`. The signature is over `colibri-token-v1:` and the payload's
//! base64url text. What a token opens is what its prefixes or its blobs cover; there is no other right. An edge makes no tokens,
//! keeps none, and asks nobody about them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, PoisonError, RwLock};

use colibri_api::Route;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::PublicKey;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use serde::{Deserialize, Serialize};

use crate::error::EdgeError;
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_SCOPES_MAX};
use crate::quotas::{Allowance, Quotas, Subject};

/// What a signature is over begins so: no signature made for anything else is a token.
const DOMAIN: &str = "colibri-token-v1:";

/// Which keys sign tokens. Without any, everybody may read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokensConfig {
    /// Public keys by the name that tokens call them by: ed25519, 64 hexadecimal digits.
    pub keys: BTreeMap<String, String>,
}

/// The keys of one edge.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    keys: BTreeMap<String, PublicKey>,
}

/// The keys as they are now.
#[derive(Debug)]
pub(crate) struct CurrentTokens {
    keys: RwLock<Arc<Tokens>>,
    quotas: Quotas,
}

impl CurrentTokens {
    pub fn new(tokens: Tokens) -> Self {
        Self { keys: RwLock::new(Arc::new(tokens)), quotas: Quotas::new() }
    }

    /// What was taken of rates that tokens carry, whichever keys there are.
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The keys.
    pub fn get(&self) -> Arc<Tokens> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has these decide who may read, from the next request on.
    pub fn replace(&self, tokens: Tokens) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
    }
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// There is none.
    #[error("this edge answers only who shows a token: Authorization: Bearer TOKEN, or ?token=TOKEN")]
    Missing,
    /// It is no token, or not signed with a key that is known here. Which of these is nobody's business.
    #[error("the token is not valid here")]
    Invalid,
    /// It was one.
    #[error("the token has expired")]
    Expired,
    /// It does not cover what is asked for.
    #[error("the token is not for this path")]
    OutOfScope,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    key: String,
    expires: UnixSeconds,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    blobs: Vec<BlobId>,
    /// Who has it.
    #[serde(default)]
    id: String,
    #[serde(default)]
    requests_per_s: Option<NonZeroU64>,
    #[serde(default)]
    bytes_per_s: Option<NonZeroU64>,
}

impl Payload {
    /// A rate is nobody's without a name to hold it against.
    fn is_nobodys(&self) -> bool {
        self.id.is_empty() && (self.requests_per_s.is_some() || self.bytes_per_s.is_some())
    }

    fn allowance(self) -> Option<Allowance> {
        let Self { key, id, requests_per_s, bytes_per_s, .. } = self;
        let is_bounded = requests_per_s.is_some() || bytes_per_s.is_some();
        is_bounded.then_some(Allowance { subject: Subject { key, id }, requests_per_s, bytes_per_s })
    }
}

impl Tokens {
    /// Reads the keys.
    ///
    /// # Errors
    /// Names the key that is none, or says that there are too many.
    pub fn new(config: &TokensConfig) -> Result<Self, EdgeError> {
        if config.keys.len() > TOKEN_KEYS_MAX {
            return Err(EdgeError::TokenKeys(config.keys.len()));
        }
        let key = |(name, text): (&String, &String)| {
            let key = text.parse::<PublicKey>();
            let key = key.map_err(|error| EdgeError::TokenKey { name: name.clone(), reason: error.to_string() })?;
            Ok((name.clone(), key))
        };
        Ok(Self { keys: config.keys.iter().map(key).collect::<Result<_, EdgeError>>()? })
    }

    /// Whether a token must be shown at all.
    pub fn are_needed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Judges a request for `route`. Gives how much its token allows, if that is bounded.
    pub fn judge(
        &self,
        route: &Route,
        uri: &Uri,
        headers: &HeaderMap,
        now: UnixSeconds,
    ) -> Result<Option<Allowance>, Denied> {
        if !self.are_needed() {
            return Ok(None);
        }
        let token = shown(uri, headers)?;
        let payload = self.verify(token)?;
        if now >= payload.expires {
            return Err(Denied::Expired);
        }
        // The route's own path: there are many ways to write one, and only one to print it.
        let path = route.path();
        let blob = match route {
            Route::Blob { id, .. } => payload.blobs.contains(id),
            _ => false,
        };
        let covered = blob || payload.paths.iter().any(|prefix| covers(prefix, &path));
        if covered { Ok(payload.allowance()) } else { Err(Denied::OutOfScope) }
    }

    fn verify(&self, token: &str) -> Result<Payload, Denied> {
        let (text, signature) = token.split_once('.').ok_or(Denied::Invalid)?;
        let bytes = decode(text).ok_or(Denied::Invalid)?;
        let signature = decode(signature).ok_or(Denied::Invalid)?;
        // Read before it is believed, only to find the key; its size is bounded.
        let payload: Payload = serde_json::from_slice(&bytes).map_err(|_| Denied::Invalid)?;
        let key = self.keys.get(&payload.key).ok_or(Denied::Invalid)?;
        let scopes = payload.paths.len() + payload.blobs.len();
        if scopes > TOKEN_SCOPES_MAX
            || payload.is_nobodys()
            || !key.verifies(format!("{DOMAIN}{text}").as_bytes(), &signature)
        {
            return Err(Denied::Invalid);
        }
        Ok(payload)
    }
}

/// The one token of a request.
fn shown<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Denied> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let of_header = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(field), None) => {
            let (scheme, token) = field.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::Invalid)?;
            Some(if scheme.eq_ignore_ascii_case("bearer") { token.trim_start() } else { return Err(Denied::Invalid) })
        }
        (Some(_), Some(_)) => return Err(Denied::Invalid),
    };
    let mut of_query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("token="));
    let token = match (of_header, of_query.next(), of_query.next()) {
        (None, None, _) => return Err(Denied::Missing),
        (Some(token), None, _) | (None, Some(token), None) => token,
        _ => return Err(Denied::Invalid),
    };
    if token.len() > TOKEN_BYTES_MAX { Err(Denied::Invalid) } else { Ok(token) }
}

/// `/a/b` covers itself and what is below it, `/a/b/` what is below it, `/` everything.
fn covers(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    prefix.starts_with('/')
        && rest.is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}

/// Base64url without padding (RFC 4648 §5); of the several texts that could stand for the same bytes only the canonical one.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for letter in group {
            bits = bits << 6 | u32::from(sextet(*letter)?);
        }
        let whole = match group.len() {
            4 => 3,
            3 if bits & 0b11 == 0 => 2,
            2 if bits & 0b1111 == 0 => 1,
            _ => return None,
        };
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

const fn sextet(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made once with the key whose public half this is, by other software than ours.
    const PUBLIC: &str = "ed103440d1cae9021a2f0f3e2e2193f214408653920f8e6596a3a5999f08a7b3";
    const PATHS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjoyMDAwLCJwYXRocyI6WyIvZGV2aG9zdCIsIi9vdGhlci9ibG9icy8iXSwiaWQiOiJmbGVldC03In0.eLNMrS3yfFurwfhG90k1hR3P5nHXL2ELJBv3YnpljMahDJpjhwy93Q-K6M_6YBf44MgyFEgF_531_ijqMl_SBQ";
    const BLOBS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjoyMDAwLCJibG9icyI6WyIxNWVjN2JmMGI1MDczMmI0OWY4MjI4ZTA3ZDI0MzY1MzM4ZjllM2FiOTk0YjAwYWYwOGU1YTNiZmZlNTVmZDhiIl19.h3iVm5hIf82MLWXZ8dK7PmX1JaYrJMdns0oBnvyo_UD3r7su4zWKmXkgNWHOP_5UMUTDH4AydiBnyQVmkWiLBg";
    const ALL: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl19.tGLbyJ0iL4fWeNjfAx924U9qBPIs9jCRD_pdRW7w-hIXc0-nUHKq-hdEOclLKlixFO1mKn2ekMsB-Svx3f80DA";
    const NOTHING: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwfQ.TW_ax4ozfWgPlAsfeNliMNVGoQv0hKLzNWYt2ev-9Ue33B7X1ryeKDknOdDbyuMiJaAsS3dZ6g_6aC__QwwsAw";
    const FORGED: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl19.Jx08kKd1SlrdJJXW0Y7Lp0Cv8sOb8R7YsMHSt5EgOjPpcYed5p1RMb399LEM6DtfWXS3D3eX8Eux6ZEIvH3AAA";
    const UNKNOWN_KEY: &str = "eyJrZXkiOiJnb25lIiwiZXhwaXJlcyI6NDAwMDAwMDAwMCwicGF0aHMiOlsiLyJdfQ.wXJJ1vosmEXis8sV_SVKpegaVlTdBWZOLH7Njm-cioT1SeMNRVxJl3CV37GalG2pRD3JicSoIxg8WceTkfbjAQ";
    const UNDOMAINED: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl19.LjCs-DCsX_1U3--JoZTeBbIJ1_98ktJX0upoiV10mm229BUfy2-AFbgcuCnZht4YtHz2_LuWN0su_gEs5ppZAA";
    const EXTRA: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImFkbWluIjp0cnVlfQ.vNdGujuthzSFhLbCJ4zoFQ7pyZKBH7fztQiBw9b768uX7kEO0Pd37lzXQjUiacHhmm1sqkNPOO7McXheoRySBg";
    const BLOB: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

    /// Made once with another key, whose public half this is, also by other software.
    const QUOTA_PUBLIC: &str = "7d8774fe065a6f829568ebcc04ccb8c1379691939d48ac85505618c262b6bb7a";
    const TWO_REQUESTS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtNyIsInJlcXVlc3RzX3Blcl9zIjoyfQ.HcO_38kHLQ3iEbxi5o9lv1DYRwIV1Ou4CEvlYKq7c5BJcOet1wIcuFFj59ACmxQPg_BITu0UAuQ3yPjh-wnRCA";
    const TWO_REQUESTS_BELOW: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvZGV2aG9zdCJdLCJpZCI6ImZsZWV0LTciLCJyZXF1ZXN0c19wZXJfcyI6Mn0.vgj1I5hffY87AgDGEKBMyPS8cuVhMgaGcEC1_u84pKssClLlOInYQfgr3TGNBp7_388u4EECHGou6zKi8HF0Dg";
    const BYTES: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtOCIsImJ5dGVzX3Blcl9zIjoxMDAwMDB9.1IJvhDhYKr8qGJBSWfGtpUSNleYIYsOJFiKCeHRY5gSuWJrjWhX01hkjD9UnnlsFQuDbMm-J3Appta8UzgQ9CA";
    const NOBODYS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sInJlcXVlc3RzX3Blcl9zIjoyfQ.5zpnoPP7vJ9iJ2eZNuZkM5xXO2F3a2YhOzV_awQBP7CksUrrZ0miKRSSQSkCBKgKiusDVU6zRt6zS-f1MnEnCg";
    const NO_REQUESTS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtOSIsInJlcXVlc3RzX3Blcl9zIjowfQ.8n0GYFn3qz3qlRGKTnHnHQ1bJUSF6U83F6vUmDEfxU7UuBBY7obn3BO8OsiBeEO3VnoucjTOgoeLPZDcTyOYDg";
    const FEWER_THAN_NONE: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtOSIsInJlcXVlc3RzX3Blcl9zIjotMX0.AyvjDzfJa-T_B0xF5uSdBQ37ywgwTmVYLPE8EDmhExHnzH7NTgK97jwtfPyK_pTLuHOmJWoU7kL-FyEtMyMvBA";

    fn tokens() -> Tokens {
        Tokens::new(&TokensConfig { keys: BTreeMap::from([("ops".to_owned(), PUBLIC.to_owned())]) }).unwrap()
    }

    fn judge(path: &str, token: &str, now: u64) -> Result<(), Denied> {
        let route = colibri_api::parse_path(path).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())]);
        let by_header = tokens().judge(&route, &path.parse().unwrap(), &headers, UnixSeconds(now)).map(drop);
        let uri = format!("{path}?a=b&token={token}").parse().unwrap();
        let by_query = tokens().judge(&route, &uri, &HeaderMap::new(), UnixSeconds(now)).map(drop);
        assert_eq!(by_query, by_header, "{path}");
        by_header
    }

    #[test]
    fn a_token_opens_what_it_names_until_it_expires() {
        for path in [
            "/devhost/timestamp.json",
            "/devhost/blobs/1/15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b",
            "/devhost/",
        ] {
            assert_eq!(judge(path, PATHS, 1999), Ok(()), "{path}");
            assert_eq!(judge(path, PATHS, 2000), Err(Denied::Expired), "{path}");
            assert_eq!(judge(path, NOTHING, 0), Err(Denied::OutOfScope), "{path}");
            assert_eq!(judge(path, ALL, 2000), Ok(()), "{path}");
        }
        let other = format!("/other/blobs/{BLOB}");
        assert_eq!(judge(&other, PATHS, 0), Ok(()));
        for path in ["/devhost2/timestamp.json", "/other/timestamp.json", "/", "/dev/timestamp.json"] {
            assert_eq!(judge(path, PATHS, 0), Err(Denied::OutOfScope), "{path}");
        }
        for path in [format!("/blobs/{BLOB}"), format!("/any/blobs/1/{BLOB}"), format!("/blobs/leaves/{BLOB}")] {
            assert_eq!(judge(&path, BLOBS, 0), Ok(()), "{path}");
        }
        assert_eq!(judge(&format!("/blobs/{}", "0".repeat(64)), BLOBS, 0), Err(Denied::OutOfScope));
        assert_eq!(judge("/any/timestamp.json", BLOBS, 0), Err(Denied::OutOfScope));
    }

    #[test]
    fn what_is_forged_altered_or_malformed_opens_nothing() {
        for token in [FORGED, UNKNOWN_KEY, UNDOMAINED, EXTRA, "", ".", "a.b", "no token at all"] {
            let encoded = token.replace(' ', "+");
            assert_eq!(judge("/devhost/timestamp.json", &encoded, 0), Err(Denied::Invalid), "{token}");
        }
        // Each letter of a good one, changed.
        for at in 0..ALL.len() {
            let mut altered = ALL.to_owned().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(judge("/devhost/timestamp.json", &altered, 0), Err(Denied::Invalid), "{at}");
        }
        for altered in [format!("{ALL}="), format!("{ALL}A"), format!("{ALL}.{ALL}"), ALL[1..].to_owned()] {
            assert_eq!(judge("/devhost/timestamp.json", &altered, 0), Err(Denied::Invalid), "{altered}");
        }
        let long = "A".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(judge("/devhost/timestamp.json", &long, 0), Err(Denied::Invalid));
    }

    #[test]
    fn one_token_is_shown_and_only_where_one_is_needed() {
        let route = colibri_api::parse_path("/devhost/timestamp.json").unwrap();
        let plain: Uri = "/devhost/timestamp.json".parse().unwrap();
        let bearer = |text: &str| (AUTHORIZATION, text.parse().unwrap());
        let judge = |uri: &Uri, fields: &[(http::HeaderName, http::HeaderValue)]| {
            tokens().judge(&route, uri, &fields.iter().cloned().collect(), UnixSeconds(0)).map(drop)
        };
        let good = bearer(&format!("Bearer {ALL}"));
        assert_eq!(judge(&plain, &[]), Err(Denied::Missing));
        assert_eq!(judge(&plain, std::slice::from_ref(&good)), Ok(()));
        assert_eq!(judge(&plain, &[bearer(&format!("bearer {ALL}"))]), Ok(()));
        assert_eq!(judge(&plain, &[good.clone(), good.clone()]), Err(Denied::Invalid));
        assert_eq!(judge(&plain, &[bearer(&format!("Basic {ALL}"))]), Err(Denied::Invalid));
        assert_eq!(judge(&plain, &[bearer(ALL)]), Err(Denied::Invalid));
        let asked: Uri = format!("/devhost/timestamp.json?token={ALL}").parse().unwrap();
        assert_eq!(judge(&asked, &[good]), Err(Denied::Invalid), "twice");
        let twice: Uri = format!("/devhost/timestamp.json?token={ALL}&token={ALL}").parse().unwrap();
        assert_eq!(judge(&twice, &[]), Err(Denied::Invalid));
        assert_eq!(Tokens::default().judge(&route, &plain, &HeaderMap::new(), UnixSeconds(0)), Ok(None));
    }

    #[test]
    fn a_rate_is_a_number_above_zero_and_somebodys() {
        let keys = BTreeMap::from([("ops".to_owned(), QUOTA_PUBLIC.to_owned())]);
        let tokens = Tokens::new(&TokensConfig { keys }).unwrap();
        let route = colibri_api::parse_path("/devhost/timestamp.json").unwrap();
        let judge = |token: &str| {
            let uri = format!("/devhost/timestamp.json?token={token}").parse().unwrap();
            tokens.judge(&route, &uri, &HeaderMap::new(), UnixSeconds(0))
        };
        let of = |id: &str, requests_per_s, bytes_per_s| {
            let subject = Subject { key: "ops".to_owned(), id: id.to_owned() };
            let [requests_per_s, bytes_per_s] = [requests_per_s, bytes_per_s].map(NonZeroU64::new);
            Ok(Some(Allowance { subject, requests_per_s, bytes_per_s }))
        };
        assert_eq!(judge(TWO_REQUESTS), of("fleet-7", 2, 0));
        assert_eq!(judge(TWO_REQUESTS_BELOW), of("fleet-7", 2, 0), "the same subject");
        assert_eq!(judge(BYTES), of("fleet-8", 0, 100_000));
        for bad in [NOBODYS, NO_REQUESTS, FEWER_THAN_NONE] {
            assert_eq!(judge(bad), Err(Denied::Invalid), "{bad}");
        }
    }

    #[test]
    fn keys_are_checked_at_the_start() {
        let config = |text: &str| TokensConfig { keys: BTreeMap::from([("ops".to_owned(), text.to_owned())]) };
        for bad in ["", "zz", &PUBLIC[1..], &"0".repeat(63)] {
            let error = Tokens::new(&config(bad)).unwrap_err();
            assert!(error.to_string().contains("ops"), "{error}");
        }
        let keys = (0..=TOKEN_KEYS_MAX).map(|number| (number.to_string(), PUBLIC.to_owned())).collect();
        assert!(matches!(Tokens::new(&TokensConfig { keys }), Err(EdgeError::TokenKeys(_))));
    }
}
