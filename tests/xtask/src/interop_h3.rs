//! `cargo xtask interop-h3`: clients that others wrote fetch blobs from an edge whose upstream others wrote too. aioquic and
//! Chromium over HTTP/3, curl over HTTP/2 and 1.1; nginx serves an exported repository to the edge.
//!
//! Every body is compared with the file that nginx has, and the edge's own counters say which protocol was really used. A
//! program that is missing is a loud failure that says how to get it. aioquic comes from the network, in pinned versions.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::acceptance::binary::Binary;
use crate::acceptance::sample::{self, Package, REPOSITORY};
use crate::acceptance::servers::{Server, get};
use crate::acceptance::static_server::{Nginx, export};
use crate::acceptance::tools;
use crate::acceptance::work::{empty_dir, ensure, json, outcome};
use crate::run::{Failure, command, output, root, run};

/// Several units, so that whole bodies are put together from them.
const BLOB_BYTES: usize = 9 << 20;

/// Within the blob, across the border of its first two units.
const RANGE: std::ops::Range<usize> = 1_000_003..3_000_001;

const TOOLS: [(&str, &str); 6] = [
    ("chromium", "apt-get install chromium"),
    ("curl", "apt-get install curl"),
    ("nginx", "apt-get install nginx-light (the program is in /usr/sbin)"),
    ("openssl", "apt-get install openssl"),
    ("python3", "apt-get install python3 python3-venv"),
    ("sha256sum", "apt-get install coreutils"),
];

/// The command: with a binary for development.
pub fn interop_h3() -> Result<(), Failure> {
    tools::present(&TOOLS, "interop-h3")?;
    check(&Binary::for_development()?)
}

/// The same with this binary.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    tools::present(&TOOLS, "interop-h3")?;
    let dir = empty_dir("interop-h3")?;
    let package = sample::package(binary, &dir, BLOB_BYTES)?;
    let repository = sample::repository(binary, &dir, &package)?;
    let nginx = Nginx::start(&dir)?;
    export(binary, &dir, &repository, &nginx)?;
    let upstream = format!("http://{}", nginx.address);
    let edge = Server::start(binary, &dir, "edge", &["edge", "serve", "--upstream", &upstream])?;
    let lab = Lab { edge: &edge, package: &package, dir: &dir };
    let outcome = [Lab::curl, Lab::aioquic, Lab::chromium].into_iter().try_for_each(|client| client(&lab));
    outcome.map_err(|failure| format!("{failure}\n-- log of the edge:\n{}", edge.log()))
}

struct Lab<'a> {
    edge: &'a Server,
    package: &'a Package,
    dir: &'a Path,
}

impl Lab<'_> {
    fn url(&self) -> Result<String, Failure> {
        Ok(format!("https://127.0.0.1:{}/{REPOSITORY}/blobs/1/{}", self.edge.port("https")?, self.package.blob))
    }

    /// What is fetched, as nginx has it.
    fn file(&self) -> PathBuf {
        self.dir.join("www").join(REPOSITORY).join("blobs/1").join(&self.package.blob)
    }

    /// Whole, and a range, over each.
    fn curl(&self) -> Result<(), Failure> {
        let url = self.url()?;
        let (range, out) = (header(), self.dir.join("curl.body"));
        for (flag, version, protocol) in [("--http2", "2", "h2"), ("--http1.1", "1.1", "h1")] {
            self.counted("curl", protocol, 2, || {
                for ranged in [false, true] {
                    let words = ["--silent", "--show-error", "--insecure", flag, "--max-time", "110"];
                    let mut curl = command("curl", words.map(OsStr::new));
                    curl.args(["--write-out", "%{http_version} %{http_code}", "--output"]).arg(&out);
                    if ranged {
                        curl.args(["--header", &format!("Range: {range}")]);
                    }
                    curl.arg(&url);
                    let said = output(curl)?;
                    let status = if ranged { 206 } else { 200 };
                    ensure(said == format!("{version} {status}"), || format!("curl {flag} says {said}"))?;
                    self.same(&out, ranged)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn aioquic(&self) -> Result<(), Failure> {
        let python = self.python()?;
        let (url, range, out) = (self.url()?, header(), self.dir.join("aioquic.body"));
        self.counted("aioquic", "h3", 2, || {
            for ranged in [false, true] {
                let mut aioquic = command(&python.display().to_string(), [source("aioquic_get.py")]);
                aioquic.arg(&out).arg(&url).args(ranged.then_some(&range));
                let answer: Value = json(aioquic)?;
                let status = if ranged { "206" } else { "200" };
                ensure(answer["alpn"] == "h3" && answer["status"] == status, || format!("aioquic got {answer}"))?;
                self.same(&out, ranged)?;
            }
            Ok(())
        })
    }

    /// A page fetches the blob and a file of metadata, and says what it got.
    fn chromium(&self) -> Result<(), Failure> {
        let url = self.url()?;
        let port = self.edge.port("https")?;
        let metadata = format!("https://127.0.0.1:{port}/{REPOSITORY}/timestamp.json");
        let profile = self.dir.join("chromium");
        let key = self.key()?;
        self.counted("Chromium", "h3", 2, || {
            let words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-web-security", "--dump-dom"];
            let mut chromium = command("timeout", ["110", "chromium"].map(OsStr::new));
            chromium.args(words).arg(format!("--user-data-dir={}", profile.display()));
            // Time stands still while something is fetched.
            chromium.arg("--virtual-time-budget=60000");
            chromium.arg(format!("--origin-to-force-quic-on=127.0.0.1:{port}"));
            chromium.arg(format!("--ignore-certificate-errors-spki-list={key}"));
            chromium.arg(format!("file://{}#{url}%20{metadata}", source("page.html").display()));
            let (ended_well, said) = outcome(chromium)?;
            let got = said.split_once("<body>fetched[").and_then(|(_, rest)| Some(rest.split_once(']')?.0));
            let got = got.filter(|_| ended_well).ok_or_else(|| format!("Chromium says: {said}"))?;
            println!("Chromium fetched {got}");
            let as_served = [self.file(), self.dir.join("www").join(REPOSITORY).join("timestamp.json")];
            let truths = as_served.iter().map(|file| Ok(format!("200 {} {}", bytes(file)?.len(), sha256(file)?)));
            let truth = truths.collect::<Result<Vec<_>, Failure>>()?.join(";");
            ensure(got == truth, || format!("Chromium fetched {got}, the truth is {truth}"))
        })
    }

    /// Does it, and looks whether the edge counted so many requests of this protocol and none of another.
    fn counted(
        &self,
        client: &str,
        protocol: &str,
        requests: u64,
        fetch: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let before = self.requests()?;
        fetch()?;
        let after = self.requests()?;
        for (name, before, after) in ["h3", "h2", "h1"].map(|name| (name, count(&before, name), count(&after, name))) {
            let expected = if name == protocol { requests } else { 0 };
            ensure(after - before == expected, || {
                format!("the edge counted {} requests of {client} over {name}, not {expected}", after - before)
            })?;
        }
        println!("== {client}: {requests} answers over {protocol}, every byte right");
        Ok(())
    }

    fn requests(&self) -> Result<String, Failure> {
        get(SocketAddr::from(([127, 0, 0, 1], self.edge.port("admin")?)), "/metrics")
    }

    fn same(&self, out: &Path, ranged: bool) -> Result<(), Failure> {
        let (got, truth) = (bytes(out)?, bytes(&self.file())?);
        let truth = if ranged { &truth[RANGE] } else { &truth[..] };
        ensure(got == truth, || format!("{} has other bytes: {} instead of {}", out.display(), got.len(), truth.len()))
    }

    /// Base64 of the SHA-256 of the public key in the edge's certificate, as Chromium wants it.
    fn key(&self) -> Result<String, Failure> {
        let certificate = self.dir.join("edge.tls/tls.crt");
        let script = "openssl x509 -noout -pubkey -in \"$0\" | openssl pkey -pubin -outform der | \
                      openssl dgst -sha256 -binary | openssl base64";
        let mut shell = command("sh", ["-c", script]);
        shell.arg(&certificate);
        Ok(output(shell)?.trim().to_owned())
    }

    /// A Python with aioquic.
    fn python(&self) -> Result<PathBuf, Failure> {
        let environment = self.dir.join("venv");
        run(command("python3", ["-m".as_ref(), "venv".as_ref(), environment.as_os_str()]))?;
        let python = environment.join("bin/python");
        let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
        let mut install = command(&python.display().to_string(), words);
        install.arg(source("requirements.txt"));
        run(install).map_err(|failure| format!("aioquic could not be had from PyPI: {failure}"))?;
        Ok(python)
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn header() -> String {
    format!("bytes={}-{}", RANGE.start, RANGE.end - 1)
}

/// What is counted of this protocol in the text of `/metrics`.
fn count(metrics: &str, protocol: &str) -> u64 {
    let name = format!("colibri_listener_requests_total{{protocol=\"{protocol}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

fn sha256(file: &Path) -> Result<String, Failure> {
    let line = output(command("sha256sum", [file]))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

fn source(name: &str) -> PathBuf {
    root().join("tests/xtask/src/interop_h3").join(name)
}
