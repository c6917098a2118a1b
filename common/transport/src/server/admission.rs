//! `Admission`: how much one client, and all together, may have at a time and per second.
//!
//! A client is an IPv4 address or an IPv6 /64. Of every bound a part is kept free for what is more important
//! ([`Class`]), so that the least important is turned away first.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use crate::body::{Body, PieceStream};
use crate::error::BodyError;
use crate::limits::CLIENTS_MAX;
use crate::priority::Class;

/// Bounds on what all clients together, or one of them, may have. Zero stands for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShareLimits {
    /// Requests at a time.
    pub requests_max: usize,
    /// Requests per second; a burst may have one second's worth.
    pub requests_per_s: u64,
    /// Body bytes of answers per second; more is sent later, not refused.
    pub bytes_per_s: u64,
}

/// A rate (the virtual scheduling algorithm of ITU-T I.371): one atomic number says when all that was taken is paid off.
pub(super) struct Bucket {
    /// Zero for no bound.
    per_s: AtomicU64,
    start: Instant,
    paid_ns: AtomicU64,
}

impl Bucket {
    pub(super) fn new(per_s: u64) -> Self {
        Self { per_s: AtomicU64::new(per_s), start: Instant::now(), paid_ns: AtomicU64::new(0) }
    }

    /// The rate as it is now, unless there is none.
    fn rate(&self) -> Option<Rate> {
        let per_s = self.per_s.load(Ordering::Relaxed);
        (per_s > 0).then_some(Rate(per_s))
    }

    /// Has this rate hold from now on. What was taken is paid off in no longer than it would have been.
    fn set(&self, per_s: u64) {
        let before = self.per_s.swap(per_s, Ordering::Relaxed);
        if per_s > before {
            let now = self.now_ns();
            let share = |debt: u64| (u128::from(debt) * u128::from(before) / u128::from(per_s)) as u64;
            let settle = |paid: u64| Some(now + share(paid.saturating_sub(now)));
            _ = self.paid_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, settle);
        }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Takes one if it is there with `reserve_percent` of the burst left, else says when it will be.
    pub(super) fn take(&self, reserve_percent: u64) -> Result<(), Duration> {
        let Some(rate) = self.rate() else { return Ok(()) };
        let (now, cost) = (self.now_ns(), rate.cost_ns(1));
        let allowed_ns = rate.burst_ns() / 100 * (100 - reserve_percent);
        let mut paid = self.paid_ns.load(Ordering::Relaxed);
        loop {
            let next = paid.max(now) + cost;
            if next - now > allowed_ns {
                return Err(Duration::from_nanos(next - now - allowed_ns));
            }
            match self.paid_ns.compare_exchange_weak(paid, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => paid = other,
            }
        }
    }

    /// Takes so many in any case, and says how long to wait so that the rate is held.
    fn pace(&self, amount: u64) -> Duration {
        let Some(rate) = self.rate() else { return Duration::ZERO };
        let (now, cost) = (self.now_ns(), rate.cost_ns(amount));
        let paid = self.paid_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(paid.max(now) + cost));
        let next = paid.unwrap_or(now).max(now) + cost;
        Duration::from_nanos((next - now).saturating_sub(rate.burst_ns()))
    }

    fn is_full(&self) -> bool {
        self.paid_ns.load(Ordering::Relaxed) <= self.now_ns()
    }
}

/// So many a second; not zero.
#[derive(Clone, Copy)]
struct Rate(u64);

impl Rate {
    fn cost_ns(self, amount: u64) -> u64 {
        (u128::from(amount) * 1_000_000_000 / u128::from(self.0)) as u64
    }

    /// A second's worth. With slow rates four pieces at once: else nothing could be kept free for the more important.
    fn burst_ns(self) -> u64 {
        1_000_000_000u64.max(4_000_000_000 / self.0)
    }
}

/// What one client, or all together, have.
struct Share {
    connections: AtomicUsize,
    requests: AtomicUsize,
    requests_max: AtomicUsize,
    request_rate: Bucket,
    byte_rate: Bucket,
}

impl Share {
    fn new(limits: ShareLimits) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            requests_max: AtomicUsize::new(limits.requests_max),
            request_rate: Bucket::new(limits.requests_per_s),
            byte_rate: Bucket::new(limits.bytes_per_s),
        })
    }

    fn set(&self, limits: ShareLimits) {
        self.requests_max.store(limits.requests_max, Ordering::Relaxed);
        self.request_rate.set(limits.requests_per_s);
        self.byte_rate.set(limits.bytes_per_s);
    }

    /// One request more, if there is room for one of this class.
    fn enter(self: &Arc<Self>, class: Class) -> Result<InFlight, Duration> {
        let guard = InFlight(self.clone());
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let requests_max = self.requests_max.load(Ordering::Relaxed);
        let room = requests_max.saturating_mul(100 - class.reserve_percent() as usize) / 100;
        if requests_max > 0 && before >= room.max(1) {
            return Err(RETRY_SOON);
        }
        self.request_rate.take(class.reserve_percent())?;
        Ok(guard)
    }

    /// Nothing that is under way or was taken would be forgotten with it.
    fn is_idle(&self) -> bool {
        self.connections.load(Ordering::Relaxed) == 0
            && self.requests.load(Ordering::Relaxed) == 0
            && self.request_rate.is_full()
            && self.byte_rate.is_full()
    }
}

/// When to ask again where nothing better is known.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// One request under way.
struct InFlight(Arc<Share>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bounds of one server and what is used of them.
pub(super) struct Admission {
    all: Arc<Share>,
    client_connections_max: AtomicUsize,
    clients: Mutex<Clients>,
}

/// Who is known, and what each of them, and whoever comes, may have.
struct Clients {
    limits: ShareLimits,
    known: HashMap<IpAddr, Arc<Share>>,
}

impl Admission {
    pub(super) fn new(total: ShareLimits, client: ShareLimits, client_connections_max: usize) -> Self {
        let clients = Mutex::new(Clients { limits: client, known: HashMap::new() });
        Self { all: Share::new(total), client_connections_max: AtomicUsize::new(client_connections_max), clients }
    }

    /// Has these limits hold from now on, for those that are here too.
    pub(super) fn set(&self, total: ShareLimits, client: ShareLimits, client_connections_max: usize) {
        self.all.set(total);
        self.client_connections_max.store(client_connections_max, Ordering::Relaxed);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.limits = client;
        clients.known.values().for_each(|share| share.set(client));
    }

    /// A connection from this address, if its client may have one more.
    pub(super) fn connection(&self, peer: SocketAddr) -> Option<Seat> {
        let client = self.client(peer);
        let seat = Seat { all: self.all.clone(), client };
        let before = seat.client.connections.fetch_add(1, Ordering::Relaxed);
        let max = self.client_connections_max.load(Ordering::Relaxed);
        (max == 0 || before < max).then_some(seat)
    }

    fn client(&self, peer: SocketAddr) -> Arc<Share> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = client_of(peer.ip());
        if let Some(share) = clients.known.get(&key) {
            return share.clone();
        }
        if clients.known.len() >= CLIENTS_MAX {
            clients.known.retain(|_, share| !share.is_idle());
        }
        let share = Share::new(clients.limits);
        // Beyond the bound a client is counted by connection alone, with the limits of when it came.
        if clients.known.len() < CLIENTS_MAX {
            clients.known.insert(key, share.clone());
        }
        share
    }
}

/// IPv4 addresses stand for themselves, IPv6 addresses for their /64: whoever has one address there has them all.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// One connection's place.
pub(super) struct Seat {
    all: Arc<Share>,
    client: Arc<Share>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.client.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// One more request of this class, or when to try again.
    pub(super) fn request(&self, class: Class) -> Result<Admitted, Duration> {
        let client = self.client.enter(class)?;
        Ok(Admitted { _client: client, _all: self.all.enter(class)? })
    }

    /// The same body, sent no faster than the rates allow, and `admitted` let go with it.
    pub(super) fn metered(&self, body: Body, admitted: Admitted) -> Body {
        let shares = [&self.client, &self.all];
        let paced = shares.iter().any(|share| share.byte_rate.rate().is_some());
        let counted = shares.iter().any(|share| share.requests_max.load(Ordering::Relaxed) > 0);
        if http_body::Body::is_end_stream(&body) || !(paced || counted) {
            return body;
        }
        let length = body.exact_length();
        let shares = shares.map(Arc::clone);
        let metered = Metered { body: body.in_pieces(), shares, wait: None, _admitted: admitted };
        Body::stream(Box::pin(metered)).expecting(length)
    }
}

/// A request that was let in.
pub(super) struct Admitted {
    _client: InFlight,
    _all: InFlight,
}

struct Metered {
    body: Body,
    shares: [Arc<Share>; 2],
    wait: Option<Pin<Box<Sleep>>>,
    _admitted: Admitted,
}

impl PieceStream for Metered {
    fn poll_piece(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(wait) = &mut self.wait {
            ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        let piece = ready!(self.body.poll_next(cx));
        if let Some(Ok(piece)) = &piece {
            let pace = |share: &Arc<Share>| share.byte_rate.pace(piece.len() as u64);
            let wait = self.shares.iter().map(pace).max().unwrap_or_default();
            self.wait = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
        }
        Poll::Ready(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_held_and_its_burst_is_one_second() {
        let bucket = Bucket::new(100);
        let taken = |reserve| std::iter::from_fn(|| bucket.take(reserve).ok()).take(1000).count();
        assert_eq!((taken(50), taken(0), taken(0)), (50, 50, 0));
        let wait = bucket.take(0).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(10), "{wait:?}");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(taken(0), 10);
        let slow = Bucket::new(1);
        assert!(slow.take(50).is_ok(), "slow rates leave room for what is least important");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_paced() {
        let bucket = Bucket::new(1_000_000);
        assert_eq!(bucket.pace(1_000_000), Duration::ZERO);
        assert_eq!(bucket.pace(500_000), Duration::from_millis(500));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(bucket.pace(1_000_000), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_least_important_is_turned_away_first() {
        let limits = ShareLimits { requests_max: 20, ..ShareLimits::default() };
        let admission = Admission::new(limits, ShareLimits::default(), 0);
        let seat = admission.connection(([127, 0, 0, 1], 1).into()).unwrap();
        let mut under_way = Vec::new();
        let mut order = Vec::new();
        for count in 0..=20 {
            for class in Class::ALL {
                if seat.request(class).is_err() && !order.iter().any(|(known, _)| *known == class) {
                    order.push((class, count));
                }
            }
            under_way.extend(seat.request(Class::Demand));
        }
        assert_eq!(order, [(Class::Warm, 10), (Class::Background, 14), (Class::ReadAhead, 17), (Class::Demand, 20)]);
        under_way.clear();
        assert!(seat.request(Class::Warm).is_ok());
    }

    #[tokio::test]
    async fn clients_are_told_apart_and_do_not_pile_up() {
        let admission = Admission::new(ShareLimits::default(), ShareLimits::default(), 1);
        let seat = |address: &str| admission.connection(SocketAddr::new(address.parse().unwrap(), 7));
        let first = seat("2001:db8::1");
        assert!(first.is_some() && seat("2001:db8::ffff:2").is_none(), "the same /64");
        assert!(seat("2001:db8:0:1::1").is_some());
        let mapped = seat("192.0.2.1");
        assert!(mapped.is_some() && seat("::ffff:192.0.2.1").is_none(), "the same IPv4 address");
        drop(first);
        assert!(seat("2001:db8::1").is_some());
        for number in 0..CLIENTS_MAX as u32 + 100 {
            drop(admission.connection(SocketAddr::new(std::net::Ipv4Addr::from(number).into(), 7)));
        }
        assert!(admission.clients.lock().unwrap().known.len() <= CLIENTS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_change_for_those_who_are_here_already() {
        let none = ShareLimits::default();
        let admission = Admission::new(none, none, 1);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let seat = admission.connection(address).unwrap();
        let free = |seat: &Seat| std::iter::from_fn(|| seat.request(Class::Demand).ok()).take(100).count();
        assert_eq!(free(&seat), 100);
        admission.set(none, ShareLimits { requests_per_s: 10, ..none }, 2);
        assert_eq!(free(&seat), 10);
        let second = admission.connection(address).expect("one more");
        assert!(free(&second) == 0 && admission.connection(address).is_none(), "they are one client");
        admission.set(none, ShareLimits { requests_per_s: 1000, ..none }, 1);
        assert_eq!(free(&seat), 100, "a second's debt is a hundredth of one now, and there is room for more");
        admission.set(ShareLimits { requests_max: 1, ..none }, none, 0);
        let one = seat.request(Class::Demand);
        assert!(one.is_ok() && second.request(Class::Demand).is_err(), "of all together");
        admission.set(none, none, 0);
        assert!(second.request(Class::Demand).is_ok() && admission.connection(address).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_is_not_paid_off_for_hours_once_it_is_raised() {
        let bucket = Bucket::new(1);
        assert!(bucket.pace(1_000_000) > Duration::from_secs(900_000));
        bucket.set(1_000_000);
        assert!(bucket.pace(0) <= Duration::from_secs(1), "{:?}", bucket.pace(0));
        bucket.set(0);
        assert!(bucket.pace(1_000_000).is_zero() && bucket.take(0).is_ok());
        bucket.set(1);
        assert!(bucket.take(0).is_ok(), "what was taken without a rate is not owed");
    }
}
