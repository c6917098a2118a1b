//! Certificates read again: on SIGHUP, when files change, and never when what is there is no good.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use colibri_service::{ListenerConfig, Registry, ReloadMetrics, TlsFiles, certificates, register_counters};
use colibri_transport::{Body, Response, Server, ServerConfig, ServerCounters, ServerTls, TlsHandle, handler};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// Puts another certificate into the folder, as a rotation does; its pin.
fn rotate(dir: &Path) -> [u8; 32] {
    let fresh = tempfile::tempdir().unwrap();
    let pin = ServerTls::load_or_create(fresh.path(), &["localhost".to_owned()]).unwrap().certificate_pin();
    for [from, to] in [0, 1].map(|file| [fresh.path(), dir].map(|dir| ServerTls::files(dir)[file].clone())) {
        std::fs::copy(from, to).unwrap();
    }
    pin
}

fn served(files: &TlsFiles) -> (Server, TlsHandle) {
    let tls = files.load_or_create(&["localhost".to_owned()]).unwrap();
    let answer = handler(|_| async { Response::new(Body::empty()) });
    let server = Server::bind(ServerConfig::secure(ANY.into(), tls), answer).unwrap();
    let handle = server.tls().unwrap();
    (server, handle)
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_good_is_shown_and_what_is_bad_leaves_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles::new(dir.path());
    let (_server, handle) = served(&files);
    let registry = Registry::new();
    let metrics = ReloadMetrics::register(&registry).unwrap();
    let listeners = vec![(files, handle.clone())];
    tokio::spawn(certificates::follow(listeners, Duration::from_millis(5), metrics.clone()));
    let first = handle.certificate_pin();
    let second = rotate(dir.path());
    assert_ne!(first, second);
    until(|| handle.certificate_pin() == second).await;
    let failed = metrics.get("failed");
    // Certificate and key that do not belong together, no certificate at all, and none in the file.
    let [certificate, key] = ServerTls::files(dir.path());
    let good = std::fs::read(&key).unwrap();
    let other = tempfile::tempdir().unwrap();
    ServerTls::load_or_create(other.path(), &["localhost".to_owned()]).unwrap();
    std::fs::copy(&ServerTls::files(other.path())[1], &key).unwrap();
    until(|| metrics.get("failed") > failed).await;
    let failed = metrics.get("failed");
    std::fs::remove_file(&key).unwrap();
    std::fs::remove_file(&certificate).unwrap();
    until(|| metrics.get("failed") > failed).await;
    assert!(!key.exists(), "nothing is made in place of what is missing");
    let failed = metrics.get("failed");
    std::fs::write(&certificate, "nothing").unwrap();
    std::fs::write(&key, good).unwrap();
    until(|| metrics.get("failed") > failed).await;
    assert_eq!(handle.certificate_pin(), second, "the old one stays");
    let expiry = format!("colibri_tls_certificate_expiry_seconds {}", handle.expires_at().unwrap().0);
    assert!(registry.render().lines().any(|line| line == expiry), "{}", registry.render());
    let third = rotate(dir.path());
    until(|| handle.certificate_pin() == third).await;
}

#[tokio::test]
async fn sighup_has_certificates_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles::new(dir.path());
    let (_server, handle) = served(&files);
    let metrics = ReloadMetrics::register(&Registry::new()).unwrap();
    let mut following = Box::pin(certificates::follow(vec![(files, handle.clone())], Duration::ZERO, metrics.clone()));
    // One poll puts the handler in place.
    tokio::select! { biased; () = &mut following => {}, () = std::future::ready(()) => {} }
    tokio::spawn(following);
    let second = rotate(dir.path());
    let own = std::process::id().to_string();
    assert!(Command::new("kill").args(["-HUP", &own]).status().unwrap().success());
    until(|| metrics.get("new") > 0).await;
    assert_eq!(handle.certificate_pin(), second);
}

#[test]
fn client_certificates_forbid_a_port_without_tls() {
    let counters = Arc::<ServerCounters>::default();
    let address = SocketAddr::from(ANY);
    assert!(ListenerConfig::default().plain(address, &counters).is_ok());
    let config = ListenerConfig { client_ca_file: Some("ca.pem".into()), ..ListenerConfig::default() };
    let error = config.plain(address, &counters).unwrap_err().to_string();
    assert!(error.contains("listen_plain") && error.contains("listener.client_ca_file"), "{error}");
}

#[test]
fn counters_are_rendered_with_the_other_metrics() {
    let registry = Registry::new();
    register_counters(&registry, Arc::default()).unwrap();
    let text = registry.render();
    for line in [
        "# TYPE colibri_listener_connections_total counter",
        "colibri_listener_connections_total{transport=\"quic\"} 0",
        "colibri_listener_requests_total{protocol=\"h3\"} 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
    }
    assert!(register_counters(&registry, Arc::default()).is_err(), "once is enough");
}
