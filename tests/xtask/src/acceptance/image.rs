//! The image: built from the static binary, and run with nothing that it may write but what the image says.

use std::process::Command;

use serde_json::Value;

use super::binary::Binary;
use super::work::{ensure, json, outcome};
use crate::run::{Failure, command, run};

/// What acceptance calls the image.
pub const IMAGE: &str = "localhost/colibri:acceptance";

/// How the kernel and the distribution can be in podman's way.
const HINT: &str = "podman cannot run containers here. On Debian 12 with hybrid cgroups or without CAP_SYS_RESOURCE, \
                    /etc/containers/containers.conf needs:\n  [containers]\n  \
                    default_ulimits = [\"nofile=20000:20000\", \"nproc=8192:8192\"]\n  [engine]\n  runtime = \"runc\"";

/// Builds the image and plays the demo in it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let mut build = command("podman", ["build", "--pull=never", "-f", "deploy/Dockerfile", "-t", IMAGE]);
    build.args(["--build-arg".to_owned(), format!("BINARY={}", below_root(binary)?), ".".to_owned()]);
    run(build)?;
    let user = json(command("podman", ["image", "inspect", "--format", "{{json .Config}}", IMAGE]))?;
    ensure(user["User"] == "65532:65532", || format!("the image's user is {}", user["User"]))?;
    for port in ["8443/tcp", "8443/udp", "9443/tcp"] {
        ensure(user["ExposedPorts"].get(port).is_some(), || format!("the image does not expose {port}"))?;
    }
    same(binary)?;
    demo()
}

/// `podman run` as locked down as the compose file and the chart have it.
pub fn locked_down(more: &[&str]) -> Command {
    let mut run = command("podman", ["run", "--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL"]);
    run.args(["--security-opt=no-new-privileges", "--network=none"]).args(more).arg(IMAGE);
    run
}

/// The image runs, and what runs is the binary that was built: it says its own merkle root.
fn same(binary: &Binary) -> Result<(), Failure> {
    let mut inside = locked_down(&[]);
    inside.args(["file-hash", "/usr/bin/colibri"]);
    let (ran, inside) = outcome(inside)?;
    ensure(ran, || format!("{HINT}\nIt said: {inside}"))?;
    let mut outside = binary.command(["file-hash"]);
    outside.arg(binary.path());
    let (_, outside) = outcome(outside)?;
    let inside_hash = inside.split_whitespace().find(|word| outside.starts_with(word));
    println!("in the image: {}", inside.trim());
    ensure(inside_hash.is_some_and(|hash| hash.len() == 64), || {
        format!("the image holds another binary:\n{inside}{outside}")
    })?;
    run(version())
}

fn version() -> Command {
    let mut version = locked_down(&[]);
    version.arg("--version");
    version
}

/// The whole system in one container without a network. Its exit code is its verdict; the figures are held up once more.
fn demo() -> Result<(), Failure> {
    let mut demo = locked_down(&["--tmpfs=/tmp"]);
    demo.args(["demo", "--json"]);
    let report: Value = json(demo)?;
    println!("{report}");
    let zero = |key: &str| report[key].as_u64() == Some(0);
    ensure(zero("unverified_bytes_accepted") && zero("fleet_failures"), || format!("the demo went wrong: {report}"))?;
    ensure(report["packages"] == report["packages_verified"], || format!("not all packages were verified: {report}"))?;
    ensure(report["h3_requests"].as_u64().is_some_and(|count| count > 0), || "the demo did not use HTTP/3".to_owned())
}

fn below_root(binary: &Binary) -> Result<String, Failure> {
    let path = binary.path().strip_prefix(crate::run::root()).map_err(|error| error.to_string())?;
    Ok(path.display().to_string())
}
