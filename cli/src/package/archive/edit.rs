//! `package archive add|remove|edit`: another package made of the one in an archive. The old archive may be the output: it
//! is replaced whole or not at all.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_package::{AbiRevision, PackageBuild, PackageClosure, PackageError, PackageName};

use super::super::sources::{Place, Source};
use super::{made, open, write};
use crate::files::{self, FilesError};

/// The archive that is read, as an argument or, as the real tools want it, as an option.
#[derive(Debug, Clone, clap::Args)]
pub struct Input {
    /// The archive
    #[arg(value_name = "ARCHIVE", required_unless_present = "named", conflicts_with = "named")]
    archive: Option<PathBuf>,
    /// The archive, as an option
    #[arg(id = "named", short = 'a', long = "archive", value_name = "FILE")]
    named: Option<PathBuf>,
}

impl Input {
    fn path(&self) -> &Path {
        self.archive.as_deref().or(self.named.as_deref()).unwrap_or(Path::new(""))
    }
}

/// Arguments of `package archive add`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A path under meta/ goes into meta.far, any other becomes a blob. The package gets a new hash.\n\n\
    Example:\n  colibri package archive add -f debug.json -p data/debug.json -o debug.far hello.far"
)]
pub struct Add {
    /// The file to add
    #[arg(short, long, value_name = "FILE")]
    pub file_to_add: PathBuf,
    /// Its path in the package
    #[arg(short, long, value_name = "PATH")]
    pub path_of_file_in_archive: String,
    /// The archive to write; may be the one that is read
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Whether a file that has this path already is replaced: true or false
    #[arg(short = 'w', long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub overwrite: bool,
    /// The archive
    #[command(flatten)]
    pub input: Input,
}

/// Arguments of `package archive remove`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Blobs that nothing in the package names any more are left out. The package gets a new hash.\n\n\
    Example:\n  colibri package archive remove -f data/debug.json -o release.far debug.far"
)]
pub struct Remove {
    /// Path of the file in the package
    #[arg(short, long, value_name = "PATH")]
    pub file_to_remove: String,
    /// The archive to write; may be the one that is read
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The archive
    #[command(flatten)]
    pub input: Input,
}

/// Arguments of `package archive edit`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  colibri package archive edit --package-name hello-beta -o beta.far hello.far")]
#[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
pub struct Edit {
    /// Another name for the package
    #[arg(long, value_name = "NAME", group = "changes")]
    pub package_name: Option<PackageName>,
    /// Another ABI revision, e.g. 0xECCEA2F70ACD6FC0; the package's components may then fail on devices that accept it
    #[arg(long, value_name = "N", group = "changes")]
    pub unsafe_override_abi_revision: Option<AbiRevision>,
    /// The archive to write; may be the one that is read
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The archive
    #[command(flatten)]
    pub input: Input,
}

pub(super) fn add(args: &Add, out: &mut dyn Write) -> Result<(), FilesError> {
    let path = args.path_of_file_in_archive.as_str();
    rework(args.input.path(), &args.output, out, |package, blobs| {
        let failed = FilesError::package(args.input.path());
        match package.remove(path) {
            Ok(()) if !args.overwrite => {
                let reason = "the package has a file of that path, and --overwrite is false";
                return Err(FilesError::Refused { path: PathBuf::from(path), reason });
            }
            Ok(()) | Err(PackageError::NoSuchPath(_)) => {}
            Err(error) => return Err(failed(error)),
        }
        if path.starts_with("meta/") {
            return package.add_meta(path, files::read(&args.file_to_add)?.into()).map_err(failed);
        }
        let tree = files::tree_of(&args.file_to_add)?;
        let place = Place::File(args.file_to_add.clone());
        blobs.insert(tree.id, Source { bytes: tree.length.bytes(), place });
        package.add_content(path, tree.id).map_err(failed)
    })
}

pub(super) fn remove(args: &Remove, out: &mut dyn Write) -> Result<(), FilesError> {
    rework(args.input.path(), &args.output, out, |package, _| {
        package.remove(&args.file_to_remove).map_err(FilesError::package(args.input.path()))
    })
}

pub(super) fn edit(args: &Edit, out: &mut dyn Write) -> Result<(), FilesError> {
    rework(args.input.path(), &args.output, out, |package, _| {
        if let Some(name) = &args.package_name {
            package.set_name(name.clone());
        }
        if let Some(abi_revision) = args.unsafe_override_abi_revision {
            eprintln!("warning: the package now claims ABI revision {abi_revision}, for which it was not built");
            package.set_abi_revision(abi_revision);
        }
        Ok(())
    })
}

/// Writes the package that `change` makes of the one in `archive`, with the blobs of both that it needs.
fn rework(
    archive: &Path,
    output: &Path,
    out: &mut dyn Write,
    change: impl FnOnce(&mut PackageBuild, &mut BTreeMap<BlobId, Source>) -> Result<(), FilesError>,
) -> Result<(), FilesError> {
    let failed = FilesError::package(archive);
    let old = open(archive)?;
    let part = |id| {
        let range = old.range_of(id)?;
        Some(Source { bytes: range.len(), place: Place::Part(archive.to_owned(), range) })
    };
    let mut build = PackageBuild::from_meta_far(old.meta_far()).map_err(&failed)?;
    let mut blobs = BTreeMap::new();
    change(&mut build, &mut blobs)?;
    let root: Bytes = build.finish().map_err(&failed)?;
    let missing = |what: String, id| failed(PackageError::MissingBlob { what, id });
    let child = |id| {
        let source = part(id).ok_or_else(|| missing("the meta.far of a subpackage".to_owned(), id))?;
        source.meta_far(id)
    };
    let closure = PackageClosure::collect(root.clone(), child, &failed)?;
    for package in closure.packages().values() {
        for (path, id) in package.contents() {
            if !blobs.contains_key(id) {
                let what = || format!("'{path}' of package {}", package.path());
                blobs.insert(*id, part(*id).ok_or_else(|| missing(what(), *id))?);
            }
        }
    }
    for id in closure.packages().keys().filter(|id| **id != closure.hash()) {
        blobs.extend(part(*id).map(|source| (*id, source)));
    }
    write(output, &root, &closure, &blobs)?;
    made(out, closure.hash(), &closure.root().path())
}
