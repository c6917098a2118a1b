//! Metadata that is due is signed again, with a clock of ours; who has no keys changes nothing.

use std::sync::Arc;

use colibri_common::{ManualClock, UnixSeconds};
use colibri_origin::{KeySources, RefreshMetrics, Refresher, RepositoryConfig};
use colibri_repository::{CreateOptions, KeyRole, Repository};
use colibri_service::metrics::Registry;

const NOW: UnixSeconds = UnixSeconds(1_768_003_200);
const HOUR_S: u64 = 3600;

#[test]
fn online_roles_are_signed_at_start_and_at_two_thirds_of_their_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let repository = Repository::create(&path, CreateOptions::new(NOW)).unwrap();
    let clock = Arc::new(ManualClock::new(NOW.plus(HOUR_S)));
    let registry = Registry::new();
    let config = [RepositoryConfig::new("fleet.example".parse().unwrap(), &path)];
    let metrics = RefreshMetrics::register(&registry).unwrap();
    let mut refresher = Refresher::new(&config, KeySources::default(), clock.clone(), metrics);
    let versions = || repository.versions().unwrap();
    refresher.look();
    assert_eq!((versions().snapshot, versions().timestamp), (2, 2), "at start");
    refresher.look();
    assert_eq!((versions().snapshot, versions().timestamp), (2, 2), "nothing is due");
    clock.set(NOW.plus(17 * HOUR_S));
    refresher.look();
    assert_eq!((versions().targets, versions().snapshot, versions().timestamp), (1, 2, 3), "the timestamp is due");
    // A key that is gone is a failure that is counted, not an end.
    let hidden = path.join("keys/hidden");
    std::fs::rename(path.join("keys/timestamp.pem"), &hidden).unwrap();
    clock.set(NOW.plus(40 * HOUR_S));
    refresher.look();
    assert_eq!(versions().timestamp, 3);
    let line = |name: &str, role: &str| format!("{name}{{repository=\"fleet.example\",role=\"{role}\"}}");
    let text = registry.render();
    let value = |start: &str| -> i64 {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value(&line("colibri_origin_refreshes_total", "timestamp")), 2);
    assert_eq!(value(&line("colibri_origin_metadata_expiry_seconds", "timestamp")), HOUR_S as i64);
    std::fs::write(path.join("keys/timestamp.pem"), "no key").unwrap();
    refresher.look();
    assert!(registry.render().contains("colibri_origin_refresh_failures_total{repository=\"fleet.example\"} 1"));
    // It is tried again later, when the key is back.
    std::fs::rename(&hidden, path.join("keys/timestamp.pem")).unwrap();
    refresher.look();
    assert_eq!(versions().timestamp, 3, "not at once");
    clock.set(NOW.plus(41 * HOUR_S));
    refresher.look();
    assert_eq!(versions().timestamp, 4);
    assert!(repository.refresh_due().unwrap().iter().all(|due| due.role != KeyRole::Timestamp || due.can_sign));
    assert!(repository.audit_lines().unwrap().iter().any(|line| line["by"] == "refresher"));
}
