//! [`TokenFile`]: the bearer tokens an origin accepts, of which it keeps only SHA-256 digests.
//!
//! A token is 32 random bytes behind a readable prefix, shown once when it is made. Whoever reads the file learns names and
//! roles, never a token. Deliberately absent: passwords, sessions, delegation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use colibri_api::RepositoryName;
use colibri_common::{Digest, UnixSeconds, hex, sha256, unhex};
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::role::WriteRole;
use crate::limits::{TOKEN_FILE_BYTES_MAX, TOKEN_NAME_BYTES_MAX, TOKENS_MAX};

/// What every token begins with, so that a scanner of secrets finds one that leaked.
pub const TOKEN_PREFIX: &str = "colibri_";

/// The version of the file that is written; none older exists.
const FORMAT_VERSION: u32 = 1;

/// What is known of one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Short name for people and logs: the 8 hex digits after the prefix.
    pub id: String,
    /// Whose it is or what it is for.
    pub name: String,
    /// What its holder may do.
    pub role: WriteRole,
    /// The repositories it is for; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryName>,
    /// SHA-256 of the whole token, in hex.
    sha256: String,
    /// When it was made.
    pub created: UnixSeconds,
    /// When it ends; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<UnixSeconds>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<UnixSeconds>,
}

impl TokenEntry {
    /// Whether it is good for anything at `now`.
    pub fn is_live(&self, now: UnixSeconds) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }

    fn digest(&self) -> Option<Digest> {
        unhex(&self.sha256)?.try_into().ok()
    }
}

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Whose it is or what it is for: 1 to 128 bytes without control characters.
    pub name: String,
    /// What its holder may do.
    pub role: WriteRole,
    /// The repositories it is for; none means all.
    pub repositories: Vec<RepositoryName>,
    /// When it ends.
    pub expires: Option<UnixSeconds>,
}

/// Why tokens cannot be read or changed. Never shows a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("token file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not a token file.
    #[error("token file {path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name that would confuse a log.
    #[error("a token's name has 1 to {TOKEN_NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// No room.
    #[error("{path} has {TOKENS_MAX} tokens, the most there can be: revoke some with --forget")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Nothing of that id or name.
    #[error("{path} has no live token {wanted:?}: `colibri origin token list` shows them all")]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
    },
    /// The system has no random numbers.
    #[error("the system gives no random numbers for a new token: {0}")]
    Random(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    tokens: Vec<TokenEntry>,
}

/// The tokens of one file, as read at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<(Digest, TokenEntry)>);

impl Tokens {
    /// All entries, dead ones too.
    pub fn entries(&self) -> impl Iterator<Item = &TokenEntry> {
        self.0.iter().map(|(_, entry)| entry)
    }

    /// The live token that `presented` is. Takes the same time whichever it is, or none.
    pub fn find(&self, presented: &[u8], now: UnixSeconds) -> Option<&TokenEntry> {
        let digest = sha256(presented);
        let mut found = Choice::from(0);
        let mut at = 0_u64;
        for (index, (known, _)) in self.0.iter().enumerate() {
            let same = known.ct_eq(&digest);
            at = u64::conditional_select(&at, &(index as u64), same);
            found |= same;
        }
        if !bool::from(found) {
            return None;
        }
        let (_, entry) = self.0.get(usize::try_from(at).ok()?)?;
        Some(entry).filter(|entry| entry.is_live(now))
    }
}

/// A file of tokens. Changes are atomic and durable, and one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile {
    path: PathBuf,
}

/// What tells one state of the file from another: changes rename a new file into place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenStamp {
    inode: u64,
    length: u64,
    modified_ns: i128,
}

impl TokenFile {
    /// The file at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens; none if there is no file. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is not a token file.
    pub fn read(&self) -> Result<Tokens, TokenError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Tokens::default()),
            opened => opened.map_err(|error| self.failed(error))?,
        };
        let mut text = Vec::new();
        file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| self.failed(error))?;
        if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
            return Err(self.damaged(format!("it has more than {TOKEN_FILE_BYTES_MAX} bytes")));
        }
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| self.damaged(error.to_string()))?;
        if stored.version != FORMAT_VERSION {
            let reason = format!("its version is {}, this program knows {FORMAT_VERSION}", stored.version);
            return Err(self.damaged(reason));
        }
        if stored.tokens.len() > TOKENS_MAX {
            return Err(self.damaged(format!("it has more than {TOKENS_MAX} tokens")));
        }
        let digest = |entry: TokenEntry| match entry.digest() {
            Some(digest) => Ok((digest, entry)),
            None => Err(self.damaged(format!("the digest of token {} is not 64 hex digits", entry.id))),
        };
        stored.tokens.into_iter().map(digest).collect::<Result<_, _>>().map(Tokens)
    }

    /// Makes a token and gives it, this once. Blocks.
    ///
    /// # Errors
    /// The name is not one, the file cannot be changed, or the system has no random numbers.
    pub fn create(&self, new: NewToken, now: UnixSeconds) -> Result<(TokenEntry, String), TokenError> {
        let NewToken { name, role, repositories, expires } = new;
        if name.is_empty() || name.len() > TOKEN_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(TokenError::Name);
        }
        let mut random = [0_u8; 36];
        getrandom::fill(&mut random).map_err(|error| TokenError::Random(error.to_string()))?;
        let (id, secret) = random.split_at(4);
        let id = hex(id);
        let token = format!("{TOKEN_PREFIX}{id}_{}", hex(secret));
        let sha256 = hex(&sha256(token.as_bytes()));
        let entry = TokenEntry { id, name, role, repositories, sha256, created: now, expires, revoked: None };
        self.change(|tokens| {
            if tokens.len() >= TOKENS_MAX {
                return Err(TokenError::Full { path: self.path.clone() });
            }
            tokens.push(entry.clone());
            Ok(())
        })?;
        Ok((entry, token))
    }

    /// Revokes every live token whose id or name is `wanted`; with `forget`, entries already dead go away too. Blocks.
    ///
    /// # Errors
    /// There is none, or the file cannot be changed.
    pub fn revoke(&self, wanted: &str, forget: bool, now: UnixSeconds) -> Result<Vec<TokenEntry>, TokenError> {
        let mut revoked = Vec::new();
        self.change(|tokens| {
            let is_meant = |entry: &TokenEntry| entry.id == wanted || entry.name == wanted;
            for entry in tokens.iter_mut().filter(|entry| is_meant(entry) && entry.is_live(now)) {
                entry.revoked = Some(now);
                revoked.push(entry.clone());
            }
            let known = forget && tokens.iter().any(is_meant);
            if revoked.is_empty() && !known {
                return Err(TokenError::Unknown { path: self.path.clone(), wanted: wanted.to_owned() });
            }
            if forget {
                tokens.retain(|entry| !is_meant(entry));
            }
            Ok(())
        })?;
        Ok(revoked)
    }

    /// The state of the file now; nothing if there is none.
    pub(crate) fn stamp(&self) -> Result<Option<TokenStamp>, TokenError> {
        match fs::metadata(&self.path) {
            Ok(metadata) => {
                let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
                Ok(Some(TokenStamp { inode: metadata.ino(), length: metadata.len(), modified_ns }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn change(&self, act: impl FnOnce(&mut Vec<TokenEntry>) -> Result<(), TokenError>) -> Result<(), TokenError> {
        let failed = |error| self.failed(error);
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(self.beside("lock")).map_err(failed)?;
        // Given back when the handle goes.
        lock.lock().map_err(failed)?;
        let mut tokens: Vec<_> = self.read()?.0.into_iter().map(|(_, entry)| entry).collect();
        act(&mut tokens)?;
        let stored = Stored { version: FORMAT_VERSION, tokens };
        let mut text = serde_json::to_vec_pretty(&stored).map_err(|error| self.damaged(error.to_string()))?;
        text.push(b'\n');
        self.replace(&text).map_err(failed)
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.beside("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(ending);
        name.into()
    }

    fn failed(&self, source: io::Error) -> TokenError {
        TokenError::File { path: self.path.clone(), source }
    }

    fn damaged(&self, reason: String) -> TokenError {
        TokenError::Damaged { path: self.path.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000);

    fn new(name: &str) -> NewToken {
        NewToken { name: name.to_owned(), role: WriteRole::Publisher, repositories: Vec::new(), expires: None }
    }

    #[test]
    fn a_token_is_shown_once_and_known_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(&dir.path().join("below/tokens.json"));
        assert_eq!(file.read().unwrap().entries().count(), 0, "no file, no tokens");
        let (one, first) = file.create(new("one"), NOW).unwrap();
        let (_, second) = file.create(new("two"), NOW).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let secret = first.rsplit('_').next().unwrap();
        assert!(first.starts_with(&format!("{TOKEN_PREFIX}{}_", one.id)) && secret.len() == 64, "{}", one.id);
        assert!(!text.contains(secret), "the file holds no token");
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let tokens = file.read().unwrap();
        assert_eq!(tokens.find(first.as_bytes(), NOW).unwrap().name, "one");
        assert_eq!(tokens.find(second.as_bytes(), NOW).unwrap().name, "two");
        for wrong in [&first[1..], &first[..first.len() - 1], "", &format!("{first} ")] {
            assert_eq!(tokens.find(wrong.as_bytes(), NOW), None);
        }
    }

    #[test]
    fn dead_tokens_are_listed_and_open_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = TokenFile::new(&dir.path().join("tokens.json"));
        let (_, token) = file.create(NewToken { expires: Some(UnixSeconds(2_000)), ..new("ends") }, NOW).unwrap();
        let (revoked, gone) = file.create(new("gone"), NOW).unwrap();
        let before = file.stamp().unwrap();
        assert_eq!(file.revoke("gone", false, NOW).unwrap().len(), 1);
        assert_ne!(before, file.stamp().unwrap());
        let tokens = file.read().unwrap();
        assert!(tokens.find(token.as_bytes(), UnixSeconds(1_999)).is_some());
        assert_eq!(tokens.find(token.as_bytes(), UnixSeconds(2_000)), None);
        assert_eq!(tokens.find(gone.as_bytes(), NOW), None);
        assert_eq!(tokens.entries().count(), 2);
        assert!(matches!(file.revoke("gone", false, NOW), Err(TokenError::Unknown { .. })));
        file.revoke(&revoked.id, true, NOW).unwrap();
        assert_eq!(file.read().unwrap().entries().count(), 1);
    }

    #[test]
    fn what_is_no_token_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let entry = r#"{"id":"a","name":"n","role":"admin","sha256":"00","created":1}"#;
        for text in ["", "{}", r#"{"version":2,"tokens":[]}"#, &format!(r#"{{"version":1,"tokens":[{entry}]}}"#)] {
            fs::write(&path, text).unwrap();
            let error = TokenFile::new(&path).read().unwrap_err();
            assert!(matches!(&error, TokenError::Damaged { .. }), "{text}: {error}");
        }
        for name in ["", "a\nb", &"x".repeat(TOKEN_NAME_BYTES_MAX + 1)] {
            assert!(matches!(TokenFile::new(&path).create(new(name), NOW), Err(TokenError::Name)));
        }
    }
}
