//! A network of containers that is gone when it is dropped.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::image::IMAGE;
use super::servers::until;
use super::work::{ensure, outcome};
use crate::run::{Failure, command, output, run};

/// A network, with the containers and volumes that were made on it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    containers: RefCell<Vec<String>>,
    volumes: RefCell<Vec<String>>,
}

impl Lab {
    /// Makes a network of its own for this run.
    pub fn new() -> Result<Self, Failure> {
        let name = format!("colibri-acceptance-{}", std::process::id());
        run(command("podman", ["network", "create", &name]))?;
        Ok(Self { name, containers: RefCell::default(), volumes: RefCell::default() })
    }

    /// The name of one of the lab's volumes; made when first used.
    pub fn volume(&self, name: &str) -> String {
        let name = format!("{}-{name}", self.name);
        let mut volumes = self.volumes.borrow_mut();
        if !volumes.contains(&name) {
            volumes.push(name.clone());
        }
        name
    }

    /// `colibri ARGUMENTS` on the lab's network, gone when it ends.
    pub fn once(&self, flags: &[String], arguments: &[&str]) -> Command {
        let mut run = command("podman", ["run", "--rm", "--network", &self.name]);
        run.args(flags).arg(IMAGE).args(arguments);
        run
    }

    /// Starts a server that others reach by the name `service`, and waits until it says that it answers.
    pub fn start(&self, service: &str, flags: &[String], arguments: &[String]) -> Result<(), Failure> {
        let container = self.container(service);
        self.containers.borrow_mut().push(container.clone());
        let mut start = command("podman", ["run", "--detach", "--name", &container, "--network", &self.name]);
        start.args(["--network-alias", service, "--publish", "127.0.0.1::9443/tcp"]);
        start.args(flags).arg(IMAGE).args(arguments);
        run(start)?;
        until(&format!("{service} answers"), || {
            let (_, log) = outcome(command("podman", ["logs", &container]))?;
            let (_, running) =
                outcome(command("podman", ["container", "inspect", "--format", "{{.State.Running}}", &container]))?;
            ensure(running.trim() == "true", || format!("{service} ended:\n{log}"))?;
            Ok(log.contains("listening on https://"))
        })
    }

    /// Where a server's admin port is on this machine.
    pub fn admin(&self, service: &str) -> Result<SocketAddr, Failure> {
        let line = output(command("podman", ["port", &self.container(service), "9443/tcp"]))?;
        line.trim().parse().map_err(|error| format!("podman says the admin port of {service} is at {line:?}: {error}"))
    }

    /// Stops a server as `docker stop` would, and gives back its exit code.
    pub fn stop(&self, service: &str) -> Result<String, Failure> {
        let container = self.container(service);
        run(command("podman", ["stop", &container]))?;
        let code = output(command("podman", ["container", "inspect", "--format", "{{.State.ExitCode}}", &container]))?;
        Ok(code.trim().to_owned())
    }

    /// What all servers have logged, for whoever has to find out why something failed.
    pub fn logs(&self) -> String {
        let of = |container: &String| {
            let (_, log) = outcome(command("podman", ["logs", container])).unwrap_or_default();
            format!("-- log of {container}:\n{log}")
        };
        self.containers.borrow().iter().map(of).collect::<Vec<_>>().join("\n")
    }

    fn container(&self, service: &str) -> String {
        format!("{}-{service}", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let forget = |words: &[&str], name: &str| {
            _ = command("podman", words.iter().copied().chain([name]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        };
        for container in self.containers.take() {
            forget(&["rm", "--force", "--volumes", "--time", "0"], &container);
        }
        for volume in self.volumes.take() {
            forget(&["volume", "rm", "--force"], &volume);
        }
        forget(&["network", "rm", "--force"], &self.name);
    }
}
