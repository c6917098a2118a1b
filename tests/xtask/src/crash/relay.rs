//! A relay on the way to a server that counts what it hands on: what a device had fetched when it was killed, and fetched again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::run::Failure;

/// Listens until the program ends.
pub struct Relay {
    /// `HOST:PORT`.
    pub address: String,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// In front of the server at `server` (`HOST:PORT`).
    pub fn start(server: &str) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
        let (server, bytes) = (server.to_owned(), Arc::new(AtomicU64::new(0)));
        let counted = bytes.clone();
        thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let (Ok(device_in), Ok(upstream_in)) = (device.try_clone(), upstream.try_clone()) else { continue };
                thread::spawn(move || hand_on(device_in, upstream, &AtomicU64::new(0)));
                let counted = counted.clone();
                thread::spawn(move || hand_on(upstream_in, device, &counted));
            }
        });
        Ok(Self { address, bytes })
    }

    /// Bytes handed on to devices since this was asked last, heads of answers included.
    pub fn taken(&self) -> u64 {
        self.bytes.swap(0, Ordering::SeqCst)
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        bytes.fetch_add(read as u64, Ordering::SeqCst);
    }
    // Either end is gone: so is the connection.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
