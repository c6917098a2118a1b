//! `tls = pin | ca-file` of a device against listeners with TLS: who is right is used, over HTTP/3 and HTTP/2, and nobody else is
//! told more than that somebody connected.

mod scene;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use colibri_common::hex;
use colibri_device::{DeviceConfig, DeviceError};
use colibri_metadata::RepoConfig;
use colibri_transport::{
    Body, Client, ClientConfig, Request, Response, Server, ServerConfig, ServerTls, Trust, handler,
};
use scene::{HOST, Scene, nobody, noise, scrub, url};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A mirror that passes everything on to an edge, under a certificate of its own.
struct Mirror {
    address: std::net::SocketAddr,
    asked: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Mirror {
    fn start(upstream: &str, tls: ServerTls, quic: bool) -> Self {
        let (upstream, client) = (upstream.to_owned(), Client::new(ClientConfig::default()).unwrap());
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let handler = handler(move |request: Request| {
            count.fetch_add(1, Ordering::SeqCst);
            let mut passed = http::Request::new(Body::empty());
            *passed.uri_mut() = format!("{upstream}{}", request.uri().path()).parse().unwrap();
            *passed.headers_mut() = request.headers().clone();
            passed.headers_mut().remove(http::header::HOST);
            let client = client.clone();
            async move {
                let (head, body) = client.send(passed).await.expect("the edge answers").into_parts();
                let body = body.read_all(64 << 20).await.expect("to the end");
                let mut response = Response::new(Body::full(body));
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                response
            }
        });
        let config = ServerConfig { quic, ..ServerConfig::secure((Ipv4Addr::LOCALHOST, 0).into(), tls) };
        let server = Server::bind(config, handler).unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Self { address, asked, _stop: stop.drop_guard() }
    }

    /// The repository with this as its only mirror, under this name.
    fn config(&self, config: &RepoConfig, name: &str) -> RepoConfig {
        let mut config = config.clone();
        config.mirrors.truncate(1);
        config.mirrors[0].mirror_url = format!("https://{name}:{}/{HOST}", self.address.port());
        config
    }
}

fn certificate(names: &[&str]) -> ServerTls {
    ServerTls::self_signed(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn pin(tls: &ServerTls) -> Trust {
    format!("pin:{}", hex(&tls.certificate_pin())).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_and_certificate_files_let_the_right_mirror_in_and_nobody_else() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", &noise(1, 300_000))]);
    let cluster = scene.serve(1);
    let repository = scene.config(&cluster, HOST);
    let (right, stranger) = (certificate(&["localhost", "127.0.0.1"]), certificate(&["localhost", "127.0.0.1"]));
    let elsewhere = certificate(&["elsewhere.example"]);
    let file = |name: &str, tls: &ServerTls| -> Trust {
        let path = scene.path(&format!("{name}.pem"));
        std::fs::write(&path, tls.certificate_pem()).unwrap();
        format!("ca-file:{}", path.display()).parse().unwrap()
    };
    let upstream = cluster.edges[0].node.url();
    let over_both = Mirror::start(&upstream, right.clone(), true);
    let over_tcp = Mirror::start(&upstream, right.clone(), false);
    let misnamed = Mirror::start(&upstream, elsewhere.clone(), true);
    let accepted = [
        ("pin-http3", &over_both, "127.0.0.1", pin(&right), true),
        ("pin-http2", &over_tcp, "127.0.0.1", pin(&right), false),
        // A pin is of a key, whatever the certificate's name.
        ("pin-misnamed", &misnamed, "127.0.0.1", pin(&elsewhere), true),
        ("file-http3", &over_both, "localhost", file("right", &right), true),
        ("file-http2", &over_tcp, "127.0.0.1", file("right", &right), false),
    ];
    for (name, mirror, host, tls, http3) in accepted {
        let config = DeviceConfig { tls, http3, ..DeviceConfig::default() };
        let (device, store) = scene.device(name, config, mirror.config(&repository, host));
        let resolved = device.resolve(&url("app"), nobody()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((resolved.hash, scrub(&store)), (hash, 2), "{name}");
        let counts = device.client().counts();
        assert_eq!(counts.h1_requests, 0, "{name}: {counts:?}");
        assert!(http3 || counts.h2_requests > 0, "{name}: {counts:?}");
    }
    let refused = [
        ("pin-of-another", &over_both, "127.0.0.1", pin(&stranger), true),
        ("pin-of-another-http2", &over_tcp, "127.0.0.1", pin(&stranger), false),
        ("file-of-another", &over_both, "127.0.0.1", file("stranger", &stranger), true),
        // A certificate that is believed, of somebody with another name.
        ("file-misnamed", &misnamed, "localhost", file("elsewhere", &elsewhere), true),
        ("file-misnamed-http2", &misnamed, "127.0.0.1", file("elsewhere", &elsewhere), false),
        // Of no authority of this system.
        ("system", &over_both, "localhost", Trust::System, true),
    ];
    for (name, mirror, host, tls, http3) in refused {
        let before = mirror.asked.load(Ordering::SeqCst);
        let config = DeviceConfig { tls, http3, ..DeviceConfig::default() };
        let (device, store) = scene.device(name, config, mirror.config(&repository, host));
        let error = device.resolve(&url("app"), nobody()).await.unwrap_err();
        assert!(matches!(error, DeviceError::Metadata { .. }), "{name}: {error}");
        assert!(error.to_string().contains("TLS refused"), "{name}: {error}");
        assert_eq!(mirror.asked.load(Ordering::SeqCst), before, "{name}: no request was sent");
        assert_eq!(scrub(&store), 0, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_file_that_is_none_is_told_at_the_start() {
    let scene = Scene::new();
    let path = scene.path("empty.pem");
    std::fs::write(&path, "").unwrap();
    for path in [path, scene.path("absent.pem")] {
        let config = DeviceConfig { tls: Trust::CaFile(path.clone()), ..DeviceConfig::default() };
        let opened = colibri_device::Device::open(&scene.path("device"), config, Arc::new(colibri_common::SystemClock));
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
    }
}
