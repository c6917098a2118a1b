//! [`PackageBuild`]: inputs to meta.far, byte-reproducibly. It reads no files: the caller brings bytes and blob ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::BlobId;

use crate::meta_contents::MetaContents;
use crate::meta_package::MetaPackage;
use crate::package::ABI_REVISION_PATH;
use crate::resource_path::collision;
use crate::subpackages::MetaSubpackages;
use crate::url::RelativePackageUrl;
use crate::{AbiRevision, MetaFar, PackageError, PackageName, PackageVariant, ResourcePath, far};

/// Paths that the build writes itself and nobody may supply.
pub const RESERVED_PATHS: [&str; 4] = [MetaContents::PATH, MetaPackage::PATH, ABI_REVISION_PATH, MetaSubpackages::PATH];

/// The inputs of a package.
#[derive(Debug, Clone)]
pub struct PackageBuild {
    name: PackageName,
    abi_revision: AbiRevision,
    meta: BTreeMap<ResourcePath, Bytes>,
    contents: BTreeMap<ResourcePath, BlobId>,
    subpackages: BTreeMap<RelativePackageUrl, BlobId>,
}

impl PackageBuild {
    /// A package of variant 0 without files.
    pub const fn new(name: PackageName, abi_revision: AbiRevision) -> Self {
        Self { name, abi_revision, meta: BTreeMap::new(), contents: BTreeMap::new(), subpackages: BTreeMap::new() }
    }

    /// A build whose name is in a given `meta/package`, which must have variant 0.
    pub fn from_meta_package(bytes: &[u8], abi_revision: AbiRevision) -> Result<Self, PackageError> {
        let package = MetaPackage::parse(bytes)?;
        if !package.variant.is_zero() {
            return Err(PackageError::VariantNotZero(package.variant.to_string()));
        }
        Ok(Self::new(package.name, abi_revision))
    }

    /// The build whose outcome `package` is, to change something in it.
    ///
    /// # Errors
    /// The package has another variant than 0, or no ABI revision.
    pub fn from_meta_far(package: &MetaFar) -> Result<Self, PackageError> {
        if !package.variant().is_zero() {
            return Err(PackageError::VariantNotZero(package.variant().to_string()));
        }
        let abi_revision = package.abi_revision().ok_or(PackageError::MissingFile(ABI_REVISION_PATH))?;
        let mut build = Self::new(package.name().clone(), abi_revision);
        for path in package.meta_paths().filter(|path| !RESERVED_PATHS.contains(path)) {
            build.add_meta(path, package.meta_file(path).unwrap_or_default())?;
        }
        build.contents.clone_from(package.contents());
        build.subpackages.clone_from(package.subpackages());
        Ok(build)
    }

    /// Removes a file, from meta.far if its path begins with `meta/`, else from the content.
    ///
    /// # Errors
    /// There is no such file, or the build writes it.
    pub fn remove(&mut self, path: &str) -> Result<(), PackageError> {
        let path = parse_path(path)?;
        if RESERVED_PATHS.contains(&path.as_str()) {
            return Err(PackageError::ReservedPath(path.to_string()));
        }
        if self.meta.remove(&path).is_some() || self.contents.remove(&path).is_some() {
            return Ok(());
        }
        Err(PackageError::NoSuchPath(path.to_string()))
    }

    /// Gives the package another name.
    pub fn set_name(&mut self, name: PackageName) {
        self.name = name;
    }

    /// Gives the package another ABI revision.
    pub fn set_abi_revision(&mut self, abi_revision: AbiRevision) {
        self.abi_revision = abi_revision;
    }

    /// The package's name.
    pub const fn name(&self) -> &PackageName {
        &self.name
    }

    /// Adds a file that lies inside meta.far; its path begins with `meta/` and is not reserved.
    pub fn add_meta(&mut self, path: &str, content: Bytes) -> Result<(), PackageError> {
        let path = parse_path(path)?;
        if !path.as_str().starts_with("meta/") {
            return Err(PackageError::PathNotInMeta(path.to_string()));
        }
        if RESERVED_PATHS.contains(&path.as_str()) {
            return Err(PackageError::ReservedPath(path.to_string()));
        }
        insert_same(&mut self.meta, path, content)
    }

    /// Adds a content blob; the same path may be given again with the same blob.
    pub fn add_content(&mut self, path: &str, blob: BlobId) -> Result<(), PackageError> {
        insert_same(&mut self.contents, parse_path(path)?, blob)
    }

    /// Adds a subpackage, pinned by its package hash.
    pub fn add_subpackage(&mut self, name: RelativePackageUrl, hash: BlobId) -> Result<(), PackageError> {
        if self.subpackages.contains_key(&name) {
            return Err(PackageError::DuplicateSubpackage(name.to_string()));
        }
        self.subpackages.insert(name, hash);
        Ok(())
    }

    /// The meta.far. Same inputs, same bytes.
    pub fn finish(self) -> Result<Bytes, PackageError> {
        let contents = MetaContents::new(self.contents)?;
        let package = MetaPackage { name: self.name, variant: PackageVariant::zero() };
        let mut files: BTreeMap<String, Bytes> =
            self.meta.into_iter().map(|(path, content)| (path.into(), content)).collect();
        files.insert(MetaContents::PATH.to_owned(), contents.to_bytes().into());
        files.insert(MetaPackage::PATH.to_owned(), package.to_bytes().into());
        files.insert(ABI_REVISION_PATH.to_owned(), Bytes::copy_from_slice(&self.abi_revision.to_bytes()));
        if !self.subpackages.is_empty() {
            let subpackages = MetaSubpackages::new(self.subpackages).to_bytes()?;
            files.insert(MetaSubpackages::PATH.to_owned(), subpackages.into());
        }
        if let Some(path) = collision(files.keys().map(String::as_str)) {
            return Err(PackageError::Collision(path.to_owned()));
        }
        let meta_far = far::to_bytes(&files)?;
        PackageError::check_size("meta.far", meta_far.len(), crate::limits::META_FAR_BYTES_MAX)?;
        Ok(meta_far.into())
    }
}

fn parse_path(path: &str) -> Result<ResourcePath, PackageError> {
    path.parse().map_err(|error| PackageError::Path { path: path.to_owned(), error })
}

fn insert_same<V: PartialEq>(
    map: &mut BTreeMap<ResourcePath, V>,
    path: ResourcePath,
    value: V,
) -> Result<(), PackageError> {
    match map.get(&path) {
        Some(known) if *known != value => Err(PackageError::DuplicatePath(path.to_string())),
        _ => {
            map.insert(path, value);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::merkle;

    use super::*;

    fn vector(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The package of the vectors' recipe.
    fn recipe(name: &str, subpackages: &[(&str, BlobId)]) -> Bytes {
        let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision(0xECCE_A2F7_0ACD_6FC0));
        for kind in ["cm", "cmx"] {
            build.add_meta(&format!("meta/{name}.{kind}"), format!("{kind} {name}").into()).unwrap();
        }
        for (directory, kind) in [("bin", "binary"), ("lib", "lib")] {
            let id = merkle::build(format!("{kind} {name}").as_bytes()).id;
            build.add_content(&format!("{directory}/{name}"), id).unwrap();
        }
        for (subpackage, hash) in subpackages {
            build.add_subpackage(subpackage.parse().unwrap(), *hash).unwrap();
        }
        build.finish().unwrap()
    }

    #[test]
    fn the_five_vectors_are_built_byte_for_byte_and_open_again() {
        let id = |meta_far: &Bytes| merkle::build(meta_far).id;
        let anonymous = recipe("anonymous_subpackage", &[]);
        let named = recipe("named_subpackage", &[("anon_subpackage_of_namedsubpkg", id(&anonymous))]);
        let children = [("named_subpackage", id(&named)), ("anon_subpackage_of_superpkg", id(&anonymous))];
        let packages = [
            ("package1", recipe("package1", &[]), "2881455493b5870aaea36537d70a2adc635f516ac2092598f4b6056dabc6b25d"),
            ("package2", recipe("package2", &[]), "050907f009ff634f9aa57bff541fb9e9c2c62b587c23578e77637cda3bd69458"),
            ("anonymous_subpackage", anonymous, "1d20cc5163f35cd977cf414d54f8d5b53bcb33944cff0b9560b0627a6bba7441"),
            ("named_subpackage", named, "1e67965c0601afbe00e43eb5c50509813400f1ae0ec838b44dfa018a8afcdeac"),
            (
                "superpackage",
                recipe("superpackage", &children),
                "cb174413bb34d960976f6b82ef6e6d3d3a36ddccdec142faf3d79f76c4baa676",
            ),
        ];
        for (name, meta_far, hash) in packages {
            assert_eq!(meta_far, vector(&format!("{name}.meta.far")), "{name}");
            assert_eq!(id(&meta_far).to_string(), hash);
            let package = MetaFar::parse(meta_far).unwrap();
            assert_eq!((package.name().as_str(), package.variant().as_str()), (name, "0"));
            assert_eq!((package.contents().len(), package.content_blobs().len()), (2, 2));
            assert_eq!(
                package.subpackages().len(),
                if name == "superpackage" { 2 } else { usize::from(name == "named_subpackage") }
            );
            assert_eq!(package.abi_revision(), AbiRevision::of_api_level(7));
            assert_eq!(package.meta_file(&format!("meta/{name}.cm")).unwrap(), format!("cm {name}"));
            assert!(package.meta_paths().is_sorted() && package.meta_paths().any(|path| path == "meta/package"));
        }
    }

    fn empty() -> PackageBuild {
        PackageBuild::new("n".parse().unwrap(), AbiRevision::LATEST)
    }

    #[test]
    fn reserved_and_misplaced_paths_are_refused() {
        for path in RESERVED_PATHS {
            let error = empty().add_meta(path, Bytes::new()).unwrap_err();
            assert_eq!(error, PackageError::ReservedPath(path.to_owned()));
        }
        assert_eq!(empty().add_meta("bin/x", Bytes::new()), Err(PackageError::PathNotInMeta("bin/x".into())));
        assert!(matches!(empty().add_meta("meta/../x", Bytes::new()), Err(PackageError::Path { .. })));
        let id = merkle::build(b"").id;
        let mut build = empty();
        build.add_content("meta/x", id).unwrap();
        assert_eq!(build.finish(), Err(PackageError::PathInMeta("meta/x".into())));
    }

    #[test]
    fn collisions_and_duplicates_are_refused() {
        let (one, two) = (merkle::build(b"1").id, merkle::build(b"2").id);
        let mut build = empty();
        build.add_content("foo", one).unwrap();
        build.add_content("foo", one).unwrap();
        assert_eq!(build.add_content("foo", two), Err(PackageError::DuplicatePath("foo".into())));
        build.add_content("foo/bar", one).unwrap();
        assert_eq!(build.finish(), Err(PackageError::Collision("foo".into())));
        let mut build = empty();
        build.add_meta("meta/package/x", Bytes::new()).unwrap();
        assert_eq!(build.finish(), Err(PackageError::Collision("meta/package".into())));
        let mut build = empty();
        build.add_subpackage("s".parse().unwrap(), one).unwrap();
        let again = build.add_subpackage("s".parse().unwrap(), one);
        assert_eq!(again, Err(PackageError::DuplicateSubpackage("s".into())));
    }

    #[test]
    fn the_name_comes_from_meta_package_with_variant_zero() {
        let from = |text: &str| PackageBuild::from_meta_package(text.as_bytes(), AbiRevision::LATEST);
        assert_eq!(from(r#"{"name":"n","version":"0"}"#).unwrap().name().as_str(), "n");
        let error = from(r#"{"name":"n","version":"1"}"#).unwrap_err();
        assert_eq!(error, PackageError::VariantNotZero("1".into()));
    }

    #[test]
    fn a_built_package_can_be_taken_up_changed_and_changed_back() {
        let meta_far = recipe("package1", &[("kid", merkle::build(b"").id)]);
        let taken_up = || PackageBuild::from_meta_far(&MetaFar::parse(meta_far.clone()).unwrap()).unwrap();
        assert_eq!(taken_up().finish().unwrap(), meta_far);
        let mut build = taken_up();
        build.remove("meta/package1.cm").unwrap();
        build.remove("bin/package1").unwrap();
        assert_eq!(build.remove("bin/package1"), Err(PackageError::NoSuchPath("bin/package1".into())));
        assert_eq!(build.remove("meta/contents"), Err(PackageError::ReservedPath("meta/contents".into())));
        build.set_name("other".parse().unwrap());
        build.set_abi_revision(AbiRevision(1));
        let changed = MetaFar::parse(build.clone().finish().unwrap()).unwrap();
        assert_eq!((changed.name().as_str(), changed.abi_revision()), ("other", Some(AbiRevision(1))));
        assert_eq!((changed.contents().len(), changed.meta_file("meta/package1.cm")), (1, None));
        build.add_meta("meta/package1.cm", "cm package1".into()).unwrap();
        build.add_content("bin/package1", merkle::build(b"binary package1").id).unwrap();
        build.set_name("package1".parse().unwrap());
        build.set_abi_revision(AbiRevision(0xECCE_A2F7_0ACD_6FC0));
        assert_eq!(build.finish().unwrap(), meta_far);
    }

    #[test]
    fn packages_without_their_files_are_refused_by_name() {
        let open = |files: &[(&[u8], &[u8])]| {
            let files: BTreeMap<&[u8], &[u8]> = files.iter().copied().collect();
            MetaFar::parse(far::to_bytes(&files).unwrap().into()).unwrap_err()
        };
        let package: (&[u8], &[u8]) = (b"meta/package", br#"{"name":"n","version":"0"}"#);
        assert_eq!(open(&[]), PackageError::MissingFile("meta/package"));
        assert_eq!(open(&[package]), PackageError::MissingFile("meta/contents"));
        let abi: (&[u8], &[u8]) = (b"meta/fuchsia.abi/abi-revision", b"1");
        assert_eq!(open(&[package, (b"meta/contents", b""), abi]), PackageError::AbiRevisionLength(1));
        assert!(matches!(open(&[package, (b"meta/\xff", b"")]), PackageError::NotUtf8 { .. }));
        assert!(matches!(MetaFar::parse(Bytes::new()), Err(PackageError::Far(_))));
    }
}
