//! [`TlsHandle`]: the certificate of a running server, and how it is replaced.
//!
//! Listeners stay open and connections go on: only handshakes that begin afterwards see the new certificate. Keys of Retry
//! tokens and, while clients are asked for the same, sessions that may be resumed outlive the replacement.

use std::sync::{Arc, PoisonError, RwLock};

use colibri_common::UnixSeconds;

use crate::error::TransportError;
use crate::tls::identity::{ServerTls, Sessions};

/// The certificate that new connections see. Clones share it; it keeps no port open.
#[derive(Clone)]
pub struct TlsHandle(Arc<RwLock<Current>>);

struct Current {
    tls: ServerTls,
    tcp_sessions: Sessions,
    quic_sessions: Sessions,
    tcp: Arc<rustls::ServerConfig>,
    quic: Option<Arc<quinn::ServerConfig>>,
}

/// What QUIC answers a new connection with.
#[derive(Clone)]
pub(super) struct QuicNow {
    pub(super) config: Arc<quinn::ServerConfig>,
    /// Requests may come in early data.
    pub(super) early: bool,
}

impl std::fmt::Debug for TlsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsHandle").field(&self.read().tls).finish()
    }
}

impl TlsHandle {
    /// `quic` makes the configuration of QUIC around its cryptography, if QUIC is answered.
    pub(super) fn new(
        tls: ServerTls,
        sessions: &Sessions,
        quic: Option<impl FnOnce(Arc<quinn::crypto::rustls::QuicServerConfig>) -> quinn::ServerConfig>,
    ) -> Result<Self, TransportError> {
        let (tcp_sessions, quic_sessions) = (sessions.forgotten(), sessions.forgotten());
        let tcp = tls.tcp_config(&tcp_sessions)?;
        let quic = match quic {
            Some(make) => Some(Arc::new(make(Arc::new(tls.quic_config(&quic_sessions)?)))),
            None => None,
        };
        Ok(Self(Arc::new(RwLock::new(Current { tls, tcp_sessions, quic_sessions, tcp, quic }))))
    }

    /// Answers new connections with `tls` from now on.
    ///
    /// # Errors
    /// The certificate cannot be used; the present one stays.
    pub fn replace(&self, tls: ServerTls) -> Result<(), TransportError> {
        // Built outside the lock, so that handshakes do not wait.
        let (old, tcp_sessions, quic_sessions, quic) = {
            let current = self.read();
            (current.tls.clone(), current.tcp_sessions.clone(), current.quic_sessions.clone(), current.quic.clone())
        };
        // Who was let in under other rules must not come back by resumption.
        let (tcp_sessions, quic_sessions) = if tls.resumes(&old) {
            (tcp_sessions, quic_sessions)
        } else {
            (tcp_sessions.forgotten(), quic_sessions.forgotten())
        };
        let tcp = tls.tcp_config(&tcp_sessions)?;
        let quic = match quic {
            Some(quic) => {
                let mut quic = (*quic).clone();
                quic.crypto = Arc::new(tls.quic_config(&quic_sessions)?);
                Some(Arc::new(quic))
            }
            None => None,
        };
        let current = Current { tls, tcp_sessions, quic_sessions, tcp, quic };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(())
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the certificate shown now.
    pub fn certificate_pin(&self) -> [u8; 32] {
        self.read().tls.certificate_pin()
    }

    /// Until when that certificate holds, if it says so.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.read().tls.expires_at()
    }

    pub(super) fn tcp(&self) -> Arc<rustls::ServerConfig> {
        self.read().tcp.clone()
    }

    pub(super) fn quic(&self) -> Option<QuicNow> {
        let current = self.read();
        let early = current.tls.takes_early_data(&current.quic_sessions);
        current.quic.clone().map(|config| QuicNow { config, early })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
