//! The compose file, started by podman as written: a repository is made and filled through the `desk` service, and a device
//! and a small fleet fetch from both edges.
//!
//! Ports are not published to this machine, because they may be taken; that each goes to a port that is listened on, for TCP
//! and for UDP, is read from the file.

use serde_json::Value;

use super::binary::Binary;
use super::lab::Lab;
use super::sample::{self, PACKAGE_URL, REPOSITORY};
use super::servers::get;
use super::work::{empty_dir, ensure, json, write, yaml};
use crate::run::{Failure, output, root, run};

/// Where `deploy/config/origin.toml` has the repository.
const REPOSITORY_PATH: &str = "/var/lib/colibri/repositories/fleet.example";

/// Where it has the tokens of the write API.
const TOKENS: &str = "/var/lib/colibri/tokens.json";

/// Where the package is in the desk.
const MANIFEST: &str = "/package/out/package_manifest.json";

/// What the private keys in the origin's volume are encrypted with.
const PASSPHRASE: &str = "only for acceptance";

/// One service, in podman's words.
struct Service {
    flags: Vec<String>,
    arguments: Vec<String>,
    /// As written: `HOST:CONTAINER/PROTOCOL`.
    ports: Vec<String>,
}

/// Plays it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let documents = yaml(&root().join("deploy/compose.yaml"))?;
    let services = &documents.first().ok_or("deploy/compose.yaml is empty")?["services"];
    let lab = Lab::new()?;
    played(binary, &lab, services).map_err(|failure| format!("{failure}\n{}", lab.logs()))
}

fn played(binary: &Binary, lab: &Lab, services: &Value) -> Result<(), Failure> {
    let service = |name: &str| Service::read(lab, name, &services[name]);

    let package = sample::package(binary, &empty_dir("compose")?, 3 << 20)?;
    let mut desk = service("desk")?.flags;
    let created = json(lab.once(&desk, &["repo", "create", "--json", REPOSITORY_PATH]))?;
    let root_key = created["root_keys"][0].as_str().ok_or_else(|| format!("no root key in {created}"))?;
    desk.extend(["--volume".to_owned(), format!("{}:/package:ro", package.dir.display())]);
    run(lab.once(&desk, &["repo", "publish", "--level", "1", "--package", MANIFEST, REPOSITORY_PATH]))?;

    let edges = [("edge-1", 8443), ("edge-2", 8444)];
    for name in ["origin", "edge-1", "edge-2"] {
        let service = service(name)?;
        lab.start(name, &service.flags, &service.arguments)?;
        let admin = lab.admin(name)?;
        for path in ["/healthz", "/readyz", "/metrics"] {
            get(admin, path)?;
        }
    }
    pushed(lab, &desk, &service("origin")?)?;
    for (name, port) in edges {
        both_protocols(name, &service(name)?, port)?;
        devices(lab, &service("desk")?, name, port, root_key, package.blob_bytes as u64)?;
    }
    let asked = get(lab.admin("origin")?, "/metrics")?;
    ensure(asked.contains("colibri_origin_requests_total"), || format!("the origin counted nothing:\n{asked}"))?;
    for name in ["edge-1", "edge-2", "origin"] {
        let code = lab.stop(name)?;
        ensure(code == "0", || format!("{name} was stopped and ended with {code}"))?;
    }
    Ok(())
}

/// A publisher reaches the write API where the file says, with a token and the certificate that the origin made itself.
fn pushed(lab: &Lab, desk: &[String], origin: &Service) -> Result<(), Failure> {
    let port = origin.ports.iter().find_map(|port| port.strip_prefix("127.0.0.1:")?.strip_suffix("/tcp"));
    let port = port.and_then(|port| port.split_once(':')).map(|(_, inside)| inside);
    let port =
        port.ok_or_else(|| format!("the origin publishes {:?}, no port for this machine alone", origin.ports))?;
    let create = ["origin", "token", "create", "--token-file", TOKENS, "--name", "me", "--role", "publisher"];
    let token = output(lab.once(desk, &create))?;
    let file = empty_dir("compose-token")?.join("token");
    write(&file, token)?;
    let mut flags = desk.to_vec();
    flags.extend(["--volume".to_owned(), format!("{}:/token:ro", file.display())]);
    let to = format!("https://origin:{port}/{REPOSITORY}");
    let trust = ["--token-file", "/token", "--ca", "/var/lib/colibri/tls/tls.crt"];
    let push = [&["repo", "push", "--json", "--to", &to][..], &trust, &["--package", MANIFEST]].concat();
    println!("{}", json(lab.once(&flags, &push))?);
    Ok(())
}

/// A device resolves through this edge, then a small fleet does, over HTTP/3.
fn devices(lab: &Lab, desk: &Service, edge: &str, port: u16, root_key: &str, bytes: u64) -> Result<(), Failure> {
    let config = format!("https://{edge}:{port}/{REPOSITORY}/repo.config");
    let mut flags = desk.flags.clone();
    flags.extend(["--volume".to_owned(), format!("{}:/cache", lab.volume(&format!("device-of-{edge}")))]);
    let device = ["device", "--dir", "/cache/device", "--json"];
    let add = [&device[..], &["repo", "add", "url", &config, "--root-keys", root_key]].concat();
    run(lab.once(&flags, &add))?;
    let resolved = json(lab.once(&flags, &[&device[..], &["resolve", PACKAGE_URL]].concat()))?;
    println!("{resolved}");
    let fetched = resolved["fetched_content_bytes"].as_u64().unwrap_or(0);
    ensure(fetched > bytes && resolved["blamed"] == Value::Array(Vec::new()), || {
        format!("the device behind {edge} has not fetched everything from it: {resolved}")
    })?;
    let fleet = ["loadtest", "run", "--json", "--repo-url", &config, "--package", PACKAGE_URL, "--devices", "8"];
    let fleet = json(lab.once(&desk.flags, &[&fleet[..], &["--arrivals-per-s", "100"]].concat()))?;
    println!("{fleet}");
    ensure(fleet["h3_requests"].as_u64().is_some_and(|count| count > 0), || {
        format!("the fleet behind {edge} did not use HTTP/3: {fleet}")
    })
}

/// Clients see the port that is listened on, with both protocols.
fn both_protocols(name: &str, service: &Service, port: u16) -> Result<(), Failure> {
    let expected = ["tcp", "udp"].map(|protocol| format!("{port}:{port}/{protocol}"));
    ensure(service.ports == expected, || format!("{name} publishes {:?}, not {expected:?}", service.ports))
}

impl Service {
    /// Translates a service. A key it does not know is a failure: nothing in the file goes untried unnoticed.
    fn read(lab: &Lab, name: &str, service: &Value) -> Result<Self, Failure> {
        let fields = service.as_object().ok_or_else(|| format!("deploy/compose.yaml has no service {name}"))?;
        let mut read = Self { flags: Vec::new(), arguments: Vec::new(), ports: Vec::new() };
        for (key, value) in fields {
            match key.as_str() {
                "image" => ensure(value == "colibri", || format!("{name} has the image {value}"))?,
                "command" => read.arguments = texts(value)?,
                "ports" => read.ports = texts(value)?,
                "read_only" if value == true => {
                    read.flags.extend(["--read-only", "--read-only-tmpfs=false"].map(str::to_owned));
                }
                "tmpfs" => read.flag("--tmpfs", texts(value)?),
                // Without a value it is that of the shell that plays the file.
                "environment" => {
                    let given = |variable: String| match variable.as_str() {
                        "COLIBRI_KEY_PASSPHRASE" => format!("{variable}={PASSPHRASE}"),
                        _ => variable,
                    };
                    read.flag("--env", texts(value)?.into_iter().map(given).collect());
                }
                "cap_drop" => read.flag("--cap-drop", texts(value)?),
                "security_opt" => {
                    let plain = |option: String| option.strip_suffix(":true").unwrap_or(&option).to_owned();
                    read.flag("--security-opt", texts(value)?.into_iter().map(plain).collect());
                }
                "volumes" => {
                    let volumes = texts(value)?.iter().map(|volume| mounted(lab, volume)).collect();
                    read.flag("--volume", volumes);
                }
                "stop_grace_period" => {
                    let seconds = texts(&Value::Array(vec![value.clone()]))?;
                    read.flag(
                        "--stop-timeout",
                        seconds.iter().map(|text| text.trim_end_matches('s').to_owned()).collect(),
                    );
                }
                // When to start it is up to us.
                "restart" | "depends_on" | "profiles" => {}
                _ => return Err(format!("acceptance does not know what to do with {key} of the service {name}")),
            }
        }
        Ok(read)
    }

    fn flag(&mut self, flag: &str, values: Vec<String>) {
        self.flags.extend(values.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
}

/// A mount: what is relative lies beside the compose file, a plain name is a volume.
fn mounted(lab: &Lab, volume: &str) -> String {
    match (volume.strip_prefix("./"), volume.split_once(':')) {
        (Some(below), _) => format!("{}/deploy/{below}", root().display()),
        (None, Some((name, rest))) => format!("{}:{rest}", lab.volume(name)),
        (None, None) => volume.to_owned(),
    }
}

fn texts(value: &Value) -> Result<Vec<String>, Failure> {
    let texts = value.as_array().and_then(|all| all.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| format!("deploy/compose.yaml: {value} is not a list of texts"))
}
