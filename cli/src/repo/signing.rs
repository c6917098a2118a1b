//! What all verbs that sign have in common: where private keys are, who gives passphrases, and the words for the audit log.
//!
//! A passphrase comes from `--passphrase-file`, else from `COLIBRI_KEY_PASSPHRASE`, else from whoever sits at the terminal.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use colibri_repository::{Act, AskPassphrase, KeySources, Passphrase, Repository};

use super::RepoError;
use crate::files;

/// Longest passphrase file in bytes.
const PASSPHRASE_BYTES_MAX: usize = 4096;

/// Arguments of verbs that sign.
#[derive(Debug, Default, clap::Args)]
pub struct SigningArgs {
    /// Folder of the private keys; default is the repository's keys/. COLIBRI_KEY_ROOT, _TARGETS, _SNAPSHOT, _TIMESTAMP and
    /// _ROLLOUT may hold keys too
    #[arg(long, value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,
    /// File with the passphrase of the private keys; else COLIBRI_KEY_PASSPHRASE, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Kept, so that a verb that signs repeatedly asks once.
    #[arg(skip)]
    pub(crate) sources: OnceLock<KeySources>,
}

impl SigningArgs {
    /// Keys besides the folder, and passphrases.
    pub fn sources(&self) -> Result<KeySources, RepoError> {
        if let Some(sources) = self.sources.get() {
            return Ok(sources.clone());
        }
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut sources = KeySources::from_variables(variables)?;
        if let Some(path) = &self.passphrase_file {
            sources.passphrase = Some(Arc::new(passphrase_of(path)?));
        } else if sources.passphrase.is_none() {
            sources.passphrase = Some(Arc::new(Terminal::default()));
        }
        Ok(self.sources.get_or_init(|| sources).clone())
    }

    /// Who signs and why.
    pub fn act(&self) -> Act {
        let by = std::env::var("COLIBRI_ACTOR").or_else(|_| std::env::var("USER")).ok();
        Act { by: by.filter(|by| !by.is_empty() && !by.chars().any(char::is_control)), reason: self.reason.clone() }
    }

    /// Opens a repository to sign in it.
    pub fn open(&self, dir: &Path) -> Result<Repository, RepoError> {
        self.open_with_keys(dir, self.signing_keys.clone())
    }

    /// Opens a repository to sign in it with the private keys of a folder; without one, with those beside it.
    pub fn open_with_keys(&self, dir: &Path, keys: Option<PathBuf>) -> Result<Repository, RepoError> {
        Ok(Repository::open_with(dir, keys, self.sources()?)?.with_act(self.act()))
    }
}

fn passphrase_of(path: &Path) -> Result<Passphrase, RepoError> {
    let refused = |reason| files::FilesError::Refused { path: path.to_owned(), reason };
    let bytes = files::read(path)?;
    if bytes.len() > PASSPHRASE_BYTES_MAX {
        return Err(refused("it is too long to be a passphrase").into());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| refused("a passphrase is text"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    if text.is_empty() {
        return Err(refused("it is empty").into());
    }
    Ok(Passphrase::new(text))
}

/// Asks whoever sits there, once: all keys of one folder have one passphrase unless it does not open one.
#[derive(Default)]
struct Terminal {
    known: Mutex<Option<Passphrase>>,
}

impl AskPassphrase for Terminal {
    fn ask(&self, file: &Path, new: bool) -> Result<Passphrase, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passphrase) = known.as_ref() {
            return Ok(passphrase.clone());
        }
        let mut screen = std::io::stderr();
        if !std::io::stdin().is_terminal() || !screen.is_terminal() {
            let (verb, dev) =
                if new { ("is to be", " (or leave the keys unencrypted with --dev)") } else { ("is", "") };
            return Err(format!("it {verb} encrypted, there is no passphrase for it and no terminal to ask at{dev}"));
        }
        let failed = |e: std::io::Error| e.to_string();
        let ask = |screen: &mut std::io::Stderr, words: &str| {
            write!(screen, "{words}: ").and_then(|()| screen.flush()).map_err(failed)?;
            rpassword::read_password().map_err(failed)
        };
        let kind = if new { "New passphrase for the private keys" } else { "Passphrase" };
        let text = ask(&mut screen, &format!("{kind} ({})", file.display()))?;
        if new && ask(&mut screen, "Once more")? != text {
            return Err("the two passphrases are not the same".to_owned());
        }
        Ok(known.insert(Passphrase::new(text)).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Fixture;

    #[test]
    fn a_passphrase_is_the_file_without_its_last_line_end() {
        let dir = Fixture::new(&[]);
        dir.write("p", b"two words\n");
        assert_eq!(passphrase_of(&dir.path("p")).unwrap(), Passphrase::new("two words".to_owned()));
        for bad in [&b""[..], b"\n", b"\xff", &[b'x'; 5000]] {
            dir.write("p", bad);
            assert!(passphrase_of(&dir.path("p")).unwrap_err().to_string().contains("/p"));
        }
    }
}
