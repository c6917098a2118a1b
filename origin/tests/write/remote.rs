//! Our own client against a running origin: what travels, what is resumed, and what it says when something is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use colibri_common::merkle;
use colibri_package::delivery::{DeliveryType, encode};
use colibri_package::{AbiRevision, PackageBuild};
use colibri_repository::Publish;
use colibri_repository::remote::{Push, PushProgress, Remote, RemoteConfig, RemoteError};
use colibri_transport::{Trust, handler};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::site::{NAME, NOW, Site, content};

/// Builds a package of these files, and its manifest; delivery blobs if `ty` says so.
fn package(dir: &Path, name: &str, files: &[Vec<u8>], ty: Option<DeliveryType>) -> PathBuf {
    let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision(1));
    let mut blobs = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let id = merkle::build(file).id;
        build.add_content(&format!("data/{index}"), id).unwrap();
        blobs.push((format!("data/{index}"), id, file.clone()));
    }
    let meta_far = build.finish().unwrap().to_vec();
    blobs.insert(0, ("meta/".to_owned(), merkle::build(&meta_far).id, meta_far));
    let blobs: Vec<_> = blobs
        .into_iter()
        .map(|(path, id, bytes)| {
            let source = dir.join(format!("{name}-{id}"));
            let stored = ty.map_or_else(|| bytes.clone(), |ty| encode(&bytes, ty, Some(1)).unwrap());
            std::fs::write(&source, stored).unwrap();
            serde_json::json!({"source_path": source, "path": path, "merkle": id.to_string(), "size": bytes.len()})
        })
        .collect();
    let mut manifest = serde_json::json!({"version": "1", "package": {"name": name, "version": "0"}, "blobs": blobs});
    if let Some(ty) = ty {
        manifest["delivery_blob_type"] = ty.number().into();
    }
    let path = dir.join(format!("{name}.json"));
    std::fs::write(&path, manifest.to_string()).unwrap();
    path
}

fn push(manifests: Vec<PathBuf>) -> Push {
    Push {
        packages: Publish { manifests, ..Publish::new(NOW) },
        remove: Vec::new(),
        uploads_at_a_time: 4,
        past_gate_because: None,
        progress: Arc::new(PushProgress::default()),
    }
}

fn remote(site: &Site, token: &str) -> Remote {
    let trust = Trust::Pin(vec![site.pin]);
    let url = format!("https://{}/{NAME}", site.tls_address);
    Remote::new(RemoteConfig { url, token: Some(token.to_owned()), trust, identity: None }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_travels() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let shared = content(1, 100_000);
    let one = package(dir.path(), "one", &[shared.clone(), content(2, 300_000), Vec::new()], None);
    let two = package(dir.path(), "two", &[shared, content(3, 20_000)], Some(DeliveryType::Type1));
    let remote = remote(&site, &site.publisher);
    let first = remote.push(&push(vec![one.clone()])).await.unwrap();
    assert_eq!((first.packages, first.blobs, first.blobs_sent), (1, 4, 4), "{first:?}");
    let both = remote.push(&push(vec![one.clone(), two.clone()])).await.unwrap();
    assert_eq!((both.packages, both.blobs, both.blobs_sent), (2, 6, 2), "{both:?}");
    let again = remote.push(&push(vec![one, two])).await.unwrap();
    assert_eq!((again.blobs_sent, again.bytes_sent), (0, 0));
    let names: Vec<_> = site.repository.packages().unwrap().into_iter().map(|package| package.name).collect();
    assert_eq!(names, ["one", "two"]);
    let removed = Push { remove: vec!["two/0".parse().unwrap()], ..push(Vec::new()) };
    assert_eq!(remote.push(&removed).await.unwrap().removed, 1);
    assert_eq!(remote.status().await.unwrap().packages, 1);
    assert_eq!(remote.refresh().await.unwrap(), site.repository.versions().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_its_name() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = content(4, 5000);
    let manifest = package(dir.path(), "one", std::slice::from_ref(&file), None);
    let source = dir.path().join(format!("one-{}", merkle::build(&file).id));
    let good = remote(&site, &site.publisher);
    // Changed since the manifest was written, to the same length.
    std::fs::write(&source, content(5, 5000)).unwrap();
    let error = good.push(&push(vec![manifest.clone()])).await.unwrap_err().to_string();
    assert!(error.contains(&source.display().to_string()) && error.contains("changed"), "{error}");
    std::fs::remove_file(&source).unwrap();
    let error = good.push(&push(vec![manifest.clone()])).await.unwrap_err().to_string();
    assert!(error.contains("data/0") && error.contains("does not exist"), "{error}");
    std::fs::write(&source, file).unwrap();
    for (token, status) in [(site.reader.as_str(), StatusCode::FORBIDDEN), ("wrong", StatusCode::UNAUTHORIZED)] {
        let error = remote(&site, token).push(&push(vec![manifest.clone()])).await.unwrap_err();
        assert_eq!(error.status(), Some(status), "{error}");
    }
    let gone = Push { remove: vec!["gone/0".parse().unwrap()], ..push(Vec::new()) };
    let error = good.push(&gone).await.unwrap_err().to_string();
    assert!(error.contains("gone/0"), "{error}");
    let config = RemoteConfig {
        url: format!("https://{}/{NAME}", site.tls_address),
        token: Some(site.publisher.clone()),
        trust: Trust::Pin(vec![[7; 32]]),
        identity: None,
    };
    let error = Remote::new(config).unwrap().status().await;
    assert!(matches!(error, Err(RemoteError::Client(_))), "a stranger in the origin's place");
    good.push(&push(vec![manifest])).await.unwrap();
}

/// Passes connections on to the origin, and cuts each of the first `cuts` after so many bytes have gone up.
async fn cutting(to: std::net::SocketAddr, cuts: usize, bytes: u64) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(AtomicUsize::new(cuts));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let left = left.clone();
            tokio::spawn(async move {
                let mut origin = tokio::net::TcpStream::connect(to).await.unwrap();
                let (mut up, mut down) = client.split();
                let (mut answers, mut questions) = origin.split();
                let mut sent = 0;
                let mut buffer = vec![0; 64 << 10];
                let upwards = async {
                    loop {
                        let count = up.read(&mut buffer).await.unwrap_or(0);
                        sent += count as u64;
                        if count == 0 || questions.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                        let cut = |left: usize| left.checked_sub(1);
                        if sent > bytes && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = upwards => {}
                    _ = tokio::io::copy(&mut answers, &mut down) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_again_and_again_costs_only_what_was_on_its_way() {
    let site = Site::start().await;
    let dir = tempfile::tempdir().unwrap();
    let manifest = package(dir.path(), "large", &[content(6, 10 << 20)], None);
    let address = cutting(site.address, 3, 3 << 20).await;
    let url = format!("http://{address}/{NAME}");
    let token = Some(site.publisher.clone());
    let remote = Remote::new(RemoteConfig { url, token, trust: Trust::System, identity: None }).unwrap();
    let report = remote.push(&push(vec![manifest])).await.unwrap();
    assert!(report.resumed >= 1, "{report:?}");
    assert_eq!(site.repository.packages().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_asks_for_files_nobody_named_gets_none() {
    // A hostile "origin" answers the question for missing blobs with others.
    let dir = tempfile::tempdir().unwrap();
    let manifest = package(dir.path(), "one", &[content(7, 100)], None);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let hostile = handler(move |request: colibri_transport::Request| {
        let missing = request.uri().path().ends_with("/missing");
        count.fetch_add(usize::from(!missing), Ordering::SeqCst);
        let id = "ab".repeat(32);
        let text = if missing { format!(r#"{{"missing":["{id}"]}}"#) } else { "{}".to_owned() };
        async move { http::Response::new(colibri_transport::Body::full(text)) }
    });
    let config = colibri_transport::ServerConfig::plain("127.0.0.1:0".parse().unwrap());
    let server = colibri_transport::Server::bind(config, hostile).unwrap();
    let url = format!("http://{}/{NAME}", server.address());
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(server.serve(stop.clone(), std::time::Duration::ZERO));
    let remote = Remote::new(RemoteConfig { url, token: None, trust: Trust::System, identity: None }).unwrap();
    let error = remote.push(&push(vec![manifest])).await.unwrap_err();
    assert!(matches!(error, RemoteError::Answer { .. }), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "nothing but the submission was sent");
    stop.cancel();
    serving.await.unwrap();
}
