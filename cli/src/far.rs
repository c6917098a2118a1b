//! `colibri far create|list|cat|extract`: raw FAR archives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use colibri_package::far::{self, Content, Entry, FarError, FarReader};
use serde_json::json;

use crate::files::{self, FilesError};
use crate::table::print_table;

/// Works on raw FAR archives.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with an archive.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes an archive of all files below a directory
    #[command(
        after_help = "Paths are relative to the directory; what is no regular file is skipped with a warning. The \
        same files give the same bytes.\n\nExample:\n  colibri far create app app.far"
    )]
    Create {
        /// The directory; symbolic links are followed
        input_dir: PathBuf,
        /// The archive
        output: PathBuf,
    },
    /// Lists the files of an archive
    #[command(after_help = "Example:\n  colibri far list -l out/meta.far")]
    List {
        /// Print where each file begins in the archive and how long it is, in bytes
        #[arg(short, long = "long-format")]
        long: bool,
        /// Print a JSON array of {path, offset, length}
        #[arg(long)]
        json: bool,
        /// The archive
        far: PathBuf,
    },
    /// Prints one file of an archive
    #[command(after_help = "Example:\n  colibri far cat out/meta.far meta/contents")]
    Cat {
        /// The archive
        far: PathBuf,
        /// The file's name in the archive
        path: String,
    },
    /// Writes files of an archive to a directory
    #[command(after_help = "Nothing is ever written outside the directory, whatever the archive says.\n\n\
        Example:\n  colibri far extract -o unpacked out/meta.far meta/fuchsia.pkg")]
    Extract {
        /// Print the name of each file
        #[arg(short, long)]
        verbose: bool,
        /// Where to write
        #[arg(short, long, visible_alias = "output-dir", default_value = ".")]
        output: PathBuf,
        /// The archive
        far: PathBuf,
        /// Files or directories in the archive; all files if none is given
        paths: Vec<String>,
    },
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    match &args.verb {
        Verb::Create { input_dir, output } => create(input_dir, output)?,
        Verb::List { long, json, far } => list(far, *long, *json, out)?,
        Verb::Cat { far, path } => cat(far, path, out)?,
        Verb::Extract { verbose, output, far, paths } => extract(far, output, paths, *verbose, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(input_dir: &Path, output: &Path) -> Result<(), FilesError> {
    let walked = files::walk(input_dir)?;
    for skipped in &walked.skipped {
        eprintln!("{}: skipped, because it is not a regular file", skipped.display());
    }
    let mut contents = BTreeMap::new();
    for (name, path) in &walked.files {
        if same_file(path, output) {
            let reason = "the archive would contain itself; write it elsewhere or remove the old one first";
            return Err(FilesError::Refused { path: output.to_owned(), reason });
        }
        let length = fs::metadata(path).map_err(FilesError::io("reading", path))?.len();
        let open = Box::new(move || File::open(path).map(|file| Box::new(file) as Box<dyn Read>));
        contents.insert(name.as_bytes(), Content { length, open });
    }
    files::write_with(output, |mut file| far::write(&mut file, contents).map_err(FilesError::far(output)))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn open(path: &Path) -> Result<FarReader<File>, FilesError> {
    FarReader::open(files::open(path)?).map_err(FilesError::far(path))
}

fn list(path: &Path, long: bool, json: bool, out: &mut dyn Write) -> Result<(), FilesError> {
    let reader = open(path)?;
    if json {
        let row =
            |entry: &Entry| json!({ "path": shown(entry), "offset": entry.range().start(), "length": entry.length() });
        return files::print_json(out, &reader.entries().iter().map(row).collect());
    }
    if reader.entries().is_empty() {
        return Ok(writeln!(out, "FAR file contains no entries.")?);
    }
    if !long {
        return reader.entries().iter().try_for_each(|entry| Ok(writeln!(out, "{}", shown(entry))?));
    }
    let row = |entry: &Entry| vec![shown(entry), entry.range().start().to_string(), entry.length().to_string()];
    let header = ["PATH", "OFFSET", "LENGTH"].map(str::to_owned).to_vec();
    let table: Vec<_> = std::iter::once(header).chain(reader.entries().iter().map(row)).collect();
    Ok(print_table(out, &table)?)
}

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(entry.name()).into_owned()
}

fn cat(path: &Path, name: &str, mut out: &mut dyn Write) -> Result<(), FilesError> {
    open(path)?.copy(name.as_bytes(), &mut out).map_err(FilesError::far(path))
}

fn extract(
    path: &Path,
    output: &Path,
    wanted: &[String],
    verbose: bool,
    out: &mut dyn Write,
) -> Result<(), FilesError> {
    let mut reader = open(path)?;
    // Everything is found before anything is written.
    let names = chosen(reader.entries(), wanted).map_err(FilesError::far(path))?;
    files::create_dir(output)?;
    for name in names {
        let destination = destination(output, &name)?;
        files::write_with(&destination, |mut file| reader.copy(&name, &mut file).map_err(FilesError::far(path)))?;
        if verbose {
            writeln!(out, "{}", String::from_utf8_lossy(&name))?;
        }
    }
    Ok(())
}

/// The names of the entries that are wanted or lie below a wanted directory; all if nothing is named.
fn chosen(entries: &[Entry], wanted: &[String]) -> Result<Vec<Vec<u8>>, FarError> {
    let is_in = |name: &[u8], wanted: &str| {
        name.strip_prefix(wanted.trim_end_matches('/').as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    if let Some(missing) = wanted.iter().find(|path| !entries.iter().any(|entry| is_in(entry.name(), path))) {
        return Err(FarError::NoSuchFile(missing.clone()));
    }
    let all = wanted.is_empty();
    let names = entries.iter().map(Entry::name);
    Ok(names.filter(|name| all || wanted.iter().any(|path| is_in(name, path))).map(<[u8]>::to_vec).collect())
}

/// Where a file goes: below `output`, through real directories only, which are made as needed.
pub(crate) fn destination(output: &Path, name: &[u8]) -> Result<PathBuf, FilesError> {
    let relative = Path::new(std::ffi::OsStr::from_bytes(name));
    let refused = |reason| FilesError::Refused { path: relative.to_owned(), reason };
    // The reader refuses such names already; this is the last door before the file system.
    if !relative.components().all(|component| matches!(component, Component::Normal(_))) {
        return Err(refused("the name would leave the output directory"));
    }
    let mut directory = output.to_owned();
    for segment in relative.parent().into_iter().flat_map(Path::components) {
        directory.push(segment);
        match fs::symlink_metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(refused("a directory on the way is a file or a symbolic link")),
            Err(_) => fs::create_dir(&directory).map_err(FilesError::io("creating the directory", &directory))?,
        }
    }
    Ok(output.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::{Fixture, printed, vector};

    fn verb(verb: Verb) -> (Result<ExitCode, FilesError>, String) {
        printed(|out| run(&Args { verb }, out))
    }

    fn extract_to(output: PathBuf, far: PathBuf, paths: &[&str]) -> (Result<ExitCode, FilesError>, String) {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        verb(Verb::Extract { verbose: true, output, far, paths })
    }

    #[test]
    fn the_golden_archive_is_created_listed_printed_and_extracted() {
        let dir = Fixture::new(&[("in/a", b"a\n"), ("in/b", b"b\n"), ("in/dir/c", b"dir/c\n")]);
        let (input_dir, output) = (dir.path("in"), dir.path("x.far"));
        verb(Verb::Create { input_dir, output: output.clone() }).0.unwrap();
        assert_eq!(fs::read(&output).unwrap(), fs::read(vector("far-example.far")).unwrap());
        let list = |long, json| verb(Verb::List { long, json, far: output.clone() }).1;
        assert_eq!(list(false, false), "a\nb\ndir/c\n");
        assert_eq!(list(true, false), "PATH   OFFSET  LENGTH\na      4096    2\nb      8192    2\ndir/c  12288   6\n");
        let json: serde_json::Value = serde_json::from_str(&list(false, true)).unwrap();
        assert_eq!(json[2], json!({ "path": "dir/c", "offset": 12288, "length": 6 }));
        let (_, text) = verb(Verb::Cat { far: output.clone(), path: "dir/c".into() });
        assert_eq!(text, "dir/c\n");
        let missing = verb(Verb::Cat { far: output.clone(), path: "dir".into() }).0.unwrap_err();
        assert!(missing.to_string().contains("no 'dir'"));
        let (code, text) = extract_to(dir.path("out"), output.clone(), &[]);
        assert_eq!((code.unwrap(), text.as_str()), (ExitCode::SUCCESS, "a\nb\ndir/c\n"));
        assert_eq!(files::walk(&dir.path("out")).unwrap().files.len(), 3);
        assert_eq!(extract_to(dir.path("some"), output.clone(), &["dir/", "b"]).1, "b\ndir/c\n");
        assert!(extract_to(dir.path("none"), output, &["b", "di"]).0.is_err());
        assert!(!dir.path("none").exists(), "nothing is written before everything is found");
    }

    #[test]
    fn extraction_never_leaves_the_output_directory() {
        let dir = Fixture::new(&[("in/dir/c", b"new"), ("outside/c", b"old")]);
        let output = dir.path("x.far");
        verb(Verb::Create { input_dir: dir.path("in"), output: output.clone() }).0.unwrap();
        fs::create_dir(dir.path("out")).unwrap();
        std::os::unix::fs::symlink(dir.path("outside"), dir.path("out/dir")).unwrap();
        let error = extract_to(dir.path("out"), output.clone(), &[]).0.unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(fs::read(dir.path("outside/c")).unwrap(), b"old");
        // A link in the place of the file itself is replaced, not followed.
        fs::create_dir_all(dir.path("out2/dir")).unwrap();
        std::os::unix::fs::symlink(dir.path("outside/c"), dir.path("out2/dir/c")).unwrap();
        extract_to(dir.path("out2"), output.clone(), &[]).0.unwrap();
        assert_eq!(fs::read(dir.path("outside/c")).unwrap(), b"old");
        // Names with dot segments do not even open.
        let bytes = fs::read(&output).unwrap();
        let name = bytes.windows(5).position(|window| window == b"dir/c").unwrap();
        let mut evil = bytes;
        evil[name..name + 5].copy_from_slice(b"../xc");
        dir.write("evil.far", &evil);
        let error = extract_to(dir.path("out3"), dir.path("evil.far"), &[]).0.unwrap_err();
        assert!(error.to_string().contains("'..'"), "{error}");
        assert!(destination(&dir.path("out3"), b"../x").is_err() && destination(&dir.path("out3"), b"/x").is_err());
    }

    #[test]
    fn bad_archives_and_places_are_named() {
        let dir = Fixture::new(&[("in/a", b"a"), ("junk.far", b"junkjunkjunkjunk")]);
        let error = verb(Verb::List { long: false, json: false, far: dir.path("junk.far") }).0.unwrap_err();
        assert!(error.to_string().contains("junk.far: not a FAR archive"), "{error}");
        let create = || verb(Verb::Create { input_dir: dir.path("in"), output: dir.path("in/x.far") }).0;
        create().unwrap();
        assert!(create().unwrap_err().to_string().contains("contain itself"));
        assert!(verb(Verb::Create { input_dir: dir.path("no"), output: dir.path("x") }).0.is_err());
    }
}
