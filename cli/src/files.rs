//! Host files for the verbs that work on plain files: read under a cap, hashed, walked, and replaced whole or not at all.
//!
//! Every error names the file and what was being done with it. Nothing here knows a format.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_common::merkle::{Builder, Tree};
use colibri_package::PackageError;
use colibri_package::delivery::DeliveryError;
use colibri_package::far::FarError;
use colibri_package::limits::{DECODED_IN_MEMORY_BYTES_MAX, FAR_ENTRIES_MAX};

/// Bytes read at once when hashing: large enough to keep all cores busy.
const HASHING_BYTES: usize = 16 << 20;

/// Deepest directory tree that is walked.
const WALK_DEPTH_MAX: usize = 128;

/// Why a verb on plain files failed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system refused.
    #[error("{}: {doing} failed: {error}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Output could not be printed.
    #[error("printing failed: {0}")]
    Output(#[from] io::Error),
    /// A file is too large to be held in memory.
    #[error("{}: {found} bytes are over the limit of {DECODED_IN_MEMORY_BYTES_MAX} for one file in memory", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// A path is not Unicode.
    #[error("{}: the path is not Unicode; rename it", .0.display())]
    NotUnicode(PathBuf),
    /// Directories without end.
    #[error("{}: more than {WALK_DEPTH_MAX} directories deep (a symbolic link to its own parent?)", .0.display())]
    TooDeep(PathBuf),
    /// More files than an archive holds.
    #[error("{}: more than {FAR_ENTRIES_MAX} files", .0.display())]
    TooMany(PathBuf),
    /// An archive is malformed, or cannot be made.
    #[error("{}: {error}", path.display())]
    Far {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        error: FarError,
    },
    /// A delivery blob is malformed, or cannot be made.
    #[error("{}: {error}", path.display())]
    Delivery {
        /// The blob.
        path: PathBuf,
        /// What is wrong.
        error: DeliveryError,
    },
    /// A package or manifest is malformed, or cannot be made.
    #[error("{}: {error}", path.display())]
    Package {
        /// The file, or the build's input.
        path: PathBuf,
        /// What is wrong.
        error: PackageError,
    },
    /// Something would be written to a place where it must not go.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The place.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
}

impl FilesError {
    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> ExitCode {
        if matches!(self, Self::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { doing, path: path.clone(), error }
    }

    pub(crate) fn far(path: &Path) -> impl Fn(FarError) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Far { path: path.clone(), error }
    }

    pub(crate) fn delivery(path: &Path) -> impl Fn(DeliveryError) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Delivery { path: path.clone(), error }
    }

    pub(crate) fn package(path: &Path) -> impl Fn(PackageError) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Package { path: path.clone(), error }
    }
}

/// Opens a regular file.
pub(crate) fn open(path: &Path) -> Result<File, FilesError> {
    let file = File::open(path).map_err(FilesError::io("opening", path))?;
    if !file.metadata().map_err(FilesError::io("opening", path))?.is_file() {
        return Err(FilesError::Refused { path: path.to_owned(), reason: "not a regular file" });
    }
    Ok(file)
}

/// The whole content of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    let mut content = Vec::new();
    let most = DECODED_IN_MEMORY_BYTES_MAX;
    open(path)?.take(most + 1).read_to_end(&mut content).map_err(FilesError::io("reading", path))?;
    if content.len() as u64 > most {
        return Err(FilesError::TooLarge { path: path.to_owned(), found: content.len() as u64 });
    }
    Ok(content)
}

/// The merkle tree of a file's content, read in pieces.
pub(crate) fn tree_of(path: &Path) -> Result<Tree, FilesError> {
    let mut file = open(path)?;
    let mut builder = Builder::new();
    let length = file.metadata().map_err(FilesError::io("reading", path))?.len();
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(HASHING_BYTES).clamp(1, HASHING_BYTES)];
    loop {
        // Fill the buffer before hashing: large pieces use all cores.
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FilesError::io("reading", path)(error)),
            }
        }
        builder.push(&buffer[..filled]);
        if filled < buffer.len() {
            return Ok(builder.finish());
        }
    }
}

/// Writes a file whole or not at all: `fill` writes beside it, then it takes the name.
pub(crate) fn write_with<T>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<T, FilesError>,
) -> Result<T, FilesError> {
    let failed = FilesError::io("writing", path);
    let mut directory = path.parent().unwrap_or(Path::new("."));
    if directory.as_os_str().is_empty() {
        directory = Path::new(".");
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".colibri-").permissions(fs::Permissions::from_mode(0o666));
    let mut partial = io::BufWriter::with_capacity(1 << 20, builder.tempfile_in(directory).map_err(&failed)?);
    let filled = fill(&mut partial)?;
    let partial = partial.into_inner().map_err(|error| failed(error.into_error()))?;
    partial.persist(path).map_err(|error| failed(error.error))?;
    Ok(filled)
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), FilesError> {
    write_with(path, |out| out.write_all(content).map_err(FilesError::io("writing", path)))
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(path).map_err(FilesError::io("creating the directory", path))
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Path relative to the directory, with `/` between segments, to host path.
    pub files: BTreeMap<String, PathBuf>,
    /// Sockets, devices and the like.
    pub skipped: Vec<PathBuf>,
}

/// All regular files below a directory; symbolic links are followed.
pub(crate) fn walk(directory: &Path) -> Result<Walked, FilesError> {
    let mut walked = Walked::default();
    let mut waiting = vec![(directory.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = waiting.pop() {
        if depth > WALK_DEPTH_MAX {
            return Err(FilesError::TooDeep(directory));
        }
        let failed = FilesError::io("reading the directory", &directory);
        for entry in fs::read_dir(&directory).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else { return Err(FilesError::NotUnicode(path)) };
            // Follows symbolic links, unlike the entry's own type.
            let kind = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                    return Err(FilesError::Refused { path, reason: "a symbolic link to something that is not there" });
                }
                kind => kind.map_err(FilesError::io("reading", &path))?,
            };
            let relative = format!("{prefix}{name}");
            if kind.is_dir() {
                waiting.push((path, format!("{relative}/"), depth + 1));
            } else if kind.is_file() {
                walked.files.insert(relative, path);
            } else {
                walked.skipped.push(path);
            }
            if (walked.files.len() + waiting.len()) as u64 > FAR_ENTRIES_MAX {
                return Err(FilesError::TooMany(directory));
            }
        }
    }
    Ok(walked)
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<(), FilesError> {
    Ok(writeln!(out, "{value}")?)
}

/// Runs `work` on every path. Without JSON a failing path is reported on standard error and the others go on; the exit code
/// then says that something failed. With JSON the first failure ends it.
pub(crate) fn for_each_path<P: AsRef<Path>>(
    paths: &[P],
    json: bool,
    mut work: impl FnMut(&Path) -> Result<(), FilesError>,
) -> Result<ExitCode, FilesError> {
    if paths.is_empty() {
        return Err(FilesError::Usage("Missing file path".to_owned()));
    }
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        match work(path.as_ref()) {
            Ok(()) => {}
            Err(error) if json || matches!(error, FilesError::Output(_)) => return Err(error),
            Err(error) => {
                eprintln!("{error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory of its own with files in it.
    pub(crate) struct Fixture(tempfile::TempDir);

    impl Fixture {
        pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            files.iter().for_each(|(name, content)| fixture.write(name, content));
            fixture
        }

        pub(crate) fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        pub(crate) fn write(&self, name: &str, content: &[u8]) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    /// What a verb gave back and printed.
    pub(crate) fn printed<T>(verb: impl FnOnce(&mut dyn Write) -> T) -> (T, String) {
        let mut out = Vec::new();
        let result = verb(&mut out);
        (result, String::from_utf8(out).unwrap())
    }

    /// Path of a test vector.
    pub(crate) fn vector(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name)
    }

    #[test]
    fn writes_replace_whole_files_or_nothing() {
        let dir = Fixture::new(&[("f", b"old")]);
        let path = dir.path("f");
        let failing: Result<(), _> = write_with(&path, |out| {
            out.write_all(b"half")?;
            Err(FilesError::Usage("stop".to_owned()))
        });
        assert!(failing.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(walk(&dir.path("")).unwrap().files.keys().collect::<Vec<_>>(), ["f"], "no leftovers");
        assert!(write(&dir.path("no/such/dir"), b"").unwrap_err().to_string().contains("no/such/dir"));
    }

    #[test]
    fn walks_follow_links_and_end_in_loops() {
        let dir = Fixture::new(&[("a/b/c", b""), ("d", b"")]);
        std::os::unix::fs::symlink(dir.path("a/b"), dir.path("link")).unwrap();
        let found = walk(&dir.path("")).unwrap();
        assert_eq!(found.files.keys().collect::<Vec<_>>(), ["a/b/c", "d", "link/c"]);
        std::os::unix::fs::symlink(dir.path("nowhere"), dir.path("dangling")).unwrap();
        let error = walk(&dir.path("")).unwrap_err().to_string();
        assert!(error.contains("dangling: a symbolic link to something that is not there"), "{error}");
        fs::remove_file(dir.path("dangling")).unwrap();
        std::os::unix::fs::symlink(dir.path("a"), dir.path("a/b/loop")).unwrap();
        // The system may give up on the path before the depth limit does.
        assert!(walk(&dir.path("")).is_err());
    }
}
