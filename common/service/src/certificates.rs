//! Certificates of listeners, read again while the process runs: on SIGHUP, and when their files change.
//!
//! What is new and good is shown from the next handshake on; what is bad is logged and counted, and the old one stays. Nothing
//! is made here, and no connection is touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use colibri_transport::{ServerTls, TlsHandle, TransportError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{IntCounterVec, IntGauge, MetricsError, Registry};
use crate::reload::Stamp;

/// Where one listener's certificate and its rules on clients come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Folder of `tls.crt` and `tls.key`.
    pub dir: PathBuf,
    /// PEM file of the authorities for client certificates, if clients are asked for any.
    pub clients: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub clients_required: bool,
}

impl TlsFiles {
    /// A certificate, and nothing asked of clients.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), clients: None, clients_required: false }
    }

    /// Clients must show a certificate of the authorities in this file, if one is given.
    #[must_use]
    pub fn requiring(self, clients: Option<&PathBuf>) -> Self {
        Self { clients: clients.cloned(), clients_required: clients.is_some(), ..self }
    }

    /// Clients are asked for a certificate of the authorities in this file, if one is given, and may show none.
    #[must_use]
    pub fn asking(self, clients: Option<&PathBuf>) -> Self {
        Self { clients: clients.cloned(), clients_required: false, ..self }
    }

    /// Reads all files. Certificate and key are made for `names` when both are missing.
    ///
    /// # Errors
    /// Names the file or folder at fault.
    pub fn load_or_create(&self, names: &[String]) -> Result<ServerTls, TransportError> {
        self.with_clients(ServerTls::load_or_create(&self.dir, names)?)
    }

    /// Reads all files.
    ///
    /// # Errors
    /// Names the file or folder at fault.
    pub fn load(&self) -> Result<ServerTls, TransportError> {
        self.with_clients(ServerTls::load(&self.dir)?)
    }

    fn with_clients(&self, tls: ServerTls) -> Result<ServerTls, TransportError> {
        match &self.clients {
            None => Ok(tls),
            Some(path) if self.clients_required => tls.requiring_client_authorities(path),
            Some(path) => tls.with_client_authorities(path),
        }
    }

    /// What changes when a file does, however it is replaced.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        ServerTls::files(&self.dir).iter().chain(&self.clients).map(|path| Stamp::of(path)).collect()
    }
}

/// How reloads ended, and until when the certificate holds that is shown.
#[derive(Debug, Clone)]
pub struct ReloadMetrics {
    reloads: IntCounterVec,
    expiry: IntGauge,
}

impl ReloadMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// The name is taken.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let help = "certificates of listeners read again, by outcome";
        let counter = registry.counter_vec("colibri_tls_reloads_total", help, &["outcome"])?;
        for outcome in ["new", "failed"] {
            counter.with_label_values(&[outcome]);
        }
        let expiry = registry.gauge(
            "colibri_tls_certificate_expiry_seconds",
            "when the certificate that is shown expires, in seconds since 1970; 0 if it does not say so",
        )?;
        Ok(Self { reloads: counter, expiry })
    }

    /// How often it ended so: `new` or `failed`.
    pub fn get(&self, outcome: &str) -> u64 {
        self.reloads.with_label_values(&[outcome]).get()
    }

    fn shown(&self, handle: &TlsHandle) {
        let expires_at = handle.expires_at().map_or(0, |at| at.0);
        self.expiry.set(i64::try_from(expires_at).unwrap_or(i64::MAX));
    }
}

/// Keeps the certificates of running servers as their files are, for as long as it is polled: looks at the files every
/// `every` (never, if that is zero) and at each SIGHUP. Never completes.
pub async fn follow(servers: Vec<(TlsFiles, TlsHandle)>, every: Duration, metrics: ReloadMetrics) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be waited for: certificates are read again when their files change");
            None
        }
    };
    let mut ticks = (!every.is_zero()).then(|| interval(every));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    servers.iter().for_each(|(_, handle)| metrics.shown(handle));
    // The first look reads them all again: they may have changed since the server was bound.
    let mut seen = vec![None; servers.len()];
    loop {
        let asked = tokio::select! {
            Some(()) = async { hangup.as_mut()?.recv().await } => true,
            Some(_) = async { Some(ticks.as_mut()?.tick().await) } => false,
            else => return std::future::pending().await,
        };
        for ((files, handle), seen) in servers.iter().zip(&mut seen) {
            // Small local files, read seldom.
            let stamps = Some(files.stamps());
            if asked || stamps != *seen {
                *seen = stamps;
                reload(files, handle, &metrics);
            }
        }
    }
}

/// Reads the files of one listener again; false if what is there is not usable, and the old certificate stays.
pub fn reload(files: &TlsFiles, handle: &TlsHandle, metrics: &ReloadMetrics) -> bool {
    let before = handle.certificate_pin();
    let outcome = match files.load().and_then(|tls| handle.replace(tls)) {
        Ok(()) => {
            let same_key = handle.certificate_pin() == before;
            tracing::info!(folder = %files.dir.display(), same_key, "new connections see the certificate as it is now");
            "new"
        }
        Err(error) => {
            tracing::error!(folder = %files.dir.display(), %error, "the new certificate is not usable: the old one stays");
            "failed"
        }
    };
    metrics.reloads.with_label_values(&[outcome]).inc();
    metrics.shown(handle);
    outcome == "new"
}
