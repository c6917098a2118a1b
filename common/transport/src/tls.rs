//! TLS for both ends: one provider (aws-lc-rs), never taken from a process-wide default.

#[cfg(feature = "server")]
pub(crate) mod identity;
#[cfg(feature = "client")]
pub(crate) mod trust;
#[cfg(feature = "server")]
mod validity;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::CipherSuite;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::TransportError;
use crate::limits::PEM_BYTES_MAX;

/// ALPN name of HTTP/3.
pub(crate) const ALPN_H3: &[u8] = b"h3";
/// ALPN name of HTTP/2.
pub(crate) const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub(crate) const ALPN_H1: &[u8] = b"http/1.1";

/// The crypto provider that every configuration here is built with: AES-128-GCM first, measured cheapest.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// SHA-256 of the SubjectPublicKeyInfo of `certificate` (as in RFC 7469 §2.4): it survives a renewal with the same key.
pub(crate) fn pin_of(certificate: &CertificateDer<'_>) -> Result<[u8; 32], rustls::Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.subject_public_key_info().as_ref());
    let mut pin = [0; 32];
    pin.copy_from_slice(digest.as_ref());
    Ok(pin)
}

/// Reads a PEM file of bounded size.
pub(crate) fn read_pem(path: &Path) -> Result<Vec<u8>, TransportError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read_bytes = File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if read_bytes as u64 > PEM_BYTES_MAX {
            return Err(std::io::Error::other(format!("it has more than {PEM_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| TransportError::File { path: path.to_owned(), source })
}

/// The authorities in a PEM file.
pub(crate) fn file_roots(path: &Path) -> Result<RootCertStore, TransportError> {
    let fault = |reason: String| TransportError::Certificate { what: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read_pem(path)?) {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault("the file holds no CERTIFICATE".to_owned())) } else { Ok(roots) }
}
