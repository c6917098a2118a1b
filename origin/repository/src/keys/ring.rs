//! [`KeyRing`]: every private key at hand for one repository, and enough of them to sign a role.
//!
//! In the folder of keys: `ROLE.pem` and `ROLE.NAME.pem` (PKCS#8, one key each), `ROLE.json` (the real tools' form), and
//! `signers.toml` (commands that sign). Besides: variables of the environment. Several keys of one role are normal.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use colibri_metadata::{KeyId, Role, RoleKeys, Root};
use zeroize::Zeroizing;

use super::pkcs8_file::{self, Context};
use super::{AskPassphrase, KeyRole, ListedKey, Passphrase, Secret, Signer, command, ffx};
use crate::error::RepositoryError;
use crate::limits;

/// Variables that hold keys begin so; the rest is a role in capitals.
const VARIABLE_PREFIX: &str = "COLIBRI_KEY_";
/// The passphrase of key files.
const VARIABLE_PASSPHRASE: &str = "COLIBRI_KEY_PASSPHRASE";

/// How new private keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyForm {
    /// PKCS#8 without passphrase: for trying things out.
    #[default]
    Plain,
    /// PKCS#8, encrypted with the passphrase of [`KeySources`].
    Encrypted,
    /// The unencrypted JSON of the real tools, for a folder that they use too.
    RealTools,
}

/// Where private keys come from besides the folder of keys.
#[derive(Clone, Default)]
pub struct KeySources {
    /// Keys by role: the texts of key files.
    pub given: Vec<(KeyRole, Secret)>,
    /// Who gives the passphrases of encrypted key files.
    pub passphrase: Option<Arc<dyn AskPassphrase>>,
}

impl fmt::Debug for KeySources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<_> = self.given.iter().map(|(role, _)| role.name()).collect();
        f.debug_struct("KeySources").field("given", &roles).field("passphrase", &self.passphrase.is_some()).finish()
    }
}

impl KeySources {
    /// Takes `COLIBRI_KEY_ROLE` (the text of a key file) and `COLIBRI_KEY_PASSPHRASE` out of the given variables.
    ///
    /// # Errors
    /// A variable begins like these but is none of them.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, RepositoryError> {
        let mut sources = Self::default();
        for (name, value) in variables {
            if name == VARIABLE_PASSPHRASE {
                sources.passphrase = Some(Arc::new(Passphrase::new(value)));
            } else if let Some(role) = name.strip_prefix(VARIABLE_PREFIX) {
                let role = KeyRole::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(role));
                let role = role.ok_or(RepositoryError::KeyVariable { name })?;
                sources.given.push((role, Secret::new(value)));
            }
        }
        Ok(sources)
    }
}

type Known = HashMap<Vec<u8>, Arc<dyn Signer>>;

/// Every private key at hand. Clones share what was decrypted.
#[derive(Clone)]
pub(crate) struct KeyRing {
    dir: PathBuf,
    sources: KeySources,
    /// By the digest of place and text: a passphrase is asked for once per content.
    known: Arc<Mutex<Known>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("dir", &self.dir).field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl KeyRing {
    pub fn new(dir: PathBuf, sources: KeySources) -> Self {
        Self { dir, sources, known: Arc::default() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes one key for `role` in the folder. An existing file is never replaced: it may be the only copy.
    pub fn generate(&self, role: KeyRole, form: KeyForm) -> Result<ListedKey, RepositoryError> {
        let (name, extension) = (role.name(), if form == KeyForm::RealTools { "json" } else { "pem" });
        let mut path = self.dir.join(format!("{name}.{extension}"));
        let mut number = 2;
        while path.exists() && form != KeyForm::RealTools {
            path = self.dir.join(format!("{name}.{number}.pem"));
            number += 1;
        }
        fs::create_dir_all(&self.dir).map_err(|e| RepositoryError::read(&self.dir, e))?;
        generate_file(&path, form, self.sources.passphrase.clone())
    }

    /// Every key at hand for `role`, each once. None is decrypted if its file tells its public key.
    pub fn available(&self, role: KeyRole) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
        let mut found: Vec<Arc<dyn Signer>> = Vec::new();
        let mut add = |signers: Vec<Arc<dyn Signer>>| {
            for signer in signers {
                if !found.iter().any(|other| other.key().id() == signer.key().id()) {
                    found.push(signer);
                }
            }
        };
        for path in files_of(&self.dir, role)? {
            add(self.read(&read_key_text(&path)?, path)?);
        }
        for (of, text) in &self.sources.given {
            if *of == role {
                let variable = format!("{VARIABLE_PREFIX}{}", role.name().to_ascii_uppercase());
                add(self.read(text, PathBuf::from(variable))?);
            }
        }
        add(command::signers(&self.dir, role)?);
        Ok(found)
    }

    fn read(&self, text: &Secret, path: PathBuf) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
        let origin = path.display().to_string();
        let context = Context { path, passphrase: self.sources.passphrase.clone() };
        if text.expose().trim_start().starts_with('{') {
            let keys = ffx::read(text, &origin).map_err(|reason| context.bad(reason))?;
            return Ok(keys.into_iter().map(|key| Arc::new(key) as Arc<dyn Signer>).collect());
        }
        let content = Zeroizing::new(format!("{origin}\0{}", text.expose()));
        let name = digest(&SHA256, content.as_bytes()).as_ref().to_vec();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = known.get(&name) {
            return Ok(vec![signer.clone()]);
        }
        let signer = pkcs8_file::read(text, context)?;
        if known.len() as u64 >= limits::KEY_FILES_PER_ROLE_MAX * KeyRole::ALL.len() as u64 {
            known.clear();
        }
        known.insert(name, signer.clone());
        Ok(vec![signer])
    }

    /// The keys at hand that `wanted` names; perhaps fewer than its threshold.
    pub fn matching(&self, role: KeyRole, wanted: &RoleKeys) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
        let mut signers = self.available(role)?;
        signers.retain(|signer| wanted.key_ids.contains(signer.key().id()));
        Ok(signers)
    }

    /// Enough keys to sign `role` as `wanted` asks; one signature per key.
    pub fn enough(&self, role: KeyRole, wanted: &RoleKeys) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
        let signers = self.matching(role, wanted)?;
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

    /// Enough keys to sign a top-level role under `root`.
    pub fn signers(&self, root: &Root, role: Role) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
        self.enough(role.into(), root.role_keys(role))
    }

    /// Whether `role` can be signed under `root`, as far as is known without passphrases. A key file that is damaged is an
    /// error, not a lack.
    pub fn can_sign(&self, root: &Root, role: Role) -> Result<bool, RepositoryError> {
        match self.signers(root, role) {
            Ok(_) => Ok(true),
            Err(RepositoryError::NoKey { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Every file of private keys in a folder of keys.
pub(crate) fn key_files(dir: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let files = KeyRole::ALL.into_iter().map(|role| files_of(dir, role)).collect::<Result<Vec<_>, _>>()?;
    Ok(files.into_iter().flatten().collect())
}

fn files_of(dir: &Path, role: KeyRole) -> Result<Vec<PathBuf>, RepositoryError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| RepositoryError::read(dir, e))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| RepositoryError::read(dir, e))?.path();
        let Some(rest) = path.file_name().and_then(|name| name.to_str()?.strip_prefix(role.name())) else {
            continue;
        };
        if rest == ".json" || (rest.starts_with('.') && rest.ends_with(".pem")) {
            files.push(path);
        }
    }
    if files.len() as u64 > limits::KEY_FILES_PER_ROLE_MAX {
        return Err(RepositoryError::KeyFile { path: dir.to_owned(), reason: "it has too many files of one role" });
    }
    files.sort();
    Ok(files)
}

/// The text of a key file, bounded.
pub(super) fn read_key_text(path: &Path) -> Result<Secret, RepositoryError> {
    let failed = |e| RepositoryError::read(path, e);
    let file = fs::File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(limits::KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let bad = |reason| RepositoryError::KeyFile { path: path.to_owned(), reason };
    match read {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(bad("it is not text")),
        Err(e) => Err(failed(e)),
        Ok(length) if length as u64 > limits::KEY_FILE_BYTES_MAX => Err(bad("it is too large to be one")),
        Ok(_) => Ok(Secret::new(std::mem::take(&mut text))),
    }
}

/// Makes a file with one new key, readable by its owner only.
pub(super) fn generate_file(
    path: &Path,
    form: KeyForm,
    passphrase: Option<Arc<dyn AskPassphrase>>,
) -> Result<ListedKey, RepositoryError> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(&mut *seed).map_err(|_| RepositoryError::Random("the system gives none"))?;
    let context = Context { path: path.to_owned(), passphrase };
    let text = match form {
        KeyForm::RealTools => ffx::write(&*seed, path).map_err(|reason| context.bad(reason))?,
        KeyForm::Plain => pkcs8_file::write(&*seed, None, &context)?,
        KeyForm::Encrypted => {
            let locked = |reason: String| RepositoryError::LockedKey { path: path.to_owned(), reason };
            let ask = context.passphrase.as_ref();
            let ask = ask.ok_or_else(|| locked("it is to be encrypted and nobody gave a passphrase".to_owned()))?;
            let passphrase = ask.ask(path, true).map_err(locked)?;
            if passphrase.is_empty() {
                return Err(locked("an empty passphrase protects nothing".to_owned()));
            }
            pkcs8_file::write(&*seed, Some(&passphrase), &context)?
        }
    };
    let failed = |e| RepositoryError::read(path, e);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.expose().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| RepositoryError::read(dir, e))?;
    let seed =
        super::local::LocalKey::from_seed(&*seed, None, "").ok_or(RepositoryError::Random("the seed was refused"))?;
    Ok(seed.key().clone())
}
