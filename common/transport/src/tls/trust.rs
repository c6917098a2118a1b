//! [`Trust`]: whom a client believes. Whatever the choice, the handshake signature is always verified: the peer must hold
//! the key of the certificate it shows.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{file_roots, pin_of, provider, read_pem};
use crate::error::TransportError;
use crate::limits::{PINS_MAX, RESUMED_SERVERS_MAX};

/// Whom a client believes. As text: `none`, `system`, `ca-file:PATH`, `pin:HEX[,HEX]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// Anybody: encrypted but not authenticated. Fit for reads whose integrity rests on signatures; never for writes.
    #[default]
    None,
    /// The certificate authorities of this system.
    System,
    /// The certificate authorities (or self-signed certificates) in this PEM file.
    CaFile(PathBuf),
    /// Certificates whose SubjectPublicKeyInfo has one of these SHA-256 digests, whatever their name, age or issuer.
    Pin(Vec<[u8; 32]>),
}

impl FromStr for Trust {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let fault = |reason| TransportError::Trust { text: text.to_owned(), reason };
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "system" => Ok(Self::System),
            Some(("ca-file", "")) => Err(fault("the path is missing")),
            Some(("ca-file", path)) => Ok(Self::CaFile(path.into())),
            Some(("pin", pins)) => {
                let pins: Vec<[u8; 32]> = pins
                    .split(',')
                    .map(|pin| parse_pin(pin).ok_or_else(|| fault("a pin is not 64 hexadecimal digits")))
                    .collect::<Result<_, _>>()?;
                if pins.len() > PINS_MAX { Err(fault("there are too many pins")) } else { Ok(Self::Pin(pins)) }
            }
            _ => Err(fault("its first word is unknown")),
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::System => f.write_str("system"),
            Self::CaFile(path) => write!(f, "ca-file:{}", path.display()),
            Self::Pin(pins) => {
                let pins: Vec<String> = pins.iter().map(|pin| colibri_common::hex(pin)).collect();
                write!(f, "pin:{}", pins.join(","))
            }
        }
    }
}

fn parse_pin(text: &str) -> Option<[u8; 32]> {
    colibri_common::unhex(&text.to_ascii_lowercase())?.try_into().ok()
}

impl Trust {
    /// A client configuration with this trust, for the given ALPN names, that shows `identity` to servers which ask and counts
    /// in `proven` how often one proved who it is (with a resumed session it need not).
    pub(crate) fn client_config(
        &self,
        identity: Option<&ClientIdentity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&[u8]],
        proven: Arc<AtomicU64>,
    ) -> Result<rustls::ClientConfig, TransportError> {
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| TransportError::Tls(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::None => ByKey::new(None),
            Self::Pin(pins) => ByKey::new(Some(pins.clone())),
            Self::System => by_roots(system_roots()?)?,
            Self::CaFile(path) => by_roots(file_roots(path)?)?,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Counting { verifier, proven }));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.load()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| identity.unusable(&error))?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // It keeps 8 tickets of a server, and takes room for all servers at once: the usual size is one for 32 of them.
        config.resumption = Resumption::in_memory_sessions(8 * RESUMED_SERVERS_MAX);
        Ok(config)
    }
}

/// The certificate a client shows to servers which ask for one, and its key: two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate chain, end entity first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl ClientIdentity {
    fn unusable(&self, reason: &dyn fmt::Display) -> TransportError {
        TransportError::Certificate { what: self.certificate.display().to_string(), reason: reason.to_string() }
    }

    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TransportError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_pem(&self.certificate)?).collect();
        let chain = chain.map_err(|error| self.unusable(&error))?;
        if chain.is_empty() {
            return Err(self.unusable(&"the file holds no CERTIFICATE"));
        }
        let key = PrivateKeyDer::from_pem_slice(&read_pem(&self.key)?).map_err(|error| {
            TransportError::Certificate { what: self.key.display().to_string(), reason: error.to_string() }
        })?;
        Ok((chain, key))
    }
}

fn system_roots() -> Result<RootCertStore, TransportError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let reason = loaded.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
        return Err(TransportError::Certificate { what: "the system's authorities".to_owned(), reason });
    }
    Ok(roots)
}

fn by_roots(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, TransportError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    Ok(verifier.map_err(|error| TransportError::Tls(error.to_string()))?)
}

/// Counts the certificates that another verifier believed.
#[derive(Debug)]
struct Counting {
    verifier: Arc<dyn ServerCertVerifier>,
    proven: Arc<AtomicU64>,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.proven.fetch_add(1, Ordering::Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Judges a certificate by its key alone: one of the pins, or any.
#[derive(Debug)]
struct ByKey {
    pins: Option<Vec<[u8; 32]>>,
    provider: Arc<CryptoProvider>,
}

impl ByKey {
    fn new(pins: Option<Vec<[u8; 32]>>) -> Arc<Self> {
        Arc::new(Self { pins, provider: provider() })
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.pins {
            Some(pins) if !pins.contains(&pin_of(end_entity)?) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let pin = format!("pin:{},{}", "ab".repeat(32), "01".repeat(32));
        for text in ["none", "system", "ca-file:/etc/ca.pem", &pin] {
            assert_eq!(text.parse::<Trust>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refused_settings_are_named() {
        let long = format!("pin:{}", ["00".repeat(32).as_str(); PINS_MAX + 1].join(","));
        for text in ["", "None", "ca-file:", "ca-file", "pin:", "pin:abc", "pin:é", "everybody", &long] {
            let message = text.parse::<Trust>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
        }
    }
}
