//! A UDP relay for one client, that a test can turn to another server, silence, or listen in on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub struct Relay {
    pub address: SocketAddr,
    to: Arc<Mutex<SocketAddr>>,
    front: Arc<UdpSocket>,
    client: Arc<Mutex<Option<SocketAddr>>>,
    back: Arc<Mutex<Arc<UdpSocket>>>,
    /// What servers say is thrown away.
    pub deaf: Arc<AtomicBool>,
    /// Where the client's datagrams go once a server has said something.
    pub then: Arc<Mutex<Option<SocketAddr>>>,
    /// All that the client sent, in order.
    pub heard: Arc<Mutex<Vec<Vec<u8>>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Relay {
    pub async fn start(to: SocketAddr) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (front, back) = (Arc::new(bind().await.unwrap()), Arc::new(bind().await.unwrap()));
        let relay = Self {
            address: front.local_addr().unwrap(),
            to: Arc::new(Mutex::new(to)),
            front,
            client: Arc::default(),
            back: Arc::new(Mutex::new(back.clone())),
            deaf: Arc::default(),
            then: Arc::default(),
            heard: Arc::default(),
            tasks: Mutex::default(),
        };
        relay.listen_to(back);
        let (front, back, to) = (relay.front.clone(), relay.back.clone(), relay.to.clone());
        let (client, heard) = (relay.client.clone(), relay.heard.clone());
        relay.tasks.lock().unwrap().push(tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
                *client.lock().unwrap() = Some(from);
                heard.lock().unwrap().push(buffer[..length].to_vec());
                let (back, to) = (back.lock().unwrap().clone(), *to.lock().unwrap());
                _ = back.send_to(&buffer[..length], to).await;
            }
        }));
        relay
    }

    fn listen_to(&self, back: Arc<UdpSocket>) {
        let (front, client, deaf) = (self.front.clone(), self.client.clone(), self.deaf.clone());
        let (direction, then) = (self.to.clone(), self.then.clone());
        self.tasks.lock().unwrap().push(tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let Ok(length) = back.recv(&mut buffer).await else { continue };
                if let Some(then) = then.lock().unwrap().take() {
                    *direction.lock().unwrap() = then;
                }
                let to = *client.lock().unwrap();
                if let (Some(to), false) = (to, deaf.load(Ordering::SeqCst)) {
                    _ = front.send_to(&buffer[..length], to).await;
                }
            }
        }));
    }

    /// From now on the client's datagrams go to this server.
    pub fn turn_to(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = server;
    }

    /// From now on the server sees another port, as after a NAT has forgotten the old one.
    pub async fn rebind(&self) {
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        *self.back.lock().unwrap() = back.clone();
        self.listen_to(back);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().iter() {
            task.abort();
        }
    }
}
