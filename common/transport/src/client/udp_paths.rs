//! [`UdpPaths`]: on which networks UDP leads somewhere, as all authorities of a client together have seen it.
//!
//! A network is what the system would send from: its own address towards the peer (of an IPv6 address the first 64 bits, since
//! hosts change the others at will). One server without an answer over UDP makes its network doubtful: from then on TCP does
//! not wait for HTTP/3 there, HTTP/3 is still tried beside it, and one handshake that completes ends the doubt. Only when
//! [`DEAD_AUTHORITIES`] servers gave no answer, and none did lately, is HTTP/3 not tried there at all, until that memory
//! fades. Deliberately absent: any look at interfaces, gateways or radio networks; two networks that give this host the same
//! address are one here, until the memory fades.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::authority::Key;
use crate::limits::{AUTHORITIES_MAX, NETWORKS_MAX};

/// So many servers without an answer over UDP, and none with one, make a network dead.
pub(super) const DEAD_AUTHORITIES: usize = 3;

/// Says from which address packets to a peer would leave.
pub trait Routes: Send + Sync + 'static {
    /// The address of this host that a peer would see, before any translation on the way; none without a way there.
    fn source(&self, peer: SocketAddr) -> Option<IpAddr>;
}

/// What the system says.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRoutes;

impl Routes for SystemRoutes {
    /// Asks with a UDP socket, which sends nothing by being connected.
    fn source(&self, peer: SocketAddr) -> Option<IpAddr> {
        let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(peer).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }
}

/// A network that this host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Network(IpAddr);

impl Network {
    fn of(source: IpAddr) -> Self {
        match source {
            IpAddr::V4(_) => Self(source),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }
}

/// The networks over which the addresses of one authority are reached, in order; empty if there is no way to any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Networks(Arc<[Network]>);

impl Networks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be expected of HTTP/3 to an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prospect {
    /// It leads nowhere.
    Dead,
    /// It may lead nowhere: nothing waits for it.
    Doubtful,
    /// Nothing speaks against it.
    Good,
}

/// What is known about one network.
#[derive(Debug)]
struct Known {
    doubtful: bool,
    /// The last handshake over UDP.
    answered: Option<Instant>,
    /// Authorities without an answer over UDP, and until when that is remembered. After that they are in doubt.
    dead: HashMap<Key, Instant>,
    used: Instant,
}

/// See the module.
pub(super) struct UdpPaths {
    routes: Arc<dyn Routes>,
    memory: Duration,
    known: Mutex<HashMap<Network, Known>>,
}

impl UdpPaths {
    pub(super) fn new(routes: Arc<dyn Routes>, memory: Duration) -> Self {
        Self { routes, memory, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Network, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over which networks these addresses are reached now.
    pub(super) fn networks(&self, addresses: &[SocketAddr]) -> Networks {
        let mut networks: Vec<_> =
            addresses.iter().filter_map(|peer| self.routes.source(*peer).map(Network::of)).collect();
        networks.sort_unstable();
        networks.dedup();
        Networks(networks.into())
    }

    /// What is to be expected of HTTP/3 to an authority over the best of these networks.
    pub(super) fn prospect(&self, networks: &Networks, authority: &Key) -> Prospect {
        let (known, now) = (self.lock(), Instant::now());
        let of =
            |network| known.get(network).map_or(Prospect::Good, |known| known.prospect(authority, now, self.memory));
        networks.0.iter().map(of).max().unwrap_or(Prospect::Good)
    }

    /// Nothing came over UDP in the time in which TCP got through.
    pub(super) fn doubt(&self, networks: &Networks) {
        self.note(networks, |known, _| known.doubtful = true);
    }

    /// An authority gave no answer over UDP, though it did over TCP.
    pub(super) fn died(&self, networks: &Networks, authority: &Key) {
        self.note(networks, |known, now| {
            known.doubtful = true;
            if known.dead.len() >= AUTHORITIES_MAX {
                known.dead.retain(|_, until| now < *until);
            }
            if known.dead.len() < AUTHORITIES_MAX {
                known.dead.insert(authority.clone(), now + self.memory);
            }
        });
    }

    /// An authority does not speak HTTP/3 with us, and said so over UDP.
    pub(super) fn refused(&self, networks: &Networks, authority: &Key) {
        self.died(networks, authority);
        self.note(networks, |known, now| (known.doubtful, known.answered) = (false, Some(now)));
    }

    /// A handshake over UDP completed.
    pub(super) fn works(&self, networks: &Networks, authority: &Key) {
        self.note(networks, |known, now| {
            (known.doubtful, known.answered) = (false, Some(now));
            known.dead.remove(authority);
        });
    }

    fn note(&self, networks: &Networks, change: impl Fn(&mut Known, Instant)) {
        let (mut all, now) = (self.lock(), Instant::now());
        for network in networks.0.iter() {
            if all.len() >= NETWORKS_MAX && !all.contains_key(network) {
                let oldest = all.iter().min_by_key(|(_, known)| known.used).map(|(network, _)| *network);
                oldest.and_then(|oldest| all.remove(&oldest));
            }
            let known = all.entry(*network).or_insert_with(|| Known {
                doubtful: false,
                answered: None,
                dead: HashMap::new(),
                used: now,
            });
            known.used = now;
            change(known, now);
        }
    }
}

impl Known {
    fn prospect(&self, authority: &Key, now: Instant, memory: Duration) -> Prospect {
        let own = self.dead.get(authority);
        if own.is_some_and(|until| now < *until) || self.is_dead(now, memory) {
            Prospect::Dead
        } else if own.is_some() || self.doubtful {
            Prospect::Doubtful
        } else {
            Prospect::Good
        }
    }

    fn is_dead(&self, now: Instant, memory: Duration) -> bool {
        let silent = self.answered.is_none_or(|at| now.saturating_duration_since(at) >= memory);
        silent && self.dead.values().filter(|until| now < **until).count() >= DEAD_AUTHORITIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(300);
    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);

    struct From(&'static str);

    impl Routes for From {
        fn source(&self, _: SocketAddr) -> Option<IpAddr> {
            Some(self.0.parse().unwrap())
        }
    }

    fn key(number: u16) -> Key {
        Key::of(&format!("https://edge{number}.example/").parse().unwrap()).unwrap()
    }

    fn networks(source: &'static str) -> Networks {
        UdpPaths::new(Arc::new(From(source)), MEMORY).networks(&[PEER, PEER])
    }

    fn paths() -> UdpPaths {
        UdpPaths::new(Arc::new(SystemRoutes), MEMORY)
    }

    #[test]
    fn the_low_half_of_an_ipv6_address_is_no_other_network() {
        assert_eq!(networks("2001:db8:0:1::5"), networks("2001:db8:0:1:ffff::7"));
        assert_ne!(networks("2001:db8:0:1::5"), networks("2001:db8:0:2::5"));
        assert_ne!(networks("192.0.2.7"), networks("192.0.2.8"));
        assert_eq!(networks("192.0.2.7").0.len(), 1);
    }

    #[test]
    fn the_system_knows_the_way_to_itself() {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9);
        assert_eq!(SystemRoutes.source(local), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_dead_server_is_not_a_dead_network_and_nobody_waits_twice() {
        let (paths, home) = (paths(), networks("192.0.2.7"));
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Good);
        paths.doubt(&home);
        assert_eq!(paths.prospect(&home, &key(1)), Prospect::Doubtful, "the wait was paid for all");
        paths.died(&home, &key(0));
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Dead);
        assert_eq!(paths.prospect(&home, &key(1)), Prospect::Doubtful, "it is still tried for others");
        paths.works(&home, &key(1));
        assert_eq!(paths.prospect(&home, &key(2)), Prospect::Good);
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Dead, "its own silence is remembered");
        tokio::time::advance(MEMORY).await;
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Doubtful, "tried again, and nothing waits for that");
        paths.works(&home, &key(0));
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_is_dead_when_several_say_so_and_none_the_contrary() {
        let (paths, home) = (paths(), networks("192.0.2.7"));
        let silent = || (0..3).for_each(|number| paths.died(&home, &key(number)));
        silent();
        assert_eq!(paths.prospect(&home, &key(9)), Prospect::Dead);
        assert_eq!(paths.prospect(&networks("198.51.100.7"), &key(9)), Prospect::Good, "another network");
        assert_eq!(paths.prospect(&networks("198.51.100.7"), &key(0)), Prospect::Good, "another network");
        tokio::time::advance(MEMORY).await;
        assert_eq!(paths.prospect(&home, &key(9)), Prospect::Doubtful, "it is tried again");
        // Three servers without HTTP/3 beside one that has it say nothing about the network.
        paths.works(&home, &key(8));
        silent();
        assert_eq!(paths.prospect(&home, &key(9)), Prospect::Doubtful);
        // Who refuses over UDP has answered over UDP.
        tokio::time::advance(MEMORY).await;
        (0..3).for_each(|number| paths.refused(&home, &key(number)));
        assert_eq!(paths.prospect(&home, &key(0)), Prospect::Dead);
        assert_eq!(paths.prospect(&home, &key(9)), Prospect::Good);
    }

    #[test]
    fn without_a_way_nothing_is_remembered() {
        let (paths, nowhere) = (paths(), Networks::default());
        paths.died(&nowhere, &key(0));
        assert_eq!(paths.prospect(&nowhere, &key(0)), Prospect::Good);
        assert!(paths.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_network_is_forgotten_first() {
        let paths = paths();
        let network = |number: usize| Networks([Network(Ipv4Addr::from_bits(number as u32).into())].into());
        for number in 0..=NETWORKS_MAX {
            paths.doubt(&network(number));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(paths.lock().len(), NETWORKS_MAX);
        assert_eq!(paths.prospect(&network(0), &key(0)), Prospect::Good);
        assert_eq!(paths.prospect(&network(1), &key(0)), Prospect::Doubtful);
    }
}
