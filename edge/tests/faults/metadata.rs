//! Repositories that the edge follows: whole sets, no way back, and honesty about what is old.

use colibri_api::Coding;
use colibri_common::UnixSeconds;
use colibri_edge::{Edge, EdgeConfig};
use colibri_repository::{CreateOptions, KeyForm, KeyRole, Profile};
use colibri_service::metrics::Registry;

use crate::desk::{Desk, HOUR_S, NOW, Site, build_at, clock};
use crate::site::{get, whole};
use crate::upstream::{Fault, Upstream};

const TIMESTAMP: &str = "/repo/timestamp.json";
const NO_CACHE: &[(&str, &str)] = &[("cache-control", "no-cache")];

/// What the timestamp says of itself and of its snapshot.
async fn versions(edge: &Edge) -> (u64, u64) {
    let got = get(edge, TIMESTAMP, &[]).await;
    assert_eq!(got.status, 200, "{got:?}");
    of(got.bytes())
}

fn of(timestamp: &[u8]) -> (u64, u64) {
    let json: serde_json::Value = serde_json::from_slice(timestamp).unwrap();
    let signed = &json["signed"];
    (signed["version"].as_u64().unwrap(), signed["meta"]["snapshot.json"]["version"].as_u64().unwrap())
}

fn version_in(site: &Site) -> (u64, u64) {
    of(&site[TIMESTAMP])
}

/// Everything that the timestamp of this edge leads to is there and fits.
async fn is_whole(edge: &Edge) {
    let (_, snapshot) = versions(edge).await;
    let got = get(edge, &format!("/repo/{snapshot}.snapshot.json"), &[]).await;
    assert_eq!(got.status, 200);
    let json: serde_json::Value = serde_json::from_slice(got.bytes()).unwrap();
    let targets = json["signed"]["meta"]["targets.json"]["version"].as_u64().unwrap();
    assert_eq!(get(edge, &format!("/repo/{targets}.targets.json"), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_sets_are_served_and_what_was_served_stays_reachable() {
    let desk = Desk::new();
    let package = desk.build("one", &[("data/a", b"a")], &[]);
    let first = desk.publish(&[&package]);
    let upstream = Upstream::start().await;
    upstream.serves(&first);
    let time = clock(0);
    let edge = build_at(&desk.followed(&[&upstream]), &time);
    let got = whole(&edge, TIMESTAMP, &first[TIMESTAMP]).await;
    assert_eq!((got.header("age"), got.header("cache-control")), ("0", "public, max-age=0, stale-if-error=86400"));
    is_whole(&edge).await;
    for path in first.keys().filter(|path| path.ends_with(".json") && !path.contains("/targets/")) {
        // The repository keeps older numbered files than the newest set leads to: these are proven and passed on, too.
        let numbered_timestamp = path.ends_with(".timestamp.json");
        if !numbered_timestamp && !path.contains("repo.config") {
            whole(&edge, path, &first[path]).await;
        }
    }
    let old = desk.build("one", &[("data/a", b"changed")], &[]);
    let second = desk.publish(&[&old]);
    // Upstream forgets everything old.
    let gone: Vec<_> = first.keys().filter(|path| second.get(*path) == first.get(*path)).cloned().collect();
    let (_, old_snapshot) = version_in(&first);
    upstream.serves(&second);
    for path in gone.iter().filter(|path| path.ends_with(".snapshot.json") || path.ends_with(".targets.json")) {
        upstream.remove(path);
    }
    whole(&edge, TIMESTAMP, &second[TIMESTAMP]).await;
    is_whole(&edge).await;
    let path = format!("/repo/{old_snapshot}.snapshot.json");
    let got = whole(&edge, &path, &first[&path]).await;
    assert!(got.header("cache-status").contains("hit") && got.header("cache-control").contains("immutable"));
    assert!(got.header("age").is_empty());
    // What nobody has ever signed is not there, and a version to come is not asked for under its number.
    let before = upstream.requests();
    assert_eq!(get(&edge, "/repo/99.snapshot.json", &[]).await.status, 404);
    assert_eq!(get(&edge, "/repo/nobody.json", &[]).await.status, 404);
    assert!(upstream.asked().keys().all(|(path, _)| !path.contains("99") && !path.contains("nobody")));
    assert!(upstream.requests() > before, "it looked whether there is something new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_causes_one_refresh_and_fresh_metadata_none() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    let config = EdgeConfig { metadata_max_age_s: 1000, ..desk.followed(&[&upstream]) };
    let edge = build_at(&config, &clock(0));
    let herd = (0..100).map(|_| {
        let edge = edge.clone();
        tokio::spawn(async move { versions(&edge).await })
    });
    for client in herd.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
    let new = desk.moves_on(1);
    upstream.serves(&new);
    assert_ne!(versions(&edge).await, version_in(&new));
    assert_eq!(get(&edge, TIMESTAMP, NO_CACHE).await.bytes(), new[TIMESTAMP]);
    assert_eq!(versions(&edge).await, version_in(&new));
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_served_of_followed_metadata() {
    let desk = Desk::new();
    let site = desk.site();
    let upstream = Upstream::start().await;
    upstream.serves(&site);
    let form = colibri_transport::coding::zstd(&site["/repo/1.targets.json"]).unwrap();
    upstream.put_coded("/repo/1.targets.json", &site["/repo/1.targets.json"], Coding::Zstd, form.clone());
    let edge = build_at(&desk.followed(&[&upstream]), &clock(0));
    versions(&edge).await;
    let got = get(&edge, "/repo/1.targets.json", &[("accept-encoding", "zstd")]).await;
    assert_eq!((got.header("content-encoding"), got.bytes()), ("zstd", &form[..]));
    let got = get(&edge, TIMESTAMP, &[("accept-encoding", "gzip")]).await;
    assert_eq!((got.status, got.header("content-encoding")), (200, "gzip"));
}

/// A set of which a part is missing or wrong is never visible: not its timestamp either.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_published_set_is_not_served() {
    let desk = Desk::new();
    let first = desk.publish(&[&desk.build("one", &[("data/a", b"a")], &[])]);
    let upstream = Upstream::start().await;
    upstream.serves(&first);
    let edge = build_at(&desk.followed(&[&upstream]), &clock(0));
    whole(&edge, TIMESTAMP, &first[TIMESTAMP]).await;
    let second = desk.publish(&[&desk.build("two", &[("data/a", b"b")], &[])]);
    let new: Vec<_> = second.keys().filter(|path| !first.contains_key(*path) && !path.contains("timestamp")).collect();
    let parts: Vec<_> =
        new.into_iter().filter(|path| path.contains("snapshot") || path.contains("targets.json")).collect();
    assert_eq!(parts.len(), 2, "{parts:?}");
    for part in &parts {
        upstream.serves(&second);
        upstream.remove(part);
        let got = get(&edge, TIMESTAMP, NO_CACHE).await;
        assert_eq!(of(got.bytes()), version_in(&first), "{part}");
        assert!(got.header("cache-status").contains("stale"), "{}", got.header("cache-status"));
        is_whole(&edge).await;
        let mut broken = second[*part].to_vec();
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        upstream.put(part, broken);
        assert_eq!(of(get(&edge, TIMESTAMP, NO_CACHE).await.bytes()), version_in(&first), "{part}");
    }
    assert!(edge.metrics().metadata_refused.get() > 0);
    upstream.serves(&second);
    whole(&edge, TIMESTAMP, &second[TIMESTAMP]).await;
}

/// Upstream serves old metadata for ever. Until it expires nobody can tell; then it is an error, and another one is asked.
#[tokio::test(flavor = "multi_thread")]
async fn freeze_a_frozen_upstream_is_left_when_its_metadata_expires() {
    let desk = Desk::new();
    let frozen = desk.site();
    let upstream = Upstream::start().await;
    upstream.serves(&frozen);
    let (time, late) = (clock(0), 30);
    let edge = build_at(&desk.followed(&[&upstream]), &time);
    whole(&edge, TIMESTAMP, &frozen[TIMESTAMP]).await;
    time.set(UnixSeconds(NOW.0 + late * HOUR_S));
    let got = get(&edge, TIMESTAMP, &[]).await;
    assert_eq!(got.status, 504, "{got:?}");
    let detail = got.problem()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("expired") && detail.contains(&upstream.name()), "{detail}");
    let honest = Upstream::start().await;
    let new = desk.moves_on(late);
    honest.serves(&new);
    let both = build_at(&desk.followed(&[&upstream, &honest]), &time);
    whole(&both, TIMESTAMP, &new[TIMESTAMP]).await;
    assert_eq!(both.sources().list()[0].blames(), 1);
    assert!(both.sources().blames()[0].to_string().contains("expired"));
    // What it has seen there it does not forget, though the frozen one is asked first.
    assert_eq!(versions(&both).await, version_in(&new));
}

/// What is exported of how new the metadata is: age, seconds left, alarm.
fn recency(registry: &Registry) -> [Option<i64>; 3] {
    let text = registry.render();
    ["timestamp_age_seconds", "timestamp_left_seconds", "freeze_alarms"].map(|name| {
        let line = format!("colibri_edge_metadata_{name}{{repository=\"repo\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
    })
}

/// Long before it expires the operator learns that nothing new was signed: of an upstream that goes on serving what it has, and of
/// one that has stopped answering. A restart does not begin the time anew.
#[tokio::test(flavor = "multi_thread")]
async fn freeze_is_told_before_anything_expires() {
    const DAY_S: i64 = 24 * HOUR_S as i64;
    let desk = Desk::new();
    let mut upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    let dir = tempfile::tempdir().unwrap();
    let config = EdgeConfig { state_dir: Some(dir.path().to_owned()), ..desk.followed(&[&upstream]) };
    let time = clock(0);
    let at = |hours| time.set(UnixSeconds(NOW.0 + hours * HOUR_S));
    let registry = Registry::new();
    let edge = Edge::build_with_clock(&config, &registry, time.clone()).unwrap();
    assert_eq!(recency(&registry), [None, None, None], "nothing was fetched yet");
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 200);
    assert_eq!(recency(&registry), [Some(0), Some(DAY_S), Some(0)]);
    at(17);
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 200);
    assert_eq!(recency(&registry)[2], Some(0), "another one is due after sixteen hours");
    at(19);
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 200);
    assert_eq!(recency(&registry), [Some(19 * 3600), Some(5 * 3600), Some(1)]);
    drop(edge);
    let registry = Registry::new();
    let edge = Edge::build_with_clock(&config, &registry, time.clone()).unwrap();
    assert_eq!(recency(&registry), [Some(19 * 3600), Some(5 * 3600), Some(1)], "it remembers");
    upstream.serves(&desk.moves_on(19));
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 200);
    assert_eq!(recency(&registry), [Some(0), Some(DAY_S), Some(0)]);
    upstream.go_away().await;
    at(19 + 19);
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 200);
    assert_eq!(recency(&registry)[2], Some(1));
    let patient = EdgeConfig { metadata_frozen_after_s: 20 * HOUR_S, ..config };
    let registry = Registry::new();
    let _edge = Edge::build_with_clock(&patient, &registry, time).unwrap();
    assert_eq!(recency(&registry)[2], Some(0), "as is configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_rollback_is_refused_also_after_a_restart() {
    let desk = Desk::new();
    let old = desk.site();
    let new = desk.moves_on(1);
    let upstream = Upstream::start().await;
    upstream.serves(&new);
    let dir = tempfile::tempdir().unwrap();
    let config = EdgeConfig { state_dir: Some(dir.path().to_owned()), ..desk.followed(&[&upstream]) };
    let time = clock(1);
    let edge = build_at(&config, &time);
    whole(&edge, TIMESTAMP, &new[TIMESTAMP]).await;
    upstream.serves(&old);
    let refused = |edge: &Edge| edge.sources().blames().iter().any(|blame| blame.to_string().contains("roll"));
    let got = get(&edge, TIMESTAMP, NO_CACHE).await;
    assert_eq!(of(got.bytes()), version_in(&new));
    assert!(got.header("cache-status").contains("stale") && refused(&edge));
    drop(edge);
    let edge = build_at(&config, &time);
    let got = get(&edge, TIMESTAMP, NO_CACHE).await;
    assert_eq!(of(got.bytes()), version_in(&new), "{got:?}");
    assert!(refused(&edge));
    is_whole(&edge).await;
    // Wiped under it, it goes on; wiped while it is down, it begins at its root: devices lose time, never integrity.
    std::fs::remove_dir_all(dir.path()).unwrap();
    upstream.serves(&desk.moves_on(2));
    time.set(UnixSeconds(NOW.0 + 2 * HOUR_S));
    let newest = desk.site();
    assert_eq!(versions(&edge).await, version_in(&newest));
    upstream.serves(&old);
    assert_eq!(versions(&build_at(&config, &time)).await, version_in(&newest), "it was written again");
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(versions(&build_at(&config, &time)).await, version_in(&old));
}

/// Another configured root is another trust: what was kept does not vouch for it, nor harm it.
#[tokio::test(flavor = "multi_thread")]
async fn rollback_state_of_another_root_is_left_aside() {
    let (desk, other) = (Desk::new(), Desk::new());
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let keeps = |desk: &Desk| EdgeConfig { state_dir: Some(dir.path().to_owned()), ..desk.followed(&[&upstream]) };
    upstream.serves(&desk.moves_on(1));
    assert_eq!(versions(&build_at(&keeps(&desk), &clock(1))).await, version_in(&desk.site()));
    upstream.serves(&other.site());
    assert_eq!(versions(&build_at(&keeps(&other), &clock(1))).await, version_in(&other.site()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lying_upstreams_beside_an_honest_one_change_nothing() {
    let (desk, other) = (Desk::new(), Desk::new());
    let (liar, honest) = (Upstream::start().await, Upstream::start().await);
    let new = desk.moves_on(1);
    honest.serves(&new);
    liar.serves(&other.site());
    let edge = build_at(&desk.followed(&[&liar, &honest]), &clock(1));
    whole(&edge, TIMESTAMP, &new[TIMESTAMP]).await;
    is_whole(&edge).await;
    let blames = edge.sources().blames();
    assert!(blames.iter().all(|blame| blame.source == liar.name()) && !blames.is_empty(), "{blames:?}");
    // Alone it gives nothing.
    let alone = build_at(&desk.followed(&[&liar]), &clock(1));
    let got = get(&alone, TIMESTAMP, &[]).await;
    assert_eq!(got.status, 504);
    assert!(got.problem()["detail"].as_str().unwrap().contains(&liar.name()), "{got:?}");
}

/// Somebody with the online keys of before signed versions far ahead. New keys end that, for edges as for devices.
#[tokio::test(flavor = "multi_thread")]
async fn rollback_protection_lets_fast_forward_recovery_through() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = EdgeConfig { state_dir: Some(dir.path().to_owned()), ..desk.followed(&[&upstream]) };
    // A copy of the folder: what the attacker, who has the keys, makes of it.
    let attacked = tempfile::tempdir().unwrap();
    copy(&desk.dir.path().join("repository"), &attacked.path().join("repository"));
    let attacker = colibri_repository::Repository::open(&attacked.path().join("repository")).unwrap();
    for hour in 1..6 {
        attacker.refresh(UnixSeconds(NOW.0 + hour * HOUR_S)).unwrap();
    }
    let attacker = Desk { dir: attacked, repository: attacker };
    upstream.serves(&attacker.site());
    let time = clock(5);
    let edge = build_at(&config, &time);
    let ahead = versions(&edge).await;
    assert_eq!(ahead, version_in(&attacker.site()));
    for role in [KeyRole::Snapshot, KeyRole::Timestamp] {
        desk.repository.rotate_keys(role, KeyForm::default(), UnixSeconds(NOW.0 + HOUR_S)).unwrap();
    }
    let recovered = desk.site();
    assert!(version_in(&recovered).0 < ahead.0, "{:?} {ahead:?}", version_in(&recovered));
    upstream.serves(&recovered);
    whole(&edge, TIMESTAMP, &recovered[TIMESTAMP]).await;
    is_whole(&edge).await;
    let root = get(&edge, "/repo/root.json", &[]).await;
    assert_eq!(root.bytes(), recovered["/repo/root.json"]);
    for version in 1..=3 {
        let path = format!("/repo/{version}.root.json");
        whole(&edge, &path, &recovered[&path]).await;
    }
    // From then on the old keys mean nothing, and the root does not go back either, after a restart too.
    upstream.serves(&attacker.site());
    for edge in [edge, build_at(&config, &time)] {
        assert_eq!(get(&edge, TIMESTAMP, NO_CACHE).await.bytes(), recovered[TIMESTAMP]);
        whole(&edge, "/repo/root.json", &recovered["/repo/root.json"]).await;
        whole(&edge, "/repo/3.root.json", &recovered["/repo/3.root.json"]).await;
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
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

#[tokio::test(flavor = "multi_thread")]
async fn stale_metadata_says_so_and_ends_with_an_error() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    let lenient = build_at(&desk.followed(&[&upstream]), &clock(0));
    let config = EdgeConfig { metadata_stale_max_s: 0, ..desk.followed(&[&upstream]) };
    let strict = build_at(&config, &clock(0));
    let (_, snapshot) = versions(&lenient).await;
    versions(&strict).await;
    upstream.faults(|_, _| Some(Fault::Status(500)));
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let got = get(&lenient, TIMESTAMP, &[]).await;
    assert_eq!(got.status, 200);
    assert!(got.header("cache-status").contains("stale"), "{}", got.header("cache-status"));
    assert!(got.header("age").parse::<u64>().unwrap() >= 1, "{}", got.header("age"));
    let got = get(&strict, TIMESTAMP, &[]).await;
    assert_eq!(got.status, 504);
    assert!(got.problem()["detail"].as_str().unwrap().contains(&upstream.name()), "{got:?}");
    // What has a number is as good as ever.
    assert_eq!(get(&strict, &format!("/repo/{snapshot}.snapshot.json"), &[]).await.status, 200);
    upstream.no_faults();
    assert_eq!(get(&strict, TIMESTAMP, &[]).await.status, 200);
    assert!(!get(&lenient, TIMESTAMP, &[]).await.header("cache-status").contains("stale"));
}

/// A parent that serves stale metadata says how old it is, and the age adds up.
#[tokio::test(flavor = "multi_thread")]
async fn age_is_handed_down_by_edges_in_a_row() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    let parent = build_at(&desk.followed(&[&upstream]), &clock(0));
    versions(&parent).await;
    upstream.faults(|_, _| Some(Fault::Status(500)));
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let (address, _stop) = crate::site::listen(&parent);
    let config = EdgeConfig {
        upstreams: vec![format!("http://{address}")],
        metadata_max_age_s: 1000,
        ..desk.followed(&[&upstream])
    };
    let child = build_at(&config, &clock(0));
    let got = get(&child, TIMESTAMP, &[]).await;
    assert!(got.header("age").parse::<u64>().unwrap() >= 2, "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_bins_are_fetched_when_they_are_asked_for_and_checked() {
    let desk = Desk::with(CreateOptions { profile: Profile::Scale, ..CreateOptions::new(NOW) });
    let site = desk.publish(&[&desk.build("one", &[("data/a", b"a")], &[])]);
    let upstream = Upstream::start().await;
    upstream.serves(&site);
    let edge = build_at(&desk.followed(&[&upstream]), &clock(0));
    is_whole(&edge).await;
    let bins: Vec<_> = site.keys().filter(|path| path.contains(".bin-") && path.ends_with(".json")).collect();
    assert!(bins.len() > 1, "{} files", site.len());
    let snapshot = &site[&format!("/repo/{}.snapshot.json", version_in(&site).1)];
    let listed: serde_json::Value = serde_json::from_slice(snapshot).unwrap();
    let current = |path: &str| {
        let (version, file) = path.strip_prefix("/repo/").unwrap().split_once('.').unwrap();
        listed["signed"]["meta"][file]["version"].as_u64() == version.parse().ok()
    };
    let (good, bad) = (bins[0], bins[1]);
    assert!(current(good) && current(bad));
    let mut forged = site[bad].to_vec();
    let at = forged.len() - 10;
    forged[at] ^= 1;
    upstream.put(bad, forged);
    whole(&edge, good, &site[good]).await;
    let got = get(&edge, bad, &[]).await;
    assert_eq!(got.status, 502, "{got:?}");
    upstream.put(bad, site[bad].clone());
    whole(&edge, bad, &site[bad]).await;
    upstream.remove(good);
    assert!(whole(&edge, good, &site[good]).await.header("cache-status").contains("hit"));
    assert_eq!(get(&edge, "/repo/7.bin-nobody.json", &[]).await.status, 404);
}

/// Without a root, a repository passes through as it always did.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_without_a_root_pass_through_beside_it() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    upstream.put("/other/timestamp.json", "whatever");
    let edge = build_at(&desk.followed(&[&upstream]), &clock(0));
    whole(&edge, "/other/timestamp.json", b"whatever").await;
    versions(&edge).await;
}

#[test]
fn bad_roots_stop_the_start() {
    let desk = Desk::new();
    let site = desk.site();
    let file = desk.dir.path().join("root.json");
    std::fs::write(&file, &site["/repo/1.root.json"]).unwrap();
    let good = EdgeConfig { upstreams: vec!["http://a".to_owned()], ..desk.followed(&[]) };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let built = |change: fn(&mut colibri_edge::FollowedConfig), file: Option<&std::path::Path>| {
        let mut config = good.clone();
        config.repositories[0].root_file = file.map(std::path::Path::to_owned);
        change(&mut config.repositories[0]);
        Edge::build(&config, &colibri_service::metrics::Registry::new()).map(drop).map_err(|error| error.to_string())
    };
    built(|_| {}, None).unwrap();
    built(|config| config.root = None, Some(&file)).unwrap();
    for (change, path) in [
        ((|_| {}) as fn(&mut colibri_edge::FollowedConfig), Some(&*file)),
        (|config| config.root = None, None),
        (|config| config.root = Some("{}".to_owned()), None),
        (|config| config.root = None, Some(std::path::Path::new("/nowhere"))),
    ] {
        let error = built(change, path).unwrap_err();
        assert!(error.starts_with("repository repo: "), "{error}");
    }
}
