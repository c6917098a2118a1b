//! An origin with a write API over one repository, tokens of every role, and requests to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, ManualClock, UnixSeconds, merkle};
use colibri_origin::write::{NewToken, TokenFile, WriteConfig, WriteRole};
use colibri_origin::{OriginServer, OriginServerConfig, RepositoryConfig};
use colibri_repository::wire::WriteProblem;
use colibri_repository::{CreateOptions, Repository};
use colibri_transport::{Body, Client, ClientConfig};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// 2026-01-15.
pub const NOW: UnixSeconds = UnixSeconds(1_768_435_200);

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The repository's name.
pub const NAME: &str = "fleet.example";

/// A running origin.
pub struct Site {
    pub dir: TempDir,
    pub repository: Repository,
    pub clock: Arc<ManualClock>,
    pub config: OriginServerConfig,
    pub address: SocketAddr,
    pub read_address: SocketAddr,
    pub admin_address: SocketAddr,
    pub tls_address: SocketAddr,
    pub pin: [u8; 32],
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    pub client: Client,
    pub reader: String,
    pub publisher: String,
    pub admin: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn problem(&self) -> WriteProblem {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: WriteProblem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        problem
    }

    pub fn offset(&self) -> Option<u64> {
        Some(self.headers.get("upload-offset")?.to_str().unwrap().parse().unwrap())
    }

    pub fn is_complete(&self) -> bool {
        self.headers.get("upload-complete").is_some_and(|value| value == "?1")
    }
}

impl Site {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// An origin whose write configuration `change` has made its own.
    pub async fn with(change: impl FnOnce(&mut WriteConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("repository-folder");
        let repository = Repository::create(&folder, CreateOptions::new(NOW)).unwrap();
        let mut write = WriteConfig {
            listen: Some(ANY),
            listen_plain: Some(ANY),
            token_file: dir.path().join("tokens.json"),
            audit_file: Some(dir.path().join("audit.jsonl")),
            requests_per_s: 10_000,
            refusals_per_min: 10_000,
            ..WriteConfig::default()
        };
        change(&mut write);
        let config = OriginServerConfig {
            listen: ANY,
            listen_plain: Some(ANY),
            listen_admin: Some(ANY),
            http3: false,
            tls_dir: dir.path().join("tls"),
            tls_names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            drain_s: 5,
            repositories: vec![RepositoryConfig::new(NAME.parse().unwrap(), folder)],
            write,
            ..OriginServerConfig::default()
        };
        let file = TokenFile::new(&config.write.token_file);
        let token = |role: WriteRole| {
            let new = NewToken { name: format!("the {role}"), role, repositories: Vec::new(), expires: None };
            file.create(new, NOW).unwrap().1
        };
        let [reader, publisher, admin] = WriteRole::ALL.map(token);
        let clock = Arc::new(ManualClock::new(NOW));
        let client = Client::new(ClientConfig::default()).unwrap();
        let mut site = Self {
            dir,
            repository,
            clock,
            config,
            address: ANY,
            read_address: ANY,
            admin_address: ANY,
            tls_address: ANY,
            pin: [0; 32],
            stop: CancellationToken::new(),
            serving: None,
            client,
            reader,
            publisher,
            admin,
        };
        site.serve();
        site
    }

    fn serve(&mut self) {
        let server = OriginServer::bind(&self.config, self.clock.clone()).unwrap();
        self.address = server.write_plain_address().unwrap();
        self.tls_address = server.write_address().unwrap();
        self.read_address = server.plain_address().unwrap();
        self.admin_address = server.admin_address().unwrap();
        self.pin = server.certificate_pin();
        self.stop = CancellationToken::new();
        self.serving = Some(tokio::spawn(server.serve(self.stop.clone())));
    }

    /// Stops the origin and starts it again on the same folder, on other ports.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            serving.await.unwrap();
        }
        self.client = Client::new(ClientConfig::default()).unwrap();
        self.serve();
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/v1/{NAME}/{path}", self.address)
    }

    /// Sends a request as `token` to a whole URL.
    pub async fn ask(&self, token: &str, method: Method, url: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = http::Request::builder().method(method).uri(url);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.read_all(1 << 30).await.unwrap() }
    }

    pub async fn get(&self, token: &str, path: &str) -> Answer {
        self.ask(token, Method::GET, &self.url(path), &[], Body::empty()).await
    }

    pub async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.ask(token, Method::POST, &self.url(path), &json, Body::full(body.to_string())).await
    }

    /// A part of an upload as the publisher.
    pub async fn patch(&self, form: &str, id: BlobId, offset: u64, length: u64, part: &[u8]) -> Answer {
        let (offset, length) = (offset.to_string(), length.to_string());
        let headers = [("upload-offset", offset.as_str()), ("upload-length", length.as_str())];
        let url = self.url(&format!("blobs/{form}/{id}"));
        self.ask(&self.publisher, Method::PATCH, &url, &headers, Body::full(part.to_vec())).await
    }

    pub async fn state(&self, form: &str, id: BlobId) -> Answer {
        let url = self.url(&format!("blobs/{form}/{id}"));
        self.ask(&self.publisher, Method::HEAD, &url, &[], Body::empty()).await
    }

    /// Uploads content whole and raw.
    pub async fn put(&self, content: &[u8]) -> BlobId {
        let id = merkle::build(content).id;
        let answer = self.patch("raw", id, 0, content.len() as u64, content).await;
        assert!(answer.status.is_success() && answer.is_complete(), "{answer:?}");
        id
    }

    pub async fn missing(&self, blobs: &[BlobId]) -> Vec<BlobId> {
        let answer = self.post(&self.publisher, "blobs/missing", &json!({ "blobs": blobs })).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_value(answer.json()["missing"].clone()).unwrap()
    }

    pub async fn submit(&self, submission: &Value) -> Answer {
        self.post(&self.publisher, "targets", submission).await
    }

    /// The lines of the audit file.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The lines of the repository's own log of signing acts.
    pub fn signed_acts(&self) -> Vec<Value> {
        let parts = std::fs::read_dir(self.repository.dir().join("audit")).unwrap();
        let mut parts: Vec<PathBuf> = parts.map(|entry| entry.unwrap().path()).collect();
        parts.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap());
        let lines = parts.iter().flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        });
        lines.collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

/// The blobs of a sample package, meta.far first.
pub fn package(name: &str) -> (BlobId, Vec<Vec<u8>>) {
    let meta_far = std::fs::read(vectors().join(format!("{name}.meta.far"))).unwrap();
    let id = merkle::build(&meta_far).id;
    (id, vec![meta_far, format!("binary {name}").into_bytes(), format!("lib {name}").into_bytes()])
}

/// Bytes that differ everywhere.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}
