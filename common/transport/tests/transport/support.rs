//! Servers and clients for the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::{
    Body, Client, ClientConfig, ClientError, Handler, Protocol, Request, Response, Server, ServerConfig,
    ServerCounters, ServerLimits, ServerTls, TlsHandle, handler,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A protocol and the server and client settings that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Http3,
    Http2,
    PlainHttp1,
}

pub const WAYS: [Way; 3] = [Way::Http3, Way::Http2, Way::PlainHttp1];

impl Way {
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Http3 => Protocol::Http3,
            Self::Http2 => Protocol::Http2,
            Self::PlainHttp1 => Protocol::Http1,
        }
    }

    pub fn server_config(self) -> ServerConfig {
        let limits = ServerLimits { request_body_bytes_max: 64 << 20, ..ServerLimits::default() };
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        match self {
            Self::PlainHttp1 => ServerConfig { limits, ..ServerConfig::plain(address) },
            Self::Http2 | Self::Http3 => ServerConfig { limits, ..ServerConfig::secure(address, identity()) },
        }
    }

    pub fn client_config(self) -> ClientConfig {
        // A generous head start: on a busy machine HTTP/3 must win where the test is about HTTP/3.
        let http3_head_start = Duration::from_secs(5);
        ClientConfig {
            http3: self == Self::Http3,
            http3_head_start,
            connect_timeout: Duration::from_secs(20),
            ..ClientConfig::default()
        }
    }

    pub fn client(self) -> Client {
        Client::new(self.client_config()).unwrap()
    }

    pub fn url(self, address: SocketAddr, path: &str) -> String {
        let scheme = if self == Self::PlainHttp1 { "http" } else { "https" };
        format!("{scheme}://{address}{path}")
    }
}

pub fn identity() -> ServerTls {
    ServerTls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

/// A server that runs until dropped.
pub struct Running {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub tls: Option<TlsHandle>,
    pub counters: Arc<ServerCounters>,
    pub task: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(config: ServerConfig, handler: Handler) -> Self {
        let counters = config.counters.clone();
        let server = Server::bind(config, handler).unwrap();
        let tls = server.tls();
        let (address, stop) = (server.address(), CancellationToken::new());
        let task = tokio::spawn(server.serve(stop.clone(), Duration::from_secs(30)));
        Self { address, stop, tls, counters, task: Some(task) }
    }

    pub fn way(way: Way, handler: Handler) -> Self {
        Self::start(way.server_config(), handler)
    }

    /// Drains and waits for the end.
    pub async fn stopped(mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

pub fn get(url: &str) -> http::Request<Body> {
    http::Request::get(url).body(Body::empty()).unwrap()
}

pub fn respond(body: Body) -> Response {
    http::Response::new(body)
}

/// Answers every request with this text.
pub fn says(text: &'static str) -> Handler {
    handler(move |_request: Request| async move { respond(Body::full(text)) })
}

pub async fn fetch(client: &Client, url: &str) -> Result<Bytes, ClientError> {
    let response = client.send(get(url)).await?;
    assert_eq!(response.status(), 200);
    Ok(response.into_body().read_all(u64::MAX).await.expect("the body is whole"))
}

/// Bytes that differ at every place where something could be lost or swapped.
pub fn pattern(length: usize) -> Bytes {
    (0..length as u64).map(|place| (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Waits until `condition` holds.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
