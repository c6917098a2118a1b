//! Private keys and their files, in the form of the real tools (reference "Fuchsia formats" §5, "Key file").
//!
//! A private key is never shown, logged or put into an error. Files are readable by their owner only.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use colibri_common::{hex, unhex};
use colibri_metadata::{KeyId, PublicKey, Role, Root};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::RepositoryError;
use crate::limits;

const SEED_BYTES: usize = 32;

/// A private key with the JSON that metadata shows of it.
pub(crate) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    /// Takes part in the key id if present.
    keyid_hash_algorithms: Option<Vec<String>>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public)
    }
}

impl SigningKey {
    fn from_seed(seed: &[u8], keyid_hash_algorithms: Option<Vec<String>>) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = PublicKey::from_bytes(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public, keyid_hash_algorithms })
    }

    /// The key as metadata writes it.
    pub fn to_json(&self) -> Value {
        let mut key = self.public.to_json();
        if let (Some(list), Value::Object(map)) = (&self.keyid_hash_algorithms, &mut key) {
            map.insert("keyid_hash_algorithms".into(), json!(list));
        }
        key
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.to_json()).unwrap_or_else(|| self.public.id())
    }

    /// The signature of `message`, in hex.
    pub fn sign(&self, message: &[u8]) -> String {
        hex(self.pair.sign(message).as_ref())
    }
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    encrypted: bool,
    data: Value,
}

#[derive(Serialize, Deserialize)]
struct KeyEntry {
    keytype: String,
    scheme: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid_hash_algorithms: Option<Vec<String>>,
    keyval: KeyValues,
}

#[derive(Serialize, Deserialize)]
struct KeyValues {
    public: String,
    private: String,
}

/// A folder with `root.json`, `targets.json`, `snapshot.json` and `timestamp.json`; any of them may be missing.
#[derive(Debug, Clone)]
pub(crate) struct KeyFolder {
    dir: PathBuf,
}

impl KeyFolder {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn path(&self, role: Role) -> PathBuf {
        self.dir.join(role.file())
    }

    /// Makes one key for `role`. An existing file is never replaced: it may be the only copy.
    pub fn generate(&self, role: Role) -> Result<SigningKey, RepositoryError> {
        let mut seed = [0; SEED_BYTES];
        SystemRandom::new().fill(&mut seed).map_err(|_| RepositoryError::Random("the system gives none"))?;
        let key = SigningKey::from_seed(&seed, None).ok_or(RepositoryError::Random("the seed was refused"))?;
        let private = format!("{}{}", hex(&seed), key.public);
        let keyval = KeyValues { public: key.public.to_string(), private };
        let entry =
            KeyEntry { keytype: "ed25519".into(), scheme: "ed25519".into(), keyid_hash_algorithms: None, keyval };
        let bad = |reason| RepositoryError::KeyFile { path: self.path(role), reason };
        let data = serde_json::to_value([entry]).map_err(|_| bad("it cannot be written as JSON"))?;
        let text = serde_json::to_vec(&KeyFile { encrypted: false, data });
        self.write(role, &text.map_err(|_| bad("it cannot be written as JSON"))?)?;
        Ok(key)
    }

    fn write(&self, role: Role, text: &[u8]) -> Result<(), RepositoryError> {
        let path = self.path(role);
        let failed = |e| RepositoryError::read(&path, e);
        fs::create_dir_all(&self.dir).map_err(|e| RepositoryError::read(&self.dir, e))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)?;
        let dir = fs::File::open(&self.dir).and_then(|dir| dir.sync_all());
        dir.map_err(|e| RepositoryError::read(&self.dir, e))
    }

    /// The keys of `role`; none if the file is missing.
    pub fn load(&self, role: Role) -> Result<Vec<SigningKey>, RepositoryError> {
        let path = self.path(role);
        let bad = |reason| RepositoryError::KeyFile { path: path.clone(), reason };
        let length = match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.map_err(|e| RepositoryError::read(&path, e))?.len(),
        };
        if length > limits::KEY_FILE_BYTES_MAX {
            return Err(bad("it is too large to be one"));
        }
        let text = fs::read(&path).map_err(|e| RepositoryError::read(&path, e))?;
        // The parser's own message could quote the file: it stays out of the error.
        let file: KeyFile = serde_json::from_slice(&text).map_err(|_| bad("it is not of the known form"))?;
        if file.encrypted {
            return Err(bad("it is encrypted, which is not supported: decrypt it first"));
        }
        let entries: Vec<KeyEntry> =
            serde_json::from_value(file.data).map_err(|_| bad("its data is not a list of ed25519 keys"))?;
        if entries.len() as u64 > limits::KEYS_PER_FILE_MAX {
            return Err(bad("it has too many keys"));
        }
        entries.into_iter().map(|entry| read_entry(entry).map_err(&bad)).collect()
    }

    /// Enough keys to sign `role` under `root`, each named by the root; one signature per key.
    pub fn signers(&self, root: &Root, role: Role) -> Result<Vec<SigningKey>, RepositoryError> {
        let wanted = root.role_keys(role);
        let mut signers: Vec<SigningKey> = Vec::new();
        for key in self.load(role)? {
            let known = wanted.key_ids.contains(&key.id());
            if known && !signers.iter().any(|other| other.public == key.public) {
                signers.push(key);
            }
        }
        let found = u32::try_from(signers.len()).unwrap_or(u32::MAX);
        if found < wanted.threshold {
            let expected: Vec<&str> = wanted.key_ids.iter().map(KeyId::as_str).collect();
            return Err(RepositoryError::NoKey {
                dir: self.dir.clone(),
                role,
                found,
                needed: wanted.threshold,
                expected: expected.join(", "),
            });
        }
        Ok(signers)
    }

    /// Whether `role` can be signed under `root`.
    pub fn can_sign(&self, root: &Root, role: Role) -> bool {
        self.signers(root, role).is_ok()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn read_entry(entry: KeyEntry) -> Result<SigningKey, &'static str> {
    if entry.keytype != "ed25519" || entry.scheme != "ed25519" {
        return Err("it holds a key that is not ed25519");
    }
    let private = unhex(&entry.keyval.private).unwrap_or_default();
    // The private value is seed and public key, one after the other.
    if private.len() != 2 * SEED_BYTES {
        return Err("its private value is not 128 lower-case hex digits");
    }
    let key = SigningKey::from_seed(&private[..SEED_BYTES], entry.keyid_hash_algorithms);
    let key = key.ok_or("its private value is not a key")?;
    if key.public.to_string() != entry.keyval.public
        || key.public.ed25519_bytes().is_none_or(|public| public[..] != private[SEED_BYTES..])
    {
        return Err("its public and private values do not belong together");
    }
    Ok(key)
}
