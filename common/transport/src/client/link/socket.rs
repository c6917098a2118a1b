//! [`LinkSocket`]: a UDP socket behind a [`super::Link`]. What is sent and what arrives waits here for its time.
//!
//! Everything happens when the endpoint's own task looks for datagrams: no task and no thread of its own. Batches of datagrams
//! are taken apart before any of them is delayed or lost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Sleep;

use super::Ends;
use crate::quic::socket;

/// Largest datagram that is taken, bytes: QUIC here agrees on less.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams taken from the system before others get their turn.
const TAKEN_AT_ONCE_MAX: usize = 64;

/// Datagrams that QUIC may hand over at once.
const BATCH_MAX: usize = 10;

/// A datagram on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at_ns: u64,
    number: u64,
    peer: SocketAddr,
    content: Vec<u8>,
}

/// Datagrams of one direction, the next one first.
#[derive(Debug, Default)]
struct Waiting {
    waiting: BinaryHeap<Reverse<Held>>,
    bytes: usize,
    number: u64,
}

impl Waiting {
    fn push(&mut self, at_ns: u64, peer: SocketAddr, content: &[u8]) {
        self.bytes += content.len();
        self.number += 1;
        self.waiting.push(Reverse(Held { at_ns, number: self.number, peer, content: content.to_vec() }));
    }

    fn next_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse(held)| held.at_ns)
    }

    fn pop(&mut self) {
        if let Some(Reverse(held)) = self.waiting.pop() {
            self.bytes -= held.content.len();
        }
    }
}

struct State {
    socket: UdpSocket,
    leaving: Waiting,
    arriving: Waiting,
    rebind_at_ns: Option<u64>,
    timer: Pin<Box<Sleep>>,
    /// The endpoint's task.
    reader: Option<Waker>,
}

/// A socket behind a link.
pub(in crate::client) struct LinkSocket {
    ends: Arc<Ends>,
    any: SocketAddr,
    state: Mutex<State>,
}

impl std::fmt::Debug for LinkSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkSocket").field("link", self.ends.link()).finish_non_exhaustive()
    }
}

impl LinkSocket {
    /// A socket bound to `any` address of its family. Must be called inside a tokio runtime.
    pub(in crate::client) fn bind(any: SocketAddr, ends: Arc<Ends>) -> io::Result<Arc<Self>> {
        let state = State {
            socket: UdpSocket::from_std(socket::bind(any)?)?,
            leaving: Waiting::default(),
            arriving: Waiting::default(),
            rebind_at_ns: ends.next_rebind_ns(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            reader: None,
        };
        Ok(Arc::new(Self { ends, any, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a router that forgot: the next datagram comes from another port, and what is sent to the old one is lost.
    fn rebind(&self, state: &mut State, now_ns: u64) {
        if state.rebind_at_ns.is_none_or(|at_ns| at_ns > now_ns) {
            return;
        }
        state.rebind_at_ns = self.ends.next_rebind_ns();
        match socket::bind(self.any).and_then(UdpSocket::from_std) {
            Ok(socket) => state.socket = socket,
            Err(error) => tracing::debug!(%error, "no other socket: the address stays"),
        }
    }

    /// Takes what the system received; true if there may be more.
    fn take(&self, state: &mut State, cx: &mut Context<'_>) -> bool {
        let mut storage = [0; DATAGRAM_BYTES_MAX];
        let bytes_max = self.ends.held_bytes_max(self.ends.link().down_bits_per_s);
        for _ in 0..TAKEN_AT_ONCE_MAX {
            let mut buffer = ReadBuf::new(&mut storage);
            match state.socket.poll_recv_from(cx, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Ok(peer)) => {
                    let content = buffer.filled();
                    let at_ns = self.ends.down().pass(self.ends.now_ns(), content.len() as u64);
                    if let Some(at_ns) = at_ns.filter(|_| state.arriving.bytes + content.len() <= bytes_max) {
                        state.arriving.push(at_ns, peer, content);
                    }
                }
                // News of earlier datagrams that nobody took: QUIC finds out by itself.
                Poll::Ready(Err(error)) => tracing::trace!(%error, "UDP"),
            }
        }
        true
    }

    /// Sends what has reached the other end.
    fn send(&self, state: &mut State, cx: &mut Context<'_>, now_ns: u64) {
        while let Some(Reverse(held)) = state.leaving.waiting.peek().filter(|Reverse(held)| held.at_ns <= now_ns) {
            match state.socket.poll_send_to(cx, &held.content, held.peer) {
                Poll::Pending => return,
                Poll::Ready(sent) => {
                    if let Err(error) = sent {
                        tracing::trace!(%error, "UDP");
                    }
                    state.leaving.pop();
                }
            }
        }
    }

    /// Hands over what has arrived.
    fn deliver(state: &mut State, now_ns: u64, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut delivered = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let next = state.arriving.waiting.peek();
            let Some(Reverse(held)) = next.filter(|Reverse(held)| held.at_ns <= now_ns) else { break };
            // Every buffer holds the largest datagram that was agreed on.
            let length = held.content.len().min(buffer.len());
            buffer[..length].copy_from_slice(&held.content[..length]);
            *meta = RecvMeta { addr: held.peer, len: length, stride: length, ecn: None, dst_ip: None };
            state.arriving.pop();
            delivered += 1;
        }
        delivered
    }
}

impl AsyncUdpSocket for LinkSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (mut state, now_ns) = (self.lock(), self.ends.now_ns());
        let bytes_max = self.ends.held_bytes_max(self.ends.link().up_bits_per_s);
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for content in transmit.contents.chunks(segment) {
            let at_ns = self.ends.up().pass(now_ns, content.len() as u64);
            if let Some(at_ns) = at_ns.filter(|_| state.leaving.bytes + content.len() <= bytes_max) {
                state.leaving.push(at_ns, transmit.destination, content);
            }
        }
        // The timer may be set for later than what came now.
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.lock();
        state.reader = Some(cx.waker().clone());
        loop {
            let now_ns = self.ends.now_ns();
            self.rebind(state, now_ns);
            let may_be_more = self.take(state, cx);
            self.send(state, cx, now_ns);
            let delivered = Self::deliver(state, now_ns, buffers, metas);
            if may_be_more {
                cx.waker().wake_by_ref();
            }
            if delivered > 0 {
                return Poll::Ready(Ok(delivered));
            }
            // What is due and could not be sent waits for the system, not for the timer.
            let leaving = state.leaving.next_ns().filter(|at_ns| *at_ns > now_ns);
            let next = [leaving, state.arriving.next_ns(), state.rebind_at_ns].into_iter().flatten().min();
            let Some(next_ns) = next.filter(|_| !may_be_more) else { return Poll::Pending };
            state.timer.as_mut().reset(self.ends.start + Duration::from_nanos(next_ns));
            if state.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.lock().socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        BATCH_MAX
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// What cannot be sent is lost on the link: there is always room to try.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Link;
    use super::*;

    const LINK: Link = Link {
        down_bits_per_s: 8_000_000,
        up_bits_per_s: 8_000_000,
        delay_us: 1_000,
        jitter_us: 0,
        loss_ppm: 0,
        loss_run: 1,
        reorder_ppm: 0,
        queue_us: 1_000_000,
        rebind_us: 0,
    };

    fn batch(contents: &[u8]) -> Transmit<'_> {
        let destination = ([127, 0, 0, 1], 9).into();
        Transmit { destination, ecn: None, contents, segment_size: Some(1_000), src_ip: None }
    }

    #[tokio::test]
    async fn batches_are_taken_apart_before_they_are_delayed_or_lost() {
        let any = ([127, 0, 0, 1], 0).into();
        let socket = LinkSocket::bind(any, Ends::new(LINK, 1)).unwrap();
        socket.try_send(&batch(&[7; 4_500])).unwrap();
        let leaving: Vec<_> = std::mem::take(&mut socket.lock().leaving.waiting).into_sorted_vec();
        let mut leaving: Vec<_> = leaving.into_iter().map(|Reverse(held)| (held.at_ns, held.content.len())).collect();
        leaving.sort_unstable();
        let lengths: Vec<_> = leaving.iter().map(|(_, length)| *length).collect();
        assert_eq!(lengths, [1_000, 1_000, 1_000, 1_000, 500]);
        let gaps: Vec<_> = leaving.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!(gaps, [1_028_000, 1_028_000, 1_028_000, 528_000], "each takes its own time");
        let lossy = Link { loss_ppm: 300_000, ..LINK };
        let socket = LinkSocket::bind(any, Ends::new(lossy, 1)).unwrap();
        (0..20).for_each(|_| socket.try_send(&batch(&[7; 10_000])).unwrap());
        let left = socket.lock().leaving.waiting.len();
        assert!(
            (100..180).contains(&left) && !left.is_multiple_of(10),
            "{left} of 200: datagrams are lost, not batches"
        );
    }

    #[tokio::test]
    async fn the_address_changes_and_the_way_goes_on() {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let link = Link { rebind_us: 20_000, down_bits_per_s: 1 << 30, up_bits_per_s: 1 << 30, ..LINK };
        let socket = LinkSocket::bind(([127, 0, 0, 1], 0).into(), Ends::new(link, 1)).unwrap();
        let (destination, mut ports) = (peer.local_addr().unwrap(), std::collections::HashSet::new());
        let mut received = [0; 100];
        while ports.len() < 4 {
            let transmit = Transmit { destination, ecn: None, contents: b"there", segment_size: None, src_ip: None };
            socket.try_send(&transmit).unwrap();
            let mut storage = [0; 100];
            let (mut buffers, mut metas) = ([IoSliceMut::new(&mut storage)], [RecvMeta::default()]);
            // The endpoint's task looks for datagrams, and what was sent goes out meanwhile.
            let looking = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut metas));
            let come = tokio::select! {
                come = peer.recv_from(&mut received) => come.unwrap(),
                delivered = looking => panic!("nobody sent anything: {delivered:?}"),
            };
            assert_eq!(&received[..come.0], b"there");
            ports.insert(come.1.port());
            peer.send_to(b"back", come.1).await.unwrap();
            let mut storage = [0; 100];
            let (mut buffers, mut metas) = ([IoSliceMut::new(&mut storage)], [RecvMeta::default()]);
            let looking = std::future::poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut metas));
            // What was sent to the old address is lost.
            if tokio::time::timeout(Duration::from_millis(100), looking).await.is_ok() {
                assert_eq!((metas[0].len, metas[0].addr), (4, destination));
            }
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let socket = LinkSocket::bind(([127, 0, 0, 1], 0).into(), Ends::new(LINK, 1)).unwrap();
        (0..2_000).for_each(|_| socket.try_send(&batch(&[7; 10_000])).unwrap());
        let state = socket.lock();
        // A second of the rate, and its delay.
        assert!((900_000..1_200_000).contains(&state.leaving.bytes), "{} bytes wait", state.leaving.bytes);
        assert!(state.leaving.bytes <= socket.ends.held_bytes_max(LINK.up_bits_per_s));
    }
}
