//! The configuration of a running process, read again: by hand, on SIGHUP, and when its file has changed.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use colibri_service::{Changes, Registry, Reload, Sources, reload};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    log: String,
    size: u64,
    limits: Limits,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    streams: u64,
    clients: Option<u64>,
}

const CHANGEABLE: &[&str] = &["log", "limits"];

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn running(file: &Path, registry: &Registry) -> Reload<Config> {
    let overrides = json!({ "log": "flag" });
    let sources = Sources { file: Some(file.to_owned()), overrides, ..Sources::default() };
    let config = colibri_service::load(sources.clone()).unwrap().value;
    Reload::new(sources, &config, CHANGEABLE.to_vec(), registry).unwrap()
}

fn rendered(registry: &Registry, line: &str) -> bool {
    registry.render().lines().any(|have| have == line)
}

#[test]
fn what_changed_is_told_apart_and_all_of_it_is_judged_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "size = 1\n").unwrap();
    let registry = Registry::new();
    let config = running(&file, &registry);
    let seen = RefCell::new(Vec::new());
    let take = |config: &Config, _: &Changes| {
        seen.borrow_mut().push(config.clone());
        if config.size == 13 { Err("13 brings bad luck") } else { Ok(()) }
    };
    assert_eq!(config.reload(take), Ok(Changes::default()));
    std::fs::write(&file, "size = 2\n[limits]\nstreams = 9\nclients = 1\n").unwrap();
    let (applied, size) = (keys(&["limits.clients", "limits.streams"]), keys(&["size"]));
    assert_eq!(config.reload(take), Ok(Changes { applied, at_next_start: size.clone() }));
    assert_eq!(seen.borrow()[1].log, "flag", "flags win as they did at the start");
    assert!(rendered(&registry, "colibri_config_pending_keys 1"));
    // What was not taken over is not forgotten, and what was is not new again.
    assert_eq!(config.reload(take), Ok(Changes { applied: Vec::new(), at_next_start: size }));
    for (text, named) in [
        ("size = 2\ncolour = 3\nlog = 7\n", "colour"),
        ("size = \"large\"\n[limits]\nstreams = 1\n", "size"),
        ("size = 13\n[limits]\nstreams = 1\n", "bad luck"),
        ("size =", "config.toml"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = config.reload(take).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(config.reload(take).unwrap_err().to_string().contains("cannot be read"));
    assert!(rendered(&registry, "colibri_config_reload_failures 1"));
    std::fs::write(&file, "size = 1\n[limits]\nstreams = 9\nclients = 2\n").unwrap();
    let applied = keys(&["limits.clients"]);
    assert_eq!(config.reload(take), Ok(Changes { applied, at_next_start: Vec::new() }), "compared with what holds");
    for line in [
        "colibri_config_reloads_total{outcome=\"applied\"} 2",
        "colibri_config_reloads_total{outcome=\"unchanged\"} 2",
        "colibri_config_reloads_total{outcome=\"failed\"} 5",
        "colibri_config_reload_failures 0",
        "colibri_config_pending_keys 0",
    ] {
        assert!(rendered(&registry, line), "{line} is missing in\n{}", registry.render());
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn it_is_read_on_sighup_and_once_its_file_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "size = 1\n").unwrap();
    let reads = [Duration::ZERO, Duration::from_millis(20)].map(|every| {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let mut following = Box::pin(reload::follow(Some(file.clone()), every, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(())
        }));
        // One poll puts the handler in place.
        assert!(futures_now(&mut following).is_none());
        tokio::spawn(following);
        reads
    });
    let own = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &own]).status().unwrap().success());
    until(|| reads.iter().all(|reads| reads.load(Ordering::SeqCst) == 1)).await;
    // Replaced by renaming, as those do who write whole files.
    let next = dir.path().join("next");
    std::fs::write(&next, "size = 2\n").unwrap();
    std::fs::rename(&next, &file).unwrap();
    until(|| reads[1].load(Ordering::SeqCst) == 2).await;
    assert_eq!(reads[0].load(Ordering::SeqCst), 1, "files are not looked at unless asked");
}

fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
