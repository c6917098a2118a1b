//! Key types: what they verify, one key in two spellings, one algorithm taken for another, and keys that are too large or weak.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use colibri_common::hex;
use colibri_metadata::{KeyError, PublicKey, Role, Rule, canonical};
use serde_json::{Value, json};

use crate::fixture::{Key, Repo, fresh};

const MESSAGE: &[u8] = b"what is signed";

fn pem_of(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("PUBLIC KEY", der))
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, String) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let pem = pem_of(pair.public_key().as_der().unwrap().as_ref());
    (pair, pem)
}

fn p256() -> (EcdsaKeyPair, String) {
    ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
}

fn rsa() -> (RsaKeyPair, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pem = pem_of(pair.public_key().as_der().unwrap().as_ref());
    (pair, pem)
}

fn rsa_signature(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut signature).unwrap();
    signature
}

fn key(kind: &str, scheme: &str, public: &str) -> Result<PublicKey, KeyError> {
    PublicKey::from_json(&json!({"keytype": kind, "scheme": scheme, "keyval": {"public": public}}))
}

#[test]
fn each_kind_verifies_its_own_signatures_only() {
    let ((ec, ec_pem), (rsa, rsa_pem)) = (p256(), rsa());
    let ec_key = key("ecdsa", "ecdsa-sha2-nistp256", &ec_pem).unwrap();
    let rsa_key = key("rsa", "rsassa-pss-sha256", &rsa_pem).unwrap();
    let ec_signature = ec.sign(&SystemRandom::new(), MESSAGE).unwrap();
    let rsa_signature_ = rsa_signature(&rsa, &RSA_PSS_SHA256);
    assert!(ec_key.verifies(MESSAGE, ec_signature.as_ref()) && rsa_key.verifies(MESSAGE, &rsa_signature_));
    assert!(!ec_key.verifies(MESSAGE, &rsa_signature_) && !rsa_key.verifies(MESSAGE, ec_signature.as_ref()));
    assert!(!ec_key.verifies(b"else", ec_signature.as_ref()) && !rsa_key.verifies(b"else", &rsa_signature_));
    // One RSA key, other ways to sign.
    assert!(!rsa_key.verifies(MESSAGE, &rsa_signature(&rsa, &RSA_PKCS1_SHA256)));
    assert!(!rsa_key.verifies(MESSAGE, &rsa_signature(&rsa, &RSA_PSS_SHA512)));
    for empty in [&[][..], &[0; 64], &[0; 256]] {
        assert!(!ec_key.verifies(MESSAGE, empty) && !rsa_key.verifies(MESSAGE, empty));
        assert!(!Key::new(1).public().verifies(MESSAGE, empty));
    }
}

#[test]
fn one_key_is_one_key_however_it_is_written() {
    let (pair, text) = p256();
    let usual = key("ecdsa", "ecdsa-sha2-nistp256", &text).unwrap();
    let point = hex(pair.public_key().as_ref());
    let crlf = text.replace("\r\n", "\n").replace('\n', "\r\n");
    for other in [
        key("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", &text),
        key("ecdsa", "ecdsa-sha2-nistp256", &point),
        key("ecdsa", "ecdsa-sha2-nistp256", &crlf),
        key("ecdsa", "ecdsa-sha2-nistp256", text.trim_end()),
        PublicKey::from_pem(&text),
        PublicKey::from_json(&usual.to_json()),
    ] {
        assert_eq!(other.as_ref(), Ok(&usual));
    }
    let (_, text) = rsa();
    let usual = key("rsa", "rsassa-pss-sha256", &text).unwrap();
    assert_eq!(PublicKey::from_pem(&text).as_ref(), Ok(&usual));
    assert_eq!(PublicKey::from_json(&usual.to_json()).as_ref(), Ok(&usual));
    assert_eq!(usual.ed25519_bytes(), None);
}

#[test]
fn one_algorithm_is_not_taken_for_another() {
    let ((_, ec_pem), (_, rsa_pem)) = (p256(), rsa());
    let (_, p384) = ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING);
    let ed = Key::new(1).public().to_string();
    for (kind, scheme, public) in [
        ("rsa", "rsassa-pss-sha256", &ec_pem),
        ("ecdsa", "ecdsa-sha2-nistp256", &rsa_pem),
        ("ecdsa", "ecdsa-sha2-nistp256", &p384),
        ("ecdsa", "ecdsa-sha2-nistp256", &ed),
        ("ed25519", "ed25519", &ec_pem),
        ("ed25519", "ecdsa-sha2-nistp256", &ed),
        ("ed25519", "ecdsa-sha2-nistp256", &ec_pem),
        ("ecdsa", "ecdsa-sha2-nistp384", &ec_pem),
        ("ecdsa", "rsassa-pss-sha256", &rsa_pem),
        ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp256", &ec_pem),
        ("rsa", "rsa-pkcs1v15-sha256", &rsa_pem),
        ("rsa", "rsassa-pss-sha512", &rsa_pem),
        ("RSA", "rsassa-pss-sha256", &rsa_pem),
        ("", "", &ed),
    ] {
        assert!(key(kind, scheme, public).is_err(), "{kind} {scheme}");
    }
    for missing in [json!({}), json!(null), json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": ed})] {
        assert_eq!(PublicKey::from_json(&missing), Err(KeyError::Unknown));
    }
}

/// DER of an element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let length = match length {
        0..0x80 => vec![length.to_be_bytes()[1]],
        0x80..0x100 => vec![0x81, length.to_be_bytes()[1]],
        _ => [&[0x82][..], &length.to_be_bytes()].concat(),
    };
    [&[tag][..], &length, content].concat()
}

fn rsa_of(modulus: &[u8], exponent: &[u8]) -> String {
    let numbers = der(0x30, &[der(2, modulus), der(2, exponent)].concat());
    let algorithm = [0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    pem_of(&der(0x30, &[&algorithm[..], &der(3, &[&[0][..], &numbers].concat())].concat()))
}

#[test]
fn rsa_keys_that_cost_too_much_or_hold_nothing_are_refused() {
    let modulus = |bytes: usize| {
        let mut modulus = vec![0xa5; bytes + 1];
        modulus[0] = 0;
        modulus
    };
    let usual = [1, 0, 1];
    let read = |modulus: &[u8], exponent: &[u8]| key("rsa", "rsassa-pss-sha256", &rsa_of(modulus, exponent));
    for bytes in [256, 512, 1024] {
        assert!(read(&modulus(bytes), &usual).is_ok(), "{bytes}");
    }
    assert!(read(&modulus(256), &[3]).is_ok());
    for bytes in [64, 128, 255, 1025, 2048] {
        assert_eq!(read(&modulus(bytes), &usual), Err(KeyError::Rsa), "{bytes}");
    }
    let long = [&[0x7f][..], &[0xff; 255]].concat();
    for exponent in [&[1][..], &[0], &[2], &[1, 0, 0], &[], &[0x80, 1], &[0, 1, 0, 1], &[2, 0, 0, 0, 1], &long] {
        assert_eq!(read(&modulus(256), exponent), Err(KeyError::Rsa), "{exponent:x?}");
    }
    let mut even = modulus(256);
    even[256] = 0xa4;
    assert_eq!(read(&even, &usual), Err(KeyError::Rsa));
    let mut negative = modulus(256);
    negative.remove(0);
    assert_eq!(read(&negative, &usual), Err(KeyError::Rsa));
    // Huge text, other labels, a tail behind the key.
    let good = rsa_of(&modulus(256), &usual);
    assert!(key("rsa", "rsassa-pss-sha256", &format!("{good}{}", " ".repeat(5000))).is_err());
    assert!(key("rsa", "rsassa-pss-sha256", &good.replace("PUBLIC", "PRIVATE")).is_err());
    let mut tail = pem::parse(&good).unwrap().into_contents();
    tail.push(0);
    assert!(key("rsa", "rsassa-pss-sha256", &pem_of(&tail)).is_err());
}

#[test]
fn points_that_are_not_on_the_curve_are_refused() {
    let (pair, _) = p256();
    let good = pair.public_key().as_ref().to_vec();
    let read = |point: &[u8]| key("ecdsa", "ecdsa-sha2-nistp256", &hex(point));
    assert!(read(&good).is_ok());
    let mut off = good.clone();
    off[64] ^= 1;
    let mut compressed = good[..33].to_vec();
    compressed[0] = 2 + (good[64] & 1);
    let zero = [&[4][..], &[0; 64]].concat();
    for bad in [&off[..], &compressed, &zero, &[0], &[], &good[..64]] {
        assert_eq!(read(bad), Err(KeyError::Ecdsa), "{}", hex(bad));
    }
}

/// A repository whose timestamp is signed as `sign` says, under `keys` and `threshold`.
fn signed_by(keys: &[(&str, Value)], threshold: u32, sign: impl Fn(&[u8]) -> Vec<(String, Vec<u8>)>) -> Repo {
    let mut repo = Repo::new();
    let mut root = repo.root_signed();
    for (id, key) in keys {
        root["keys"][id] = key.clone();
    }
    let ids: Vec<_> = keys.iter().map(|(id, _)| *id).collect();
    root["roles"]["timestamp"] = json!({"keyids": ids, "threshold": threshold});
    root["version"] = json!(2);
    repo.files.insert("2.root.json".into(), crate::fixture::envelope(&root, repo.keys(Role::Root)));
    let signed = repo.timestamp_signed(&repo.files["1.snapshot.json"]);
    let signatures = sign(&canonical::encode(&signed).unwrap());
    let signatures: Vec<_> =
        signatures.into_iter().map(|(id, signature)| json!({"keyid": id, "sig": hex(&signature)})).collect();
    let file = canonical::encode(&json!({"signatures": signatures, "signed": signed})).unwrap();
    repo.files.insert("timestamp.json".into(), file.into());
    repo
}

#[test]
fn a_key_in_two_spellings_meets_no_threshold_of_two() {
    let (pair, text) = p256();
    let of = |kind: &str, public: &str| json!({"keytype": kind, "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": public}});
    let keys = [("one", of("ecdsa", &text)), ("two", of("ecdsa-sha2-nistp256", &hex(pair.public_key().as_ref())))];
    let sign = |ids: &'static [&'static str]| {
        let pair = &pair;
        move |message: &[u8]| -> Vec<(String, Vec<u8>)> {
            // Each signature of ECDSA differs: malleable, and still of one key.
            let signature = || pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
            ids.iter().map(|id| ((*id).to_owned(), signature())).collect()
        }
    };
    assert!(fresh(&signed_by(&keys, 1, sign(&["one"]))).result.is_ok());
    assert!(fresh(&signed_by(&keys, 1, sign(&["two"]))).result.is_ok());
    let twice = fresh(&signed_by(&keys, 2, sign(&["one", "two"])));
    assert!(matches!(twice.error().rule(), Rule::Threshold { valid: 1, threshold: 2, .. }));
    let listed_twice = fresh(&signed_by(&keys, 1, sign(&["one", "one"])));
    assert_eq!(listed_twice.error().rule(), &Rule::DuplicateKeyId("one".into()));
    // An id says nothing about the key behind it, and is only good for the role that names it.
    assert!(fresh(&signed_by(&keys[..1], 1, sign(&["two"]))).result.is_err());
}

#[test]
fn ids_are_opaque() {
    let key = Key::new(60);
    for id in ["x", "Not Hex/..", "ünïcode", &"f".repeat(64), &Key::new(61).id().to_string()] {
        let sign = |message: &[u8]| vec![(id.to_owned(), key.sign(message))];
        assert!(fresh(&signed_by(&[(id, key.json())], 1, sign)).result.is_ok(), "{id}");
    }
}
