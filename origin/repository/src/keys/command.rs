//! Keys behind a command: KMS, HSM, PKCS#11. The command gets the message on standard input and answers the signature.
//!
//! `signers.toml` in the folder of keys lists them, with the public key, because a key's id must be known before it signs.
//! The protocol (docs/keys.md): the message's exact bytes on standard input, then its end; the signature's bytes on standard
//! output in the form that metadata carries (ed25519: 64 bytes; ECDSA: DER); exit code 0. `COLIBRI_SIGN_ROLE` and
//! `COLIBRI_SIGN_KEYID` tell what for. Nothing is retried.

use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{KeyRole, ListedKey, Signer};
use crate::error::RepositoryError;
use crate::limits;

/// The file in the folder of keys.
const FILE: &str = "signers.toml";

const POLL: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    signer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Name of the role.
    role: String,
    /// Program and arguments; a program with a slash is meant from the folder of keys.
    command: Vec<String>,
    /// File with the public key, meant from the folder of keys.
    public_key: PathBuf,
    /// How long an answer may take, in seconds.
    #[serde(default = "default_timeout_s")]
    timeout_s: u64,
}

const fn default_timeout_s() -> u64 {
    limits::SIGN_COMMAND_S
}

/// A key that only a command can use.
#[derive(Debug)]
struct CommandKey {
    key: ListedKey,
    role: KeyRole,
    dir: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
}

/// The commands for `role` that `dir` lists.
pub(super) fn signers(dir: &Path, role: KeyRole) -> Result<Vec<Arc<dyn Signer>>, RepositoryError> {
    let path = dir.join(FILE);
    let bad = |reason: String| RepositoryError::Manifest { path: path.clone(), reason };
    let text = match fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(RepositoryError::read(&path, e)),
        Ok(found) if found.len() > limits::KEY_FILE_BYTES_MAX => return Err(bad("it is too large".to_owned())),
        Ok(_) => fs::read_to_string(&path).map_err(|e| RepositoryError::read(&path, e))?,
    };
    let file: File = toml::from_str(&text).map_err(|e| bad(e.to_string().trim_end().replace('\n', " ")))?;
    if file.signer.len() as u64 > limits::KEY_FILES_PER_ROLE_MAX {
        return Err(bad(format!("it lists more than {} signers", limits::KEY_FILES_PER_ROLE_MAX)));
    }
    let mut signers: Vec<Arc<dyn Signer>> = Vec::new();
    for entry in file.signer {
        let of: KeyRole = entry.role.parse().map_err(|e| bad(format!("{e}")))?;
        let mut words = entry.command.into_iter();
        let program = words.next().ok_or_else(|| bad(format!("the signer of {of} has an empty command")))?;
        if of == role {
            let program = if program.contains('/') { dir.join(program) } else { PathBuf::from(program) };
            signers.push(Arc::new(CommandKey {
                key: ListedKey::read(&dir.join(entry.public_key))?,
                role,
                dir: dir.to_owned(),
                program,
                arguments: words.collect(),
                timeout: Duration::from_secs(entry.timeout_s),
            }));
        }
    }
    Ok(signers)
}

impl CommandKey {
    fn failed(&self, reason: impl Into<String>) -> RepositoryError {
        RepositoryError::Signer { origin: self.origin(), reason: reason.into() }
    }

    /// Ends with the exit status, or kills what takes too long.
    fn wait(&self, child: &mut Child) -> Result<(), RepositoryError> {
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.failed(format!("it ended with {status}"))),
                Ok(None) if began.elapsed() >= self.timeout => {
                    // Only then is it ours to end; whatever it started itself is not.
                    _ = child.kill().and_then(|()| child.wait());
                    return Err(self.failed(format!("no answer after {} s", self.timeout.as_secs())));
                }
                Ok(None) => thread::sleep(POLL),
                Err(e) => return Err(self.failed(e.to_string())),
            }
        }
    }
}

/// Reads at most `limit` bytes on a thread of its own, so that a full pipe never stops the other side. Whoever writes more
/// finds the pipe closed.
fn read_apart(stream: impl Read + Send + 'static, limit: u64) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (give, take) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        _ = stream.take(limit).read_to_end(&mut bytes);
        _ = give.send(bytes);
    });
    take
}

impl Signer for CommandKey {
    fn key(&self) -> &ListedKey {
        &self.key
    }

    fn origin(&self) -> String {
        format!("command {}", self.program.display())
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("COLIBRI_SIGN_ROLE", self.role.name()).env("COLIBRI_SIGN_KEYID", self.key.id().as_str());
        let mut child = command.spawn().map_err(|e| self.failed(format!("it does not start: {e}")))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(self.failed("it has no standard streams"));
        };
        let signature = read_apart(stdout, limits::SIGNATURE_BYTES_MAX + 1);
        let said = read_apart(stderr, limits::SIGN_COMMAND_WORDS_BYTES_MAX);
        let message = message.to_vec();
        // A command that does not read to the end closes the pipe: its exit code says whether that was an error.
        thread::spawn(move || _ = stdin.write_all(&message));
        if let Err(error) = self.wait(&mut child) {
            let said = said.recv_timeout(POLL * 20).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).trim().replace(char::is_control, " ");
            return match error {
                RepositoryError::Signer { origin, reason } if !said.is_empty() => {
                    Err(RepositoryError::Signer { origin, reason: format!("{reason}: {said}") })
                }
                error => Err(error),
            };
        }
        let signature = signature.recv_timeout(self.timeout).map_err(|_| self.failed("it answered nothing"))?;
        if signature.len() as u64 > limits::SIGNATURE_BYTES_MAX {
            return Err(self.failed("its answer is too long to be a signature"));
        }
        Ok(signature)
    }
}
