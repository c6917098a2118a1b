//! [`Gatekeeper`]: who asks, and whether they may ask again so soon.
//!
//! A token is looked for in constant time and before anything else of a request is looked at. A bearer token decides where
//! there is one; else a client certificate that the handshake has verified; else nobody.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use colibri_api::RepositoryName;
use colibri_common::{Clock, hex};
use colibri_transport::{ClientCertificate, Peer};
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::request::Parts;
use http::{HeaderMap, header};

use super::config::WriteConfig;
use super::problem::WriteError;
use super::role::WriteRole;
use super::tokens::{TokenEntry, TokenError, TokenFile, TokenStamp, Tokens};
use crate::limits::{RATE_KEYS_MAX, TOKEN_BYTES_MAX};

/// Somebody who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// How logs call them: `token ID (NAME)` or `certificate PIN`.
    pub name: String,
    pub role: WriteRole,
    /// None listed means all.
    repositories: Vec<RepositoryName>,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Principal {
    fn of_token(entry: &TokenEntry) -> Self {
        Self {
            name: format!("token {} ({})", entry.id, entry.name),
            role: entry.role,
            repositories: entry.repositories.clone(),
        }
    }

    /// Whether they may do what needs `role` to `repository`.
    pub fn may(&self, role: WriteRole, repository: &RepositoryName) -> Result<(), WriteError> {
        if !self.repositories.is_empty() && !self.repositories.contains(repository) {
            return Err(WriteError::WrongRepository { who: self.name.clone() });
        }
        if self.role < role {
            return Err(WriteError::Forbidden { who: self.name.clone(), role: self.role, needed: role });
        }
        Ok(())
    }
}

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock>;

/// Recognises people and counts what they ask.
pub(crate) struct Gatekeeper {
    file: TokenFile,
    kept: Mutex<Option<(Option<TokenStamp>, Arc<Tokens>)>>,
    clock: Arc<dyn Clock>,
    client_role: WriteRole,
    requests: Limiter<String>,
    refusals: Limiter<IpAddr>,
    time: DefaultClock,
}

impl Gatekeeper {
    /// Reads the token file, so that a damaged one shows at start. Blocks.
    pub fn new(config: &WriteConfig, clock: Arc<dyn Clock>) -> Result<Self, TokenError> {
        let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let gatekeeper = Self {
            file: TokenFile::new(&config.token_file),
            kept: Mutex::default(),
            clock,
            client_role: config.client_role,
            requests: RateLimiter::hashmap(Quota::per_second(count(config.requests_per_s))),
            refusals: RateLimiter::hashmap(Quota::per_minute(count(config.refusals_per_min))),
            time: DefaultClock::default(),
        };
        let tokens = gatekeeper.tokens()?;
        let now = gatekeeper.clock.now();
        if config.client_ca_file.is_none() && !tokens.entries().any(|entry| entry.is_live(now)) {
            let file = config.token_file.display();
            tracing::warn!(%file, "no token is live: nobody can write; `colibri origin token create` makes one");
        }
        Ok(gatekeeper)
    }

    /// Who asks. Nobody is told whether a token was once known. Blocks for a look at the token file.
    pub fn admit(&self, parts: &Parts) -> Result<Principal, WriteError> {
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let admitted = match self.recognise(parts) {
            Err(refused @ (WriteError::NoCredentials | WriteError::BadToken | WriteError::BadAuthorization)) => {
                self.count_refusal(peer)?;
                return Err(refused);
            }
            recognised => recognised?,
        };
        make_room(&self.requests);
        let key = admitted.name.clone();
        self.requests.check_key(&key).map_err(|not_until| self.too_many(&not_until))?;
        Ok(admitted)
    }

    fn recognise(&self, parts: &Parts) -> Result<Principal, WriteError> {
        match presented(&parts.headers)? {
            Some(token) => {
                let unreadable = |error: TokenError| {
                    tracing::error!(%error, "tokens cannot be read: every token is refused");
                    WriteError::Internal("the origin cannot read its tokens".to_owned())
                };
                let tokens = self.tokens().map_err(unreadable)?;
                let entry = tokens.find(token, self.clock.now());
                entry.map(Principal::of_token).ok_or(WriteError::BadToken)
            }
            None => match parts.extensions.get::<ClientCertificate>() {
                Some(ClientCertificate(pin)) => {
                    let (name, role) = (format!("certificate {}", hex(pin)), self.client_role);
                    Ok(Principal { name, role, repositories: Vec::new() })
                }
                None => Err(WriteError::NoCredentials),
            },
        }
    }

    /// The tokens as they are now.
    fn tokens(&self) -> Result<Arc<Tokens>, TokenError> {
        // The stamp is taken before the file is read: a change in between is seen by the next look.
        let stamp = self.file.stamp()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_ref() {
            Some((of, tokens)) if *of == stamp => Ok(tokens.clone()),
            _ => {
                let tokens = Arc::new(self.file.read()?);
                *kept = Some((stamp, tokens.clone()));
                Ok(tokens)
            }
        }
    }

    fn count_refusal(&self, peer: Option<SocketAddr>) -> Result<(), WriteError> {
        make_room(&self.refusals);
        let full = self.refusals.len() >= RATE_KEYS_MAX;
        // Where strangers come from more places than are remembered, the rest share one count.
        let key = peer.filter(|_| !full).map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| network(peer.ip()));
        self.refusals.check_key(&key).map_err(|not_until| self.too_many(&not_until))
    }

    fn too_many(
        &self,
        not_until: &governor::NotUntil<<DefaultClock as governor::clock::Clock>::Instant>,
    ) -> WriteError {
        WriteError::TooMany { retry_after_s: not_until.wait_time_from(self.time.now()).as_secs() + 1 }
    }
}

/// Forgets who has been quiet, once many are remembered.
fn make_room<K: std::hash::Hash + Eq + Clone>(limiter: &Limiter<K>) {
    if limiter.len() >= RATE_KEYS_MAX {
        limiter.retain_recent();
    }
}

/// What one site has: an IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// The token of the `Authorization` header, if there is one.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, WriteError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(WriteError::BadAuthorization);
    }
    let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or(WriteError::BadAuthorization)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(WriteError::BadAuthorization);
    }
    Ok(Some(token))
}
