//! [`QuicKeys`]: secrets that servers behind one address may share, so that what one of them gave out another understands.
//!
//! From one secret come the keys of Retry tokens, stateless resets, connection ids and session tickets. Nothing here is
//! written down, and keys are read once: a server that is to have others is started anew.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use quinn::ConnectionId;
use quinn_proto::{ConnectionIdGenerator, InvalidCid};
use rustls::server::ProducesTickets;

use crate::error::TransportError;
use crate::tls::read_pem;

/// Least length of a secret, in bytes.
const SECRET_BYTES_MIN: usize = 32;
/// How long a session ticket may be used, in seconds.
const TICKET_LIFETIME_S: u32 = 12 * 3600;
/// Bytes of an AES-GCM nonce.
const NONCE_BYTES: usize = 12;

/// A secret shared by servers, and the name of this one among them.
#[derive(Clone)]
pub struct QuicKeys {
    secret: Arc<hkdf::Prk>,
    server: Arc<str>,
    /// Whether session tickets are under these keys, too.
    pub(crate) tickets: bool,
}

impl fmt::Debug for QuicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicKeys").field("server", &self.server).finish_non_exhaustive()
    }
}

impl QuicKeys {
    /// Reads the secret from a file: 32 bytes or more, of any kind, white space at the end aside. `server` names this server;
    /// no other with the same secret may have the name, because a server ends connections under its own name that it does
    /// not know.
    ///
    /// # Errors
    /// The file cannot be read or is too short.
    pub fn load(path: &Path, server: &str) -> Result<Self, TransportError> {
        let bytes = read_pem(path)?;
        Self::new(bytes.trim_ascii_end(), server).ok_or_else(|| {
            let reason = format!("it has fewer than {SECRET_BYTES_MIN} bytes: make one with `openssl rand -hex 32`");
            TransportError::File { path: path.to_owned(), source: std::io::Error::other(reason) }
        })
    }

    /// Keys from this secret; nothing if it is too short.
    pub fn new(secret: &[u8], server: &str) -> Option<Self> {
        let secret = (secret.len() >= SECRET_BYTES_MIN)
            .then(|| Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"colibri quic keys 1").extract(secret)))?;
        Some(Self { secret, server: server.into(), tickets: false })
    }

    /// Keys of this process alone.
    pub(crate) fn fresh() -> Option<Self> {
        let mut secret = [0; SECRET_BYTES_MIN];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Self::new(&secret, "")
    }

    /// The same, with session tickets that every server with the secret accepts. A ticket may then be used anywhere and more
    /// than once, so there is no early data.
    #[must_use]
    pub fn with_tickets(self) -> Self {
        Self { tickets: true, ..self }
    }

    /// A key for one purpose.
    fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [purpose.as_bytes()];
        let filled = self.secret.expand(&info, hkdf::HKDF_SHA256).and_then(|output| output.fill(&mut key));
        // Both lengths are constants that HKDF allows.
        debug_assert!(filled.is_ok());
        key
    }

    pub(crate) fn reset_key(&self) -> Arc<hmac::Key> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.derive("stateless reset")))
    }

    pub(crate) fn token_key(&self) -> Arc<hkdf::Prk> {
        Arc::new(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &self.derive("retry")))
    }

    /// Connection ids of the socket `index`.
    pub(crate) fn ids(&self, index: u8) -> Ids {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("connection id"));
        Ids { key, server: self.server.clone(), index }
    }

    pub(crate) fn ticketer(&self) -> Result<Arc<dyn ProducesTickets>, TransportError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.derive("session ticket"));
        Ok(Arc::new(Tickets(key.map_err(|_| TransportError::Tls("the key of tickets is refused".to_owned()))?)))
    }
}

/// Bytes of a connection id: index of the socket, nonce, tag.
pub(crate) const ID_BYTES: usize = 12;
const ID_NONCE: std::ops::Range<usize> = 1..7;
const ID_TAG: std::ops::Range<usize> = 7..ID_BYTES;

/// Makes connection ids that tell, to whoever has the key, which server and which of its sockets they belong to. The index is
/// in the clear: an observer learns one of a handful of sockets.
pub(crate) struct Ids {
    key: hmac::Key,
    server: Arc<str>,
    index: u8,
}

impl Ids {
    fn tag(&self, index_and_nonce: &[u8]) -> [u8; ID_TAG.end - ID_TAG.start] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(index_and_nonce);
        context.update(self.server.as_bytes());
        let mut tag = [0; ID_TAG.end - ID_TAG.start];
        tag.copy_from_slice(&context.sign().as_ref()[..ID_TAG.end - ID_TAG.start]);
        tag
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        id[0] = self.index;
        // Without randomness the ids collide, which QUIC notices; the system's generator does not fail once it works.
        _ = aws_lc_rs::rand::fill(&mut id[ID_NONCE]);
        let tag = self.tag(&id[..ID_NONCE.end]);
        id[ID_TAG].copy_from_slice(&tag);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let whole = id.len() == ID_BYTES && self.tag(&id[..ID_NONCE.end]) == id[ID_TAG];
        if whole { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Session tickets under a shared key: a nonce, then what AES-256-GCM makes of the session.
struct Tickets(RandomizedNonceKey);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut sealed).ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = cipher.split_at_checked(NONCE_BYTES)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn keys(secret: &[u8], server: &str) -> QuicKeys {
        QuicKeys::new(secret, server).unwrap()
    }

    #[test]
    fn ids_are_known_by_their_own_server_only() {
        let id = keys(SECRET, "berlin").ids(3).generate_cid();
        assert_eq!((id.len(), id[0]), (ID_BYTES, 3));
        assert!(keys(SECRET, "berlin").ids(0).validate(&id).is_ok(), "after a restart, and at every socket");
        assert!(keys(SECRET, "paris").ids(3).validate(&id).is_err());
        assert!(keys(&[7; 32], "berlin").ids(3).validate(&id).is_err());
        assert!(keys(SECRET, "berlin").ids(3).validate(&ConnectionId::new(&id[..8])).is_err());
        for byte in 0..ID_BYTES {
            let mut other = id.to_vec();
            other[byte] ^= 1;
            assert!(keys(SECRET, "berlin").ids(3).validate(&ConnectionId::new(&other)).is_err(), "byte {byte}");
        }
        assert_ne!(id, keys(SECRET, "berlin").ids(3).generate_cid());
    }

    #[test]
    fn tickets_are_read_where_the_secret_is_known_and_whole() {
        let ticket = keys(SECRET, "berlin").ticketer().unwrap().encrypt(b"a session").unwrap();
        let reader = keys(SECRET, "paris").ticketer().unwrap();
        assert_eq!(reader.decrypt(&ticket).unwrap(), b"a session");
        assert!(keys(&[7; 32], "berlin").ticketer().unwrap().decrypt(&ticket).is_none());
        for end in 0..ticket.len() {
            assert!(reader.decrypt(&ticket[..end]).is_none());
        }
        for byte in 0..ticket.len() {
            let mut other = ticket.clone();
            other[byte] ^= 1;
            assert!(reader.decrypt(&other).is_none(), "byte {byte}");
        }
    }

    #[test]
    fn a_secret_that_is_too_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "short\n").unwrap();
        let error = QuicKeys::load(&path, "a").unwrap_err().to_string();
        assert!(error.contains("keys") && error.contains("32"), "{error}");
        std::fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
        let id = QuicKeys::load(&path, "a").unwrap().ids(0).generate_cid();
        assert!(keys(SECRET, "a").ids(0).validate(&id).is_ok());
    }
}
