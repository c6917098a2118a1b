//! Key files in PKCS#8 (RFC 5958), PEM: plain, or encrypted with a passphrase (PBES2: scrypt and AES-256-CBC, RFC 8018).
//!
//! Our files hold the public key beside the private one, so that what a file can sign is known without its passphrase;
//! files without it are decrypted to find out. `openssl pkey` reads and makes both kinds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use colibri_metadata::PublicKey;
use pkcs8::der::asn1::{BitStringRef, OctetStringRef};
use pkcs8::der::pem::LineEnding;
use pkcs8::der::{Decode, Document, Encode, SecretDocument};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, pkcs5};
use zeroize::Zeroizing;

use super::listed::{ED25519_OID, ListedKey, PUBLIC_KEY_LABEL, pem_block};
use super::local::LocalKey;
use super::{AskPassphrase, KeyForm, Passphrase, Secret, Signer};
use crate::error::RepositoryError;
use crate::limits;

const PLAIN_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// Cost of turning a passphrase into a key: 16 MiB, five times over, once per key and process. With more memory `openssl` would
/// not open the files.
const SCRYPT_LOG_N: u8 = 14;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 5;
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;

/// What a file or variable is called in errors, and who gives passphrases.
#[derive(Clone)]
pub(super) struct Context {
    pub path: PathBuf,
    pub passphrase: Option<Arc<dyn AskPassphrase>>,
}

impl Context {
    pub fn bad(&self, reason: &'static str) -> RepositoryError {
        RepositoryError::KeyFile { path: self.path.clone(), reason }
    }

    fn origin(&self) -> String {
        self.path.display().to_string()
    }
}

/// Reads the one private key of a PEM text. Nothing is decrypted if the text has the public key too.
pub(super) fn read(text: &Secret, context: Context) -> Result<Arc<dyn Signer>, RepositoryError> {
    let text = text.expose();
    if let Some(block) = pem_block(text, PLAIN_LABEL) {
        let (_, der) = SecretDocument::from_pem(block).map_err(|_| context.bad("its private key is not PEM"))?;
        let key = LocalKey::from_pkcs8(der.as_bytes(), &context.origin());
        return Ok(Arc::new(key.ok_or_else(|| context.bad("its private key is not of a kind that can be used"))?));
    }
    let block = pem_block(text, ENCRYPTED_LABEL);
    let block =
        block.ok_or_else(|| context.bad("it holds no private key: neither PEM nor the JSON of the real tools"))?;
    let (_, der) = Document::from_pem(block).map_err(|_| context.bad("its encrypted private key is not PEM"))?;
    let der = der.as_bytes().to_vec();
    if pem_block(text, PUBLIC_KEY_LABEL).is_none() {
        return Ok(Arc::new(decrypt(&der, &context)?));
    }
    let key = ListedKey::from_pem(text).map_err(|reason| context.bad(reason))?;
    Ok(Arc::new(EncryptedKey { der, key, context, open: Mutex::default() }))
}

fn decrypt(der: &[u8], context: &Context) -> Result<LocalKey, RepositoryError> {
    let info = EncryptedPrivateKeyInfoRef::from_der(der);
    let info = info.map_err(|_| context.bad("its encrypted private key is malformed"))?;
    let scrypt = info.encryption_algorithm.pbes2().and_then(|scheme| scheme.kdf.scrypt());
    if scrypt.is_some_and(|scrypt| scrypt.cost_parameter > limits::KEY_SCRYPT_COST_MAX) {
        return Err(context.bad("decrypting it would take too much memory"));
    }
    let locked = |reason: String| RepositoryError::LockedKey { path: context.path.clone(), reason };
    let ask =
        context.passphrase.as_ref().ok_or_else(|| locked("it is encrypted and nobody gave a passphrase".to_owned()))?;
    let passphrase = ask.ask(&context.path, false).map_err(locked)?;
    let plain = info.decrypt(passphrase.expose()).map_err(|_| locked("the passphrase does not open it".to_owned()))?;
    let key = LocalKey::from_pkcs8(plain.as_bytes(), &context.origin());
    key.ok_or_else(|| context.bad("its private key is not of a kind that can be used"))
}

/// A key whose file is opened when it first signs.
struct EncryptedKey {
    der: Vec<u8>,
    key: ListedKey,
    context: Context,
    open: Mutex<Option<Arc<LocalKey>>>,
}

impl fmt::Debug for EncryptedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedKey(of {}, {})", self.key.id(), self.context.path.display())
    }
}

impl Signer for EncryptedKey {
    fn key(&self) -> &ListedKey {
        &self.key
    }

    fn origin(&self) -> String {
        self.context.origin()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let local = match open.as_ref() {
            Some(local) => local.clone(),
            None => {
                let local = Arc::new(decrypt(&self.der, &self.context)?);
                if local.key().public() != self.key.public() {
                    return Err(self.context.bad("its public and private keys do not belong together"));
                }
                open.insert(local).clone()
            }
        };
        drop(open);
        local.sign(message)
    }
}

/// A new ed25519 key as a file's text, and its public part.
pub(super) fn write(
    seed: &[u8],
    passphrase: Option<&Passphrase>,
    context: &Context,
) -> Result<Secret, RepositoryError> {
    let key = LocalKey::from_seed(seed, None, "").ok_or_else(|| context.bad("the seed was refused"))?;
    let failed = |_| context.bad("it cannot be encoded");
    let seed = Zeroizing::new(OctetStringRef::new(seed).and_then(|seed| seed.to_der()).map_err(failed)?);
    let inner = OctetStringRef::new(&seed).map_err(failed)?;
    let algorithm = AlgorithmIdentifierRef { oid: ED25519_OID, parameters: None };
    let info = PrivateKeyInfoRef::new(algorithm, inner);
    let private = match passphrase {
        None => SecretDocument::encode_msg(&info).and_then(|der| der.to_pem(PLAIN_LABEL, LineEnding::LF)),
        Some(passphrase) => {
            let der = info.encrypt_with_params(scrypt(context)?, passphrase.expose());
            let der = der.map_err(|_| context.bad("it cannot be encrypted"))?;
            der.to_pem(ENCRYPTED_LABEL, LineEnding::LF)
        }
    };
    Ok(Secret::new(format!("{}{}", *private.map_err(failed)?, key.key().to_pem()?)))
}

fn scrypt(context: &Context) -> Result<pkcs5::pbes2::Parameters, RepositoryError> {
    let random = |bytes: &mut [u8]| {
        SystemRandom::new().fill(bytes).map_err(|_| RepositoryError::Random("the system gives none"))
    };
    let (mut salt, mut iv) = ([0; SALT_BYTES], [0; IV_BYTES]);
    random(&mut salt)?;
    random(&mut iv)?;
    let failed = || context.bad("it cannot be encrypted");
    let cost = pkcs5::scrypt::Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|_| failed())?;
    pkcs5::pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| failed())
}

/// A public key as PEM.
pub(super) fn public_pem(public: &PublicKey) -> Result<String, RepositoryError> {
    let failed = |_| RepositoryError::OutOfRange("a public key cannot be encoded".to_owned());
    let Some(bytes) = public.ed25519_bytes() else {
        // Metadata writes other kinds as PEM.
        let json = public.to_json();
        let text = json.get("keyval").and_then(|value| value.get("public")?.as_str()).unwrap_or_default();
        return Ok(format!("{}\n", text.trim_end()));
    };
    let algorithm = AlgorithmIdentifierRef { oid: ED25519_OID, parameters: None };
    let subject_public_key = BitStringRef::from_bytes(bytes).map_err(failed)?;
    let document = Document::encode_msg(&SubjectPublicKeyInfoRef { algorithm, subject_public_key }).map_err(failed)?;
    document.to_pem(PUBLIC_KEY_LABEL, LineEnding::LF).map_err(failed)
}

/// Makes one new key in a file that must not be there yet, and gives its public part: for people who hold a key on a
/// machine of their own. `form` must not be the real tools' one.
///
/// # Errors
/// The file is there, cannot be written, or there is no passphrase for it.
pub fn generate_key_file(
    path: &Path,
    form: KeyForm,
    passphrase: Option<Arc<dyn AskPassphrase>>,
) -> Result<ListedKey, RepositoryError> {
    super::ring::generate_file(path, form, passphrase)
}
