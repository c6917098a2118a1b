//! The access log: off, into a file, moved away under it, and where it cannot be written.

use colibri_service::Registry;
use colibri_service::access_log::{AccessLog, AccessLogConfig};

fn config(to: &std::path::Path) -> AccessLogConfig {
    AccessLogConfig { to: to.to_str().unwrap().to_owned(), ..AccessLogConfig::default() }
}

#[test]
fn lines_reach_the_file_by_the_end_and_a_moved_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, moved) = (dir.path().join("access.json"), dir.path().join("access.json.1"));
    std::fs::write(&file, "before\n").unwrap();
    let registry = Registry::new();
    let log = AccessLog::open(&config(&file), &registry).unwrap().unwrap();
    log.log(&serde_json::json!({ "path": "/a \"quoted\"\nline" }));
    std::fs::rename(&file, &moved).unwrap();
    log.reopen();
    log.log(&serde_json::json!({ "path": "/b" }));
    drop(log);
    let lines = |path| std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&moved), ["before", r#"{"path":"/a \"quoted\"\nline"}"#]);
    assert_eq!(lines(&file), [r#"{"path":"/b"}"#]);
    assert!(registry.render().contains("colibri_access_log_lines_total 2"), "{}", registry.render());
}

#[test]
fn off_is_off_and_a_bad_place_is_named() {
    assert!(AccessLog::open(&AccessLogConfig::default(), &Registry::new()).unwrap().is_none());
    let dir = tempfile::tempdir().unwrap();
    let error = AccessLog::open(&config(&dir.path().join("no/such/folder")), &Registry::new()).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}

#[test]
fn a_full_disk_is_counted_and_stops_nothing() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let registry = Registry::new();
    let log = AccessLog::open(&config(full), &registry).unwrap().unwrap();
    (0..1000).for_each(|number| log.log(&number));
    drop(log);
    assert!(!registry.render().contains("colibri_access_log_failures_total 0"), "{}", registry.render());
}
