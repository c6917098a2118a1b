//! Only repositories that the running release trusts, by the root that it lists.

use colibri_common::Clock;
use colibri_metadata::Role;
use colibri_metadata::repo_config::RootKey;
use colibri_release::{Availability, ReleasePackage, Versioning};
use colibri_repository::{KeyForm, KeyRole};

use super::*;

/// A package whose version the repository says.
pub fn on_demand(name: &str) -> ReleasePackage {
    let url = format!("fuchsia-pkg://{HOST}/{name}").parse().unwrap();
    let (availability, versioning) = (Availability::OnDemand, Versioning::Upgradable);
    ReleasePackage { url, availability, versioning, hash: None, minimum_version: None }
}

fn untrusted(refused: &DeviceError, repository: &str, why: &str) {
    assert_eq!((refused.kind(), refused.zx_status()), ("AccessDenied", "ACCESS_DENIED"), "{refused}");
    let expected = format!("release lamp 1.0.0.0 does not trust repository `{repository}`: ");
    assert!(refused.to_string().starts_with(&expected) && refused.to_string().contains(why), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_of_other_roots_are_refused_by_name() {
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"app")]);
    // Somebody else's repository, served under the same name.
    let other = Scene::new();
    other.release("app", &[("a", b"evil")]);
    let served = vec![(HOST.to_owned(), scene.path("repository")), ("other".to_owned(), other.path("repository"))];
    let cluster = scene.serve_all(served, 1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.set_release(scene.product_release("1", vec![on_demand("app")], |_| ())).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), app);

    let mut evil = cluster.device_config("other", other.repository.metadata().unwrap().root()).unwrap();
    evil.repo_url = format!("fuchsia-pkg://{HOST}");
    device.repositories().add(evil.clone()).unwrap();
    untrusted(&device.resolve(&url("app"), nobody()).await.unwrap_err(), HOST, "root keys");
    // Adding the right key to the wrong one does not help.
    let good = scene.config(&cluster, HOST);
    evil.root_keys.extend(good.root_keys.clone());
    device.repositories().add(evil.clone()).unwrap();
    untrusted(&device.get_hash(&url("app")).await.unwrap_err(), HOST, "root keys");
    // Nor does a repository of another host, which rules lead to or the updater asks.
    evil.repo_url = "fuchsia-pkg://other".to_owned();
    device.repositories().add(evil).unwrap();
    untrusted(&device.refresh("other", false).await.unwrap_err(), "other", "not among those");
    alias(&device, HOST, "other");
    device.repositories().add(good).unwrap();
    let refused = device.resolve(&url("app"), nobody()).await.unwrap_err();
    assert_eq!(refused.kind(), "PackageNotFound", "the release names no such package: {refused}");
    device.rules().replace(Vec::new()).unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), app);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_with_an_older_or_the_same_root_trusts_what_follows_from_it() {
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let release = scene.product_release("1", vec![on_demand("app")], |_| ());
    // Root keys are renewed afterwards.
    scene.repository.rotate_keys(KeyRole::from(Role::Root), KeyForm::default(), SystemClock.now()).unwrap();
    let trusted = scene.repository.metadata().unwrap();
    assert_eq!(trusted.version(Role::Root), Some(2));
    let config = scene.config(&cluster, HOST);
    let old: Vec<RootKey> = {
        let set = colibri_metadata::TrustedSet::from_root_file(&release.repositories()[0].root.clone().into()).unwrap();
        set.root().public_keys(Role::Root).map(RootKey).collect()
    };
    assert_ne!(config.root_keys, old);
    let (device, _store) = scene.device("device", DeviceConfig::default(), config);
    // It knows the new root before it takes the release.
    device.refresh(HOST, true).await.unwrap();
    device.set_release(release).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), app, "the root of the release signed for this one");
    cluster.stop().await;
}
