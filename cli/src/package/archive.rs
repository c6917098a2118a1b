//! `colibri package archive create|extract|list|cat|add|remove|edit`: one file with a package and every blob it needs.

mod edit;
mod extract;
mod read;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_package::far::{self, Content};
use colibri_package::{PackageArchive, PackageClosure, PackagePath, archive};

use super::depfile;
use super::sources::{Manifests, Source};
use crate::files::{self, FilesError};

pub use edit::{Add, Edit, Remove};
pub use extract::Extract;
pub use read::{Cat, List};

/// What to do with package archives.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Packs a package, its subpackages and all their blobs into one file
    Create(Create),
    /// Writes the blobs and package manifests of an archive to a directory
    Extract(Extract),
    /// Lists the files of the package in an archive, and what else is in it
    List(List),
    /// Prints one file of the package in an archive
    Cat(Cat),
    /// Adds a file to the package in an archive and makes its meta.far anew
    Add(Add),
    /// Removes a file from the package in an archive and makes its meta.far anew
    Remove(Remove),
    /// Changes the name or the ABI revision of the package in an archive
    Edit(Edit),
}

/// Arguments of `package archive create`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: pack what `colibri package build` made, to publish it elsewhere\n  \
    colibri package archive create -o hello.far out/package_manifest.json\n  \
    colibri repo publish --package-archive hello.far repo")]
pub struct Create {
    /// The archive to write
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where relative paths in manifests begin, unless a manifest says that they begin beside it
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub root_dir: PathBuf,
    /// Write a Ninja dependency file that names every file read
    #[arg(long, value_name = "FILE")]
    pub depfile: Option<PathBuf>,
    /// The package manifest (package_manifest.json)
    pub package_manifest: PathBuf,
}

/// Runs the verb.
pub(super) fn run(verb: &Verb, out: &mut dyn Write) -> Result<(), FilesError> {
    match verb {
        Verb::Create(args) => create(args, out),
        Verb::Extract(args) => extract::extract(args, out),
        Verb::List(args) => read::list(args, out),
        Verb::Cat(args) => read::cat(args, out),
        Verb::Add(args) => edit::add(args, out),
        Verb::Remove(args) => edit::remove(args, out),
        Verb::Edit(args) => edit::edit(args, out),
    }
}

fn create(args: &Create, out: &mut dyn Write) -> Result<(), FilesError> {
    if let Some(folder) = args.out.parent() {
        files::create_dir(folder)?;
    }
    let manifests = Manifests::read(&args.package_manifest, &args.root_dir)?;
    let closure = manifests.closure(&args.package_manifest)?;
    let root = manifests.blobs[&closure.hash()].meta_far(closure.hash())?;
    write(&args.out, &root, &closure, &manifests.blobs)?;
    if let Some(depfile) = &args.depfile {
        let blobs = manifests.blobs.values().map(|source| source.path().to_owned());
        let inputs: BTreeSet<_> = manifests.files.iter().cloned().chain(blobs).collect();
        depfile::write(depfile, &args.out, &inputs)?;
    }
    made(out, closure.hash(), &manifests.root.path())
}

/// Writes the archive of a package whose blobs are all in `blobs`; those that it does not need are left out.
fn write(
    output: &Path,
    root: &Bytes,
    closure: &PackageClosure,
    blobs: &BTreeMap<BlobId, Source>,
) -> Result<(), FilesError> {
    let needed: BTreeMap<String, (BlobId, &Source)> = closure
        .blobs()
        .into_iter()
        .filter(|id| *id != closure.hash())
        .filter_map(|id| Some((id.to_string(), (id, blobs.get(&id)?))))
        .collect();
    let mut contents: BTreeMap<&[u8], Content<'_>> =
        needed.iter().map(|(name, (id, source))| (name.as_bytes(), source.content(*id))).collect();
    contents.insert(archive::META_FAR.as_bytes(), Content::bytes(root));
    files::write_with(output, |mut file| far::write(&mut file, contents).map_err(FilesError::far(output)))
}

/// Says what was made: the package hash and the package.
fn made(out: &mut dyn Write, hash: BlobId, package: &PackagePath) -> Result<(), FilesError> {
    Ok(writeln!(out, "{hash}  {package}")?)
}

fn open(path: &Path) -> Result<PackageArchive<File>, FilesError> {
    PackageArchive::open(files::open(path)?).map_err(FilesError::package(path))
}
