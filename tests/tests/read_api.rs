//! The read API as a stranger sees it: the real `curl` over plain HTTP/1.1 against an origin on a port of its own, and the
//! same questions again to an edge in front of it.
//!
//! `curl` must be installed: without it these tests fail, they are never skipped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use colibri_common::{BlobId, ManualClock, UnixSeconds, merkle};
use colibri_edge::{Edge, EdgeConfig};
use colibri_origin::{Origin, OriginConfig, RepositoryConfig};
use colibri_package::delivery::{DeliveryType, encode};
use colibri_service::Registry;
use colibri_transport::{Handler, Server, ServerConfig};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    Origin,
    Edge,
}

/// An origin on loopback over a repository with one blob of several units, and what is asked: it, or an edge in front of it.
struct Site {
    dir: TempDir,
    face: Face,
    address: SocketAddr,
    stop: CancellationToken,
    content: Vec<u8>,
    encoded: Vec<u8>,
    id: BlobId,
    leaves: Vec<u8>,
}

/// What `curl` received.
#[derive(Debug)]
struct Received {
    status: u16,
    version: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Site {
    fn both() -> [Self; 2] {
        [Self::start(Face::Origin), Self::start(Face::Edge)]
    }

    fn start(face: Face) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metadata = dir.path().join("repository");
        std::fs::create_dir_all(metadata.join("blobs/1")).unwrap();
        std::fs::create_dir_all(metadata.join("targets/package1")).unwrap();
        for entry in std::fs::read_dir(vectors().join("tuf-repo")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), metadata.join(entry.file_name())).unwrap();
        }
        std::fs::copy(vectors().join("package1.meta.far"), metadata.join("targets/package1/0")).unwrap();
        let text = "the quick brown hummingbird drinks from every flower it passes; ";
        let content: Vec<u8> = (0..80_000).flat_map(|line| format!("{line}: {text}").into_bytes()).collect();
        let tree = merkle::build(&content);
        let encoded = encode(&content, DeliveryType::Type1, Some(1)).unwrap();
        std::fs::write(metadata.join(format!("blobs/1/{}", tree.id)), &encoded).unwrap();

        let repository = RepositoryConfig::new("devhost".parse().unwrap(), dir.path());
        let config = OriginConfig { repositories: vec![repository], timestamp_max_age_s: 7, ..OriginConfig::default() };
        let clock = ManualClock::new(UnixSeconds(1_768_435_200));
        let origin = Origin::open(config, Arc::new(clock)).unwrap();
        let stop = CancellationToken::new();
        let origin = listen(origin.handler(), &stop);
        let address = match face {
            Face::Origin => origin,
            Face::Edge => {
                let upstreams = vec![format!("http://{origin}")];
                let config = EdgeConfig { upstreams, metadata_max_age_s: 7, ..EdgeConfig::default() };
                listen(Edge::build(&config, &Registry::new()).unwrap().handler(), &stop)
            }
        };
        Self { dir, face, address, stop, content, encoded, id: tree.id, leaves: tree.leaves.wire().to_vec() }
    }

    /// Runs `curl` on a path as it is written, without normalising it.
    async fn curl(&self, path: &str, options: &[&str]) -> Received {
        let (head, body) = (self.dir.path().join("head"), self.dir.path().join("body"));
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--http1.1", "--path-as-is", "--max-time", "60", "--noproxy", "*"]);
        command.arg("--dump-header").arg(&head).arg("--output").arg(&body).args(options);
        command.arg(format!("http://{}{path}", self.address));
        std::fs::write(&body, "").unwrap();
        let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let output = run.expect("the program curl must be installed to run this test");
        assert!(output.status.success(), "{path} {options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let head = std::fs::read_to_string(head).unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let version = first.next().unwrap().to_owned();
        let status = first.next().unwrap().parse().unwrap();
        let fields = lines.filter_map(|line| line.split_once(": "));
        let headers = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Received { status, version, headers, body: std::fs::read(body).unwrap() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn listen(handler: Handler, stop: &CancellationToken) -> SocketAddr {
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let server = Server::bind(ServerConfig::plain(any), handler).unwrap();
    let address = server.address();
    tokio::spawn(server.serve(stop.clone(), Duration::from_secs(5)));
    address
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_blobs_and_their_headers() {
    for site in Site::both() {
        whole_blobs_and_their_headers_at(&site).await;
    }
}

async fn whole_blobs_and_their_headers_at(site: &Site) {
    let forms: [(String, &[u8], String); 3] = [
        (format!("/devhost/blobs/1/{}", site.id), &site.encoded, format!("\"{}.1.", site.id)),
        (format!("/devhost/blobs/{}", site.id), &site.content, format!("\"{}\"", site.id)),
        (format!("/blobs/leaves/{}", site.id), &site.leaves, format!("\"{}.leaves\"", site.id)),
    ];
    assert_eq!(site.leaves.len(), 32 * site.content.len().div_ceil(8192));
    for (path, expected, etag) in forms {
        let got = site.curl(&path, &[]).await;
        assert_eq!((got.status, &*got.version), (200, "HTTP/1.1"), "{path}");
        assert!(got.body == expected, "{path}: {} bytes instead of {}", got.body.len(), expected.len());
        assert_eq!(got.header("content-length"), expected.len().to_string());
        assert_eq!(got.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(got.header("accept-ranges"), "bytes");
        assert!(got.header("etag").starts_with(&etag), "{}", got.header("etag"));
        let again = site.curl(&path, &[]).await;
        let status = match site.face {
            Face::Origin => "colibri-origin; hit",
            Face::Edge => "edge; hit",
        };
        assert!(
            again.body == expected && again.header("cache-status").starts_with(status),
            "{path}: {}",
            again.header("cache-status")
        );
        let head = site.curl(&path, &["--head"]).await;
        assert_eq!((head.status, head.header("content-length")), (200, &*expected.len().to_string()));
        assert_eq!(head.header("etag"), got.header("etag"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    for site in Site::both() {
        ranges_at(&site).await;
    }
}

async fn ranges_at(site: &Site) {
    let length = site.content.len();
    let path = format!("/devhost/blobs/{}", site.id);
    let cases = [
        ("0-0".to_owned(), 0, 1),
        ("2097100-2097200".to_owned(), 2_097_100, 2_097_201),
        ("100000-".to_owned(), 100_000, length),
        ("-100".to_owned(), length - 100, length),
        (format!("-{}", length * 2), 0, length),
        (format!("{}-{}", length - 5, length + 1000), length - 5, length),
    ];
    for (range, start, end) in cases {
        let got = site.curl(&path, &["--range", &range]).await;
        assert_eq!(got.status, 206, "{range}");
        assert_eq!(got.header("content-range"), format!("bytes {start}-{}/{length}", end - 1));
        assert_eq!(got.header("content-length"), (end - start).to_string());
        assert!(got.body == site.content[start..end], "{range}");
    }
    let beyond = site.curl(&path, &["--range", &format!("{length}-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{length}")));
    assert_eq!(beyond.problem()["status"], 416);
    let several = site.curl(&path, &["--header", "Range: bytes=0-1,10-12"]).await;
    let (status, kind) = (several.status, several.header("content-type"));
    assert!(status == 206 && kind.starts_with("multipart/byteranges; boundary="), "{status} {kind}");
    assert_eq!(several.header("content-length"), several.body.len().to_string());
    let holds = |part: &[u8], range: &str| {
        let head = format!("content-range: bytes {range}/{length}\r\n\r\n").into_bytes();
        let wanted = [&head[..], part].concat();
        several.body.to_ascii_lowercase().windows(wanted.len()).any(|window| window == wanted.to_ascii_lowercase())
    };
    assert!(holds(&site.content[..2], "0-1") && holds(&site.content[10..13], "10-12"), "{:?}", several.body);
    for ignored in ["Range: bytes=5-1", "Range: pages=1-2"] {
        let got = site.curl(&path, &["--header", ignored]).await;
        assert!(got.status == 200 && got.body == site.content, "{ignored}");
    }
    let metadata = site.curl("/devhost/timestamp.json", &["--range", "0-3"]).await;
    assert_eq!((metadata.status, metadata.header("accept-ranges")), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_download_is_resumed() {
    for site in Site::both() {
        an_interrupted_download_is_resumed_at(&site).await;
    }
}

async fn an_interrupted_download_is_resumed_at(site: &Site) {
    let half = site.dir.path().join("body");
    std::fs::write(&half, &site.encoded[..site.encoded.len() / 2]).unwrap();
    let url = format!("http://{}/blobs/1/{}", site.address, site.id);
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--continue-at", "-", "--output"]).arg(&half).arg(url);
    let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = run.expect("the program curl must be installed to run this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(half).unwrap() == site.encoded);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions() {
    for site in Site::both() {
        conditions_at(&site).await;
    }
}

async fn conditions_at(site: &Site) {
    for path in [format!("/blobs/1/{}", site.id), "/devhost/targets.json".to_owned()] {
        let etag = site.curl(&path, &["--head"]).await.header("etag").to_owned();
        for field in
            [format!("If-None-Match: {etag}"), format!("If-None-Match: \"x\", W/{etag}"), "If-None-Match: *".to_owned()]
        {
            let got = site.curl(&path, &["--header", &field]).await;
            assert_eq!((got.status, got.header("etag"), got.body.len()), (304, &*etag, 0), "{path} {field}");
        }
        assert_eq!(site.curl(&path, &["--header", "If-None-Match: \"x\""]).await.status, 200);
        assert_eq!(site.curl(&path, &["--header", "If-Match: \"x\""]).await.status, 412);
    }
    let path = format!("/blobs/1/{}", site.id);
    let etag = site.curl(&path, &["--head"]).await.header("etag").to_owned();
    for (field, status) in [
        (format!("If-Range: {etag}"), 206),
        (format!("If-Range: W/{etag}"), 200),
        ("If-Range: \"x\"".to_owned(), 200),
        ("If-Range: Sat, 29 Oct 1994 19:43:31 GMT".to_owned(), 200),
    ] {
        let got = site.curl(&path, &["--range", "10-19", "--header", &field]).await;
        let expected = if status == 206 { &site.encoded[10..20] } else { &site.encoded };
        assert!(got.status == status && got.body == expected, "{field}: {}", got.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_targets_and_configuration() {
    for site in Site::both() {
        metadata_targets_and_configuration_at(&site).await;
    }
}

async fn metadata_targets_and_configuration_at(site: &Site) {
    for name in ["timestamp.json", "1.root.json", "snapshot.json", "1.targets.json"] {
        let got = site.curl(&format!("/devhost/{name}"), &[]).await;
        let expected = std::fs::read(vectors().join("tuf-repo").join(name)).unwrap();
        assert!(got.status == 200 && got.body == expected, "{name}");
        let immutable = name.starts_with('1');
        assert_eq!(got.header("cache-control").contains("immutable"), immutable, "{name}");
    }
    let target = site.curl("/devhost/targets/package1/0", &["--range", "0-7"]).await;
    assert_eq!((target.status, &target.body[..]), (206, &b"\xc8\xbf\x0b\x48\xad\xab\xc5\x11"[..]));

    // An edge may stand in front of many repositories: it has no configuration without a name, and no list of them.
    let configurations: &[&str] = match site.face {
        Face::Origin => &["/devhost/repo.config", "/config.json"],
        Face::Edge => &["/devhost/repo.config"],
    };
    for path in configurations {
        let got = site.curl(path, &["--header", "Host: packages.example:8083"]).await;
        assert_eq!((got.status, got.header("cache-control")), (200, "no-store"));
        let config: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(config["repo_url"], "fuchsia-pkg://devhost");
        assert_eq!(config["mirrors"][0]["mirror_url"], "http://packages.example:8083/devhost");
        assert_eq!(config["root_keys"].as_array().unwrap().len(), 1);
    }
    if site.face == Face::Edge {
        return;
    }
    let index = site.curl("/", &["--header", "Accept: application/json"]).await;
    let index: serde_json::Value = serde_json::from_slice(&index.body).unwrap();
    assert_eq!(index["repositories"][0]["name"], "devhost");
    let page = site.curl("/devhost/", &[]).await;
    assert!(
        page.header("content-type").starts_with("text/html")
            && String::from_utf8_lossy(&page.body).contains("package1/0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    for site in Site::both() {
        refusals_at(&site).await;
    }
}

async fn refusals_at(site: &Site) {
    let hash = site.id.to_string();
    let upper = format!("/blobs/1/{}", hash.to_uppercase());
    let absent = format!("/blobs/1/{}", "0".repeat(64));
    let other_type = format!("/devhost/blobs/2/{hash}");
    let unknown_type = format!("/devhost/blobs/3/{hash}");
    for path in [&*upper, &*absent, &*other_type, &*unknown_type, "/devhost/9.root.json", "/nobody/root.json", "/x/y/z"]
    {
        let got = site.curl(path, &[]).await;
        assert_eq!((got.status, got.header("cache-control")), (404, "public, max-age=7"), "{path}");
        assert_eq!(got.problem()["status"], 404);
        let head = site.curl(path, &["--head"]).await;
        assert_eq!((head.status, head.header("content-length")), (404, got.header("content-length")));
    }
    for path in [
        "/devhost/../keys/root.pem",
        "/devhost/targets/../../../etc/passwd",
        "/devhost/targets/%2e%2e/%2e%2e/keys/root.pem",
        "/devhost/targets/..%2f..%2fkeys",
        "/devhost/targets/..%5cx",
        "/devhost/targets/x%00",
        "/devhost//root.json",
        "/devhost/%ff.json",
    ] {
        let got = site.curl(path, &[]).await;
        assert_eq!((got.status, got.problem()["status"].as_u64()), (400, Some(400)), "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let got = site.curl("/devhost/root.json", &["--request", method]).await;
        assert_eq!((got.status, got.header("allow")), (405, "GET, HEAD"), "{method}");
        assert_eq!(got.problem()["status"], 405);
    }
}
