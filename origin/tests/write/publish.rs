//! From blobs to a release: what is whole is offered, what is not is explained, and two at once both succeed.

use colibri_common::BlobId;
use http::StatusCode;
use serde_json::{Value, json};

use crate::site::{NOW, Site, package};

fn add(name: &str, id: BlobId) -> Value {
    json!({"name": name, "variant": "0", "package": id})
}

/// Uploads a sample package and gives its hash.
async fn uploaded(site: &Site, name: &str) -> BlobId {
    let (id, blobs) = package(name);
    for blob in blobs {
        site.put(&blob).await;
    }
    id
}

fn offered(site: &Site) -> Vec<String> {
    let mut names: Vec<_> = site.repository.packages().unwrap().into_iter().map(|package| package.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_are_added_replaced_and_removed() {
    let site = Site::start().await;
    let one = uploaded(&site, "package1").await;
    let answer = site.submit(&json!({"add": [add("package1", one)]})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.json()["versions"]["targets"], 2);
    assert_eq!(offered(&site), ["package1"]);
    let two = uploaded(&site, "package2").await;
    let stale = site.submit(&json!({"add": [add("package2", two)], "if_targets_version": 1})).await;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{stale:?}");
    let stale = site.submit(&json!({"add": [add("package2", two)], "if_snapshot_version": 1})).await;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{stale:?}");
    let snapshot = answer.json()["versions"]["snapshot"].clone();
    let both = json!({"add": [add("package2", two)], "if_targets_version": 2, "if_snapshot_version": snapshot});
    let fresh = site.submit(&both).await;
    assert_eq!(fresh.status, StatusCode::OK, "{fresh:?}");
    assert_eq!(offered(&site), ["package1", "package2"]);
    let removed = site.submit(&json!({"remove": [{"name": "package1", "variant": "0"}]})).await;
    assert_eq!(removed.status, StatusCode::OK, "{removed:?}");
    assert_eq!(offered(&site), ["package2"]);
    let replaced = site.submit(&json!({"add": [add("package1", one)], "replace_all": true})).await;
    assert_eq!(replaced.status, StatusCode::OK, "{replaced:?}");
    assert_eq!(offered(&site), ["package1"]);
    let status = site.get(&site.reader, "status").await.json();
    assert_eq!((&status["packages"], &status["versions"]), (&json!(1), &replaced.json()["versions"]));
    let refreshed = site.post(&site.publisher, "refresh", &json!(null)).await.json();
    let number = |answer: &Value, role: &str| answer["versions"][role].as_u64().unwrap();
    assert_eq!(number(&refreshed, "targets"), number(&status, "targets"));
    assert!(number(&refreshed, "timestamp") > number(&status, "timestamp"));
    let acts: Vec<_> = site.audit().iter().map(|line| format!("{} {}", line["act"], line["status"])).collect();
    assert_eq!(acts.iter().filter(|act| *act == "\"submit\" 200").count(), 4, "{acts:?}");
    assert_eq!(site.audit()[0]["time"], NOW.0);
}

/// The repository's own log, which every signed snapshot vouches for, says whose token made the origin sign.
#[tokio::test(flavor = "multi_thread")]
async fn the_signed_audit_log_names_the_token_of_each_signing_act() {
    let site = Site::start().await;
    let known = site.signed_acts().len();
    let one = uploaded(&site, "package1").await;
    let answer = site.submit(&json!({"add": [add("package1", one)]})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let refreshed = site.post(&site.admin, "refresh", &json!(null)).await;
    assert_eq!(refreshed.status, StatusCode::OK, "{refreshed:?}");
    let acts = site.signed_acts().split_off(known);
    let by = |file: &str| -> Vec<String> {
        let of_file = acts.iter().filter(|act| act["file"] == file);
        let by = of_file.filter_map(|act| act["by"].as_str().map(str::to_owned));
        // The refresher may have signed too.
        by.filter(|by| by != "refresher").collect()
    };
    let named = |who: &str, text: &String| text.starts_with("token ") && text.ends_with(&format!(" (the {who})"));
    for (file, whos) in [("targets.json", &["publisher"][..]), ("timestamp.json", &["publisher", "admin"])] {
        let by = by(file);
        assert_eq!(by.len(), whos.len(), "{file}: {acts:?}");
        assert!(by.iter().zip(whos).all(|(text, who)| named(who, text)), "{file}: {by:?}");
    }
    assert!(site.repository.audit_verify().unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_absent_or_wrong_is_told_at_once() {
    let site = Site::start().await;
    let before = site.repository.versions().unwrap().targets;
    let (one, blobs) = package("package1");
    let (two, _) = package("package2");
    site.put(&blobs[0]).await;
    let stray = site.put(b"no package").await;
    let submission = json!({"add": [add("package1", one), add("package2", two), add("stray", stray)]});
    let answer = site.submit(&submission).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = answer.problem();
    assert_eq!(problem.kind, "urn:colibri:problem:unfit");
    let needed: Vec<_> = problem.blobs.iter().map(|blob| (blob.package.as_str(), blob.path.as_str())).collect();
    let expected =
        [("package1/0", "bin/package1"), ("package1/0", "lib/package1"), ("package2/0", "meta/"), ("stray/0", "meta/")];
    assert_eq!(needed, expected);
    let absent: Vec<_> = problem.blobs.iter().filter(|blob| blob.wrong.is_none()).map(|blob| blob.blob).collect();
    assert_eq!(site.missing(&absent).await, absent);
    assert_eq!(absent.len(), 3, "what is no package is wrong, not absent: {:?}", problem.blobs);
    for (submission, package) in [
        (json!({"remove": [{"name": "unknown", "variant": "0"}]}), "unknown/0"),
        (json!({"add": [add("a", one)], "remove": [{"name": "a", "variant": "0"}]}), "a/0"),
        (json!({"add": [add("b", one), add("b", two)]}), "b/0"),
    ] {
        let answer = site.submit(&submission).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert_eq!(answer.problem().wrong[0].package, package);
    }
    // The refresher may have signed the same targets again meanwhile.
    assert_eq!(site.repository.versions().unwrap().targets, before, "nothing became visible");
}

#[tokio::test(flavor = "multi_thread")]
async fn going_past_a_gate_takes_an_admin_and_is_signed() {
    let site = Site::start().await;
    let one = uploaded(&site, "package1").await;
    let past = json!({"add": [add("package1", one)], "past_gate_because": "edges are being replaced"});
    assert_eq!(site.submit(&past).await.status, StatusCode::FORBIDDEN);
    let reason = |site: &Site| {
        let metadata = site.repository.metadata().unwrap();
        let (_, snapshot) = metadata.files().find(|(name, _)| *name == "snapshot.json").unwrap();
        let snapshot: Value = serde_json::from_slice(snapshot).unwrap();
        snapshot["signed"]["custom"]["unproven"]["reason"].clone()
    };
    assert_eq!(site.post(&site.admin, "targets", &past).await.status, StatusCode::OK);
    assert_eq!(reason(&site), "edges are being replaced");
    let bad = json!({"past_gate_because": "two\nlines"});
    assert_eq!(site.post(&site.admin, "targets", &bad).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(site.submit(&json!({})).await.status, StatusCode::OK);
    assert_eq!(reason(&site), Value::Null, "the next release says nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_submissions_at_once_both_succeed() {
    let site = Site::start().await;
    let one = uploaded(&site, "package1").await;
    let two = uploaded(&site, "package2").await;
    for round in 0..20 {
        let clear = site.submit(&json!({"add": [], "replace_all": true})).await;
        assert_eq!(clear.status, StatusCode::OK, "{clear:?}");
        let (first, second) = (json!({"add": [add("package1", one)]}), json!({"add": [add("package2", two)]}));
        let (first, second) = tokio::join!(site.submit(&first), site.submit(&second));
        assert_eq!(
            (first.status, second.status),
            (StatusCode::OK, StatusCode::OK),
            "round {round}: {first:?} {second:?}"
        );
        let version = |answer: &crate::site::Answer| answer.json()["versions"]["targets"].as_u64().unwrap();
        assert_eq!(version(&first).abs_diff(version(&second)), 1, "one after the other");
        assert_eq!(offered(&site), ["package1", "package2"], "round {round}: neither lost the other's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_collections_do_not_hurt_each_other() {
    let site = Site::start().await;
    let (one, blobs) = package("package1");
    let stray = site.put(b"nobody names this").await;
    let collecting = async {
        for _ in 0..10 {
            let answer = site.post(&site.admin, "collect", &json!({})).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            assert_eq!(answer.json()["blobs_removed"], 0, "all is new");
        }
    };
    let uploading = async {
        for blob in &blobs {
            site.put(blob).await;
        }
    };
    tokio::join!(collecting, uploading);
    assert_eq!(site.submit(&json!({"add": [add("package1", one)]})).await.status, StatusCode::OK);
    site.clock.set(NOW.plus(3 * 24 * 3600));
    let dry = site.post(&site.admin, "collect", &json!({"dry_run": true})).await.json();
    assert_eq!(dry["blobs_removed"], 1, "{dry}");
    assert_eq!(site.missing(&[stray]).await, []);
    let swept = site.post(&site.admin, "collect", &json!({})).await.json();
    assert_eq!((&swept["blobs_removed"], &swept["blobs_kept"]), (&json!(1), &json!(3)), "{swept}");
    assert_eq!(site.missing(&[stray, one]).await, [stray]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_waits_until_enough_edges_have_served_it_back() {
    // The origin's own read side is as good as an edge, one that nobody is at is none.
    let mut site = Site::start().await;
    let gate = |site: &mut Site, edges: [String; 2], edges_min| {
        let edge_gate = &mut site.config.write.edge_gate;
        (edge_gate.edges, edge_gate.edges_min, edge_gate.wait_s) = (edges.into(), edges_min, 2);
    };
    let one = uploaded(&site, "package1").await;
    // A reader that stays while the origin under test comes and goes.
    let reader = colibri_origin::Origin::open(site.config.origin(), site.clock.clone()).unwrap();
    let listen = colibri_transport::ServerConfig::plain("127.0.0.1:0".parse().unwrap());
    let reader = colibri_transport::Server::bind(listen, reader.handler()).unwrap();
    let [here, nowhere] = [format!("http://{}", reader.address()), "http://127.0.0.1:1".to_owned()];
    let reading = tokio::spawn(reader.serve(tokio_util::sync::CancellationToken::new(), std::time::Duration::ZERO));
    gate(&mut site, [here.clone(), nowhere.clone()], 2);
    site.restart().await;
    let release = json!({"add": [add("package1", one)]});
    let held = site.submit(&release).await;
    assert_eq!(held.status, StatusCode::SERVICE_UNAVAILABLE);
    let problem = held.problem();
    assert_eq!(problem.kind, "urn:colibri:problem:held");
    assert!(problem.detail.contains("1 of 2") && problem.detail.contains(&nowhere), "{problem:?}");
    assert!(offered(&site).is_empty());
    gate(&mut site, [here, nowhere], 1);
    site.restart().await;
    assert_eq!(site.submit(&release).await.status, StatusCode::OK);
    assert_eq!(offered(&site), ["package1"]);
    reading.abort();
}
