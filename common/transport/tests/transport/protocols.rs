//! Every protocol carries the same requests and responses.

use std::sync::Arc;

use colibri_transport::{
    Body, Client, ClientErrorKind, Peer, Protocol, Request, RequestCounts, Secure, authority, handler,
};
use http::StatusCode;
use http::header::{ALT_SVC, CONTENT_LENGTH};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::support::{Running, WAYS, Way, fetch, get, identity, respond, says};

#[tokio::test]
async fn requests_look_alike_over_every_protocol() {
    for way in WAYS {
        let server = Running::way(
            way,
            handler(move |request: Request| async move {
                let secure = request.extensions().get::<Secure>().unwrap().0;
                let seen = format!(
                    "{} {} {} {} {} {}",
                    request.method(),
                    request.uri().path_and_query().unwrap(),
                    authority(&request).unwrap(),
                    request.extensions().get::<Protocol>().unwrap().name(),
                    request.extensions().get::<Peer>().unwrap().0.ip(),
                    if secure { "secure" } else { "plain" },
                );
                let mut response = respond(Body::full(seen));
                response.headers_mut().insert("x-colour", "green".parse().unwrap());
                *response.status_mut() = StatusCode::ACCEPTED;
                response
            }),
        );
        let client = way.client();
        let response = client.send(get(&way.url(server.address, "/a/b?c=d%20e"))).await.unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(response.headers()["x-colour"], "green");
        assert_eq!(response.extensions().get::<Protocol>(), Some(&way.protocol()));
        let text = response.into_body().read_all(1000).await.unwrap();
        let secure = if way == Way::PlainHttp1 { "plain" } else { "secure" };
        let expected = format!("GET /a/b?c=d%20e {} {} 127.0.0.1 {secure}", server.address, way.protocol().name());
        assert_eq!(text, expected);
        let counts = client.counts();
        let secured = RequestCounts { tls_connections: 1, full_handshakes: 1, ..RequestCounts::default() };
        let by_protocol = match way {
            Way::Http3 => RequestCounts { h3_requests: 1, h3_connections: 1, ..secured },
            Way::Http2 => RequestCounts { h2_requests: 1, h2_connections: 1, ..secured },
            Way::PlainHttp1 => RequestCounts { h1_requests: 1, h1_connections: 1, ..RequestCounts::default() },
        };
        assert_eq!(counts, by_protocol);
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    for way in WAYS {
        let server = Running::way(way, says("again"));
        let client = way.client();
        for _ in 0..10 {
            assert_eq!(fetch(&client, &way.url(server.address, "/")).await.unwrap(), "again");
        }
        let counts = client.counts();
        let connections = counts.h3_connections + counts.h2_connections + counts.h1_connections;
        assert_eq!((connections, counts.retries), (1, 0), "{way:?}");
    }
}

#[tokio::test]
async fn head_keeps_the_length_and_sends_no_body() {
    for way in WAYS {
        let server = Running::way(way, says("four"));
        let client = way.client();
        for _ in 0..3 {
            let request = http::Request::head(way.url(server.address, "/")).body(Body::empty()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.headers()[CONTENT_LENGTH], "4", "{way:?}");
            assert_eq!(response.into_body().read_all(0).await.unwrap(), "");
        }
        // The connection is still in step.
        assert_eq!(fetch(&client, &way.url(server.address, "/")).await.unwrap(), "four");
    }
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    for way in WAYS {
        let server = Running::way(
            way,
            handler(|request: Request| async move {
                let mut response = respond(Body::full("must not be seen"));
                *response.status_mut() = request.uri().path()[1..].parse().unwrap();
                response
            }),
        );
        let client = way.client();
        for status in ["204", "304"] {
            let response = client.send(get(&way.url(server.address, &format!("/{status}")))).await.unwrap();
            assert_eq!(response.status().as_str(), status);
            assert_eq!(response.into_body().read_all(0).await.unwrap(), "", "{way:?}");
        }
    }
}

#[tokio::test]
async fn tcp_responses_announce_http3_where_it_is_on() {
    let way = Way::Http2;
    let mut config = way.server_config();
    let server = Running::start(config.clone(), says("x"));
    let response = way.client().send(get(&way.url(server.address, "/"))).await.unwrap();
    assert_eq!(response.headers()[ALT_SVC], format!("h3=\":{}\"; ma=86400", server.address.port()));
    config.alt_svc_port = Some(443);
    let server = Running::start(config.clone(), says("x"));
    let response = way.client().send(get(&way.url(server.address, "/"))).await.unwrap();
    assert_eq!(response.headers()[ALT_SVC], "h3=\":443\"; ma=86400");
    config.quic = false;
    let server = Running::start(config, says("x"));
    let response = way.client().send(get(&way.url(server.address, "/"))).await.unwrap();
    assert!(!response.headers().contains_key(ALT_SVC));
    let server = Running::way(Way::Http3, says("x"));
    let response = Way::Http3.client().send(get(&Way::Http3.url(server.address, "/"))).await.unwrap();
    assert!(!response.headers().contains_key(ALT_SVC));
}

#[tokio::test]
async fn http1_over_tls_both_ways() {
    // Our server with a client that offers no ALPN.
    let server = Running::way(Way::Http2, says("old but safe"));
    let tls = tokio_rustls::TlsConnector::from(Arc::new(crate::trust::accepts_anything()));
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);

    // Our client with a server that speaks nothing else.
    let address = http1_tls_server("still here").await;
    let client = Client::new(colibri_transport::ClientConfig { http3: false, ..Default::default() }).unwrap();
    for _ in 0..5 {
        assert_eq!(fetch(&client, &format!("https://{address}/")).await.unwrap(), "still here");
    }
    let counts = client.counts();
    assert_eq!((counts.h1_requests, counts.h1_connections, counts.h2_requests), (5, 1, 0));
}

async fn http1_tls_server(text: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(crate::trust::server_config(&[b"http/1.1"])));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let service = hyper::service::service_fn(move |_| async move {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Body::full(text)))
                });
                _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn plain_tcp_also_speaks_http2_with_prior_knowledge() {
    let server = Running::way(
        Way::PlainHttp1,
        handler(|request: Request| async move {
            respond(Body::full(request.extensions().get::<Protocol>().unwrap().name()))
        }),
    );
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = get(&format!("http://{}/", server.address));
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()[CONTENT_LENGTH], "2");
}

#[tokio::test]
async fn five_hundred_requests_at_once() {
    for way in WAYS {
        let server = Running::way(
            way,
            handler(|request: Request| async move { respond(Body::full(request.uri().path().to_owned())) }),
        );
        let client = way.client();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..500 {
            let (client, path) = (client.clone(), format!("/{number}"));
            let url = way.url(server.address, &path);
            tasks.spawn(async move { assert_eq!(fetch(&client, &url).await.unwrap(), path) });
        }
        while let Some(result) = tasks.join_next().await {
            result.unwrap();
        }
        let counts = client.counts();
        assert_eq!(counts.h3_requests + counts.h2_requests + counts.h1_requests, 500, "{way:?}");
        assert!(counts.h3_connections <= 1 && counts.h2_connections <= 1 && counts.h1_connections <= 16, "{counts:?}");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_sent_are_refused_by_name() {
    let client = Way::Http3.client();
    for url in ["/relative", "ftp://127.0.0.1/x", "https://user@127.0.0.1/x"] {
        let error = client.send(get(url)).await.unwrap_err();
        assert_eq!(error.kind, ClientErrorKind::Request, "{error}");
    }
    let connect = http::Request::builder().method("CONNECT").uri("https://127.0.0.1:1/").body(Body::empty()).unwrap();
    assert_eq!(client.send(connect).await.unwrap_err().kind, ClientErrorKind::Request);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Way::Http2.client().send(get(&format!("https://{nobody}/"))).await.unwrap_err();
    assert_eq!((error.kind, error.authority.as_str()), (ClientErrorKind::Unreachable, nobody.to_string().as_str()));
    let text = error.to_string();
    assert!(text.starts_with(&nobody.to_string()) && !text.contains('\n'), "{text}");
    drop(identity());
}
