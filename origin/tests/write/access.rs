//! Who may do what: tokens of every role, wrong ones, revoked ones, certificates, and other listeners.

use colibri_common::merkle;
use colibri_origin::write::{NewToken, TokenFile, WriteRole};
use colibri_origin::{OriginServer, OriginServerConfig};
use colibri_transport::{Body, Client, ClientConfig, ClientIdentity, Trust};
use http::{Method, StatusCode};
use serde_json::json;

use crate::site::{NAME, NOW, Site, content};

const ANYTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Every act there is, with a body that would be taken.
fn acts() -> Vec<(Method, String, WriteRole)> {
    vec![
        (Method::GET, "status".to_owned(), WriteRole::Reader),
        (Method::POST, "blobs/missing".to_owned(), WriteRole::Publisher),
        (Method::HEAD, format!("blobs/raw/{ANYTHING}"), WriteRole::Publisher),
        (Method::PATCH, format!("blobs/raw/{ANYTHING}"), WriteRole::Publisher),
        (Method::DELETE, format!("blobs/1/{ANYTHING}"), WriteRole::Publisher),
        (Method::POST, "targets".to_owned(), WriteRole::Publisher),
        (Method::POST, "refresh".to_owned(), WriteRole::Publisher),
        (Method::POST, "collect".to_owned(), WriteRole::Admin),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anywhere_without_a_good_token() {
    let site = Site::start().await;
    let wrong = [
        String::new(),
        "x".to_owned(),
        format!("{}0", site.admin),
        site.admin[..site.admin.len() - 1].to_owned(),
        site.admin.to_uppercase(),
        format!("colibri_00000000_{ANYTHING}"),
    ];
    for token in &wrong {
        for (method, path, _) in acts() {
            let answer = site.ask(token, method.clone(), &site.url(&path), &[], Body::empty()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token:?} {method} {path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"colibri\"");
        }
        // Nothing of what exists is told either.
        for path in ["/", "/v1/none/status", "/nothing"] {
            let url = format!("http://{}{path}", site.address);
            let answer = site.ask(token, Method::GET, &url, &[], Body::empty()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    for header in ["Basic eDp5", "Bearer", "Bearer ", "bearer", "Token x"] {
        let headers = [("authorization", header)];
        let answer = site.ask("", Method::GET, &site.url("status"), &headers, Body::empty()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{header:?}");
    }
    let second = format!("Bearer {}", site.admin);
    let twice = [("authorization", second.as_str())];
    let answer = site.ask(&site.admin, Method::GET, &site.url("status"), &twice, Body::empty()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "two tokens");
    assert!(site.audit().iter().all(|line| line["status"] == 401 || line["status"] == 400));
    let audit = std::fs::read_to_string(site.dir.path().join("audit.jsonl")).unwrap();
    assert!(!audit.contains(&site.admin[20..60]), "the audit holds no token, not even a wrong one");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_own_and_no_more() {
    let site = Site::start().await;
    for (role, token) in [(WriteRole::Reader, &site.reader), (WriteRole::Publisher, &site.publisher)] {
        for (method, path, needed) in acts() {
            let answer = site.ask(token, method.clone(), &site.url(&path), &[], Body::empty()).await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, role < needed, "{role} {method} {path}: {answer:?}");
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    let status = site.get(&site.reader, "status").await.json();
    assert_eq!((&status["role"], &status["repository"]), (&json!("reader"), &json!(NAME)));
    assert!(status["you"].as_str().unwrap().contains("the reader"), "{status}");
    let elsewhere = format!("http://{}/v1/other/status", site.address);
    assert_eq!(site.ask(&site.admin, Method::GET, &elsewhere, &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_at_once_when_revoked_or_expired() {
    let site = Site::start().await;
    let file = TokenFile::new(&site.config.write.token_file);
    let new = |name: &str| NewToken {
        name: name.to_owned(),
        role: WriteRole::Admin,
        repositories: Vec::new(),
        expires: Some(NOW.plus(100)),
    };
    let (_, revoked) = file.create(new("to be revoked"), NOW).unwrap();
    let (_, expiring) = file.create(new("expiring"), NOW).unwrap();
    let elsewhere = NewToken { repositories: vec!["other".parse().unwrap()], ..new("elsewhere") };
    let (_, elsewhere) = file.create(elsewhere, NOW).unwrap();
    for token in [&revoked, &expiring] {
        assert_eq!(site.get(token, "status").await.status, StatusCode::OK, "without a restart");
    }
    assert_eq!(site.get(&elsewhere, "status").await.status, StatusCode::FORBIDDEN);
    file.revoke("to be revoked", false, NOW).unwrap();
    assert_eq!(site.get(&revoked, "status").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.get(&expiring, "status").await.status, StatusCode::OK);
    site.clock.set(NOW.plus(100));
    assert_eq!(site.get(&expiring, "status").await.status, StatusCode::UNAUTHORIZED);
    // A damaged file opens nothing.
    std::fs::write(file.path(), "{").unwrap();
    assert_eq!(site.get(&site.admin, "status").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(site.get(&site.admin, "status").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_eager_friends_are_slowed_down() {
    let site = Site::with(|write| {
        write.refusals_per_min = 3;
        write.requests_per_s = 4;
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(site.get("wrong", "status").await);
    }
    let count = |wanted: u16| statuses.iter().filter(|answer| answer.status.as_u16() == wanted).count();
    assert_eq!((count(401), count(429)), (3, 2), "{statuses:?}");
    let retry: u64 = statuses[4].headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry));
    // Whoever has a token is not shut out by them, but has a rate too.
    assert_eq!(site.get(&site.reader, "status").await.status, StatusCode::OK);
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(site.get(&site.reader, "status").await.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused > 0);
    assert_eq!(site.get(&site.publisher, "status").await.status, StatusCode::OK, "each token has its own rate");
}

/// An authority's certificate and one client of it, in files.
fn certificate(dir: &std::path::Path, name: &str) -> (std::path::PathBuf, ClientIdentity) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let client_key = rcgen::KeyPair::generate().unwrap();
    let client = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&client_key, &issuer).unwrap();
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let identity =
        ClientIdentity { certificate: write("crt", client.pem()), key: write("key", client_key.serialize_pem()) };
    (write("ca.pem", authority.pem()), identity)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_as_good_as_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, known) = certificate(dir.path(), "known");
    let (_, stranger) = certificate(dir.path(), "stranger");
    let site = Site::with(|write| write.client_ca_file = Some(authority)).await;
    let trust = Trust::Pin(vec![site.pin]);
    let client =
        |identity| Client::new(ClientConfig { trust: trust.clone(), identity, ..ClientConfig::default() }).unwrap();
    let ask = async |client: &Client, method: Method, path: &str, token: Option<&str>| {
        let url = format!("https://{}/v1/{NAME}/{path}", site.tls_address);
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        client.send(request.body(Body::empty()).unwrap()).await.map(|response| response.status())
    };
    let friend = client(Some(known));
    assert_eq!(ask(&friend, Method::GET, "status", None).await.unwrap(), StatusCode::OK);
    assert_eq!(ask(&friend, Method::POST, "refresh", None).await.unwrap(), StatusCode::OK, "it is a publisher");
    assert_eq!(ask(&friend, Method::GET, "status", Some("wrong")).await.unwrap(), StatusCode::UNAUTHORIZED);
    let nobody = client(None);
    assert_eq!(ask(&nobody, Method::GET, "status", None).await.unwrap(), StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&nobody, Method::GET, "status", Some(&site.reader)).await.unwrap(), StatusCode::OK);
    assert!(ask(&client(Some(stranger)), Method::GET, "status", None).await.is_err(), "the handshake is refused");
    let who: Vec<_> = site.audit().iter().map(|line| line["who"].to_string()).collect();
    assert!(who.iter().any(|who| who.contains("certificate ")), "{who:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_listener_knows_nothing_of_writing_and_the_other_way_round() {
    let site = Site::start().await;
    let blob = content(1, 100);
    let id = merkle::build(&blob).id;
    for address in [site.read_address, site.admin_address] {
        for (method, path, _) in acts() {
            let url = format!("http://{address}/v1/{NAME}/{path}");
            let answer = site.ask(&site.admin, method.clone(), &url, &[], Body::empty()).await;
            assert!(answer.status.is_client_error(), "{method} {url}: {answer:?}");
        }
        let url = format!("http://{address}/v1/{NAME}/blobs/raw/{id}");
        let length = [("upload-length", "100")];
        let answer = site.ask(&site.admin, Method::PATCH, &url, &length, Body::full(blob.clone())).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
    assert_eq!(site.missing(&[id]).await, [id]);
    for path in ["timestamp.json", "root.json", "repo.config"] {
        let url = format!("http://{}/{NAME}/{path}", site.address);
        assert_eq!(site.ask(&site.admin, Method::GET, &url, &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_configuration_that_would_be_unsafe_does_not_start() {
    let site = Site::start().await;
    let refused = |change: &dyn Fn(&mut OriginServerConfig)| {
        let mut config = site.config.clone();
        change(&mut config);
        let error = OriginServer::bind(&config, site.clock.clone()).err().map(|error| error.to_string());
        error.unwrap_or_else(|| panic!("it starts: {:?}", config.write))
    };
    let plain = refused(&|config| config.write.listen_plain = Some("0.0.0.0:0".parse().unwrap()));
    assert!(plain.contains("loopback"), "{plain}");
    assert!(refused(&|config| config.write.repositories = vec!["other".parse().unwrap()]).contains("other"));
    assert!(refused(&|config| config.write.uploads_max = 0).contains("uploads_max"));
    assert!(refused(&|config| config.write.client_ca_file = Some("missing.pem".into())).contains("missing.pem"));
    assert!(refused(&|config| config.write.audit_file = Some("missing/audit".into())).contains("missing/audit"));
    assert!(refused(&|config| config.write.edge_gate.edges_min = 1).contains("edges_min"));
    std::fs::write(&site.config.write.token_file, "nonsense").unwrap();
    assert!(refused(&|_| {}).contains("tokens.json"));
}
