//! The build itself: hash the content, make meta.far, write it and the manifest that names everything.

use std::fs;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, merkle};
use colibri_package::manifest::{
    META_FAR_PATH, ManifestBlob, ManifestSubpackage, PathsRelative, SubpackagesBuildManifest,
};
use colibri_package::{
    MetaPackage, PackageBuild, PackageError, PackageManifest, PackageName, PackagePath, PackageVariant, url,
};
use serde_json::json;

use super::inputs::Inputs;
use super::{BLOBS_JSON, Build, PACKAGE_MANIFEST, abi_revision, depfile};
use crate::files::{self, FilesError};

const META_FAR: &str = "meta.far";
const BLOBS_MANIFEST: &str = "blobs.manifest";
const BLOBS: &str = "blobs";
const DEPFILE: &str = "meta.far.d";

/// What was built and where it lies.
#[derive(Debug)]
pub struct Built {
    pub manifest: PackageManifest,
    pub meta_far: PathBuf,
    pub package_manifest: PathBuf,
}

impl Built {
    /// The package hash.
    pub fn hash(&self) -> BlobId {
        self.manifest.blobs[0].merkle
    }

    /// `NAME/VARIANT` as published.
    pub fn path(&self) -> PackagePath {
        self.manifest.path()
    }

    pub fn json(&self) -> serde_json::Value {
        json!({
            "name": self.manifest.package.name,
            "variant": self.manifest.package.variant,
            "hash": self.hash(),
            "meta_far": self.meta_far.display().to_string(),
            "package_manifest": self.package_manifest.display().to_string(),
            "blobs": self.manifest.blobs.len(),
            "bytes": self.manifest.blobs.iter().map(|blob| blob.size).sum::<u64>(),
            "subpackages": self.manifest.subpackages.len(),
        })
    }
}

/// Builds the package; the manifest is written last.
pub fn build(args: &Build) -> Result<Built, FilesError> {
    let abi_revision = abi_revision(args)?;
    let repository = args.repository.clone();
    if let Some(host) = &repository {
        url::check_host(host).map_err(|error| FilesError::Usage(format!("--repository {host}: {error}")))?;
    }
    let mut inputs = Inputs::of(args)?;
    let failed = FilesError::package(&inputs.origin);
    let mut package = PackageBuild::from_meta_package(&inputs.meta_package, abi_revision).map_err(&failed)?;
    let name = published_name(args, package.name())?;
    files::create_dir(&args.output)?;
    let place = Place::of(&args.output)?;
    for (path, host) in &inputs.meta {
        package.add_meta(path, files::read(host)?.into()).map_err(&failed)?;
    }
    let mut blobs = Vec::with_capacity(inputs.contents.len() + 1);
    for (path, host) in &inputs.contents {
        let tree = files::tree_of(host)?;
        package.add_content(path, tree.id).map_err(&failed)?;
        let source_path = if args.blobs { place.copy(host, tree.id)? } else { place.relative(host)? };
        blobs.push(ManifestBlob { source_path, path: path.clone(), merkle: tree.id, size: tree.length.bytes() });
    }
    let subpackages = subpackages(args, &place, &mut package, &mut inputs.sources)?;
    let content = package.finish().map_err(&failed)?;
    let meta_far = args.output.join(META_FAR);
    let meta_far_blob = ManifestBlob {
        source_path: META_FAR.to_owned(),
        path: META_FAR_PATH.to_owned(),
        merkle: merkle::build(&content).id,
        size: content.len() as u64,
    };
    blobs.insert(0, meta_far_blob);
    files::write(&meta_far, &content)?;
    let manifest = PackageManifest {
        repository,
        package: MetaPackage { name, variant: PackageVariant::zero() },
        blobs,
        blob_sources_relative: PathsRelative::File,
        subpackages,
        delivery_blob_type: None,
        abi_revision: Some(abi_revision),
    };
    write_extras(args, &manifest, &inputs)?;
    let package_manifest = args.output.join(PACKAGE_MANIFEST);
    let text = manifest.to_bytes().map_err(FilesError::package(&package_manifest))?;
    files::write(&package_manifest, &text)?;
    Ok(Built { manifest, meta_far, package_manifest })
}

fn published_name(args: &Build, own: &PackageName) -> Result<PackageName, FilesError> {
    let Some(name) = &args.published_name else { return Ok(own.clone()) };
    name.parse().map_err(|error| FilesError::Usage(PackageError::Name { name: name.clone(), error }.to_string()))
}

/// Adds the subpackages to the package; gives their entries for the manifest.
fn subpackages(
    args: &Build,
    place: &Place,
    package: &mut PackageBuild,
    sources: &mut Vec<PathBuf>,
) -> Result<Vec<ManifestSubpackage>, FilesError> {
    let Some(path) = &args.subpackages_build_manifest_path else { return Ok(Vec::new()) };
    sources.push(path.clone());
    let entries = SubpackagesBuildManifest::parse(&files::read(path)?).map_err(FilesError::package(path))?;
    let mut subpackages = Vec::new();
    for entry in entries.0 {
        let file = PathBuf::from(&entry.package_manifest_file);
        let failed = FilesError::package(&file);
        let manifest = PackageManifest::parse(&files::read(&file)?).map_err(&failed)?;
        let (name, merkle) = entry.resolve(&manifest).map_err(&failed)?;
        package.add_subpackage(name.clone(), merkle).map_err(&failed)?;
        subpackages.push(ManifestSubpackage { manifest_path: place.relative(&file)?, name, merkle });
        sources.push(file);
    }
    subpackages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(subpackages)
}

/// The optional files beside the manifest.
fn write_extras(args: &Build, manifest: &PackageManifest, inputs: &Inputs) -> Result<(), FilesError> {
    if args.blobs_json {
        let path = args.output.join(BLOBS_JSON);
        files::write(&path, &manifest.blobs_json().map_err(FilesError::package(&path))?)?;
    }
    if args.blobs_manifest {
        let line = |blob: &ManifestBlob| format!("{}={}\n", blob.merkle, blob.source_path);
        let text: String = manifest.blobs.iter().map(line).collect();
        files::write(&args.output.join(BLOBS_MANIFEST), text.as_bytes())?;
    }
    if args.depfile {
        depfile::write(&args.output.join(DEPFILE), &args.output.join(META_FAR), &inputs.sources)?;
    }
    Ok(())
}

/// The output directory, to which paths in the manifest are relative.
struct Place(PathBuf);

impl Place {
    fn of(output: &Path) -> Result<Self, FilesError> {
        fs::canonicalize(output).map(Self).map_err(FilesError::io("finding", output))
    }

    /// Copies a host file to where blobs go, proven to be `id` still; gives its path as seen from the output directory.
    fn copy(&self, file: &Path, id: BlobId) -> Result<String, FilesError> {
        let name = format!("{BLOBS}/{id}");
        let place = self.0.join(&name);
        files::create_dir(&self.0.join(BLOBS))?;
        files::write_with(&place, |out| {
            let mut from = files::open(file)?;
            std::io::copy(&mut from, out).map_err(FilesError::io("copying", file))
        })?;
        if files::tree_of(&place)?.id == id {
            return Ok(name);
        }
        fs::remove_file(&place).map_err(FilesError::io("removing", &place))?;
        Err(FilesError::Refused { path: file.to_owned(), reason: "it changed while it was copied" })
    }

    /// A host file as seen from the output directory. Its directory is resolved, the file itself may be a link.
    fn relative(&self, file: &Path) -> Result<String, FilesError> {
        let failed = FilesError::io("finding", file);
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = fs::canonicalize(directory).map_err(&failed)?;
        let common = self.0.components().zip(directory.components()).take_while(|(a, b)| a == b).count();
        let mut relative = PathBuf::new();
        self.0.components().skip(common).for_each(|_| relative.push(".."));
        relative.extend(directory.components().skip(common));
        relative.extend(file.file_name());
        relative.into_os_string().into_string().map_err(|_| FilesError::NotUnicode(file.to_owned()))
    }
}
