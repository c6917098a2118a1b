//! What is served, and the truth to compare with: a repository with one package of many blobs, made by the real tools.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::merkle;

use crate::Failure;

/// Name of the repository.
pub const REPOSITORY: &str = "soak.example";

/// Lengths of the files, bytes: within a leaf, on and off the borders of units, several units.
const LENGTHS_BYTES: [usize; 8] = [5_000, 300_000, 1 << 20, 2 << 20, (3 << 20) + 1, 5_000_001, 9 << 20, 17 << 20];

/// One body that can be asked for.
#[derive(Debug)]
pub struct Document {
    /// Path below a server's URL.
    pub path: String,
    /// Every byte of it.
    pub truth: Bytes,
}

/// All of them.
#[derive(Debug)]
pub struct Site {
    /// Folder of the repository.
    pub repository: PathBuf,
    /// Each blob raw and as a delivery blob.
    pub documents: Vec<Document>,
    asked: Mutex<HashSet<usize>>,
}

impl Site {
    /// Makes it below `dir` with `colibri`.
    pub fn make(colibri: &Path, dir: &Path, seed: u64) -> Result<Self, Failure> {
        let files = dir.join("files/data");
        fs::create_dir_all(&files).map_err(|error| format!("{}: {error}", files.display()))?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut contents = Vec::new();
        for (number, bytes) in LENGTHS_BYTES.into_iter().enumerate() {
            for compressible in [false, true] {
                // A compressible file repeats itself; the largest is noise only.
                if compressible && number + 1 == LENGTHS_BYTES.len() {
                    continue;
                }
                let mut content = vec![0; bytes];
                if compressible {
                    let mut word = [0; 97];
                    random.fill(&mut word);
                    for (at, byte) in content.iter_mut().enumerate() {
                        *byte = word[at % word.len()] ^ u8::from(at % 4099 == 0) ^ (at >> 16) as u8;
                    }
                } else {
                    random.fill(&mut content);
                }
                let file = files.join(format!("{number}-{compressible}"));
                fs::write(&file, &content).map_err(|error| format!("{}: {error}", file.display()))?;
                contents.push(Bytes::from(content));
            }
        }
        let (out, repository) = (dir.join("out"), dir.join("repository"));
        let tool = |words: &[&str], paths: &[&Path]| run(Command::new(colibri).args(words).args(paths));
        tool(
            &["package", "build", "--name", "soak", "--from-dir"],
            &[&dir.join("files"), Path::new("--output"), &out],
        )?;
        tool(&["repo", "create", "--dev"], &[&repository])?;
        let manifest = out.join("package_manifest.json");
        tool(&["repo", "publish", "--level", "1", "--package"], &[&manifest, &repository])?;
        let mut documents = Vec::new();
        for content in contents {
            let id = merkle::build(&content).id;
            let file = repository.join(format!("repository/blobs/1/{id}"));
            let delivery = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            documents.push(Document { path: format!("/{REPOSITORY}/blobs/{id}"), truth: content });
            documents.push(Document { path: format!("/{REPOSITORY}/blobs/1/{id}"), truth: delivery.into() });
        }
        Ok(Self { repository, documents, asked: Mutex::default() })
    }

    /// One of them, noted as asked for.
    pub fn pick(&self, random: &mut fastrand::Rng) -> &Document {
        // Small and popular ones more often than large ones.
        let index = random.usize(..self.documents.len()).min(random.usize(..self.documents.len()));
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        &self.documents[index]
    }

    /// Bytes of all that was asked for so far, each once.
    pub fn unique_bytes(&self) -> u64 {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().map(|index| self.documents[*index].truth.len() as u64).sum()
    }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?} ended with {}: {said}", output.status))
}
