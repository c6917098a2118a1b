//! [`ServerCounters`]: what happened at the listeners, as plain atomics. Names and exporting are the caller's.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quinn::AsyncUdpSocket;

use crate::handler::Protocol;
use crate::priority::Class;

/// Counts since the start. Every field only goes up.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// QUIC connections taken.
    pub(super) quic_connections: AtomicU64,
    /// TCP connections taken on ports with TLS.
    pub(super) tls_connections: AtomicU64,
    /// TCP connections taken on ports without TLS.
    pub(super) plain_connections: AtomicU64,
    pub(super) quic_handshake_failures: AtomicU64,
    pub(super) tls_handshake_failures: AtomicU64,
    pub(super) retries: AtomicU64,
    /// Requests in early data: answered at once, and made to wait for the handshake.
    pub(super) early_answered: AtomicU64,
    pub(super) early_delayed: AtomicU64,
    /// Datagrams that arrived at another socket than their connection's, and those for which there was no room there.
    pub(crate) udp_passed_on: AtomicU64,
    pub(crate) udp_overflowed: AtomicU64,
    /// The sockets of QUIC.
    sockets: Mutex<Vec<Weak<dyn AsyncUdpSocket>>>,
    /// The port of QUIC, once it is open.
    pub(super) udp_port: AtomicU32,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_client: AtomicU64,
    pub(super) refused_draining: AtomicU64,
    /// Connections closed because their client gave up requests without end.
    pub(super) refused_resets: AtomicU64,
    /// Requests turned away, by [`Class`].
    pub(super) shed: [AtomicU64; 4],
    /// By [`Protocol`].
    pub(super) requests: [AtomicU64; 3],
}

/// One count: the name says what was counted, the label which kind of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// What was counted, such as `connections`.
    pub name: &'static str,
    /// Name of its label, such as `transport`.
    pub label: &'static str,
    /// Value of its label, such as `quic`.
    pub kind: &'static str,
    /// How often.
    pub value: u64,
}

/// How many datagrams go through the system at once at the UDP sockets; one if it takes them one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Sent together (GSO). Falls to one when the system turns out to be unable.
    pub sent_max: usize,
    /// Received together (GRO).
    pub received_max: usize,
}

impl ServerCounters {
    /// Looks at this socket, too, for as long as it is there.
    pub(crate) fn watch(&self, socket: &Arc<dyn AsyncUdpSocket>) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(socket));
    }

    /// What the worst of the UDP sockets does; nothing if there are none.
    pub fn segments(&self) -> Option<Segments> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.retain(|socket| socket.strong_count() > 0);
        let of = |socket: Arc<dyn AsyncUdpSocket>| Segments {
            sent_max: socket.max_transmit_segments(),
            received_max: socket.max_receive_segments(),
        };
        let worse = |a: Segments, b: Segments| Segments {
            sent_max: a.sent_max.min(b.sent_max),
            received_max: a.received_max.min(b.received_max),
        };
        sockets.iter().filter_map(Weak::upgrade).map(of).reduce(worse)
    }

    /// All counts, those of one name together.
    pub fn all(&self) -> Vec<Count> {
        let count = |name, label, kind, value: &AtomicU64| Count { name, label, kind, value: read(value) };
        let requests =
            |protocol: Protocol| count("requests", "protocol", protocol.name(), &self.requests[protocol as usize]);
        let shed = |class: Class| count("shed", "class", class.name(), &self.shed[class as usize]);
        vec![
            count("connections", "transport", "quic", &self.quic_connections),
            count("connections", "transport", "tls", &self.tls_connections),
            count("connections", "transport", "plain", &self.plain_connections),
            count("handshake_failures", "transport", "quic", &self.quic_handshake_failures),
            count("handshake_failures", "transport", "tls", &self.tls_handshake_failures),
            count("refused", "reason", "full", &self.refused_full),
            count("refused", "reason", "client", &self.refused_client),
            count("refused", "reason", "resets", &self.refused_resets),
            count("refused", "reason", "draining", &self.refused_draining),
            count("refused", "reason", "retry", &self.retries),
            count("early_requests", "outcome", "answered", &self.early_answered),
            count("early_requests", "outcome", "delayed", &self.early_delayed),
            count("datagrams", "fate", "passed-on", &self.udp_passed_on),
            count("datagrams", "fate", "overflowed", &self.udp_overflowed),
            Count { name: "datagrams", label: "fate", kind: "dropped-by-system", value: self.dropped_by_system() },
            requests(Protocol::Http3),
            requests(Protocol::Http2),
            requests(Protocol::Http1),
            shed(Class::Demand),
            shed(Class::ReadAhead),
            shed(Class::Background),
            shed(Class::Warm),
        ]
    }

    /// Datagrams for which the system had no room at our sockets, as far as it tells.
    fn dropped_by_system(&self) -> u64 {
        match self.udp_port.load(Ordering::Relaxed) {
            0 => 0,
            port => ["/proc/net/udp", "/proc/net/udp6"]
                .iter()
                .filter_map(|path| std::fs::read_to_string(path).ok())
                .map(|table| drops(&table, port))
                .sum(),
        }
    }

    /// One of [`Self::all`].
    pub fn get(&self, name: &str, kind: &str) -> u64 {
        self.all().iter().find(|count| count.name == name && count.kind == kind).map_or(0, |count| count.value)
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the last column of the system's table says of the sockets on `port`; the second column ends in the port, in hex.
fn drops(table: &str, port: u32) -> u64 {
    let drops = |line: &str| {
        let (_, local) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
        let ours = u32::from_str_radix(local, 16).ok()? == port;
        line.split_whitespace().last()?.parse::<u64>().ok().filter(|_| ours)
    };
    table.lines().skip(1).filter_map(drops).sum()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 0100007F:20FB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 7\n\
            2: 00000000:20FB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 5\n\
            3: 00000000:20FC 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0000000000000000 9\n";
        assert_eq!((drops(table, 0x20fb), drops(table, 1), drops("", 1)), (12, 0, 0));
    }
}
