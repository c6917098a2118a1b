//! A TCP connection behind a [`super::Link`]: its bytes take their time in both directions. Nothing of it is lost.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use super::{Direction, Ends};

/// Bytes that are taken as one piece.
const PIECE_BYTES: usize = 4_096;

/// The device's end of `stream` behind the link. The task in between ends when either end is gone.
pub(in crate::client) fn over(stream: TcpStream, ends: Arc<Ends>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIECE_BYTES);
    tokio::spawn(async move {
        let (from_device, to_device) = tokio::io::split(far);
        let (from_server, to_server) = stream.into_split();
        let link = *ends.link();
        let up = carry(from_device, to_server, &ends, Ends::up, link.up_bits_per_s);
        let down = carry(from_server, to_device, &ends, Ends::down, link.down_bits_per_s);
        let ended = tokio::select! {
            up = up => up,
            // A server that ended its side may still be sent to, until the device is gone, too.
            down = async { match down.await { Ok(()) => std::future::pending().await, error => error } } => down,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a TCP connection behind a link ended");
        }
    });
    near
}

/// Carries bytes one way until their source ends, and then ends the other side.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ends: &Ends,
    way: fn(&Ends) -> MutexGuard<'_, Direction>,
    bits_per_s: u64,
) -> io::Result<()> {
    let held_max = ends.held_bytes_max(bits_per_s);
    let (mut held, mut held_bytes, mut has_ended) = (VecDeque::<(u64, Vec<u8>)>::new(), 0, false);
    let mut buffer = vec![0; PIECE_BYTES];
    while !(has_ended && held.is_empty()) {
        let due = held.front().map(|(at_ns, _)| ends.start + Duration::from_nanos(*at_ns));
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(due.unwrap_or(ends.start)), if due.is_some() => {
                if let Some((_, piece)) = held.pop_front() {
                    held_bytes -= piece.len();
                    to.write_all(&piece).await?;
                }
            }
            read = from.read(&mut buffer), if !has_ended && held_bytes < held_max => {
                let length = read?;
                has_ended = length == 0;
                if length > 0 {
                    let at_ns = way(ends).carry(ends.now_ns(), length as u64);
                    held.push_back((at_ns, buffer[..length].to_vec()));
                    held_bytes += length;
                }
            }
        }
    }
    to.shutdown().await
}
