//! An origin is lost and restored from an older backup; what edges have seen since comes back.

use std::path::Path;
use std::sync::Arc;

use colibri_cluster::{Cluster, ClusterConfig};
use colibri_common::{BlobId, Clock, SystemClock, merkle};
use colibri_fetch::metadata::{Directory, Mirrors, refresh, refresh_from, search_from};
use colibri_fetch::{BlobFetcher, Source, SourceOrder, Sources};
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet};
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_package::{AbiRevision, PackageBuild};
use colibri_repository::{
    CreateOptions, KeyForm, Profile, Publish, Recover, Repository, RepositoryError, Witness, verify,
};
use colibri_transport::{Client, ClientConfig};

const NAME: &str = "fleet.example";

/// Publishes a package of one file and gives its blobs, meta.far first.
fn publish(repository: &Repository, dir: &Path, name: &str) -> [BlobId; 2] {
    let content: Vec<u8> = name.bytes().cycle().take(300_000).collect();
    let file = merkle::build(&content).id;
    let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision(1));
    build.add_content("data/file", file).unwrap();
    let meta_far = build.finish().unwrap().to_vec();
    let package = merkle::build(&meta_far).id;
    let blob = |path: &str, id: BlobId, bytes: &[u8]| {
        let source = dir.join(id.to_string());
        std::fs::write(&source, bytes).unwrap();
        serde_json::json!({"source_path": source, "path": path, "merkle": id.to_string(), "size": bytes.len()})
    };
    let blobs = [blob("meta/", package, &meta_far), blob("data/file", file, &content)];
    let manifest = serde_json::json!({"version": "1", "package": {"name": name, "version": "0"}, "blobs": blobs});
    let path = dir.join(format!("{name}.json"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    let now = SystemClock.now();
    let publish = Publish { manifests: vec![path], compression_level: Some(1), ..Publish::new(now) };
    repository.publish(&publish).unwrap();
    [package, file]
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

struct Scene {
    dir: tempfile::TempDir,
    repository: Repository,
    cluster: Cluster,
}

impl Scene {
    fn start() -> Self {
        Self::of(Profile::Compat)
    }

    fn of(profile: Profile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("repository-folder");
        let options = CreateOptions { profile, ..CreateOptions::new(SystemClock.now()) };
        let repository = Repository::create(&folder, options).unwrap();
        publish(&repository, dir.path(), "old");
        let config = ClusterConfig {
            repositories: vec![(NAME.to_owned(), folder)],
            edges: 2,
            edge_memory_bytes: 64 << 20,
            edge_disk_bytes: 64 << 20,
            work: dir.path().join("work"),
            block_udp: true,
        };
        let cluster = Cluster::start(&config).unwrap();
        Self { dir, repository, cluster }
    }

    fn url(&self, edge: usize) -> String {
        format!("{}/{NAME}", self.cluster.edges[edge].node.url())
    }

    fn witness(&self, url: &str) -> Witness {
        let sources = Sources::new(vec![Source::new(url.parse().unwrap())], SourceOrder::Listed);
        let client = Client::new(ClientConfig { http3: false, ..ClientConfig::default() }).unwrap();
        Witness { name: url.to_owned(), fetcher: BlobFetcher::new(client, Arc::new(sources), "test") }
    }

    /// A device that knows what the repository was at first sees what it is now, through an edge.
    async fn device_refreshes(&self, edge: usize) -> TrustedSet {
        let sources = Sources::new(vec![Source::new(self.url(edge).parse().unwrap())], SourceOrder::Listed);
        let client = Client::new(ClientConfig { http3: false, ..ClientConfig::default() }).unwrap();
        let root = self.repository.trusted_root_bytes().unwrap();
        let start = Start::FromAnchor(TrustAnchor::RootFile(root));
        refresh(&client, &sources, "", "test", start, SystemClock.now()).await.unwrap()
    }

    /// ... and looks for targets, so that the edge has the delegated roles that these fall to.
    async fn device_searches(&self, edge: usize, mut set: TrustedSet, names: &[&str]) -> TrustedSet {
        let sources = Sources::new(vec![Source::new(self.url(edge).parse().unwrap())], SourceOrder::Listed);
        let client = Client::new(ClientConfig { http3: false, ..ClientConfig::default() }).unwrap();
        for name in names {
            let mirrors = Mirrors { client: &client, sources: &sources, place: "", agent: "test", bandwidth: None };
            let found;
            (set, found) = mirrors.search(set, &name.parse().unwrap(), SystemClock.now()).await.unwrap();
            assert!(found.is_some(), "{name}");
        }
        set
    }

    /// ... and fetches blobs through it, so that it keeps them.
    async fn device_fetches(&self, edge: usize, blobs: &[BlobId]) {
        let witness = self.witness(&self.url(edge));
        for id in blobs {
            let form = Encoding::Delivery(DeliveryType::Type1);
            let opened = witness.fetcher.open("", *id, form).await.unwrap();
            for unit in 0..opened.layout.unit_count() {
                let pieces = opened.layout.pieces_of(unit);
                witness.fetcher.pieces("", &opened.layout, unit, pieces, &mut |_| {}).await.unwrap();
            }
        }
    }

    /// The origin's disk dies; a backup takes its place, elsewhere.
    async fn restore(&mut self, backup: &str) -> Repository {
        self.cluster.origin.stop();
        while tokio::net::TcpStream::connect(self.cluster.origin.authority()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        Repository::open(&self.dir.path().join(backup)).unwrap()
    }

    fn backup(&self, name: &str) {
        copy(self.repository.dir(), &self.dir.path().join(name));
    }
}

fn how() -> Recover {
    Recover { now: SystemClock.now(), unproven_because: None }
}

fn names(repository: &Repository) -> Vec<String> {
    repository.packages().unwrap().into_iter().map(|package| package.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_edges_have_seen_comes_back_with_their_blobs() {
    let mut scene = Scene::start();
    scene.backup("backup");
    let kept = publish(&scene.repository, scene.dir.path(), "new");
    let seen = scene.device_refreshes(0).await;
    scene.device_fetches(0, &kept).await;
    let lost = scene.repository.versions().unwrap();
    let restored = scene.restore("backup").await;
    assert_eq!(names(&restored), ["old"]);
    let dead = scene.witness("https://127.0.0.1:1/fleet.example");
    let report = restored.recover(&[dead, scene.witness(&scene.url(0))], &how()).await.unwrap();
    assert_eq!(
        (report.packages.as_slice(), report.blobs_fetched, report.blobs_missing),
        (&["new/0".to_owned()][..], 2, 0)
    );
    assert!(report.witnesses[0].fault.is_some() && report.witnesses[1].fault.is_none(), "{report:?}");
    assert_eq!(names(&restored), ["new", "old"]);
    assert_eq!(report.versions.targets, lost.targets, "targets come back as they were signed");
    assert!(report.versions.snapshot > lost.snapshot && report.versions.timestamp > lost.timestamp);
    assert!(verify(restored.dir(), SystemClock.now(), None).unwrap().damage.is_empty());
    // A client that saw the lost release goes on, and so does publishing.
    publish(&restored, scene.dir.path(), "newer");
    let metadata = restored.metadata().unwrap();
    let served = Directory(restored.served_dir());
    let followed = refresh_from(&served, Start::FromSet(seen), SystemClock.now()).await.unwrap();
    assert_eq!(followed.version(Role::Targets), metadata.version(Role::Targets));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_blobs_are_gone_is_named_and_nothing_changes() {
    let mut scene = Scene::start();
    scene.backup("backup");
    let lost = publish(&scene.repository, scene.dir.path(), "lost");
    scene.device_refreshes(1).await;
    scene.backup("all");
    let restored = scene.restore("backup").await;
    let before = restored.versions().unwrap();
    let witnesses = [scene.witness(&scene.url(0)), scene.witness(&scene.url(1))];
    let error = restored.recover(&witnesses, &how()).await.unwrap_err();
    let RepositoryError::Unready { blobs, .. } = &error else { panic!("{error}") };
    assert_eq!((blobs[0].package.as_str(), blobs[0].id), ("lost/0", lost[0]));
    assert_eq!(restored.versions().unwrap(), before);
    // The blobs turn up on another disk.
    copy(&scene.dir.path().join("all/repository/blobs"), &restored.dir().join("repository/blobs"));
    let report = restored.recover(&witnesses, &how()).await.unwrap();
    assert_eq!((report.packages.as_slice(), report.blobs_fetched), (&["lost/0".to_owned()][..], 0));
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_origin_that_went_on_is_told_and_reasons_are_signed() {
    let mut scene = Scene::start();
    scene.backup("backup");
    publish(&scene.repository, scene.dir.path(), "lost");
    scene.device_refreshes(0).await;
    let restored = scene.restore("backup").await;
    let witness = scene.witness(&scene.url(0));
    let because = Recover { unproven_because: Some("the disk died".to_owned()), ..how() };
    copy(restored.dir(), &scene.dir.path().join("forked"));
    let report = restored.recover(std::slice::from_ref(&witness), &because).await.unwrap();
    assert_eq!(report.blobs_missing, 1, "{report:?}");
    assert_eq!(restored.unproven().unwrap().unwrap().reason, "the disk died");
    let forked = Repository::open(&scene.dir.path().join("forked")).unwrap();
    publish(&forked, scene.dir.path(), "other");
    let error = forked.recover(&[witness], &because).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Forked { .. }), "{error}");
    scene.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_bins_and_rollouts_come_back_from_edges_that_know_some_of_them() {
    let mut scene = Scene::of(Profile::Scale);
    let now = SystemClock.now();
    let rollout = |name: &str, hash: BlobId| {
        let document = serde_json::json!({"releases": [hash]}).to_string();
        scene.repository.put_rollout(name, document.as_bytes(), now).unwrap();
    };
    scene.repository.enable_rollout(KeyForm::Plain, now).unwrap();
    let old = scene.repository.package("old").unwrap().hash;
    rollout("first", old);
    scene.device_refreshes(1).await;
    scene.backup("backup");
    let kept = publish(&scene.repository, scene.dir.path(), "new");
    rollout("second", kept[0]);
    let seen = scene.device_refreshes(0).await;
    let seen = scene.device_searches(0, seen, &["new/0", "rollout/second"]).await;
    scene.device_fetches(0, &kept).await;
    scene.backup("newest");
    let lost = scene.repository.versions().unwrap();
    let restored = scene.restore("backup").await;
    // An edge that is behind takes nothing back, not even what no version of targets tells of.
    let newest = Repository::open(&scene.dir.path().join("newest")).unwrap();
    let behind = scene.witness(&scene.url(1));
    let report = newest.recover(std::slice::from_ref(&behind), &how()).await.unwrap();
    assert_eq!((report.packages.len(), names(&newest)), (0, vec!["new".to_owned(), "old".to_owned()]));
    assert_eq!(newest.rollouts().unwrap(), ["first", "second"]);

    // So much later that all of it has expired.
    let later = Recover { now: now.plus(100 * 86_400), ..how() };
    copy(restored.dir(), &scene.dir.path().join("later"));
    for (repository, recover) in
        [(restored, how()), (Repository::open(&scene.dir.path().join("later")).unwrap(), later)]
    {
        let report = repository.recover(&[scene.witness(&scene.url(0))], &recover).await.unwrap();
        assert_eq!(report.packages, ["new/0"], "{report:?}");
        assert!(report.witnesses.iter().all(|witness| witness.fault.is_none()), "{report:?}");
        assert_eq!((report.blobs_fetched, report.blobs_missing), (2, 0));
        assert_eq!(names(&repository), ["new", "old"]);
        assert_eq!(repository.rollouts().unwrap(), ["first", "second"]);
        assert_eq!(report.versions.targets > lost.targets, recover.now > now.plus(86_400));
        assert!(report.versions.snapshot > lost.snapshot && report.versions.timestamp > lost.timestamp);
        assert!(verify(repository.dir(), recover.now, None).unwrap().damage.is_empty());
        // A client that saw the lost release goes on, and finds old and new.
        let served = Directory(repository.served_dir());
        let mut followed = refresh_from(&served, Start::FromSet(seen.clone()), recover.now).await.unwrap();
        for name in ["new/0", "old/0", "rollout/first", "rollout/second"] {
            let found;
            (followed, found) = search_from(&served, followed, &name.parse().unwrap(), recover.now).await.unwrap();
            assert!(found.is_some(), "{name}");
        }
    }
    scene.cluster.stop().await;
}
