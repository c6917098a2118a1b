//! Starting, draining, stopping, and coming back.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use colibri_transport::{Body, Protocol, Request, Server, ServerConfig, TransportError, handler};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{Running, WAYS, Way, fetch, get, identity, respond, says};

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_refuses_the_rest() {
    for way in WAYS {
        let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let server = {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            Running::way(
                way,
                handler(move |_| {
                    let (arrived, gate) = (arrived.clone(), gate.clone());
                    async move {
                        arrived.add_permits(1);
                        gate.acquire().await.unwrap().forget();
                        respond(Body::full(vec![7; 3 << 20]))
                    }
                }),
            )
        };
        let client = way.client();
        let url = way.url(server.address, "/");
        let in_flight = tokio::spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { fetch(&client, &url).await }
        });
        arrived.acquire().await.unwrap().forget();
        server.stop.cancel();
        // A new client, once the server has noticed: it must not be served.
        loop {
            let config =
                colibri_transport::ClientConfig { connect_timeout: Duration::from_millis(300), ..way.client_config() };
            let fresh = colibri_transport::Client::new(config).unwrap();
            let attempt = tokio::spawn({
                let url = url.clone();
                async move { fetch(&fresh, &url).await }
            });
            tokio::select! {
                result = attempt => { assert!(result.unwrap().is_err(), "{way:?}"); break }
                // It slipped in before the server stopped listening: it is in flight, too.
                permit = arrived.acquire() => { permit.unwrap().forget(); gate.add_permits(1); }
            }
        }
        gate.add_permits(1);
        assert_eq!(in_flight.await.unwrap().unwrap().len(), 3 << 20, "{way:?}");
        assert!(client.send(get(&url)).await.is_err(), "{way:?}: the old connection takes no new requests");
        server.stopped().await;
    }
}

#[tokio::test]
async fn a_drain_deadline_cuts_what_does_not_end() {
    for way in WAYS {
        let (arrived, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (at_handler, on_drop) = (arrived.clone(), seen.clone());
        let stuck = handler(move |_| {
            struct Dropped(Arc<Semaphore>);
            impl Drop for Dropped {
                fn drop(&mut self) {
                    self.0.add_permits(1);
                }
            }
            let held = Dropped(on_drop.clone());
            at_handler.add_permits(1);
            async move {
                let _held = held;
                std::future::pending().await
            }
        });
        let server = Server::bind(way.server_config(), stuck).unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(stop.clone(), Duration::from_millis(20)));
        let client = way.client();
        let request = tokio::spawn(async move { client.send(get(&way.url(address, "/"))).await });
        arrived.acquire().await.unwrap().forget();
        stop.cancel();
        serving.await.unwrap();
        assert!(request.await.unwrap().is_err(), "{way:?}");
        assert_eq!(seen.available_permits(), 1, "{way:?}: the handler's future was dropped");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_handler() {
    for way in WAYS {
        let (arrived, dropped) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (at_handler, on_drop) = (arrived.clone(), dropped.clone());
        let server = Running::way(
            way,
            handler(move |_| {
                struct Dropped(Arc<Semaphore>);
                impl Drop for Dropped {
                    fn drop(&mut self) {
                        self.0.add_permits(1);
                    }
                }
                let held = Dropped(on_drop.clone());
                at_handler.add_permits(1);
                async move {
                    let _held = held;
                    std::future::pending().await
                }
            }),
        );
        let client = way.client();
        let url = way.url(server.address, "/");
        // The client stays: only the request is given up, its connection may live on.
        let asking = client.clone();
        let request = tokio::spawn(async move { asking.send(get(&url)).await });
        arrived.acquire().await.unwrap().forget();
        request.abort();
        dropped.acquire().await.unwrap().forget();
    }
}

#[tokio::test]
async fn a_handler_that_panics_breaks_its_request_only() {
    for way in WAYS {
        let server = Running::way(
            way,
            handler(|request: Request| async move {
                assert_ne!(request.uri().path(), "/panic", "as the test wants");
                respond(Body::full("fine"))
            }),
        );
        let client = way.client();
        assert!(client.send(get(&way.url(server.address, "/panic"))).await.is_err(), "{way:?}");
        assert_eq!(fetch(&client, &way.url(server.address, "/")).await.unwrap(), "fine");
    }
}

#[tokio::test]
async fn a_client_follows_a_server_that_restarts() {
    for way in WAYS {
        let mut config = way.server_config();
        let first = Running::start(config.clone(), says("first"));
        config.address = first.address;
        let client = way.client();
        let url = way.url(first.address, "/");
        assert_eq!(fetch(&client, &url).await.unwrap(), "first");
        first.stopped().await;
        let second = Running::start(config, says("second"));
        assert_eq!(fetch(&client, &url).await.unwrap(), "second", "{way:?}");
        drop(second);
    }
}

#[tokio::test]
async fn a_taken_port_is_named_for_tcp_and_udp() {
    let running = Running::way(Way::Http3, says("x"));
    let again = ServerConfig { address: running.address, ..Way::PlainHttp1.server_config() };
    let error = Server::bind(again, says("y")).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, TransportError::AddressInUse { address, .. } if address == running.address), "{text}");
    assert!(text.contains(&running.address.to_string()) && text.contains("port"), "{text}");

    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = ServerConfig::secure(udp.local_addr().unwrap(), identity());
    let error = Server::bind(config, says("y")).unwrap_err();
    assert!(matches!(error, TransportError::AddressInUse { transport: "UDP", .. }), "{error}");

    let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let error = Server::bind(ServerConfig::plain(foreign), says("y")).unwrap_err();
    assert!(matches!(error, TransportError::Bind { .. }) && error.to_string().contains("192.0.2.1"), "{error}");
}

#[tokio::test]
async fn tcp_and_udp_share_one_port_number() {
    let server = Running::way(Way::Http3, says("both"));
    for way in [Way::Http3, Way::Http2] {
        let response = way.client().send(get(&way.url(server.address, "/"))).await.unwrap();
        assert_eq!(response.extensions().get::<Protocol>(), Some(&way.protocol()));
    }
}

#[tokio::test]
async fn connections_are_bounded_and_waiting_ones_are_served_later() {
    let mut config = Way::PlainHttp1.server_config();
    config.limits.connections_max = 2;
    let server = Running::start(config, says("in turn"));
    let url = Way::PlainHttp1.url(server.address, "/");
    for _ in 0..6 {
        // Each client leaves with its connection when it is dropped.
        assert_eq!(fetch(&Way::PlainHttp1.client(), &url).await.unwrap(), "in turn");
    }
    let mut config = Way::Http3.server_config();
    config.limits.connections_max = 1;
    let server = Running::start(config, says("alone"));
    let first = Way::Http3.client();
    let url = Way::Http3.url(server.address, "/");
    assert_eq!(fetch(&first, &url).await.unwrap(), "alone");
    let quic_only =
        colibri_transport::ClientConfig { connect_timeout: Duration::from_millis(300), ..Way::Http3.client_config() };
    let second = colibri_transport::Client::new(quic_only).unwrap();
    assert!(second.send(get(&url)).await.is_err(), "QUIC beyond the bound is refused, TCP waits in the backlog");
}

#[tokio::test]
async fn idle_connections_are_closed_by_either_side() {
    for way in WAYS {
        // By the server: the client simply makes a new one.
        let mut config = way.server_config();
        config.limits.idle_timeout = Duration::from_millis(30);
        let server = Running::start(config, says("briefly"));
        let client = way.client();
        let url = way.url(server.address, "/");
        let connections = || {
            let counts = client.counts();
            counts.h3_connections + counts.h2_connections + counts.h1_connections
        };
        while connections() < 2 {
            assert_eq!(fetch(&client, &url).await.unwrap(), "briefly", "{way:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // By the client.
        let server = Running::way(way, says("briefly"));
        let config =
            colibri_transport::ClientConfig { pool_idle_timeout: Duration::from_millis(20), ..way.client_config() };
        let client = colibri_transport::Client::new(config).unwrap();
        let url = way.url(server.address, "/");
        while client.counts().h3_connections + client.counts().h2_connections + client.counts().h1_connections < 2 {
            assert_eq!(fetch(&client, &url).await.unwrap(), "briefly", "{way:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// While connections are busy, further ones are made, each from a UDP socket of its own and no more than allowed.
#[tokio::test(flavor = "multi_thread")]
async fn busy_http3_connections_get_company_from_other_sockets() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let from = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
    let server = {
        let (arrived, gate, from) = (arrived.clone(), gate.clone(), from.clone());
        Running::way(
            Way::Http3,
            handler(move |request: Request| {
                let (arrived, gate) = (arrived.clone(), gate.clone());
                from.lock().unwrap().insert(request.extensions().get::<colibri_transport::Peer>().unwrap().0);
                async move {
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                    respond(Body::full("late"))
                }
            }),
        )
    };
    let config = colibri_transport::ClientConfig { udp_sockets: 3, ..Way::Http3.client_config() };
    let client = colibri_transport::Client::new(config).unwrap();
    let url = Way::Http3.url(server.address, "/");
    let mut waiting = Vec::new();
    // Each request is there before the next is sent, so that a connection being made has its time.
    while waiting.len() < 40 || client.counts().h3_connections < 3 {
        assert!(waiting.len() < 250, "no more than {} connections came", client.counts().h3_connections);
        waiting.push(tokio::spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { fetch(&client, &url).await }
        }));
        arrived.acquire().await.unwrap().forget();
    }
    gate.add_permits(waiting.len() + 50);
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap(), "late");
    }
    // The third may have carried nothing yet.
    for _ in 0..20 {
        fetch(&client, &url).await.unwrap();
    }
    assert_eq!(client.counts().h3_connections, 3);
    assert!(from.lock().unwrap().len() >= 2, "{:?}", from.lock().unwrap());
}
