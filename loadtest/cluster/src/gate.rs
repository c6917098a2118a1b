//! [`Gate`]: a port in front of another one of this machine, over TCP and UDP. While it is shut nothing passes in either direction:
//! datagrams are lost, bytes of streams wait, new streams lead nowhere; nobody is told.
//!
//! Deliberately absent: shaping (see the client of `colibri-transport`), and gates where no test asked for one: they cost time.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::limits::{GATE_CLIENTS_MAX, PORT_ATTEMPTS_MAX};

/// Largest datagram, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Bytes of a stream that are carried at once.
const PIECE_BYTES: usize = 16 * 1024;

/// A gate, open at first. Dropping it ends everything that passes.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shut: watch::Sender<bool>,
    _carriers: [AbortOnDropHandle<()>; 2],
}

impl Gate {
    /// Opens a gate to `target` on a free port. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// No number is free for both TCP and UDP.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let (listener, socket) = sockets()?;
        let (listener, socket) = (TcpListener::from_std(listener)?, UdpSocket::from_std(socket)?);
        let address = listener.local_addr()?;
        let (shut, is_shut) = watch::channel(false);
        let streams = tokio::spawn(carry_streams(listener, target, is_shut.clone()));
        let datagrams = tokio::spawn(carry_datagrams(Arc::new(socket), target, is_shut));
        let carriers = [AbortOnDropHandle::new(streams), AbortOnDropHandle::new(datagrams)];
        Ok(Self { address, shut, _carriers: carriers })
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shuts or opens it.
    pub fn set_shut(&self, shut: bool) {
        self.shut.send_replace(shut);
    }
}

/// A port of one number for both protocols.
fn sockets() -> io::Result<(std::net::TcpListener, std::net::UdpSocket)> {
    let mut attempt = 1;
    loop {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        match std::net::UdpSocket::bind(listener.local_addr()?) {
            Ok(socket) => {
                listener.set_nonblocking(true)?;
                socket.set_nonblocking(true)?;
                return Ok((listener, socket));
            }
            Err(error) if attempt >= PORT_ATTEMPTS_MAX => return Err(error),
            Err(_) => attempt += 1,
        }
    }
}

async fn carry_streams(listener: TcpListener, target: SocketAddr, is_shut: watch::Receiver<bool>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Without a file descriptor the next one may have more luck.
                let Ok((near, _)) = accepted else { continue };
                let is_shut = is_shut.clone();
                carried.spawn(async move { drop(carry_stream(near, target, is_shut).await) });
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

async fn carry_stream(near: TcpStream, target: SocketAddr, mut is_shut: watch::Receiver<bool>) -> io::Result<()> {
    opened(&mut is_shut).await;
    let far = TcpStream::connect(target).await?;
    _ = near.set_nodelay(true);
    _ = far.set_nodelay(true);
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(carry(near_read, far_write, is_shut.clone()), carry(far_read, near_write, is_shut.clone()))?;
    Ok(())
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut is_shut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        opened(&mut is_shut).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Completes once the gate is open.
async fn opened(is_shut: &mut watch::Receiver<bool>) {
    // The sender lives as long as this task.
    _ = is_shut.wait_for(|shut| !shut).await;
}

/// Each client gets a socket of its own towards the target, as behind a router.
async fn carry_datagrams(socket: Arc<UdpSocket>, target: SocketAddr, is_shut: watch::Receiver<bool>) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // News that an earlier datagram met nobody.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if *is_shut.borrow() {
            continue;
        }
        let towards = match clients.get(&client) {
            Some(towards) => towards.clone(),
            None if clients.len() >= GATE_CLIENTS_MAX => continue,
            None => {
                let Ok(towards) = connected(target).await else { continue };
                let towards = Arc::new(towards);
                clients.insert(client, towards.clone());
                answers.spawn(carry_back(towards.clone(), socket.clone(), client, is_shut.clone()));
                towards
            }
        };
        // A target that is gone is one that does not answer.
        drop(towards.send(&buffer[..length]).await);
    }
}

async fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn carry_back(from: Arc<UdpSocket>, to: Arc<UdpSocket>, client: SocketAddr, is_shut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 2_048];
    loop {
        let Ok(length) = from.recv(&mut buffer).await else { continue };
        if !*is_shut.borrow() {
            drop(to.send_to(&buffer[..length], client).await);
        }
    }
}
