//! Whom a client believes.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use colibri_transport::{
    Body, Client, ClientCertificate, ClientConfig, ClientErrorKind, ClientIdentity, Request, ServerConfig, ServerTls,
    TransportError, Trust, handler,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Running, Way, fetch, get, identity, respond, says};

/// A server configuration for peers made by hand.
pub fn server_config(alpn: &[&[u8]]) -> rustls::ServerConfig {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// A client configuration for peers made by hand.
pub fn accepts_anything() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Anything(provider.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

#[derive(Debug)]
struct Anything(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn client(way: Way, trust: Trust) -> Client {
    Client::new(ClientConfig { trust, ..way.client_config() }).unwrap()
}

#[tokio::test]
async fn a_pin_accepts_its_key_and_no_other() {
    let identity = identity();
    let config = ServerConfig { tls: Some(identity.clone()), ..Way::Http3.server_config() };
    let server = Running::start(config, says("it is me"));
    for way in [Way::Http3, Way::Http2] {
        let url = way.url(server.address, "/");
        let right = client(way, Trust::Pin(vec![[0; 32], identity.certificate_pin()]));
        assert_eq!(fetch(&right, &url).await.unwrap(), "it is me");
        let wrong = client(way, Trust::Pin(vec![crate::support::identity().certificate_pin()]));
        let error = wrong.send(get(&url)).await.unwrap_err();
        assert_eq!((error.kind, error.authority), (ClientErrorKind::Tls, server.address.to_string()), "{way:?}");
        assert_eq!(wrong.counts().h3_requests + wrong.counts().h2_requests, 0);
    }
}

#[tokio::test]
async fn a_ca_file_accepts_its_certificate_and_the_right_name_only() {
    let dir = tempfile::tempdir().unwrap();
    let identity = identity();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, identity.certificate_pem()).unwrap();
    let server = Running::start(ServerConfig { tls: Some(identity), ..Way::Http3.server_config() }, says("known"));
    let stranger = Running::way(Way::Http3, says("unknown"));
    let elsewhere = ServerTls::self_signed(&["elsewhere".to_owned()]).unwrap();
    let elsewhere_path = dir.path().join("elsewhere.pem");
    std::fs::write(&elsewhere_path, elsewhere.certificate_pem()).unwrap();
    let misnamed = Running::start(ServerConfig { tls: Some(elsewhere), ..Way::Http3.server_config() }, says("known"));
    for way in [Way::Http3, Way::Http2] {
        let known = client(way, Trust::CaFile(path.clone()));
        assert_eq!(fetch(&known, &way.url(server.address, "/")).await.unwrap(), "known");
        let by_name = format!("https://localhost:{}/", server.address.port());
        assert_eq!(fetch(&known, &by_name).await.unwrap(), "known");
        assert_eq!(known.send(get(&way.url(stranger.address, "/"))).await.unwrap_err().kind, ClientErrorKind::Tls);
        let other = client(way, Trust::CaFile(elsewhere_path.clone()));
        assert_eq!(other.send(get(&way.url(misnamed.address, "/"))).await.unwrap_err().kind, ClientErrorKind::Tls);
    }
}

#[tokio::test]
async fn trust_that_cannot_be_loaded_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.pem");
    let error = Client::new(ClientConfig { trust: Trust::CaFile(missing.clone()), ..Default::default() }).unwrap_err();
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing here").unwrap();
    let error = Client::new(ClientConfig { trust: Trust::CaFile(empty.clone()), ..Default::default() }).unwrap_err();
    assert!(error.to_string().contains(&empty.display().to_string()), "{error}");
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("tls");
    let names = ["localhost".to_owned()];
    let first = ServerTls::load_or_create(&home, &names).unwrap();
    let mode = std::fs::metadata(home.join("tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the key is for its owner only");
    let second = ServerTls::load_or_create(&home, &names).unwrap();
    assert_eq!(first.certificate_pin(), second.certificate_pin());
    std::fs::remove_file(home.join("tls.crt")).unwrap();
    let error = ServerTls::load_or_create(&home, &names).unwrap_err();
    assert!(matches!(&error, TransportError::File { path, .. } if path.ends_with("tls.crt")), "{error}");
}

#[test]
fn certificate_and_key_must_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let names = ["localhost".to_owned()];
    ServerTls::load_or_create(&one, &names).unwrap();
    ServerTls::load_or_create(&other, &names).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let mixed = ServerTls::from_pem(&read(one.join("tls.crt")), &read(other.join("tls.key")));
    assert!(matches!(mixed, Err(TransportError::Certificate { .. })), "{mixed:?}");
    for (certificate, key) in [(&b""[..], &b""[..]), (&read(one.join("tls.crt")), b"no key")] {
        assert!(matches!(ServerTls::from_pem(certificate, key), Err(TransportError::Certificate { .. })));
    }
}

/// An authority and one client certificate of it, with its key, in files.
fn authority_with_client(dir: &std::path::Path, name: &str) -> (std::path::PathBuf, ClientIdentity) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let client_key = rcgen::KeyPair::generate().unwrap();
    let client = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&client_key, &issuer).unwrap();
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let identity =
        ClientIdentity { certificate: write("crt", client.pem()), key: write("key", client_key.serialize_pem()) };
    (write("ca.pem", authority.pem()), identity)
}

#[tokio::test]
async fn a_client_is_known_by_a_certificate_of_the_named_authority_only() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, known) = authority_with_client(dir.path(), "known");
    let (_, stranger) = authority_with_client(dir.path(), "stranger");
    let tls = identity().with_client_authorities(&authority).unwrap();
    let who = handler(|request: Request| async move {
        let shown = request.extensions().get::<ClientCertificate>().is_some();
        respond(Body::full(if shown { "known" } else { "nobody" }))
    });
    let server = Running::start(ServerConfig { tls: Some(tls), ..Way::Http2.server_config() }, who);
    let url = Way::Http2.url(server.address, "/");
    let ask = |identity| Client::new(ClientConfig { identity, ..Way::Http2.client_config() }).unwrap();
    // Twice each: a resumed session says the same.
    for _ in 0..2 {
        assert_eq!(fetch(&ask(None), &url).await.unwrap(), "nobody");
        assert_eq!(fetch(&ask(Some(known.clone())), &url).await.unwrap(), "known");
    }
    let refused = ask(Some(stranger)).send(get(&url)).await;
    assert!(refused.is_err(), "a certificate of another authority");
    let missing = ClientIdentity { certificate: dir.path().join("missing.crt"), key: known.key.clone() };
    let error = Client::new(ClientConfig { identity: Some(missing), ..ClientConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("missing.crt"), "{error}");
    let swapped = ClientIdentity { key: known.certificate.clone(), ..known };
    assert!(Client::new(ClientConfig { identity: Some(swapped), ..ClientConfig::default() }).is_err());
    assert!(identity().with_client_authorities(&dir.path().join("missing.pem")).is_err());
}
