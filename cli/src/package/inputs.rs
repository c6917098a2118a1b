//! What goes into a package: from a build manifest or from a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use colibri_package::manifest::BuildManifest;
use colibri_package::{MetaPackage, PackageError, PackageName, PackageVariant};

use super::Build;
use crate::files::{self, FilesError};

/// Files by package path, and where they were named.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The build manifest or the directory, for messages.
    pub origin: PathBuf,
    /// Content of `meta/package`.
    pub meta_package: Vec<u8>,
    /// Files inside meta.far.
    pub meta: BTreeMap<String, PathBuf>,
    /// Content blobs.
    pub contents: BTreeMap<String, PathBuf>,
    /// All host files read, for the dependency file.
    pub sources: Vec<PathBuf>,
}

impl Inputs {
    pub fn of(args: &Build) -> Result<Self, FilesError> {
        match (&args.build_manifest, &args.from_dir) {
            (Some(manifest), None) => Self::of_manifest(manifest),
            (None, Some(directory)) => {
                refuse_output_inside(directory, &args.output)?;
                Self::of_directory(directory, args.name.as_deref())
            }
            _ => Err(FilesError::Usage("give either a build manifest or --from-dir DIR".to_owned())),
        }
    }

    fn of_manifest(path: &Path) -> Result<Self, FilesError> {
        let failed = FilesError::package(path);
        let same = |a: &str, b: &str| matches!((files::read(Path::new(a)), files::read(Path::new(b))), (Ok(a), Ok(b)) if a == b);
        let mut manifest = BuildManifest::parse(&files::read(path)?, same).map_err(&failed)?;
        let meta_package = PathBuf::from(manifest.take_meta_package().map_err(&failed)?);
        let paths = |map: BTreeMap<String, String>| map.into_iter().map(|(path, host)| (path, host.into())).collect();
        let (meta, contents) = (paths(manifest.meta), paths(manifest.contents));
        let mut inputs = Self {
            origin: path.to_owned(),
            meta_package: files::read(&meta_package)?,
            meta,
            contents,
            sources: Vec::new(),
        };
        inputs.sources = [path.to_owned(), meta_package].into_iter().chain(inputs.host_files()).collect();
        Ok(inputs)
    }

    fn of_directory(directory: &Path, name: Option<&str>) -> Result<Self, FilesError> {
        let mut walked = files::walk(directory)?;
        if let Some(skipped) = walked.skipped.first() {
            return Err(FilesError::Refused { path: skipped.clone(), reason: "not a regular file" });
        }
        let given = walked.files.remove(MetaPackage::PATH);
        let meta_package = match (name, &given) {
            (Some(name), None) => named(name)?,
            (None, Some(file)) => files::read(file)?,
            (Some(name), Some(file)) => {
                let content = files::read(file)?;
                if MetaPackage::parse(&content).map_err(FilesError::package(file))?.name.as_str() != name {
                    return Err(FilesError::Refused { path: file.clone(), reason: "it has another name than --name" });
                }
                content
            }
            (None, None) => {
                return Err(FilesError::Usage(format!("{}: no meta/package there; give --name", directory.display())));
            }
        };
        let (meta, contents) = walked.files.into_iter().partition(|(path, _)| path.starts_with("meta/"));
        let mut inputs = Self { origin: directory.to_owned(), meta_package, meta, contents, sources: Vec::new() };
        inputs.sources = given.into_iter().chain(inputs.host_files()).collect();
        Ok(inputs)
    }

    fn host_files(&self) -> Vec<PathBuf> {
        self.meta.values().chain(self.contents.values()).cloned().collect()
    }
}

/// What is written must not become an input of the next build.
fn refuse_output_inside(directory: &Path, output: &Path) -> Result<(), FilesError> {
    let inputs = fs::canonicalize(directory).map_err(FilesError::io("reading the directory", directory))?;
    // The output may not exist yet: its nearest ancestor that does decides.
    let absolute = std::path::absolute(output).map_err(FilesError::io("finding", output))?;
    let existing = absolute.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok());
    if existing.is_some_and(|existing| existing.starts_with(&inputs)) {
        let reason = "the output lies inside --from-dir and would become part of the next build; write it elsewhere";
        return Err(FilesError::Refused { path: output.to_owned(), reason });
    }
    Ok(())
}

/// The `meta/package` of a new package.
fn named(name: &str) -> Result<Vec<u8>, FilesError> {
    let name: PackageName = name
        .parse()
        .map_err(|error| FilesError::Usage(PackageError::Name { name: name.to_owned(), error }.to_string()))?;
    Ok(MetaPackage { name, variant: PackageVariant::zero() }.to_bytes())
}
