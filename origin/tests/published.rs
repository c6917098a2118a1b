//! A repository made by our own library, served: what is published is there for a client at once, and whole.

mod fixture;

use std::path::Path;

use colibri_common::{BlobId, merkle};
use colibri_metadata::{RepoConfig, Role, TrustedSet};
use colibri_origin::{OriginConfig, RepositoryConfig};
use colibri_package::delivery::{DeliveryType, decode_verified};
use colibri_repository::{CreateOptions, KeyForm, Profile, Publish, Repository};
use colibri_transport::Handler;
use fixture::{NOW, get, open, vectors};
use http::StatusCode;

/// The sample package with this name (recipe in the vectors' README), as files with a manifest.
fn package(dir: &Path, name: &str) -> std::path::PathBuf {
    let meta_far = std::fs::read(vectors().join(format!("{name}.meta.far"))).unwrap();
    let parts = [
        ("meta/".to_owned(), meta_far),
        (format!("bin/{name}"), format!("binary {name}").into_bytes()),
        (format!("lib/{name}"), format!("lib {name}").into_bytes()),
    ];
    let blobs: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(index, (path, bytes))| {
            let source = dir.join(format!("{name}-{index}"));
            std::fs::write(&source, &bytes).unwrap();
            let merkle = merkle::build(&bytes).id.to_string();
            serde_json::json!({"source_path": source, "path": path, "merkle": merkle, "size": bytes.len()})
        })
        .collect();
    let manifest = serde_json::json!({"version": "1", "package": {"name": name, "version": "0"}, "blobs": blobs});
    let path = dir.join(format!("{name}.json"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    path
}

/// What a client believes after reading all four roles.
async fn trusted(handler: &Handler) -> TrustedSet {
    let mut files = Vec::new();
    for role in Role::ALL {
        let answer = get(handler, &format!("/devhost/{}", role.file()), &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{role}");
        files.push((role.file(), answer.body));
    }
    let set = TrustedSet::load(files).unwrap();
    assert!(set.is_whole());
    set
}

async fn blob(handler: &Handler, id: BlobId) -> Vec<u8> {
    let answer = get(handler, &format!("/devhost/blobs/1/{id}"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{id}");
    let content = decode_verified(id, &answer.body).unwrap();
    assert!(get(handler, &format!("/blobs/{id}"), &[]).await.body == content);
    assert_eq!(get(handler, &format!("/blobs/leaves/{id}"), &[]).await.body, merkle::build(&content).leaves.wire());
    content
}

#[tokio::test]
async fn each_release_is_served_as_soon_as_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("repository-folder");
    let repository = Repository::create(&folder, CreateOptions::new(NOW)).unwrap();
    let served = RepositoryConfig::new("devhost".parse().unwrap(), folder);
    let handler = open(OriginConfig { repositories: vec![served], ..OriginConfig::default() }).handler();
    assert_eq!(trusted(&handler).await.targets().unwrap().len(), 0);

    for (release, name) in ["package1", "package2"].into_iter().enumerate() {
        let manifests = vec![package(dir.path(), name)];
        repository.publish(&Publish { manifests, compression_level: Some(1), ..Publish::new(NOW) }).unwrap();
        let set = trusted(&handler).await;
        let targets = set.targets().unwrap();
        assert_eq!(targets.len(), release + 1);
        let target = targets.get(&format!("{name}/0").parse().unwrap()).unwrap();
        let meta_far = blob(&handler, target.merkle().unwrap()).await;
        assert!(meta_far == std::fs::read(vectors().join(format!("{name}.meta.far"))).unwrap());
        for content in [format!("binary {name}"), format!("lib {name}")] {
            assert!(blob(&handler, merkle::build(content.as_bytes()).id).await == content.as_bytes());
        }
        let prefix = colibri_common::hex(target.hashes.sha512.as_ref().unwrap());
        let file = get(&handler, &format!("/devhost/targets/{name}/{prefix}.0"), &[]).await;
        assert!(file.body == meta_far && file.header("cache-control").contains("immutable"));
        let numbered = format!("/devhost/{}", Role::Targets.numbered_file(set.version(Role::Targets).unwrap()));
        assert_eq!(get(&handler, &numbered, &[]).await.status, StatusCode::OK);
    }

    let answer = get(&handler, "/devhost/repo.config", &[]).await;
    let config = RepoConfig::parse(&answer.body).unwrap();
    assert_eq!(config, repository.device_config("devhost", "http://packages.example:8083/devhost").unwrap());
    let page = get(&handler, "/devhost/", &[("accept", "application/json")]).await.json();
    assert_eq!((&page["package_count"], &page["packages"][1]["name"]), (&2.into(), &"package2/0".into()));
}

/// In hash bins too every package is counted and named; a rollout is none.
#[tokio::test]
async fn the_page_counts_packages_in_hash_bins() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("repository-folder");
    let options = CreateOptions { profile: Profile::Scale, ..CreateOptions::new(NOW) };
    let repository = Repository::create(&folder, options).unwrap();
    let served = RepositoryConfig::new("devhost".parse().unwrap(), folder);
    let handler = open(OriginConfig { repositories: vec![served], ..OriginConfig::default() }).handler();
    let page = async || get(&handler, "/devhost/", &[("accept", "application/json")]).await.json();
    assert_eq!(page().await["package_count"], 0);
    for name in ["package2", "package1"] {
        let manifests = vec![package(dir.path(), name)];
        repository.publish(&Publish { manifests, compression_level: Some(1), ..Publish::new(NOW) }).unwrap();
    }
    repository.enable_rollout(KeyForm::Plain, NOW).unwrap();
    let document = serde_json::json!({"releases": [repository.package("package1").unwrap().hash]}).to_string();
    repository.put_rollout("spring", document.as_bytes(), NOW).unwrap();
    let page = page().await;
    let names: Vec<_> =
        page["packages"].as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap()).collect();
    assert_eq!((&page["package_count"], names), (&2.into(), vec!["package1/0", "package2/0"]), "{page}");
}

/// What the real tools made is imported, and served byte for byte as it was.
#[tokio::test]
async fn an_imported_repository_is_served_unchanged() {
    let source = fixture::Folder::new();
    let mut blobs = Vec::new();
    for name in ["package1", "superpackage", "named_subpackage", "anonymous_subpackage"] {
        let of_name = [format!("binary {name}").into_bytes(), format!("lib {name}").into_bytes()];
        let meta_far = std::fs::read(vectors().join(format!("{name}.meta.far"))).unwrap();
        for content in of_name.into_iter().chain([meta_far]) {
            blobs.push((source.put_delivery(&content, DeliveryType::Type1), content));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let found = colibri_repository::sources(source.dir.path()).unwrap();
    let report = Repository::import(&found[0], dir.path(), &colibri_repository::Transfer::default()).unwrap();
    assert_eq!((report.packages, report.blobs_new), (2, 12));
    let repository = RepositoryConfig::new("devhost".parse().unwrap(), dir.path());
    let handler = open(OriginConfig { repositories: vec![repository], ..OriginConfig::default() }).handler();
    for entry in std::fs::read_dir(vectors().join("tuf-repo")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let answer = get(&handler, &format!("/devhost/{name}"), &[]).await;
        assert!(answer.body == std::fs::read(entry.path()).unwrap(), "{name}");
    }
    assert!(trusted(&handler).await.is_whole());
    for ((id, encoded), content) in blobs {
        assert_eq!(blob(&handler, id).await, content);
        assert!(get(&handler, &format!("/devhost/blobs/1/{id}"), &[]).await.body == encoded);
    }
}
