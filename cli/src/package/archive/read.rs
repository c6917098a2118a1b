//! `package archive list|cat`: looking into an archive by the package's own paths.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use colibri_common::BlobId;
use colibri_package::{PackageArchive, PackageError, archive};
use serde_json::json;

use super::open;
use crate::files::{self, FilesError};
use crate::table::print_table;

/// Arguments of `package archive list`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Content appears under its path in the package, files inside meta.far under meta/, everything else \
    (blobs of subpackages) under its hash.\n\nExample:\n  colibri package archive list -l hello.far"
)]
pub struct List {
    /// Print for each file the entry of the archive that has it, and its length in bytes
    #[arg(short, long = "long-format")]
    pub long: bool,
    /// Print a JSON array of {name, path, length}; length is null for content that is not in the archive
    #[arg(long)]
    pub json: bool,
    /// The archive
    pub archive: PathBuf,
}

/// Arguments of `package archive cat`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  colibri package archive cat hello.far meta/package\n  \
    colibri package archive cat hello.far bin/hello > hello")]
pub struct Cat {
    /// The archive
    pub archive: PathBuf,
    /// A path as `list` prints it
    pub path: String,
}

/// One line of a listing.
struct Row {
    /// Path in the package, else the entry's name.
    name: String,
    /// Where its bytes are: the entry's name, or the path inside meta.far.
    path: String,
    /// In bytes; nothing if the archive does not have it.
    length: Option<u64>,
}

pub(super) fn list(args: &List, out: &mut dyn Write) -> Result<(), FilesError> {
    let rows = rows(&open(&args.archive)?);
    if args.json {
        let row = |row: &Row| json!({ "name": row.name, "path": row.path, "length": row.length });
        return files::print_json(out, &rows.iter().map(row).collect());
    }
    if !args.long {
        return rows.iter().try_for_each(|row| Ok(writeln!(out, "{}", shown(&row.name))?));
    }
    let length = |row: &Row| row.length.map_or("missing from archive".to_owned(), |length| length.to_string());
    let mut table = vec![["NAME", "PATH", "LENGTH"].map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| vec![shown(&row.name), shown(&row.path), length(row)]));
    Ok(print_table(out, &table)?)
}

/// A name without characters that a terminal would obey.
fn shown(name: &str) -> String {
    if name.chars().any(char::is_control) { name.escape_debug().to_string() } else { name.to_owned() }
}

fn rows(archive: &PackageArchive<std::fs::File>) -> Vec<Row> {
    let meta_far = archive.meta_far();
    let mut paths: BTreeMap<BlobId, Vec<&str>> = BTreeMap::new();
    meta_far.contents().iter().for_each(|(path, id)| paths.entry(*id).or_default().push(path.as_str()));
    let mut rows = Vec::new();
    for entry in archive.entries() {
        let path = String::from_utf8_lossy(entry.name()).into_owned();
        let row = |name: String| Row { name, path: path.clone(), length: Some(entry.length()) };
        match path.parse().ok().and_then(|id: BlobId| paths.remove(&id)) {
            Some(names) => rows.extend(names.into_iter().map(|name| row(name.to_owned()))),
            None => rows.push(row(path.clone())),
        }
    }
    for (id, names) in paths {
        let row = |name: &str| Row { name: name.to_owned(), path: id.to_string(), length: None };
        rows.extend(names.into_iter().map(row));
    }
    for path in meta_far.meta_paths() {
        let length = meta_far.meta_file(path).map(|content| content.len() as u64);
        rows.push(Row { name: path.to_owned(), path: path.to_owned(), length });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

pub(super) fn cat(args: &Cat, out: &mut dyn Write) -> Result<(), FilesError> {
    let failed = FilesError::package(&args.archive);
    let mut archive = open(&args.archive)?;
    if let Some(content) = archive.meta_far().meta_file(&args.path) {
        return Ok(out.write_all(&content)?);
    }
    let content = archive.meta_far().contents().iter().find(|(path, _)| path.as_str() == args.path);
    let id = match (content, args.path.parse()) {
        (Some((_, id)), _) => *id,
        (None, _) if args.path == archive::META_FAR => archive.hash(),
        (None, Ok(id)) if archive.range_of(id).is_some() => id,
        _ => return Err(failed(PackageError::NoSuchPath(args.path.clone()))),
    };
    // Proven first, printed then: what is printed cannot be taken back.
    archive.copy_blob(id, &mut io::sink()).map_err(&failed)?;
    archive.copy_blob(id, out).map_err(&failed)
}
