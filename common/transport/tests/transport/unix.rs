//! A server on a socket in the file system: who may ask, how it ends, and what becomes of its file.

use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::{
    Body, BodySender, Handler, Request, ServerLimits, TransportError, UnixClient, UnixConnection, UnixServer,
    UnixServerConfig, handler,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{get, respond, says, until};

struct Site {
    dir: TempDir,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Site {
    fn start(handler: Handler) -> Self {
        Self::start_with(handler, |_| ())
    }

    fn start_with(handler: Handler, change: impl FnOnce(&mut UnixServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = UnixServerConfig::new(dir.path().join("socket"));
        change(&mut config);
        let server = UnixServer::bind(config, handler).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(stop.clone(), Duration::from_secs(30)));
        Self { dir, stop, task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn client(&self) -> UnixClient {
        UnixClient::new(self.path())
    }

    async fn stopped(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self.dir
    }
}

async fn ask(client: &UnixClient) -> Bytes {
    let response = client.send(get("/")).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().read_all(1 << 20).await.unwrap()
}

fn own_uid(dir: &Path) -> u32 {
    std::fs::metadata(dir).unwrap().uid()
}

#[tokio::test]
async fn a_handler_learns_who_asks() {
    let who: Handler = handler(|request: Request| async move {
        let connection = request.extensions().get::<UnixConnection>().unwrap();
        let peer = connection.peer;
        respond(Body::full(format!("{:?} {} {}", peer.pid, peer.uid, connection.is_closed())))
    });
    let site = Site::start(who);
    let expected = format!("{:?} {} false", Some(std::process::id()), own_uid(site.dir.path()));
    assert_eq!(ask(&site.client()).await, expected);
    site.stopped().await;
}

#[tokio::test]
async fn the_file_has_its_mode_and_goes_with_the_server() {
    for mode in [0o600, 0o660] {
        let site = Site::start_with(says("x"), |config| config.mode = mode);
        let found = std::fs::metadata(site.path()).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, mode);
        let dir = site.stopped().await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    // Who is killed leaves the file behind; also one that it had not moved to its place yet.
    drop(UnixListener::bind(&path).unwrap());
    drop(UnixListener::bind(dir.path().join("socket~")).unwrap());
    assert!(!UnixClient::new(path.clone()).is_answered().await.unwrap());
    let server = UnixServer::bind(UnixServerConfig::new(path.clone()), says("first")).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(stop.clone(), Duration::from_secs(30)));
    let client = UnixClient::new(path.clone());
    assert!(client.is_answered().await.unwrap());
    let refused = UnixServer::bind(UnixServerConfig::new(path.clone()), says("second")).unwrap_err();
    assert!(matches!(refused, TransportError::SocketInUse { .. }), "{refused}");
    assert_eq!(ask(&client).await, "first");
    stop.cancel();
    task.await.unwrap();
    assert!(!client.is_answered().await.unwrap());
    // What is no socket is not ours to remove.
    std::fs::write(&path, "precious").unwrap();
    let refused = UnixServer::bind(UnixServerConfig::new(path.clone()), says("third")).unwrap_err();
    assert!(matches!(refused, TransportError::Socket { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_server_leaves_the_socket_of_another_alone() {
    let site = Site::start(says("x"));
    let path = site.path();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    let _dir = site.stopped().await;
    assert!(path.exists());
}

#[tokio::test]
async fn the_end_of_a_connection_is_told_however_it_comes() {
    let seen: Arc<Mutex<Vec<UnixConnection>>> = Arc::default();
    let senders: Arc<Mutex<Vec<BodySender>>> = Arc::default();
    let answer = {
        let (seen, senders) = (seen.clone(), senders.clone());
        handler(move |request: Request| {
            seen.lock().unwrap().push(request.extensions().get::<UnixConnection>().unwrap().clone());
            let (sender, body) = Body::channel(None);
            senders.lock().unwrap().push(sender);
            async move { respond(body) }
        })
    };
    let site = Site::start(answer);
    let closed = |index: usize| seen.lock().unwrap().get(index).is_some_and(UnixConnection::is_closed);
    // The client goes in the middle of an answer in which nothing happens.
    let response = site.client().send(get("/")).await.unwrap();
    assert!(!closed(0));
    drop(response);
    until(|| closed(0)).await;
    // It goes before the answer began.
    let mut raw = UnixStream::connect(site.path()).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    until(|| seen.lock().unwrap().len() == 2).await;
    drop(raw);
    until(|| closed(1)).await;
    // The answer comes to its end, and the connection with it.
    let response = site.client().send(get("/")).await.unwrap();
    senders.lock().unwrap().pop().unwrap().finish();
    assert!(response.into_body().read_all(1).await.unwrap().is_empty());
    until(|| closed(2)).await;
    let ids: Vec<_> = seen.lock().unwrap().iter().map(|connection| connection.id).collect();
    assert_eq!(ids, [1, 2, 3]);
    site.stopped().await;
}

#[tokio::test]
async fn connections_are_bounded_and_a_head_must_come_in_time() {
    let site = Site::start_with(says("x"), |config| {
        config.limits =
            ServerLimits { connections_max: 2, header_timeout: Duration::from_millis(200), ..ServerLimits::default() };
    });
    // Two that say nothing have all places; they lose them, and a third is answered.
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(tokio::net::UnixStream::connect(site.path()).await.unwrap());
    }
    assert_eq!(ask(&site.client()).await, "x");
    let mut rest = Vec::new();
    silent[0].read_to_end(&mut rest).await.unwrap();
    site.stopped().await;
}

#[tokio::test]
async fn requests_under_way_are_finished_at_the_end() {
    let (began, begin) = tokio::sync::oneshot::channel();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let both = Mutex::new(Some((began, finished)));
    let site = Site::start(handler(move |_| {
        let both = both.lock().unwrap().take();
        async move {
            if let Some((began, finished)) = both {
                began.send(()).unwrap();
                finished.await.unwrap();
            }
            respond(Body::full("whole"))
        }
    }));
    let client = site.client();
    let asked = tokio::spawn(async move { ask(&client).await });
    begin.await.unwrap();
    site.stop.cancel();
    let path = site.path();
    until(|| !path.exists()).await;
    finish.send(()).unwrap();
    assert_eq!(asked.await.unwrap(), "whole");
    site.stopped().await;
}
