//! The admin port over a plain socket, as a probe or a scraper would use it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use colibri_service::{Admin, Health, Registry, ServiceError};

fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

#[test]
fn answers_metrics_health_and_readiness() {
    let (registry, health) = (Registry::new(), Health::new());
    let hits = registry.counter("colibri_edge_hits_total", "Hits.").unwrap();
    let admin = Admin::start((Ipv4Addr::LOCALHOST, 0).into(), registry, health.clone()).unwrap();
    hits.inc();
    let (status, text) = ask(admin.address(), "GET", "/metrics");
    assert!(status == 200 && text.contains("colibri_edge_hits_total 1") && text.contains("version=0.0.4"), "{text}");
    assert_eq!(ask(admin.address(), "GET", "/healthz").0, 200);
    assert_eq!(ask(admin.address(), "GET", "/readyz").0, 503);
    health.set_ready(true);
    assert_eq!(ask(admin.address(), "GET", "/readyz").0, 200);
    assert_eq!(ask(admin.address(), "GET", "/other").0, 404);
    let (status, text) = ask(admin.address(), "POST", "/healthz");
    assert!(status == 405 && text.to_lowercase().contains("allow: get, head"), "{text}");
    let (status, text) = ask(admin.address(), "HEAD", "/healthz");
    assert!(status == 200 && text.ends_with("\r\n\r\n") && text.to_lowercase().contains("content-length: 3"), "{text}");
}

#[test]
fn answers_while_every_other_thread_is_busy() {
    // The caller has no runtime at all: the admin thread lives by itself.
    let health = Health::new();
    let admin = Admin::start((Ipv4Addr::LOCALHOST, 0).into(), Registry::new(), health).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // Blocking here holds the only worker; the probe must not need it.
        assert_eq!(ask(admin.address(), "GET", "/healthz").0, 200);
    });
    let address = admin.address();
    drop(admin);
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = Admin::start(address, Registry::new(), Health::new()).unwrap_err();
    assert!(matches!(error, ServiceError::Admin(_)));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
