//! Mutual TLS on all three protocols: who shows no certificate, or one that is not good, gets nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_transport::{
    Body, Client, ClientCertificate, ClientConfig, ClientIdentity, Protocol, ServerConfig, handler,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, Way, fetch, get, identity, respond};
use crate::trust::accepts_anything;

/// An authority and client certificates of it.
struct Authority {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new(dir: &Path) -> (Self, PathBuf) {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let path = dir.join("clients.pem");
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        (Self { params, key }, path)
    }

    fn client(&self, dir: &Path, name: &str, years: (i32, i32)) -> ClientIdentity {
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let paths = ["crt", "key"].map(|ending| dir.join(format!("{name}.{ending}")));
        std::fs::write(&paths[0], certificate.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        let [certificate, key] = paths;
        ClientIdentity { certificate, key }
    }
}

/// What the server answers over HTTP/1.1 with TLS, which our own client only speaks where HTTP/2 is not to be had.
async fn over_http1(address: std::net::SocketAddr, identity: Option<&ClientIdentity>) -> Option<String> {
    let mut config = accepts_anything();
    if let Some(identity) = identity {
        let chain = vec![CertificateDer::from_pem_file(&identity.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let resolver = rustls::sign::CertifiedKey::from_der(chain, key, config.crypto_provider()).unwrap();
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(resolver));
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.starts_with("HTTP/1.1 200").then_some(text)
}

#[tokio::test]
async fn only_good_client_certificates_get_an_answer_on_any_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let (authority, path) = Authority::new(dir.path());
    let (stranger, _) = Authority::new(other_dir.path());
    let good = authority.client(dir.path(), "good", (2020, 2096));
    let refused = [
        ("none", None),
        ("another authority's", Some(stranger.client(dir.path(), "stranger", (2020, 2096)))),
        ("expired", Some(authority.client(dir.path(), "expired", (2020, 2021)))),
        ("not yet valid", Some(authority.client(dir.path(), "early", (2095, 2096)))),
    ];
    let tls = identity().requiring_client_authorities(&path).unwrap();
    let who = handler(|request: colibri_transport::Request| async move {
        let shown = request.extensions().get::<ClientCertificate>().is_some();
        let protocol = request.extensions().get::<Protocol>().unwrap().name();
        respond(Body::full(format!("{protocol} {shown}")))
    });
    let server = Running::start(ServerConfig { tls: Some(tls), ..Way::Http3.server_config() }, who);
    for way in [Way::Http3, Way::Http2] {
        let ask = |identity| Client::new(ClientConfig { identity, ..way.client_config() }).unwrap();
        let url = way.url(server.address, "/");
        // Twice: a resumed session says the same.
        let client = ask(Some(good.clone()));
        let expected = format!("{} true", way.protocol().name());
        for _ in 0..2 {
            assert_eq!(fetch(&client, &url).await.unwrap(), expected);
        }
        for (what, identity) in &refused {
            let answer = ask(identity.clone()).send(get(&url)).await;
            assert!(answer.is_err(), "{way:?}: a certificate that is {what}");
        }
    }
    let answer = over_http1(server.address, Some(&good)).await.expect("a good certificate");
    assert!(answer.ends_with("h1 true"), "{answer}");
    for (what, identity) in &refused {
        assert_eq!(over_http1(server.address, identity.as_ref()).await, None, "a certificate that is {what}");
    }
    // No cleartext on the same port.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    assert!(send.send_request(get("/")).await.is_err(), "cleartext is not answered");
    let stream = TcpStream::connect(server.address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut send, connection) = handshake.unwrap();
    let _connection = tokio::spawn(connection);
    assert!(send.send_request(get("http://x/")).await.is_err(), "cleartext is not answered");
}

#[tokio::test]
async fn who_was_let_in_under_other_rules_does_not_come_back_by_resumption() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path) = Authority::new(dir.path());
    let plain = identity();
    let config = ServerConfig { tls: Some(plain.clone()), ..Way::Http3.server_config() };
    let server = Running::start(config, crate::support::says("in"));
    for way in [Way::Http3, Way::Http2] {
        server.tls.as_ref().unwrap().replace(plain.clone()).unwrap();
        // The sessions live with the client: its connection ends, they remain.
        let config = ClientConfig { pool_idle_timeout: std::time::Duration::from_millis(20), ..way.client_config() };
        let client = Client::new(config).unwrap();
        let url = way.url(server.address, "/");
        let connections = || client.counts().h3_connections + client.counts().h2_connections;
        while connections() < 2 {
            assert_eq!(fetch(&client, &url).await.unwrap(), "in");
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        let required = plain.clone().requiring_client_authorities(&path).unwrap();
        server.tls.as_ref().unwrap().replace(required).unwrap();
        let before = connections();
        while connections() == before {
            match client.send(get(&url)).await {
                // The old connection was not over yet.
                Ok(_) => assert_eq!(connections(), before, "{way:?}: resumed without a certificate"),
                Err(_) => break,
            }
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
    }
}
