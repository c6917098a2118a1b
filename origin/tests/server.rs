//! An origin as a process: all ports, all protocols, metrics, drain, and what stops it from starting.

mod fixture;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::ManualClock;
use colibri_origin::{OriginServer, OriginServerConfig, run};
use colibri_package::delivery::DeliveryType;
use colibri_transport::client::ClientConfig;
use colibri_transport::{Body, Client, Trust};
use fixture::{Folder, NOW, content};
use http::{Request, StatusCode};
use tokio_util::sync::CancellationToken;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(folder: &Folder) -> OriginServerConfig {
    OriginServerConfig {
        listen: ANY,
        listen_plain: Some(ANY),
        listen_admin: Some(ANY),
        tls_dir: folder.dir.path().join("tls"),
        drain_s: 5,
        repositories: folder.config("devhost").repositories,
        ..OriginServerConfig::default()
    }
}

fn bind(config: &OriginServerConfig) -> Result<OriginServer, String> {
    OriginServer::bind(config, Arc::new(ManualClock::new(NOW))).map_err(|error| error.to_string())
}

async fn get(client: &Client, url: String) -> (StatusCode, Bytes) {
    let response = client.send(Request::get(url).body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, body.read_all(1 << 30).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_answers_until_it_is_told_to_stop() {
    let folder = Folder::new();
    let (id, encoded) = folder.put_delivery(&content(1, 3 << 20), DeliveryType::Type1);
    let server = bind(&config(&folder)).unwrap();
    let (secure, plain, admin) = (server.address(), server.plain_address().unwrap(), server.admin_address().unwrap());
    let pinned = Trust::Pin(vec![server.certificate_pin()]);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop.clone()));

    for http3 in [true, false] {
        let client = Client::new(ClientConfig { trust: pinned.clone(), http3, ..ClientConfig::default() }).unwrap();
        let (status, body) = get(&client, format!("https://{secure}/devhost/blobs/1/{id}")).await;
        assert!(status == StatusCode::OK && body == encoded);
        let (_, config) = get(&client, format!("https://{secure}/devhost/repo.config")).await;
        let expected = format!("\"mirror_url\":\"https://{secure}/devhost\"");
        assert!(String::from_utf8_lossy(&config).contains(&expected), "{config:?}");
        let counts = client.counts();
        assert!(if http3 { counts.h3_requests > 0 } else { counts.h2_requests == 2 }, "{counts:?}");
    }
    let client = Client::new(ClientConfig::default()).unwrap();
    let (status, body) = get(&client, format!("http://{plain}/blobs/1/{id}")).await;
    assert!(status == StatusCode::OK && body == encoded);
    assert_eq!(get(&client, format!("http://{plain}/devhost/no.json")).await.0, StatusCode::NOT_FOUND);

    assert_eq!(get(&client, format!("http://{admin}/readyz")).await.0, StatusCode::OK);
    let (_, metrics) = get(&client, format!("http://{admin}/metrics")).await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let bytes = 3 * encoded.len();
    for line in [
        "colibri_origin_requests_total{route=\"type1\",status=\"200\"} 3".to_owned(),
        "colibri_origin_requests_total{route=\"metadata\",status=\"404\"} 1".to_owned(),
        format!("colibri_origin_body_bytes_total{{route=\"type1\"}} {bytes}"),
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line} is missing in\n{metrics}");
    }

    stop.cancel();
    serving.await.unwrap();
    for port in [secure, plain, admin] {
        assert!(TcpListener::bind(port).is_ok(), "{port} is free again");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = Folder::new();
    let taken = TcpListener::bind(ANY).unwrap();
    let address = taken.local_addr().unwrap();
    for wrong in [
        OriginServerConfig { listen: address, ..config(&folder) },
        OriginServerConfig { listen_plain: Some(address), ..config(&folder) },
        OriginServerConfig { listen_admin: Some(address), ..config(&folder) },
    ] {
        let error = bind(&wrong).err().unwrap();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn the_certificate_is_made_once() {
    let folder = Folder::new();
    let first = bind(&config(&folder)).unwrap().certificate_pin();
    assert_eq!(bind(&config(&folder)).unwrap().certificate_pin(), first);
    std::fs::remove_file(folder.dir.path().join("tls/tls.key")).unwrap();
    let error = bind(&config(&folder)).err().unwrap();
    assert!(error.contains("tls.key"), "{error}");
}

#[tokio::test]
async fn run_ends_when_it_is_told_to() {
    let folder = Folder::new();
    let config = OriginServerConfig { listen_plain: None, listen_admin: None, ..config(&folder) };
    run(&config, Arc::new(ManualClock::new(NOW)), std::future::ready(())).await.unwrap();
    let nothing = OriginServerConfig { repositories: Vec::new(), ..config };
    let error = run(&nothing, Arc::new(ManualClock::new(NOW)), std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("no repository"), "{error}");
}

#[test]
fn unknown_keys_are_refused() {
    assert_eq!(serde_json::from_str::<OriginServerConfig>("{}").unwrap(), OriginServerConfig::default());
    assert!(serde_json::from_str::<OriginServerConfig>(r#"{"lisen":"[::]:1"}"#).is_err());
    let text = serde_json::to_string(&OriginServerConfig::default()).unwrap();
    assert_eq!(serde_json::from_str::<OriginServerConfig>(&text).unwrap(), OriginServerConfig::default());
}
