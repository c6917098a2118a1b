//! A drain with a pause: clients are told to go, new ones are still taken for a while, and nothing is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_transport::{Body, Client, ClientConfig, ServerConfig, handler};
use tokio::sync::Semaphore;

use crate::support::{Running, WAYS, Way, fetch, get, respond};

fn connections(client: &Client) -> u64 {
    let counts = client.counts();
    counts.h3_connections + counts.h2_connections + counts.h1_connections
}

async fn drain(way: Way) {
    let pause = Duration::from_secs(4);
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let answer = {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        handler(move |request: colibri_transport::Request| {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            async move {
                if request.uri().path() == "/slow" {
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                }
                respond(Body::full(vec![7; 3 << 20]))
            }
        })
    };
    let server = Running::start(ServerConfig { drain_pause: pause, ..way.server_config() }, answer);
    let (slow, quick) = (way.url(server.address, "/slow"), way.url(server.address, "/"));
    let client = way.client();
    let asking = tokio::spawn({
        let (client, slow) = (client.clone(), slow.clone());
        async move { client.send(get(&slow)).await.unwrap() }
    });
    arrived.acquire().await.unwrap().forget();
    let begun = Instant::now();
    server.stop.cancel();
    // A new client is served during the pause: nobody told it to go elsewhere.
    assert_eq!(fetch(&way.client(), &quick).await.unwrap().len(), 3 << 20, "{way:?}");
    // The old connection takes no further request: the same client makes another one, and is served.
    while connections(&client) < 2 {
        assert_eq!(fetch(&client, &quick).await.unwrap().len(), 3 << 20, "{way:?}");
    }
    assert!(begun.elapsed() < pause, "{way:?}: this machine is too slow for the test's pause");
    // After it new ones are refused, while the request under way still may finish.
    loop {
        let config = ClientConfig { connect_timeout: Duration::from_millis(500), ..way.client_config() };
        match fetch(&Client::new(config).unwrap(), &quick).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(_) => break,
        }
    }
    assert!(begun.elapsed() >= pause, "{way:?}: refused within the pause");
    gate.add_permits(1);
    let response = asking.await.unwrap();
    if way == Way::PlainHttp1 {
        assert_eq!(response.headers().get("connection").map(|value| value.as_bytes()), Some(&b"close"[..]));
    }
    assert_eq!(response.into_body().read_all(u64::MAX).await.unwrap().len(), 3 << 20, "{way:?}");
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_a_pause_loses_nobody_on_any_protocol() {
    let ways: Vec<_> = WAYS.into_iter().map(|way| tokio::spawn(drain(way))).collect();
    for way in ways {
        way.await.unwrap();
    }
}
