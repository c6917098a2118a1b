//! `colibri repo package list|show|extract-archive`: what a repository offers (reference "Fuchsia command line" §11.2).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_common::UnixSeconds;
use colibri_package::{MetaFar, archive, far};
use colibri_repository::{PackageBlob, PackageEntry, RepositoryError, RepositorySource};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::RepoError;
use super::served::Where;
use crate::files::{self, FilesError};
use crate::progress::bytes;
use crate::table::print_table;

/// Characters of a hash that is cut.
const SHORT_HASH_CHARS: usize = 11;

/// What is printed for a package that is nobody's subpackage.
const ROOT: &str = "<root>";

/// What is printed where nothing is known.
const UNKNOWN: &str = "<unknown>";

/// Arguments of `repo package`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Reads a repository's folder in any layout of the real tools, or what `repo server` serves here. It is read as \
    a device would: metadata that is damaged or has expired is an error.\n\n\
    Examples:\n  colibri repo package list --repo-path repo --include-size\n  \
    colibri repo package show -r devhost hello\n  \
    colibri repo package extract-archive -r devhost --port 8083 -o hello.far hello"
)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with the packages of a repository.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Lists the packages offered, by name
    List(List),
    /// Shows the files of a package
    Show(Show),
    /// Writes a package archive with all blobs of a package and its subpackages, decompressed
    ExtractArchive(ExtractArchive),
}

/// Arguments of `repo package list`.
#[derive(Debug, Default, clap::Args)]
pub struct List {
    /// Which repository
    #[command(flatten)]
    pub of: Where,
    /// Print whole hashes
    #[arg(long)]
    pub full_hash: bool,
    /// Print the size of each package: its distinct blobs, subpackages included
    #[arg(long)]
    pub include_size: bool,
    /// Print the components of each package
    #[arg(long)]
    pub include_components: bool,
    /// Print a JSON array of {name, hash, size, modified, components, entries}; hashes are whole, sizes bytes, times seconds
    /// since 1970, and what was not asked for or is not known is null
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `repo package show`.
#[derive(Debug, Default, clap::Args)]
pub struct Show {
    /// Which repository
    #[command(flatten)]
    pub of: Where,
    /// Print whole hashes
    #[arg(long)]
    pub full_hash: bool,
    /// Show the files of subpackages too
    #[arg(long)]
    pub include_subpackages: bool,
    /// Print a JSON array of {name, subpackage, size, hash, modified}; the hash of what lies inside meta.far is null
    #[arg(long)]
    pub json: bool,
    /// NAME or NAME/VARIANT
    pub package: String,
}

/// Arguments of `repo package extract-archive`.
#[derive(Debug, Default, clap::Args)]
pub struct ExtractArchive {
    /// Which repository
    #[command(flatten)]
    pub of: Where,
    /// The archive to write; default is NAME.far
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// NAME or NAME/VARIANT
    pub package: String,
}

/// A package and what was asked about it.
struct Row {
    /// `NAME/VARIANT`.
    name: String,
    entry: PackageEntry,
    size: Option<u64>,
    components: Option<Vec<PackageFile>>,
}

impl Row {
    fn of(source: &RepositorySource, entry: PackageEntry, args: &List) -> Result<Self, RepositoryError> {
        let name = format!("{}/{}", entry.name, entry.variant);
        let asked = args.include_size || args.include_components;
        let blobs = if asked { source.blobs_of(entry.hash)? } else { Vec::new() };
        let components = args.include_components.then(|| components(source, &blobs)).transpose()?;
        Ok(Self { name, entry, size: args.include_size.then(|| size(&blobs)), components })
    }

    fn cells(&self, args: &List) -> Vec<String> {
        let mut hash = self.entry.hash.to_string();
        if !args.full_hash {
            hash.truncate(SHORT_HASH_CHARS);
        }
        let modified = self.entry.modified.and_then(rfc_2822).unwrap_or_else(|| UNKNOWN.to_owned());
        let mut cells = vec![self.name.clone(), hash, modified];
        cells.extend(self.size.map(bytes));
        let paths =
            |files: &Vec<PackageFile>| files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join(" ");
        cells.extend(self.components.as_ref().map(paths));
        cells
    }

    fn json(&self) -> Value {
        let modified = self.entry.modified.map(|at| at.0);
        let Self { name, entry: PackageEntry { hash, .. }, size, components } = self;
        let paths = components.as_ref().map(|files| files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>());
        let entries = components.as_ref().map(|files| files.iter().map(PackageFile::json).collect::<Value>());
        json!({ "name": name, "hash": hash, "size": size, "modified": modified, "components": paths, "entries": entries })
    }
}

/// The sum of distinct blobs in bytes.
fn size(blobs: &[PackageBlob]) -> u64 {
    blobs.iter().map(|blob| (blob.hash, blob.size)).collect::<BTreeMap<_, _>>().values().sum()
}

/// A file of a package: a blob, or one inside its meta.far.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackageFile {
    subpackage: String,
    path: String,
    /// Its blob, if it is one.
    hash: Option<BlobId>,
    size: u64,
    modified: Option<UnixSeconds>,
}

impl PackageFile {
    /// The files of packages whose blobs these are, those inside meta.far included.
    fn all(source: &RepositorySource, blobs: &[PackageBlob]) -> Result<Vec<Self>, RepositoryError> {
        let mut files = Vec::new();
        for PackageBlob { subpackage, path, hash, size, modified } in blobs {
            let (subpackage, modified) = (subpackage.clone(), *modified);
            if path != "meta/" {
                let path = path.clone();
                files.push(Self { subpackage, path, hash: Some(*hash), size: *size, modified });
                continue;
            }
            let damaged = |error| RepositoryError::StoredBlob { id: *hash, reason: format!("{error}") };
            let meta = MetaFar::parse(source.blob_content(*hash)?.into()).map_err(damaged)?;
            for path in meta.meta_paths() {
                let size = meta.meta_file(path).map_or(0, |content| content.len() as u64);
                files.push(Self { subpackage: subpackage.clone(), path: path.to_owned(), hash: None, size, modified });
            }
            let path = archive::META_FAR.to_owned();
            files.push(Self { subpackage, path, hash: Some(*hash), size: *size, modified });
        }
        files.sort();
        Ok(files)
    }

    fn json(&self) -> Value {
        let Self { subpackage, path, hash, size, modified } = self;
        let modified = modified.map(|at| at.0);
        json!({ "name": path, "subpackage": subpackage, "size": size, "hash": hash, "modified": modified })
    }
}

/// The package's own files that end in `.cm`.
fn components(source: &RepositorySource, blobs: &[PackageBlob]) -> Result<Vec<PackageFile>, RepositoryError> {
    let own: Vec<_> = blobs.iter().filter(|blob| blob.subpackage.is_empty()).cloned().collect();
    let mut files = PackageFile::all(source, &own)?;
    files.retain(|file| file.path.ends_with(".cm"));
    Ok(files)
}

fn rfc_2822(at: UnixSeconds) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.0).ok()?).ok()?.format(&Rfc2822).ok()
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::List(args) => list(args, out),
        Verb::Show(args) => show(args, out),
        Verb::ExtractArchive(args) => extract_archive(args, out),
    }
}

fn show(args: &Show, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let source = args.of.source()?;
    let mut blobs = source.blobs_of(source.package(&args.package)?.hash)?;
    blobs.retain(|blob| args.include_subpackages || blob.subpackage.is_empty());
    let shown = PackageFile::all(&source, &blobs)?;
    if args.json {
        files::print_json(out, &shown.iter().map(PackageFile::json).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut header = vec!["NAME", "SIZE", "HASH", "MODIFIED"];
    if args.include_subpackages {
        header.insert(1, "SUBPACKAGE");
    }
    let mut table: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for file in &shown {
        let mut hash = file.hash.map_or_else(|| UNKNOWN.to_owned(), |hash| hash.to_string());
        if !args.full_hash {
            hash.truncate(SHORT_HASH_CHARS);
        }
        let modified = file.modified.and_then(rfc_2822).unwrap_or_else(|| UNKNOWN.to_owned());
        let mut cells = vec![file.path.clone(), bytes(file.size), hash, modified];
        if args.include_subpackages {
            cells.insert(1, if file.subpackage.is_empty() { ROOT.to_owned() } else { file.subpackage.clone() });
        }
        table.push(cells);
    }
    print_table(out, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn extract_archive(args: &ExtractArchive, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let source = args.of.source()?;
    let package = source.package(&args.package)?;
    let path = args.out.clone().unwrap_or_else(|| format!("{}.far", package.name).into());
    // The same blob may be in several subpackages. Each is read when it is its turn, and proven again.
    let blobs: BTreeMap<BlobId, u64> =
        source.blobs_of(package.hash)?.into_iter().map(|blob| (blob.hash, blob.size)).collect();
    let name = |id: &BlobId| if *id == package.hash { archive::META_FAR.to_owned() } else { id.to_string() };
    let named: BTreeMap<String, (BlobId, u64)> = blobs.iter().map(|(id, size)| (name(id), (*id, *size))).collect();
    let content = |(name, (id, size)): (&'_ String, &(BlobId, u64))| {
        let (id, source) = (*id, source.clone());
        let open = move || -> std::io::Result<Box<dyn std::io::Read>> {
            let content = source.blob_content(id).map_err(std::io::Error::other)?;
            Ok(Box::new(std::io::Cursor::new(content)))
        };
        (name.as_bytes().to_vec(), far::Content { length: *size, open: Box::new(open) })
    };
    let contents: Vec<(Vec<u8>, far::Content<'static>)> = named.iter().map(content).collect();
    let (names, contents): (Vec<_>, Vec<_>) = contents.into_iter().unzip();
    let contents: BTreeMap<&[u8], far::Content<'_>> = names.iter().map(Vec::as_slice).zip(contents).collect();
    files::write_with(&path, |mut file| far::write(&mut file, contents).map_err(FilesError::far(&path)))?;
    writeln!(out, "{}  {}/{}", package.hash, package.name, package.variant)?;
    writeln!(out, "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &List, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let source = args.of.source()?;
    let rows = source.packages()?.into_iter().map(|entry| Row::of(&source, entry, args));
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    if args.json {
        files::print_json(out, &rows.iter().map(Row::json).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut header = vec!["NAME", "HASH", "MODIFIED"];
    header.extend(args.include_size.then_some("SIZE"));
    header.extend(args.include_components.then_some("COMPONENTS"));
    let header = header.into_iter().map(str::to_owned).collect();
    let table: Vec<_> = std::iter::once(header).chain(rows.iter().map(|row| row.cells(args))).collect();
    print_table(out, &table)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_2822() {
        let text = rfc_2822(UnixSeconds(1_769_817_600)).unwrap();
        assert_eq!(text, "Sat, 31 Jan 2026 00:00:00 +0000");
        assert_eq!(rfc_2822(UnixSeconds(u64::MAX)), None);
    }
}
