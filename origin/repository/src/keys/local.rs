//! [`LocalKey`]: a private key in this process's memory.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use colibri_common::hex;
use colibri_metadata::PublicKey;
use serde_json::json;

use super::listed::ListedKey;
use super::{RepositoryError, Signer};

/// A private key in memory; the cryptography library wipes it when dropped.
pub(super) struct LocalKey {
    pair: Pair,
    key: ListedKey,
    origin: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

impl LocalKey {
    /// From the 32 bytes of an ed25519 private key.
    pub fn from_seed(seed: &[u8], algorithms: Option<Vec<String>>, origin: &str) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = PublicKey::from_bytes(pair.public_key().as_ref().try_into().ok()?);
        Some(Self {
            pair: Pair::Ed25519(pair),
            key: ListedKey::with_algorithms(public, algorithms),
            origin: origin.to_owned(),
        })
    }

    /// From PKCS#8, version 1 or 2.
    pub fn from_pkcs8(der: &[u8], origin: &str) -> Option<Self> {
        let origin = origin.to_owned();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            let public = PublicKey::from_bytes(pair.public_key().as_ref().try_into().ok()?);
            return Some(Self { pair: Pair::Ed25519(pair), key: ListedKey::new(public), origin });
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).ok()?;
        let point = hex(pair.public_key().as_ref());
        let json = json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": point}});
        let public = PublicKey::from_json(&json).ok()?;
        Some(Self { pair: Pair::EcdsaP256(pair), key: ListedKey::new(public), origin })
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey(of {})", self.key.id())
    }
}

impl Signer for LocalKey {
    fn key(&self) -> &ListedKey {
        &self.key
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::EcdsaP256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                let failed = |_| RepositoryError::Random("the library gives no signature");
                Ok(signature.map_err(failed)?.as_ref().to_vec())
            }
        }
    }
}
