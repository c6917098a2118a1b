//! `colibri repo package list`: what a repository offers (reference "Fuchsia command line" §11.2).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::UnixSeconds;
use colibri_package::MetaFar;
use colibri_repository::{PackageBlob, PackageEntry, Repository, RepositoryError};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::RepoError;
use crate::files;
use crate::progress::bytes;
use crate::table::print_table;

/// Characters of a hash that is cut.
const SHORT_HASH_CHARS: usize = 11;

/// What is printed where nothing is known.
const UNKNOWN: &str = "<unknown>";

/// Arguments of `repo package`.
#[derive(Debug, clap::Args)]
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
}

/// Arguments of `repo package list`.
#[derive(Debug, Default, clap::Args)]
pub struct List {
    /// The repository's folder
    #[arg(long, value_name = "DIR")]
    pub repo_path: PathBuf,
    /// Print whole hashes
    #[arg(long)]
    pub full_hash: bool,
    /// Print the size of each package: its distinct blobs, subpackages included
    #[arg(long)]
    pub include_size: bool,
    /// Print the components of each package
    #[arg(long)]
    pub include_components: bool,
    /// Print a JSON array of {name, hash, size, modified, components}; hashes are whole, sizes bytes, times seconds since
    /// 1970, and what was not asked for or is not known is null
    #[arg(long)]
    pub json: bool,
}

/// A package and what was asked about it.
struct Row {
    /// `NAME/VARIANT`.
    name: String,
    entry: PackageEntry,
    size: Option<u64>,
    components: Option<Vec<String>>,
}

impl Row {
    fn of(repository: &Repository, entry: PackageEntry, args: &List) -> Result<Self, RepositoryError> {
        let name = format!("{}/{}", entry.name, entry.variant);
        let size = args.include_size.then(|| size(repository, &name)).transpose()?;
        let components = args.include_components.then(|| components(repository, &entry)).transpose()?;
        Ok(Self { name, entry, size, components })
    }

    fn cells(&self, args: &List) -> Vec<String> {
        let mut hash = self.entry.hash.to_string();
        if !args.full_hash {
            hash.truncate(SHORT_HASH_CHARS);
        }
        let modified = self.entry.modified.and_then(rfc_2822).unwrap_or_else(|| UNKNOWN.to_owned());
        let mut cells = vec![self.name.clone(), hash, modified];
        cells.extend(self.size.map(bytes));
        cells.extend(self.components.as_ref().map(|components| components.join(" ")));
        cells
    }

    fn json(&self) -> Value {
        let modified = self.entry.modified.map(|at| at.0);
        let Self { name, entry: PackageEntry { hash, .. }, size, components } = self;
        json!({ "name": name, "hash": hash, "size": size, "modified": modified, "components": components })
    }
}

/// The sum of the package's distinct blobs in bytes.
fn size(repository: &Repository, package: &str) -> Result<u64, RepositoryError> {
    let blobs = repository.package_blobs(package)?.into_iter().map(|PackageBlob { hash, size, .. }| (hash, size));
    Ok(blobs.collect::<BTreeMap<_, _>>().values().sum())
}

/// The package's own files that end in `.cm`.
fn components(repository: &Repository, package: &PackageEntry) -> Result<Vec<String>, RepositoryError> {
    let damaged = |error| RepositoryError::StoredBlob { id: package.hash, reason: format!("{error}") };
    let meta = MetaFar::parse(repository.blob_content(package.hash)?.into()).map_err(damaged)?;
    let paths = meta.meta_paths().map(str::to_owned).chain(meta.contents().keys().map(ToString::to_string));
    let mut components: Vec<_> = paths.filter(|path| path.ends_with(".cm")).collect();
    components.sort();
    Ok(components)
}

fn rfc_2822(at: UnixSeconds) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.0).ok()?).ok()?.format(&Rfc2822).ok()
}

/// Lists.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let Verb::List(args) = &args.verb;
    let repository = Repository::open(&args.repo_path)?;
    let rows = repository.packages()?.into_iter().map(|entry| Row::of(&repository, entry, args));
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
