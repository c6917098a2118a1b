//! [`ServerTls`]: the certificate and key a server answers with, given or made on first start.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::UnixSeconds;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};

use super::validity::expires_at;
use super::{ALPN_H1, ALPN_H2, ALPN_H3, file_roots, pin_of, provider, read_pem};
use crate::error::TransportError;
use crate::limits::SESSIONS_MAX;

/// Names of the files that [`ServerTls::load_or_create`] keeps in its directory.
const CERTIFICATE_FILE: &str = "tls.crt";
const KEY_FILE: &str = "tls.key";

/// A server's certificate chain and private key.
#[derive(Clone)]
pub struct ServerTls {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    certificate_pem: Arc<str>,
    pin: [u8; 32],
    clients: Option<Clients>,
}

/// What is asked of clients.
#[derive(Clone)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The authorities' file as it was read, and whether a certificate is a must: what sessions may be resumed under.
    rule: Arc<(Vec<u8>, bool)>,
}

/// The sessions that clients of one listener may resume: state of this process, so that each is good for early data once.
#[derive(Clone)]
pub(crate) struct Sessions {
    store: Arc<dyn StoresServerSessions>,
    /// Tickets that other servers understand, instead of the store.
    tickets: Option<Arc<dyn ProducesTickets>>,
    /// Whether early data is taken, over QUIC and where nothing speaks against it.
    early: bool,
}

impl Sessions {
    pub(crate) fn new(early: bool, tickets: Option<Arc<dyn ProducesTickets>>) -> Self {
        Self { store: ServerSessionMemoryCache::new(SESSIONS_MAX), tickets, early }
    }

    /// The same rules, and nobody who may resume.
    pub(crate) fn forgotten(&self) -> Self {
        Self::new(self.early, self.tickets.clone())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("pin", &colibri_common::hex(&self.pin)).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// A fresh self-signed certificate for `names` (host names or IP addresses), with a new ECDSA P-256 key.
    pub fn self_signed(names: &[String]) -> Result<Self, TransportError> {
        let (certificate, key) = make(names)?;
        Self::from_pem(certificate.as_bytes(), key.as_bytes())
    }

    /// A certificate chain (end entity first) and its key, both in PEM.
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TransportError> {
        let unusable = |reason: String| TransportError::Certificate { what: "this server".to_owned(), reason };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(format!("the certificate is not valid PEM: {error}")))?;
        let Some(first) = chain.first() else {
            return Err(unusable("the PEM text holds no CERTIFICATE".to_owned()));
        };
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable(format!("the key is not a private key in PEM: {error}")))?;
        let pin = pin_of(first).map_err(|error| unusable(error.to_string()))?;
        let certificate_pem = String::from_utf8_lossy(cert).into();
        let identity = Self { chain, key: Arc::new(key), certificate_pem, pin, clients: None };
        // Building a configuration proves that key and certificate belong together.
        identity.tcp_config(&Sessions::new(false, None))?;
        Ok(identity)
    }

    /// The certificate in `dir/tls.crt` and the key in `dir/tls.key`; on first start both are made for `names`, the key
    /// readable by its owner only. Existing files are never replaced; one file without the other is an error.
    pub fn load_or_create(dir: &Path, names: &[String]) -> Result<Self, TransportError> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        if !certificate_path.exists() && !key_path.exists() {
            let (certificate, key) = make(names)?;
            fs::create_dir_all(dir).map_err(|source| TransportError::File { path: dir.to_owned(), source })?;
            create(&key_path, key.as_bytes(), true)?;
            create(&certificate_path, certificate.as_bytes(), false)?;
        }
        Self::load(dir)
    }

    /// The certificate in `dir/tls.crt` and the key in `dir/tls.key`; nothing is made.
    ///
    /// # Errors
    /// Names the file that is missing, or the folder whose files do not fit together.
    pub fn load(dir: &Path) -> Result<Self, TransportError> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE));
        Self::from_pem(&read_pem(&certificate_path)?, &read_pem(&key_path)?).map_err(|error| match error {
            TransportError::Certificate { reason, .. } => {
                TransportError::Certificate { what: dir.display().to_string(), reason }
            }
            other => other,
        })
    }

    /// The files that [`Self::load`] reads.
    pub fn files(dir: &Path) -> [PathBuf; 2] {
        [dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE)]
    }

    /// The same, asking clients for a certificate that the authorities in this PEM file vouch for. A client may show none;
    /// one that shows another is refused in the handshake. What was shown is in a request's extensions as
    /// [`crate::ClientCertificate`].
    ///
    /// # Errors
    /// The file cannot be read or holds no usable certificate.
    pub fn with_client_authorities(self, path: &Path) -> Result<Self, TransportError> {
        self.clients(path, false)
    }

    /// The same, refusing clients that show no certificate which the authorities in this PEM file vouch for: mutual TLS, on
    /// every protocol of the listener.
    ///
    /// # Errors
    /// As [`Self::with_client_authorities`].
    pub fn requiring_client_authorities(self, path: &Path) -> Result<Self, TransportError> {
        self.clients(path, true)
    }

    fn clients(mut self, path: &Path, required: bool) -> Result<Self, TransportError> {
        let roots = Arc::new(file_roots(path)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let unusable = |reason: String| TransportError::Certificate { what: path.display().to_string(), reason };
        let verifier = builder.build().map_err(|error| unusable(error.to_string()))?;
        self.clients = Some(Clients { verifier, rule: Arc::new((read_pem(path)?, required)) });
        Ok(self)
    }

    /// Early data may be repeated by whoever overheard it: it is taken where each session serves once, and where clients need
    /// not show who they are.
    pub(crate) fn takes_early_data(&self, sessions: &Sessions) -> bool {
        sessions.early && sessions.tickets.is_none() && self.clients.is_none()
    }

    /// Whether sessions that began under `other` may be resumed under this: what is asked of clients is the same.
    pub(crate) fn resumes(&self, other: &Self) -> bool {
        let rule = |identity: &Self| identity.clients.as_ref().map(|clients| clients.rule.clone());
        rule(self) == rule(other)
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the end-entity certificate: what a client's `pin:` names.
    pub fn certificate_pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Until when the end-entity certificate holds; nothing if it does not say so in a way that is understood.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        expires_at(self.chain.first()?)
    }

    /// The certificate chain in PEM, for a client's `ca-file:`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// TLS for TCP: HTTP/2 and HTTP/1.1.
    pub(crate) fn tcp_config(&self, sessions: &Sessions) -> Result<Arc<rustls::ServerConfig>, TransportError> {
        let mut config = self.config(rustls::DEFAULT_VERSIONS, sessions)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS for QUIC: HTTP/3, TLS 1.3 only.
    pub(crate) fn quic_config(
        &self,
        sessions: &Sessions,
    ) -> Result<quinn::crypto::rustls::QuicServerConfig, TransportError> {
        let mut config = self.config(&[&rustls::version::TLS13], sessions)?;
        config.alpn_protocols = vec![ALPN_H3.to_vec()];
        if self.takes_early_data(sessions) {
            config.max_early_data_size = u32::MAX;
        }
        quinn::crypto::rustls::QuicServerConfig::try_from(config)
            .map_err(|error| TransportError::Tls(error.to_string()))
    }

    fn config(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
        sessions: &Sessions,
    ) -> Result<rustls::ServerConfig, TransportError> {
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| TransportError::Tls(error.to_string()))?;
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(|error| {
            TransportError::Certificate { what: "this server".to_owned(), reason: error.to_string() }
        })?;
        config.session_storage = sessions.store.clone();
        // A ticket of another server says nothing of what this one asks of its clients.
        if let (Some(tickets), None) = (&sessions.tickets, &self.clients) {
            config.ticketer = tickets.clone();
        }
        Ok(config)
    }
}

/// A self-signed certificate and its key in PEM.
fn make(names: &[String]) -> Result<(String, String), TransportError> {
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TransportError::Certificate { what: names.join(", "), reason: error.to_string() })?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// Writes a new file durably, for its owner only if `secret`.
fn create(path: &Path, bytes: &[u8], secret: bool) -> Result<(), TransportError> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        let mode = if secret { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    match write() {
        // Another process of ours was first; its files are as good.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|source| TransportError::File { path: path.to_owned(), source }),
    }
}
