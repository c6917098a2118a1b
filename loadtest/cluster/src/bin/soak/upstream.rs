//! An upstream that fails its clients: it passes the origin's answers on, and on demand flips bits in them or stops sending in
//! the middle of a body.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use colibri_cluster::{Lies, fault};
use colibri_transport::{
    Body, Client, ClientConfig, Handler, Request, Response, Server, ServerConfig, ServerTls, handler,
};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, StatusCode, Uri};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Failure;

/// It looks this often whether it may go on.
const GLANCE: Duration = Duration::from_millis(100);

/// Its switches.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Flips bits.
    pub lies: Lies,
    /// Sends nothing more.
    pub stalls: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts it in front of `origin`, and says where it listens.
    pub fn start(origin: &str) -> Result<(Self, String), Failure> {
        let this = Self { lies: Lies::default(), stalls: Arc::default() };
        let client = Client::new(ClientConfig { dead_udp_memory: Duration::from_secs(5), ..ClientConfig::default() })
            .map_err(|error| error.to_string())?;
        let tasks = TaskTracker::new();
        let relay = relay(client, origin.to_owned(), this.stalls.clone(), tasks.clone());
        let relay = fault::lying(relay, this.lies.clone(), tasks);
        let tls = ServerTls::self_signed(&["localhost".to_owned()]).map_err(|error| error.to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(ServerConfig::secure(address, tls), relay).map_err(|error| error.to_string())?;
        let url = format!("https://{}", server.address());
        tokio::spawn(server.serve(CancellationToken::new(), Duration::ZERO));
        Ok((this, url))
    }
}

fn relay(client: Client, origin: String, stalls: Arc<AtomicBool>, tasks: TaskTracker) -> Handler {
    handler(move |request: Request| {
        let (client, origin, stalls, tasks) = (client.clone(), origin.clone(), stalls.clone(), tasks.clone());
        async move {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let Ok(uri) = format!("{origin}{path}").parse::<Uri>() else { return refused(StatusCode::BAD_REQUEST) };
            let mut onward = http::Request::new(Body::empty());
            *onward.method_mut() = request.method().clone();
            *onward.uri_mut() = uri;
            *onward.headers_mut() = request.headers().clone();
            onward.headers_mut().remove(HOST);
            onward.headers_mut().remove(CONTENT_LENGTH);
            match client.send(onward).await {
                Ok(answer) => {
                    let (mut head, body) = answer.into_parts();
                    head.extensions.clear();
                    head.version = http::Version::default();
                    Response::from_parts(head, stalling(body, stalls, &tasks))
                }
                Err(_) => refused(StatusCode::BAD_GATEWAY),
            }
        }
    })
}

fn stalling(mut body: Body, stalls: Arc<AtomicBool>, tasks: &TaskTracker) -> Body {
    let (mut sender, slow) = Body::channel(body.exact_length());
    tasks.spawn(async move {
        while let Some(piece) = body.next().await {
            while stalls.load(Ordering::SeqCst) {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(GLANCE) => {}
                }
            }
            match piece {
                Ok(piece) => {
                    if sender.send(piece).await.is_err() {
                        return;
                    }
                }
                Err(error) => return sender.abort(error),
            }
        }
        sender.finish();
    });
    slow
}

fn refused(status: StatusCode) -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    answer
}
