//! The Helm chart: linted, rendered with each set of values, held against the API's schemas and against what the program
//! itself says of the configuration in it. No cluster is asked, so rules across fields are ours to check.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::binary::Binary;
use super::configuration::{effective_in, value};
use super::sample;
use super::work::{empty_dir, ensure, outcome, read, write, yaml};
use crate::run::{Failure, command, output, root, run};

const CHART: &str = "deploy/helm/colibri";

/// The oldest version `Chart.yaml` promises; the newest is what the validator knows.
const OLDEST: &str = "1.30";

/// Checks the chart.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("chart")?;
    let package = sample::package(binary, &dir, 1)?;
    let repository = sample::repository(binary, &dir, &package)?;
    version(binary)?;
    refuses("edge.replica=3")?;
    refuses("edge.service.port=https")?;
    refuses("edge.peers.directory=list")?;
    refuses("origin.enabled=false")?;
    refuses("loadtest.enabled=true")?;
    refuses("origin.write.enabled=true")?;
    refuses("origin.write.enabled=true,origin.write.tokenSecret.name=t,origin.write.repositories={other}")?;
    for (name, values) in value_files()? {
        let mut lint = command("helm", ["lint", "--strict", CHART]);
        lint.args(&values);
        run(lint)?;
        let mut template = command("helm", ["template", "fleet", CHART]);
        template.args(&values);
        let rendered = dir.join(format!("{name}.yaml"));
        write(&rendered, output(template)?)?;
        for version in [&["-k", OLDEST][..], &[]] {
            let mut validate = command("kubernetes-validate", ["--strict"]);
            validate.args(version).arg(&rendered);
            run(validate)?;
        }
        let objects = yaml(&rendered)?;
        Rendered { binary, dir: &dir, repository: &repository, objects: &objects }
            .check()
            .map_err(|failure| format!("the chart with {name} values: {failure}"))?;
    }
    Ok(())
}

/// `ci/NAME-values.yaml` as arguments of Helm, and the defaults.
fn value_files() -> Result<Vec<(String, Vec<PathBuf>)>, Failure> {
    let dir = root().join(CHART).join("ci");
    let entries = std::fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut files = vec![("default".to_owned(), Vec::new())];
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().trim_end_matches("-values").to_owned();
        files.push((name, vec![PathBuf::from("-f"), path]));
    }
    files.sort();
    ensure(files.len() > 2, || format!("{} holds too few sets of values", dir.display()))?;
    Ok(files)
}

/// A chart that has another version than the program would pull an image that is not there.
fn version(binary: &Binary) -> Result<(), Failure> {
    let (_, said) = outcome(binary.command(["--version"]))?;
    let version = said.trim().trim_start_matches("colibri ");
    let chart = read(&root().join(CHART).join("Chart.yaml"))?;
    ensure(chart.contains(&format!("appVersion: \"{version}\"")), || {
        format!("{CHART}/Chart.yaml is not for version {version}")
    })
}

/// The schema, or the template itself, turns these values down.
fn refuses(setting: &str) -> Result<(), Failure> {
    let (rendered, said) = outcome(command("helm", ["template", "fleet", CHART, "--set", setting]))?;
    ensure(!rendered, || format!("the chart took {setting}:\n{said}"))
}

/// What Kubernetes makes of the pod's variables for its peers, and what stands in for files that only a pod has.
fn peers_environment(container: &Value, configuration: &str) -> Result<Vec<(String, String)>, Failure> {
    let items = container["env"].as_array().ok_or("the container has no environment")?;
    let of_peers = items.iter().filter_map(|item| {
        let name = item["name"].as_str().filter(|name| name.starts_with("COLIBRI_EDGE_EDGE__PEERS__"))?;
        let value = item["value"].as_str()?;
        let address = if value.starts_with('[') { "fd00::1" } else { "10.0.0.1" };
        Some((name.to_owned(), value.replace("$(POD_IP)", address)))
    });
    let mut environment: Vec<_> = of_peers.collect();
    if configuration.contains("[edge.peers.endpoint_slices]") {
        environment.push(("COLIBRI_EDGE_EDGE__PEERS__ENDPOINT_SLICES__TLS".to_owned(), "none".to_owned()));
    }
    Ok(environment)
}

/// What Helm made of one set of values.
struct Rendered<'a> {
    binary: &'a Binary,
    dir: &'a Path,
    repository: &'a Path,
    objects: &'a [Value],
}

impl Rendered<'_> {
    fn check(&self) -> Result<(), Failure> {
        for workload in self.objects.iter().filter(|object| !object["spec"]["template"].is_null()) {
            let name = &workload["metadata"]["name"];
            self.pod(workload).map_err(|failure| format!("{name}: {failure}"))?;
        }
        for set in self.of_kind("StatefulSet") {
            let headless = self.of_kind("Service").any(|service| {
                service["metadata"]["name"] == set["spec"]["serviceName"] && service["spec"]["clusterIP"] == "None"
            });
            ensure(headless, || format!("no headless Service is called {}", set["spec"]["serviceName"]))?;
        }
        for deployment in self.of_kind("Deployment") {
            self.served_twice(deployment)?;
            self.peers(deployment)?;
        }
        self.load_test()?;
        self.kept_apart()
    }

    /// As many workers come at once as the coordinator waits for, and they find it.
    fn load_test(&self) -> Result<(), Failure> {
        let container = |job: &Value| job["spec"]["template"]["spec"]["containers"][0].clone();
        let named = |name: &str| self.of_kind("Job").find(|job| container(job)["name"] == name);
        let (Some(coordinator), Some(workers)) = (named("coordinator"), named("worker")) else { return Ok(()) };
        let spec = &workers["spec"];
        let wanted = format!("--workers={}", spec["completions"]);
        let asked = container(coordinator)["args"].as_array().is_some_and(|args| args.iter().any(|arg| *arg == wanted));
        ensure(asked && spec["completions"] == spec["parallelism"] && spec["completionMode"] == "Indexed", || {
            format!("the coordinator does not wait for {} workers at once", spec["completions"])
        })?;
        let service = self
            .of_kind("Service")
            .find(|service| service["spec"]["selector"]["app.kubernetes.io/component"] == "loadtest");
        let service = service
            .map(|service| format!("--coordinator={}:7400", service["metadata"]["name"].as_str().unwrap_or_default()));
        let found = container(workers)["args"]
            .as_array()
            .is_some_and(|args| args.iter().any(|arg| arg.as_str() == service.as_deref()));
        ensure(found, || format!("workers do not look for the coordinator at {service:?}"))
    }

    /// What the API server's "restricted" admission asks for, and what keeps the program's configuration its own.
    fn pod(&self, workload: &Value) -> Result<(), Failure> {
        let pod = &workload["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let wanted = [
            // Only who has an account of its own asks the API server; see `peers`.
            (
                "automountServiceAccountToken",
                &pod["automountServiceAccountToken"],
                Value::Bool(!pod["serviceAccountName"].is_null()),
            ),
            ("enableServiceLinks", &pod["enableServiceLinks"], Value::Bool(false)),
            ("runAsNonRoot", &pod["securityContext"]["runAsNonRoot"], Value::Bool(true)),
            ("seccompProfile", &pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault".into()),
            ("readOnlyRootFilesystem", &container["securityContext"]["readOnlyRootFilesystem"], Value::Bool(true)),
            ("allowPrivilegeEscalation", &container["securityContext"]["allowPrivilegeEscalation"], Value::Bool(false)),
            ("capabilities.drop", &container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"])),
        ];
        for (what, found, wanted) in wanted {
            ensure(*found == wanted, || format!("{what} is {found}, not {wanted}"))?;
        }
        let Some(role) = ["origin", "edge"].into_iter().find(|role| container["name"] == **role) else { return Ok(()) };
        ensure(container["livenessProbe"]["httpGet"]["path"] == "/healthz", || "no liveness probe".to_owned())?;
        ensure(container["readinessProbe"]["httpGet"]["path"] == "/readyz", || "no readiness probe".to_owned())?;
        self.configured(role, pod, container)
    }

    /// The program takes the configuration, listens where the pod says, and has the time it needs to drain.
    fn configured(&self, role: &str, pod: &Value, container: &Value) -> Result<(), Failure> {
        let file = format!("{role}.toml");
        let text = self.of_kind("ConfigMap").find_map(|map| map["data"][&file].as_str());
        let path = self.dir.join(&file);
        write(&path, text.ok_or_else(|| format!("no ConfigMap has {file}"))?)?;
        let environment = peers_environment(container, text.unwrap_or_default())?;
        let effective = effective_in(self.binary, role, &path, self.repository, &environment)?;
        let drain_s: u64 = value(&effective, "drain_s")?.parse().map_err(|error| format!("drain_s: {error}"))?;
        let pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or(0);
        let grace_s = pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(0);
        ensure(grace_s > drain_s + pause_s, || {
            format!("the pod is killed after {grace_s} s, but pauses {pause_s} s and drains up to {drain_s} s")
        })?;
        let ports = container["ports"].as_array().ok_or("the container names no ports")?;
        let has_write =
            role == "origin" && value(&effective, "write.listen").is_ok_and(|address| address.contains(':'));
        let write = has_write.then_some(("write.listen", "write"));
        ensure(write.is_some() == ports.iter().any(|port| port["name"] == "write"), || "a write port".to_owned())?;
        for (key, name) in
            [("listen", "https"), ("listen", "http3"), ("listen_admin", "admin")].into_iter().chain(write)
        {
            let listened: Option<u64> =
                value(&effective, key)?.trim_matches('"').rsplit(':').next().and_then(|port| port.parse().ok());
            let named = ports.iter().find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_u64());
            ensure(named == listened, || format!("port {name} is {named:?}, but the program listens on {listened:?}"))?;
        }
        Ok(())
    }

    /// Clients reach the edge's pods by TCP and by UDP on one number, in one Service or in two.
    fn served_twice(&self, deployment: &Value) -> Result<(), Failure> {
        let selector = &deployment["spec"]["selector"]["matchLabels"];
        let port = |protocol: &str, name: &str| {
            let services = self.of_kind("Service").filter(|service| service["spec"]["selector"] == *selector);
            let mut ports = services.flat_map(|service| service["spec"]["ports"].as_array().into_iter().flatten());
            ports.find(|port| port["protocol"] == protocol && port["targetPort"] == name).map(|port| &port["port"])
        };
        let (tcp, udp) = (port("TCP", "https"), port("UDP", "http3"));
        ensure(tcp.is_some() && tcp == udp, || format!("the edge is reached at TCP {tcp:?} and UDP {udp:?}"))
    }

    /// Edges that know each other find each other: a name of their own, a headless Service that leads to their pods and to
    /// nothing else, and, where the API server is asked, an account that may do that and nothing more.
    fn peers(&self, deployment: &Value) -> Result<(), Failure> {
        let pod = &deployment["spec"]["template"]["spec"];
        let env = pod["containers"][0]["env"].as_array().ok_or("the edge has no environment")?;
        let own = env.iter().find(|item| item["name"] == "COLIBRI_EDGE_EDGE__PEERS__OWN").map(|item| &item["value"]);
        let service = self.of_kind("Service").find(|service| {
            service["spec"]["clusterIP"] == "None"
                && service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
        });
        let (Some(own), Some(service)) = (own, service) else {
            return ensure(own.is_none() && service.is_none(), || "peers without a name or a Service".to_owned());
        };
        let port = &service["spec"]["ports"][0]["port"];
        let at = ["$(POD_IP)", "[$(POD_IP)]"][usize::from(service["spec"]["ipFamilies"][0] == "IPv6")];
        ensure(*own == format!("{at}:{port}"), || format!("an edge calls itself {own}, its peers ask port {port}"))?;
        let has_pod_ip = |item: &&Value| item["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP";
        let ip_at = env.iter().position(|item| has_pod_ip(&item) && item["name"] == "POD_IP");
        let own_at = env.iter().position(|item| item["value"] == *own);
        ensure(ip_at.is_some() && ip_at < own_at, || "POD_IP does not come before what is made of it".to_owned())?;
        let name = &service["metadata"]["name"];
        let text = self.of_kind("ConfigMap").find_map(|map| map["data"]["edge.toml"].as_str()).unwrap_or_default();
        let by_dns = text.contains(&format!("dns = \"{}.", name.as_str().unwrap_or_default()));
        let by_api = text.contains("[edge.peers.endpoint_slices]") && text.contains(&format!("service = {name}"));
        ensure(by_dns != by_api, || format!("the edge does not look for its peers in one place:\n{text}"))?;
        let account = &pod["serviceAccountName"];
        ensure(by_api != account.is_null(), || format!("peers are found by DNS: {by_dns}, the account is {account}"))?;
        if by_dns {
            return Ok(());
        }
        let (role, binding) = (self.only("Role")?, self.only("RoleBinding")?);
        let rules = serde_json::json!([
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}
        ]);
        ensure(role["rules"] == rules, || format!("edges may more than they need: {}", role["rules"]))?;
        let subject = &binding["subjects"][0];
        let bound = binding["roleRef"]["name"] == role["metadata"]["name"] && subject["name"] == *account;
        ensure(bound && self.only("ServiceAccount")?["metadata"]["name"] == *account, || {
            format!("the role is not the account's: {binding}")
        })
    }

    /// Publishing has a Service of its own, and no other leads there.
    fn kept_apart(&self) -> Result<(), Failure> {
        for service in self.of_kind("Service") {
            let ports = service["spec"]["ports"].as_array().ok_or("a Service without ports")?;
            let is_mixed = ports.len() > 1 && ports.iter().any(|port| port["targetPort"] == "write");
            ensure(!is_mixed, || {
                format!("the Service {} leads readers to the write API", service["metadata"]["name"])
            })?;
        }
        Ok(())
    }

    fn only<'a>(&'a self, kind: &'a str) -> Result<&'a Value, Failure> {
        let mut found = self.of_kind(kind);
        found.next().filter(|_| found.next().is_none()).ok_or_else(|| format!("there is not one {kind}"))
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }
}
