//! `colibri blob compress|decompress|hash`: delivery blobs and plain files.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_package::delivery::{self, DeliveryError, DeliveryType};
use serde_json::json;

use crate::files::{self, FilesError};

/// Works on delivery blobs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with blobs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes delivery blobs of plain files
    Compress(Compress),
    /// Makes plain files of delivery blobs; the type is read from the header
    Decompress(Decompress),
    /// Prints the merkle root of each delivery blob's content, `HASH  PATH` per line
    Hash(Hash),
}

/// Arguments of `blob compress`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints `SRC => DST` per file. A file that fails is named on standard error; the others go on, and the exit \
    code is 1.\n\nExample: the delivery blobs of a directory, named as a server names them\n  \
    colibri blob compress --hash-as-name -o blobs/1 app/*"
)]
pub struct Compress {
    /// A file, or a directory (if it is one, for several inputs, and with --hash-as-name)
    #[arg(short, long)]
    pub output: PathBuf,
    /// Delivery type: 1 or 2
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value_t = 1)]
    pub delivery_type: u32,
    /// zstd level instead of the type's own (14 for type 1, 21 for type 2)
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: Option<i32>,
    /// Name the outputs by merkle root
    #[arg(long)]
    pub hash_as_name: bool,
    /// Plain files
    pub paths: Vec<PathBuf>,
}

/// Arguments of `blob decompress`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints `SRC => DST` per file. A file that fails is named on standard error; the others go on, and the exit \
    code is 1.\n\nExample:\n  colibri blob decompress -o hello \\\n    \
    repo/repository/blobs/1/15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b"
)]
pub struct Decompress {
    /// A file, or a directory (if it is one, and for several inputs)
    #[arg(short, long)]
    pub output: PathBuf,
    /// Delivery blobs
    pub paths: Vec<PathBuf>,
}

/// Arguments of `blob hash`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A file that fails is named on standard error; the others go on, and the exit code is 1.\n\n\
    Example: files of a repository that are not what their names say\n  \
    cd repo/repository/blobs/1 && colibri blob hash * | awk '$1 != $2'")]
pub struct Hash {
    /// The files are plain files, not delivery blobs
    #[arg(long)]
    pub uncompressed: bool,
    /// Print a JSON array of {path, hash, size}; the first failure then fails the command
    #[arg(long)]
    pub json: bool,
    /// Delivery blobs, or plain files with --uncompressed
    pub paths: Vec<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    match &args.verb {
        Verb::Compress(args) => compress(args, out),
        Verb::Decompress(args) => decompress(args, out),
        Verb::Hash(args) => hash(args, out),
    }
}

fn compress(args: &Compress, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    let usage = |error: DeliveryError| FilesError::Usage(error.to_string());
    let ty = DeliveryType::try_from(args.delivery_type).map_err(usage)?;
    let mut outputs = Outputs::new(&args.output, args.paths.len() > 1 || args.hash_as_name)?;
    files::for_each_path(&args.paths, false, |path| {
        let content = files::read(path)?;
        let blob = delivery::encode(&content, ty, args.level).map_err(FilesError::delivery(path))?;
        let hash = args.hash_as_name.then(|| colibri_common::merkle::build(&content).id.to_string());
        let destination = outputs.place(path, hash)?;
        files::write(&destination, &blob)?;
        Ok(writeln!(out, "{} => {}", path.display(), destination.display())?)
    })
}

fn decompress(args: &Decompress, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    let mut outputs = Outputs::new(&args.output, args.paths.len() > 1)?;
    files::for_each_path(&args.paths, false, |path| {
        let blob = files::read(path)?;
        let destination = outputs.place(path, None)?;
        files::write_with(&destination, |file| {
            let sink = |piece: &[u8]| file.write_all(piece).map_err(|error| DeliveryError::Sink(error.to_string()));
            delivery::decode_frames(&blob, sink).map_err(FilesError::delivery(path))
        })?;
        Ok(writeln!(out, "{} => {}", path.display(), destination.display())?)
    })
}

fn hash(args: &Hash, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    let mut rows = Vec::new();
    let code = files::for_each_path(&args.paths, args.json, |path| {
        let tree = if args.uncompressed {
            files::tree_of(path)?
        } else {
            delivery::content_tree(&files::read(path)?).map_err(FilesError::delivery(path))?
        };
        if args.json {
            rows.push(json!({ "path": path.display().to_string(), "hash": tree.id, "size": tree.length.bytes() }));
            return Ok(());
        }
        Ok(writeln!(out, "{}  {}", tree.id, path.display())?)
    })?;
    if args.json {
        files::print_json(out, &rows.into())?;
    }
    Ok(code)
}

/// Where outputs go: one file, or a directory in which no two inputs get the same name.
struct Outputs<'a> {
    output: &'a Path,
    directory: bool,
    taken: BTreeSet<PathBuf>,
}

impl<'a> Outputs<'a> {
    fn new(output: &'a Path, needs_directory: bool) -> Result<Self, FilesError> {
        if needs_directory {
            files::create_dir(output)?;
        }
        Ok(Self { output, directory: needs_directory || output.is_dir(), taken: BTreeSet::new() })
    }

    fn place(&mut self, input: &Path, hash: Option<String>) -> Result<PathBuf, FilesError> {
        if !self.directory {
            return Ok(self.output.to_owned());
        }
        let by_hash = hash.is_some();
        let name = match (hash, input.file_name()) {
            (Some(hash), _) => PathBuf::from(hash),
            (None, Some(name)) => PathBuf::from(name),
            (None, None) => return Err(FilesError::Refused { path: input.to_owned(), reason: "it has no file name" }),
        };
        let destination = self.output.join(name);
        // The same hash is the same content; the same name is not.
        if !self.taken.insert(destination.clone()) && !by_hash {
            return Err(FilesError::Refused { path: input.to_owned(), reason: "another input has the same file name" });
        }
        Ok(destination)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::tests::{Fixture, printed, vector};

    fn compress_args(output: PathBuf, paths: Vec<PathBuf>) -> Compress {
        Compress { output, delivery_type: 1, level: None, hash_as_name: false, paths }
    }

    #[test]
    fn there_and_back() {
        let dir = Fixture::new(&[("a", b"aaa"), ("empty", b"")]);
        let raw = fs::read(vector("lcg100000.raw")).unwrap();
        dir.write("raw", &raw);
        let paths = ["a", "empty", "raw"].map(|name| dir.path(name)).to_vec();
        let verb = Verb::Compress(compress_args(dir.path("out"), paths.clone()));
        let (code, text) = printed(|out| run(&Args { verb }, out));
        assert_eq!(code.unwrap(), ExitCode::SUCCESS);
        let line = format!("{} => {}\n", dir.path("a").display(), dir.path("out/a").display());
        assert!(text.starts_with(&line), "{text}");
        assert_eq!(fs::read(dir.path("out/empty")).unwrap(), fs::read(vector("type1-empty.blob")).unwrap());
        let blobs = ["a", "empty", "raw"].map(|name| dir.path("out").join(name)).to_vec();
        let verb = Verb::Decompress(Decompress { output: dir.path("back"), paths: blobs.clone() });
        assert_eq!(printed(|out| run(&Args { verb }, out)).0.unwrap(), ExitCode::SUCCESS);
        assert_eq!(fs::read(dir.path("back/raw")).unwrap(), raw);
        let of = |uncompressed, paths: &[PathBuf]| {
            let verb = Verb::Hash(Hash { uncompressed, json: true, paths: paths.to_vec() });
            let rows: serde_json::Value = serde_json::from_str(&printed(|out| run(&Args { verb }, out)).1).unwrap();
            rows.as_array().unwrap().iter().map(|row| row["hash"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(false, &blobs), of(true, &paths));
    }

    #[test]
    fn one_input_goes_to_a_file_and_hashes_name_outputs() {
        let dir = Fixture::new(&[("a", b"")]);
        let verb = Verb::Compress(compress_args(dir.path("one"), vec![dir.path("a")]));
        printed(|out| run(&Args { verb }, out)).0.unwrap();
        assert!(dir.path("one").is_file());
        let args = Compress { hash_as_name: true, ..compress_args(dir.path("named"), vec![dir.path("a")]) };
        printed(|out| run(&Args { verb: Verb::Compress(args) }, out)).0.unwrap();
        let name = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
        assert!(dir.path("named").join(name).is_file());
    }

    #[test]
    fn bad_blobs_and_types_are_named_and_leave_nothing() {
        let dir = Fixture::new(&[("junk", b"junk"), ("x/same", b"1"), ("y/same", b"2")]);
        let verb = Verb::Decompress(Decompress { output: dir.path("out"), paths: vec![dir.path("junk")] });
        assert_eq!(printed(|out| run(&Args { verb }, out)).0.unwrap(), ExitCode::FAILURE);
        assert!(!dir.path("out").exists());
        let verb = Verb::Hash(Hash { uncompressed: false, json: true, paths: vec![dir.path("junk")] });
        let error = printed(|out| run(&Args { verb }, out)).0.unwrap_err().to_string();
        assert!(error.contains("junk") && error.contains("not a delivery blob"), "{error}");
        let args = Compress { delivery_type: 3, ..compress_args(dir.path("o"), vec![dir.path("junk")]) };
        let error = printed(|out| run(&Args { verb: Verb::Compress(args) }, out)).0.unwrap_err();
        assert!(error.to_string().contains("Type3 (LZ4)") && error.exit_code() == ExitCode::from(2));
        let same = compress_args(dir.path("dir"), vec![dir.path("x/same"), dir.path("y/same")]);
        assert_eq!(printed(|out| run(&Args { verb: Verb::Compress(same) }, out)).0.unwrap(), ExitCode::FAILURE);
        assert_eq!(delivery::decode(&fs::read(dir.path("dir/same")).unwrap()).unwrap(), b"1");
    }
}
