//! Several UDP sockets on one port, each with an endpoint of its own, and each datagram brought to the endpoint that knows its
//! connection.
//!
//! The system spreads datagrams over the sockets, by connection id where [`super::filter`] could be attached, else by addresses
//! and ports. Where a client's address changes its datagrams may then arrive at another socket; their connection id says where
//! they belong, and they are passed on through a bounded queue.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::keys::ID_BYTES;
use crate::limits::PASSED_ON_MAX;
use crate::server::counters::{ServerCounters, count};

/// First bit of long headers (RFC 8999 §5.1).
pub(super) const LONG_HEADER: u8 = 0x80;

/// Datagrams that arrived at another socket.
#[derive(Default)]
struct Inbox {
    waiting: VecDeque<(RecvMeta, Vec<u8>)>,
    reader: Option<Waker>,
}

/// What the sockets of one port share.
pub(crate) struct Steering {
    inboxes: Vec<Mutex<Inbox>>,
    counters: Arc<ServerCounters>,
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steering").field("sockets", &self.inboxes.len()).finish_non_exhaustive()
    }
}

impl Steering {
    pub(crate) fn new(sockets: usize, counters: Arc<ServerCounters>) -> Arc<Self> {
        let inboxes = (0..sockets).map(|_| Mutex::default()).collect();
        Arc::new(Self { inboxes, counters })
    }

    /// The socket at which a datagram belongs, where its first bytes say so: only short headers carry nothing but an id that
    /// this server chose. What is older comes from an address that has not changed.
    fn home(&self, datagram: &[u8]) -> Option<usize> {
        let (first, rest) = datagram.split_first()?;
        let index = usize::from(*rest.first()?);
        (first & LONG_HEADER == 0 && rest.len() >= ID_BYTES && index < self.inboxes.len()).then_some(index)
    }

    fn pass_on(&self, home: usize, meta: &RecvMeta, datagram: &[u8]) {
        let mut inbox = self.inboxes[home].lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.waiting.len() >= PASSED_ON_MAX {
            // As a full socket does; the sender repeats.
            count(&self.counters.udp_overflowed);
            return;
        }
        let meta = RecvMeta { len: datagram.len(), stride: datagram.len(), ..*meta };
        inbox.waiting.push_back((meta, datagram.to_vec()));
        count(&self.counters.udp_passed_on);
        if let Some(reader) = inbox.reader.take() {
            reader.wake();
        }
    }
}

/// One of the sockets.
#[derive(Debug)]
pub(crate) struct Steered {
    socket: Arc<dyn AsyncUdpSocket>,
    index: usize,
    steering: Arc<Steering>,
}

impl Steered {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, index: usize, steering: Arc<Steering>) -> Arc<Self> {
        Arc::new(Self { socket, index, steering })
    }

    /// What others passed on; leaves `reader` there to be woken if that is nothing.
    fn passed_on(&self, reader: &Waker, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut inbox = self.steering.inboxes[self.index].lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let Some((datagram_meta, datagram)) = inbox.waiting.pop_front() else { break };
            // Every buffer holds the largest datagram that any socket takes.
            let length = datagram.len().min(buffer.len());
            buffer[..length].copy_from_slice(&datagram[..length]);
            *meta = RecvMeta { len: length, stride: length, ..datagram_meta };
            taken += 1;
        }
        if taken == 0 {
            inbox.reader = Some(reader.clone());
        }
        taken
    }

    /// Takes what belongs elsewhere out of one received buffer, which may hold several datagrams.
    fn sort_out(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let belongs_elsewhere = |datagram: &[u8]| self.steering.home(datagram).filter(|home| *home != self.index);
        let length = meta.len.min(buffer.len());
        if buffer[..length].chunks(stride).all(|datagram| belongs_elsewhere(datagram).is_none()) {
            return;
        }
        let (mut from, mut kept) = (0, 0);
        while from < length {
            let end = (from + stride).min(length);
            match belongs_elsewhere(&buffer[from..end]) {
                Some(home) => self.steering.pass_on(home, meta, &buffer[from..end]),
                None => {
                    buffer.copy_within(from..end, kept);
                    kept += end - from;
                }
            }
            from = end;
        }
        meta.len = kept;
    }
}

impl AsyncUdpSocket for Steered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let taken = self.passed_on(cx.waker(), buffers, metas);
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        let received = self.socket.poll_recv(cx, buffers, metas);
        if let Poll::Ready(Ok(count)) = received {
            // An emptied buffer has no length, and QUIC passes over it.
            for (buffer, meta) in buffers.iter_mut().zip(metas).take(count) {
                self.sort_out(buffer, meta);
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Silent;

    impl AsyncUdpSocket for Silent {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }

        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
    }

    /// Datagrams passed on, and those that were dropped because their queue was full.
    fn counts(steering: &Steering) -> (u64, u64) {
        (steering.counters.get("datagrams", "passed-on"), steering.counters.get("datagrams", "overflowed"))
    }

    /// A datagram with a short header to the socket `index`, told apart by `mark`.
    fn short(index: u8, mark: u8, length: usize) -> Vec<u8> {
        let mut datagram = vec![mark; length];
        (datagram[0], datagram[1]) = (0x40, index);
        datagram
    }

    #[test]
    fn datagrams_find_their_socket_and_the_others_stay_whole() {
        let steering = Steering::new(3, Arc::default());
        let sockets: Vec<_> = (0..3).map(|index| Steered::new(Arc::new(Silent), index, steering.clone())).collect();
        let mut long = short(2, 9, 20);
        long[0] = 0xc0;
        // Received at socket 1 as one buffer: own, foreign, long header, unknown index, foreign, and a shorter last one.
        let parts = [short(1, 1, 20), short(2, 2, 20), long.clone(), short(9, 3, 20), short(0, 4, 20), short(1, 5, 15)];
        let mut buffer = parts.concat();
        let mut meta = RecvMeta { len: buffer.len(), stride: 20, ..RecvMeta::default() };
        sockets[1].sort_out(&mut buffer, &mut meta);
        let kept = [short(1, 1, 20), long, short(9, 3, 20), short(1, 5, 15)].concat();
        assert_eq!(buffer[..meta.len], kept);
        assert_eq!(counts(&steering), (2, 0));
        for (index, expected) in [(2, short(2, 2, 20)), (0, short(0, 4, 20))] {
            let (mut storage, mut metas) = ([0; 64], [RecvMeta::default(); 1]);
            let mut cx = Context::from_waker(Waker::noop());
            let taken = sockets[index].poll_recv(&mut cx, &mut [IoSliceMut::new(&mut storage)], &mut metas);
            assert!(matches!(taken, Poll::Ready(Ok(1))));
            assert_eq!(storage[..metas[0].len], expected);
            let again = sockets[index].poll_recv(&mut cx, &mut [IoSliceMut::new(&mut storage)], &mut metas);
            assert!(again.is_pending());
        }
    }

    #[test]
    fn queues_are_bounded_and_nothing_short_or_empty_confuses() {
        let steering = Steering::new(2, Arc::default());
        let socket = Steered::new(Arc::new(Silent), 0, steering.clone());
        for number in 0..PASSED_ON_MAX + 5 {
            let mut buffer = short(1, number as u8, 30);
            let mut meta = RecvMeta { len: 30, stride: 30, ..RecvMeta::default() };
            socket.sort_out(&mut buffer, &mut meta);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(counts(&steering), (PASSED_ON_MAX as u64, 5));
        for datagram in [&[][..], &[0x40], &[0x40, 1], &[0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]] {
            let mut buffer = datagram.to_vec();
            let mut meta = RecvMeta { len: buffer.len(), stride: buffer.len(), ..RecvMeta::default() };
            socket.sort_out(&mut buffer, &mut meta);
            assert_eq!(meta.len, if datagram.len() > ID_BYTES { 0 } else { datagram.len() }, "{datagram:?}");
        }
    }
}
