//! What a device believes of the delegated role `rollout`, end to end: found through TUF from a served repository, and signed by a
//! thief with the role's key and those of snapshot and timestamp.

mod scene;

use std::fs;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, Clock, SystemClock, hex, merkle, sha256};
use colibri_device::{DeviceConfig, DeviceError};
use colibri_fetch::metadata::{Directory, refresh_from, search_from};
use colibri_metadata::{Start, TrustAnchor, canonical};
use colibri_release::RolloutError;
use colibri_repository::{Ceremony, KeyForm, KeyRole, KeySources, Profile};
use scene::{HOST, Scene, nobody, noise, scrub, url};
use serde_json::{Value, json};

fn document(releases: &[BlobId]) -> Vec<u8> {
    serde_json::to_vec_pretty(&json!({"releases": releases, "share": 5})).unwrap()
}

fn not_listed(error: &DeviceError) -> BlobId {
    match error {
        DeviceError::Rollout { error: RolloutError::NotListed(hash), .. } => *hash,
        other => panic!("{other}"),
    }
}

/// Somebody with stolen keys, and a way to put files on the origin.
struct Thief {
    served: PathBuf,
    keys: PathBuf,
    loot: PathBuf,
}

impl Thief {
    fn of(scene: &Scene) -> Self {
        let repository = &scene.repository;
        Self { served: repository.served_dir(), keys: repository.dir().join("keys"), loot: scene.path("loot") }
    }

    fn signed(&self, file: &str) -> Value {
        let file: Value = serde_json::from_slice(&fs::read(self.served.join(file)).unwrap()).unwrap();
        file["signed"].clone()
    }

    fn version(&self, file: &str) -> u64 {
        self.signed("snapshot.json")["meta"][file]["version"].as_u64().unwrap_or(0)
    }

    /// Signs with the key of `by`, as the tool for signing on other machines does.
    fn sign(&self, by: KeyRole, mut signed: Value, version: u64) -> Vec<u8> {
        signed["version"] = json!(version);
        let kind = signed["_type"].as_str().unwrap().to_owned();
        let folder = self.loot.join(format!("{by}-as-{kind}"));
        fs::create_dir_all(&folder).unwrap();
        for end in ["pem", "pub.pem"] {
            _ = fs::copy(self.keys.join(format!("{by}.{end}")), folder.join(format!("{kind}.{end}")));
        }
        let needs = json!([{"of": "whoever", "threshold": 1, "keys": [self.key(by)]}]);
        let about = json!({"format": 1, "role": kind, "follows": 0, "needs": needs});
        let file = json!({"ceremony": about, "signatures": [], "signed": signed});
        let mut ceremony = Ceremony::parse(&canonical::encode(&file).unwrap()).unwrap();
        assert_eq!(ceremony.sign(&folder, KeySources::default()).unwrap().len(), 1);
        let mut file: Value = serde_json::from_slice(&ceremony.to_bytes().unwrap()).unwrap();
        file.as_object_mut().unwrap().remove("ceremony");
        canonical::encode(&file).unwrap()
    }

    /// The public key of a role, as metadata lists it.
    fn key(&self, of: KeyRole) -> Value {
        if of == KeyRole::Rollout {
            let to = &self.targets()["delegations"];
            assert_eq!(to["roles"][0]["name"], "rollout");
            return to["keys"][to["roles"][0]["keyids"][0].as_str().unwrap()].clone();
        }
        let root = self.signed("root.json");
        root["keys"][root["roles"][of.name()]["keyids"][0].as_str().unwrap()].clone()
    }

    fn targets(&self) -> Value {
        self.signed(&format!("{}.targets.json", self.version("targets.json")))
    }

    /// Puts a targets file there, and what lists it.
    fn expose(&self, role: &str, by: KeyRole, signed: Value) {
        let version = self.version(&format!("{role}.json")) + 1;
        let write = |file: String, bytes: &[u8]| fs::write(self.served.join(file), bytes).unwrap();
        write(format!("{version}.{role}.json"), &self.sign(by, signed, version));
        let mut snapshot = self.signed("snapshot.json");
        snapshot["meta"][format!("{role}.json")] = json!({ "version": version });
        let version = snapshot["version"].as_u64().unwrap() + 1;
        let bytes = self.sign(KeyRole::Snapshot, snapshot, version);
        write(format!("{version}.snapshot.json"), &bytes);
        write("snapshot.json".to_owned(), &bytes);
        let mut timestamp = self.signed("timestamp.json");
        timestamp["meta"]["snapshot.json"] = json!({"version": version, "length": bytes.len()});
        let version = timestamp["version"].as_u64().unwrap() + 1;
        write("timestamp.json".to_owned(), &self.sign(KeyRole::Timestamp, timestamp, version));
    }

    /// A target's content in its place, and what is signed of it.
    fn target(&self, name: &str, content: &[u8], custom: &Value) -> Value {
        let (folder, file) = name.rsplit_once('/').unwrap();
        let hash = hex(&sha256(content));
        let folder = self.served.join("targets").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{hash}.{file}")), content).unwrap();
        json!({"length": content.len(), "hashes": {"sha256": hash}, "custom": custom})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_found_and_checked() {
    for profile in Profile::ALL {
        let scene = Scene::of(profile);
        let (one, two) = (scene.release("one", &[("a", b"first")]), scene.release("two", &[("a", b"second")]));
        let cluster = scene.serve(1);
        let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
        let absent = device.rollout(HOST, "spring").await.unwrap_err();
        assert!(matches!(absent, DeviceError::RolloutNotFound { .. }), "{absent}");
        scene.repository.enable_rollout(KeyForm::Plain, SystemClock.now()).unwrap();
        scene.repository.put_rollout("spring", &document(&[two, one]), SystemClock.now()).unwrap();
        device.refresh(HOST, true).await.unwrap();
        let rollout = device.rollout(HOST, "spring").await.unwrap();
        assert_eq!((rollout.releases(), &rollout.rest()["share"]), (&[two, one][..], &json!(5)), "{profile}");
        for name in ["autumn", "", "..", "a/b"] {
            let absent = device.rollout(HOST, name).await.unwrap_err();
            assert!(matches!(absent, DeviceError::RolloutNotFound { .. }), "{name}: {absent}");
        }
        // It is a document, not a package.
        assert!(matches!(device.get_hash(&url("rollout/spring")).await, Err(DeviceError::PackageNotFound { .. })));

        // What metadata does not say of it is not believed.
        let folder = scene.repository.served_dir().join("targets/rollout");
        let path = only_file(&folder);
        fs::write(&path, document(&[one])).unwrap();
        let (fresh, _store) = scene.device("fresh", DeviceConfig::default(), uncached(&scene, &cluster));
        let error = fresh.rollout(HOST, "spring").await.unwrap_err();
        assert!(matches!(error, DeviceError::Metadata { .. }), "{error}");
        // A release that is no longer listed is no longer chosen.
        fs::write(&path, document(&[two, one])).unwrap();
        assert_eq!(fresh.rollout(HOST, "spring").await.unwrap().releases(), [two, one]);
        let newer = scene.release("two", &[("a", b"newer")]);
        fresh.refresh(HOST, true).await.unwrap();
        assert_eq!(not_listed(&fresh.rollout(HOST, "spring").await.unwrap_err()), two);
        assert_eq!(fresh.get_hash(&url("two")).await.unwrap(), newer);
        cluster.stop().await;
    }
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none());
    file
}

/// The repository as the origin itself serves it: edges keep what they once fetched.
fn uncached(scene: &Scene, cluster: &colibri_cluster::Cluster) -> colibri_metadata::RepoConfig {
    let mut config = scene.config(cluster, HOST);
    config.mirrors[0].mirror_url = format!("{}/{HOST}", cluster.origin.url());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_rollout_key_introduces_no_hash_on_any_device() {
    for profile in Profile::ALL {
        let scene = Scene::of(profile);
        let listed = scene.release("app", &[("a", b"genuine")]);
        let evil = scene.build("evil", &[("a", b"evil")], &[]);
        scene.repository.enable_rollout(KeyForm::Plain, SystemClock.now()).unwrap();
        scene.repository.put_rollout("spring", &document(&[listed]), SystemClock.now()).unwrap();
        let thief = Thief::of(&scene);
        let meta_far = fs::read(evil.manifest.with_file_name("meta.far")).unwrap();
        let package = json!({"merkle": evil.hash, "size": meta_far.len()});
        let hint = |name: &str| json!({"releases": {evil.hash.to_string(): name}});

        let mut signed = thief.signed(&format!("{}.rollout.json", thief.version("rollout.json")));
        let targets = &mut signed["targets"];
        let choice = document(&[evil.hash]);
        targets["rollout/evil"] = thief.target("rollout/evil", &choice, &Value::Null);
        targets["rollout/0"] = thief.target("rollout/0", &meta_far, &package);
        targets["rollout/hinted"] = thief.target("rollout/hinted", &choice, &hint("rollout/0"));
        targets["rollout/astray"] = thief.target("rollout/astray", &choice, &hint("app/0"));
        targets["rollout/nowhere"] = thief.target("rollout/nowhere", &choice, &hint("evil/0"));
        targets["rollout/large"] = thief.target("rollout/large", &noise(1, 2 << 20), &Value::Null);
        targets["rollout/twice"] = thief.target("rollout/twice", &document(&[listed, listed]), &Value::Null);
        for name in ["evil/0", "app/0"] {
            targets[name] = thief.target(name, &meta_far, &package);
        }
        thief.expose("rollout", KeyRole::Rollout, signed);

        let cluster = scene.serve(1);
        let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
        for name in ["evil", "hinted", "astray", "nowhere"] {
            assert_eq!(not_listed(&device.rollout(HOST, name).await.unwrap_err()), evil.hash, "{profile} {name}");
        }
        for name in ["large", "twice", "0"] {
            let error = device.rollout(HOST, name).await.unwrap_err();
            assert!(matches!(error, DeviceError::Rollout { .. }), "{profile} {name}: {error}");
        }
        assert_eq!(device.rollout(HOST, "spring").await.unwrap().releases(), [listed], "{profile}");
        assert_eq!(device.resolve(&url("app"), nobody()).await.unwrap().hash, listed);
        assert_eq!(scrub(&store), 2, "the package and nothing else");
        for name in ["evil", "evil/0", "rollout", "rollout/0", "rollout/evil"] {
            let error = device.get_hash(&url(name)).await.unwrap_err();
            assert!(matches!(error, DeviceError::PackageNotFound { .. }), "{profile} {name}: {error}");
        }
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careless_delegation_to_rollout_makes_no_packages() {
    let scene = Scene::new();
    let listed = scene.release("app", &[("a", b"genuine")]);
    scene.repository.enable_rollout(KeyForm::Plain, SystemClock.now()).unwrap();
    let thief = Thief::of(&scene);
    // The owner of targets has left everything to the role.
    let mut targets = thief.targets();
    targets["delegations"]["roles"][0]["paths"] = json!(["*", "*/*"]);
    thief.expose("targets", KeyRole::Targets, targets);
    let hash = merkle::build(b"evil").id;
    let package = json!({"merkle": hash, "size": 4});
    let key = thief.key(KeyRole::Rollout);
    let id = thief.targets()["delegations"]["roles"][0]["keyids"][0].as_str().unwrap().to_owned();
    let mut signed = thief.signed("1.rollout.json");
    signed["targets"]["evil/0"] = thief.target("evil/0", b"evil", &package);
    signed["delegations"] = json!({
        "keys": {id.clone(): key},
        "roles": [{"name": "helper", "keyids": [id], "threshold": 1, "terminating": false, "paths": ["*/*"]}],
    });
    thief.expose("rollout", KeyRole::Rollout, signed.clone());
    signed.as_object_mut().unwrap().remove("delegations");
    signed["targets"] = json!({"worse/0": thief.target("worse/0", b"evil", &package)});
    thief.expose("helper", KeyRole::Rollout, signed);

    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    for name in ["evil", "worse"] {
        let error = device.get_hash(&url(name)).await.unwrap_err();
        assert!(matches!(error, DeviceError::PackageNotFound { .. }), "{name}: {error}");
    }
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), listed);
    // A client that knows nothing of rollouts finds both.
    let folder = Directory(thief.served.clone());
    let start = Start::FromAnchor(TrustAnchor::RootFile(scene.repository.trusted_root_bytes().unwrap()));
    let mut set = refresh_from(&folder, start, SystemClock.now()).await.unwrap();
    for (name, role) in [("evil/0", "rollout"), ("worse/0", "helper")] {
        let found;
        (set, found) = search_from(&folder, set, &name.parse().unwrap(), SystemClock.now()).await.unwrap();
        assert_eq!(found.unwrap().role.unwrap().as_str(), role);
    }
    cluster.stop().await;
}
