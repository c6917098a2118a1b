//! A product: packages behind an edge, and releases that have them in package sets.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use colibri_cluster::Cluster;
use colibri_common::{BlobId, merkle};
use colibri_device::{Device, DeviceConfig, Watermarks};
use colibri_metadata::Role;
use colibri_package::delivery::{DeliveryType, Identity};
use colibri_package::package::MetaFar;
use colibri_release::{
    Availability, EncodedForm, Missing, PackageContents, Release, ReleaseBlob, ReleaseBuilder, ReleaseError,
    ReleasePackage, Versioning,
};
use colibri_store::Store;

use crate::scene::{Built, HOST, Scene, nobody, noise};

/// A scene that remembers every file it built, and what a product of it is.
pub struct Product {
    pub scene: Scene,
    files: HashMap<BlobId, Bytes>,
}

pub type Row<'a> = (&'a str, Availability, Versioning, Option<BlobId>, Option<&'a str>);

impl Product {
    pub fn new() -> Self {
        Self { scene: Scene::new(), files: HashMap::new() }
    }

    /// Builds and publishes a package.
    pub fn package(&mut self, name: &str, files: &[(&str, &[u8])], subpackages: &[&Built]) -> Built {
        let built = self.scene.build(name, files, subpackages);
        for file in fs::read_dir(built.manifest.parent().unwrap()).unwrap() {
            let bytes = Bytes::from(fs::read(file.unwrap().path()).unwrap());
            self.files.insert(merkle::build(&bytes).id, bytes);
        }
        self.scene.publish(&[&built]);
        built
    }

    /// A package with one file of noise.
    pub fn simple(&mut self, name: &str, seed: u64) -> BlobId {
        self.package(name, &[("data", &noise(seed, 100_000))], &[]).hash
    }

    pub fn release(&self, version: &str, packages: &[Row<'_>], discovers: bool) -> Release {
        self.try_release(version, packages, discovers).unwrap()
    }

    pub fn try_release(&self, version: &str, packages: &[Row<'_>], discovers: bool) -> Result<Release, ReleaseError> {
        self.try_release_with(version, packages, discovers, |_| ())
    }

    /// The same with what `more` adds.
    pub fn try_release_with(
        &self,
        version: &str,
        packages: &[Row<'_>],
        discovers: bool,
        more: impl FnOnce(&mut ReleaseBuilder),
    ) -> Result<Release, ReleaseError> {
        let mut builder = ReleaseBuilder::new("lamp", version.parse().unwrap());
        let trusted = self.scene.repository.metadata().unwrap();
        let root = trusted.files().find(|(name, _)| *name == Role::Root.file()).unwrap().1.to_vec();
        let domain = || format!("fuchsia-pkg://{HOST}").parse().unwrap();
        builder.repository(domain(), String::from_utf8(root).unwrap());
        if discovers {
            builder.discoverable(domain());
        }
        for (name, availability, versioning, hash, minimum) in packages {
            builder.package(ReleasePackage {
                url: format!("fuchsia-pkg://{HOST}/{name}").parse().unwrap(),
                availability: *availability,
                versioning: *versioning,
                hash: *hash,
                minimum_version: minimum.map(|version| version.parse().unwrap()),
            });
        }
        more(&mut builder);
        while let Some(missing) = builder.missing() {
            match missing {
                Missing::Contents(hash) => {
                    let meta_far = MetaFar::parse(self.files[&hash].clone()).unwrap();
                    builder.contents(PackageContents::of(hash, &meta_far));
                }
                Missing::Blob(hash) => {
                    let raw_bytes = self.files[&hash].len() as u64;
                    let identity = Identity::of_unit_h(hash.as_bytes());
                    let form = EncodedForm { ty: DeliveryType::Type1, bytes: raw_bytes / 2 + 100, identity };
                    builder.blob(ReleaseBlob { hash, raw_bytes, encoded: vec![form] });
                }
            }
        }
        builder.finish()
    }

    pub fn device(&self, cluster: &Cluster) -> (Device, Arc<Store>) {
        let space = Watermarks { low_bytes: 0, high_bytes: 0 };
        let config = DeviceConfig { space, ..DeviceConfig::default() };
        self.scene.device("device", config, self.scene.config(cluster, HOST))
    }

    /// Takes a release as an update does.
    pub async fn take(&self, device: &Device, release: &Release) {
        device.fetch_before_commit(release, nobody()).await.unwrap();
        device.set_release(release.clone()).await.unwrap();
        device.retain([], []).await.unwrap();
    }
}
