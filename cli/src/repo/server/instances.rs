//! [`Instances`]: which servers run, told by a small file each and a lock that its process holds as long as it lives.
//!
//! A file whose lock is free is of a server that has ended or was killed; whoever sees it removes it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ServerError;
use crate::files::{self, FilesError};
use crate::repo::RepoError;

/// How often and after what pause a lock is tried again: whoever looks whether a server runs holds it for an instant.
const CLAIMS: u32 = 5;
const CLAIM_PAUSE: Duration = Duration::from_millis(20);

/// What is recorded of a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Where it answers, with the real port.
    pub address: String,
    /// What it serves.
    pub repositories: Vec<Served>,
    /// The product bundle that they are of.
    pub product_bundle: Option<PathBuf>,
    /// Hosts that stand for what it serves, on devices that are told of it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// `background` or `foreground`.
    pub mode: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Where its messages go, in the background.
    pub log: Option<PathBuf>,
    /// What it was asked for, to tell whether another start means the same.
    pub asked: serde_json::Value,
}

/// A repository that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The first segment of its address.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
}

impl Instance {
    /// Where it answers, for those on this machine.
    pub fn url(&self) -> String {
        // Everywhere is not an address to go to.
        format!("http://{}", self.address.replace("[::]", "localhost").replace("0.0.0.0", "localhost"))
    }

    /// Whether it answers at this port.
    pub fn is_at(&self, port: u16) -> bool {
        self.address.ends_with(&format!(":{port}"))
    }
}

/// The folder of records.
#[derive(Debug)]
pub struct Instances {
    dir: PathBuf,
}

/// Held by the process of a server.
#[derive(Debug)]
pub struct Place {
    file: PathBuf,
    _lock: File,
}

impl Instances {
    /// Opens the folder given, else the user's own.
    pub fn open(dir: Option<PathBuf>) -> Result<Self, RepoError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = || variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
        let users = || Some(variable("XDG_RUNTIME_DIR").or_else(state)?.join("colibri/servers"));
        let dir = dir.or_else(users).ok_or(ServerError::NoPlace)?;
        files::create_dir(&dir)?;
        let dir = dir.canonicalize().map_err(FilesError::io("opening", &dir))?;
        Ok(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Where a server in the background writes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn lock(&self, name: &str) -> Result<Option<File>, RepoError> {
        let path = self.dir.join(format!("{name}.lock"));
        let failed = FilesError::io("locking", &path);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(&failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error).into()),
        }
    }

    /// Takes the name for this process; if a server has it, what is recorded of that one.
    pub fn claim(&self, name: &str) -> Result<Result<Place, Instance>, RepoError> {
        let file = self.file(name);
        let mut lock = self.lock(name)?;
        for _ in 0..CLAIMS {
            if lock.is_some() {
                break;
            }
            std::thread::sleep(CLAIM_PAUSE);
            lock = self.lock(name)?;
        }
        match lock {
            Some(lock) => {
                remove(&file)?;
                Ok(Ok(Place { file, _lock: lock }))
            }
            None => match self.read(name)? {
                Some(instance) => Ok(Err(instance)),
                None => Err(ServerError::Busy(name.to_owned()).into()),
            },
        }
    }

    fn read(&self, name: &str) -> Result<Option<Instance>, RepoError> {
        let path = self.file(name);
        match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Of another version of this program, perhaps.
            text => Ok(serde_json::from_slice(&text.map_err(FilesError::io("reading", &path))?).ok()),
        }
    }

    /// The server of this name, if it runs. What is left of one that does not is removed.
    pub fn get(&self, name: &str) -> Result<Option<Instance>, RepoError> {
        if !self.file(name).exists() {
            return Ok(None);
        }
        if let Some(_lock) = self.lock(name)? {
            remove(&self.file(name))?;
            return Ok(None);
        }
        self.read(name)
    }

    /// All servers that run, by name.
    pub fn running(&self) -> Result<Vec<Instance>, RepoError> {
        let mut names = Vec::new();
        let failed = FilesError::io("reading the directory", &self.dir);
        for entry in fs::read_dir(&self.dir).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
        }
        names.sort();
        names.iter().filter_map(|name| self.get(name).transpose()).collect()
    }
}

impl Place {
    /// Tells everybody that the server answers.
    pub fn record(&self, instance: &Instance) -> Result<(), RepoError> {
        let text = serde_json::to_vec(instance).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(files::write(&self.file, &text)?)
    }
}

/// The record goes first, then the lock.
impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.file);
    }
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FilesError::io("removing", path)(error)),
        _ => Ok(()),
    }
}
