//! A developer's desk: `repo server` as processes, and publishing on change, seen from outside.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take. A bound for a test that hangs, not a claim about speed.
const PATIENCE: Duration = Duration::from_secs(120);

const LOCAL: &str = "127.0.0.1:0";

/// A folder with a repository `repo`, a package folder `app`, and records of servers of its own.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        desk.write("app/file", "one");
        desk.done(&["repo", "create", "--dev", "repo"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The executable, without configuration from the environment of whoever runs the tests.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colibri"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COLIBRI_") {
                command.env_remove(name);
            }
        }
        command.env("COLIBRI_SERVERS_DIR", self.path("servers"));
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn failed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments)).unwrap()
    }

    /// Starts a server in the background and gives what it says of itself.
    fn start(&self, arguments: &[&str]) -> Value {
        self.json(&[&["repo", "server", "start", "--background", "--json", "--address", LOCAL], arguments].concat())
    }

    fn running(&self) -> Vec<String> {
        let list = self.json(&["repo", "server", "list", "--json"]);
        list.as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// Servers in the background end with the test, also with one that fails.
impl Drop for Desk {
    fn drop(&mut self) {
        _ = self.command(&["repo", "server", "stop", "--all"]).output();
    }
}

fn address(server: &Value) -> SocketAddr {
    server["address"].as_str().unwrap().parse().unwrap()
}

/// Sends a request and gives the stream behind the head of a 200.
fn open(address: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{path}: {line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    reader
}

fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut body = Vec::new();
    open(address, path).read_to_end(&mut body).unwrap();
    body
}

/// The next version that the events tell.
fn next_version(events: &mut impl BufRead) -> u32 {
    loop {
        let mut line = String::new();
        assert!(events.read_line(&mut line).unwrap() > 0, "the events end");
        if let Some(version) = line.strip_prefix("data: ") {
            return version.trim().parse().unwrap();
        }
    }
}

/// A process of this test; killed when dropped.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }

    fn end(mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn until(what: &str, met: impl Fn() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_in_the_background_is_found_and_stopped() {
    let desk = Desk::new();
    let server = desk.start(&["--repo-path", "repo", "--port-path", "port"]);
    let port = fs::read_to_string(desk.path("port")).unwrap();
    assert_eq!(address(&server).port().to_string(), port);
    let served = get(address(&server), "/devhost/timestamp.json");
    assert_eq!(served, fs::read(desk.path("repo/repository/timestamp.json")).unwrap());
    let config: Value = serde_json::from_slice(&get(address(&server), "/devhost/repo.config")).unwrap();
    assert_eq!(config["mirrors"][0]["subscribe"], true);

    let list = desk.done(&["repo", "server", "list"]);
    let row: Vec<_> = list.lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect();
    let (pid, repo) = (server["pid"].to_string(), desk.path("repo").canonicalize().unwrap());
    assert_eq!(row, ["devhost", server["address"].as_str().unwrap(), &pid, repo.to_str().unwrap()]);
    assert!(desk.done(&["repo", "server", "list", "--full"]).contains("\"mode\": \"background\""));
    assert_eq!(desk.json(&["repo", "server", "list", "--json", "--name", "other"]), Value::Array(vec![]));

    // The same again is no second server; something else under the name is refused.
    assert_eq!(desk.start(&["--repo-path", "repo"])["pid"], server["pid"]);
    desk.done(&["repo", "create", "--dev", "other"]);
    let error = desk.failed(&["repo", "server", "start", "--address", LOCAL, "--repo-path", "other"]);
    assert!(error.contains("devhost") && error.contains(&pid) && error.contains("server stop devhost"), "{error}");

    let other = desk.start(&["--repo-path", "other", "-r", "other"]);
    assert_eq!(desk.running(), ["devhost", "other"]);
    assert!(desk.failed(&["repo", "server", "stop"]).contains("2 servers run"));
    let said = desk.done(&["repo", "server", "stop", "--port", &address(&other).port().to_string()]);
    assert!(said.starts_with("stopped other (process "), "{said}");
    assert_eq!(desk.json(&["repo", "server", "stop", "--json"]), serde_json::json!(["devhost"]));
    assert!(desk.running().is_empty() && TcpStream::connect(address(&server)).is_err());
    assert!(desk.failed(&["repo", "server", "stop", "devhost"]).contains("no server devhost runs"));
}

#[test]
fn a_server_that_was_killed_is_forgotten() {
    let desk = Desk::new();
    let server = desk.start(&["--repo-path", "repo"]);
    let pid = server["pid"].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    until("the record of the killed server goes", || desk.running().is_empty());
    assert!(!desk.path("servers/devhost.json").exists());
    let again = desk.start(&["--repo-path", "repo"]);
    assert_ne!(again["pid"], server["pid"]);
}

#[test]
fn what_cannot_be_served_is_told_from_the_background_too() {
    let desk = Desk::new();
    let start = ["repo", "server", "start", "--background", "--address", LOCAL, "--repo-path"];
    let error = desk.failed(&[&start[..], &["missing"]].concat());
    assert!(error.contains("did not start") && error.contains("missing holds no repository"), "{error}");
    assert!(desk.failed(&[&start[..], &["repo", "-r", "../x"]].concat()).contains("cannot be the name"));
    // Metadata that is not chained to the root that was given.
    desk.done(&["repo", "create", "--dev", "other"]);
    let root = "other/repository/1.root.json";
    let error = desk.failed(&[&start[..], &["repo", "--trusted-root", root]].concat());
    assert!(error.contains("timestamp.json"), "{error}");
    let own = "repo/repository/1.root.json";
    desk.start(&["--repo-path", "repo", "--trusted-root", own]);
    let taken = desk.json(&["repo", "server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    let error = desk.failed(&["repo", "server", "start", "-r", "b", "--repo-path", "other", "--address", &taken]);
    assert!(error.contains(&taken), "{error}");
}

#[test]
fn a_changed_file_is_published_and_told() {
    let desk = Desk::new();
    let server = desk.start(&["--repo-path", "repo", "--watch", "--from-dir", "app=app"]);
    let mut events = BufReader::new(open(address(&server), "/devhost/auto"));
    let mut version = next_version(&mut events);
    let offered = |content: &str| {
        let id = colibri_common::merkle::build(content.as_bytes()).id;
        let list = desk.json(&["repo", "package", "list", "--repo-path", "repo", "--json"]);
        desk.path(&format!("repo/repository/blobs/1/{id}")).exists() && list[0]["name"] == "app/0"
    };
    for content in ["one", "two", "three"] {
        if content != "one" {
            desk.write("app/deep/file", content);
        }
        while !offered(content) {
            let next = next_version(&mut events);
            assert!(next > version, "{next} after {version}");
            version = next;
        }
    }
    desk.done(&["repo", "server", "stop"]);
    desk.done(&["repo", "verify", "repo"]);
}

#[test]
fn lists_may_name_what_is_built_later() {
    let desk = Desk::new();
    desk.write("list.json", r#"{"version":"1","content":{"manifests":["out/package_manifest.json"]}}"#);
    let server = desk.start(&["--repo-path", "repo", "--auto-publish", "list.json"]);
    let mut events = BufReader::new(open(address(&server), "/devhost/auto"));
    // Nothing is there yet, and that is no mistake.
    while next_version(&mut events) < 1_700_000_000 {}
    desk.done(&["package", "build", "--from-dir", "app", "--name", "app", "-o", "out"]);
    let offered = || desk.done(&["repo", "package", "list", "--repo-path", "repo"]).contains("app/0");
    until("the package that was built later is offered", offered);
}

#[test]
fn publish_stays_and_watches_until_it_is_told_to_end() {
    let desk = Desk::new();
    let build = |content: &str| {
        desk.write("app/file", content);
        desk.done(&["package", "build", "--from-dir", "app", "--name", "app", "-o", "out"]);
    };
    build("one");
    let arguments = ["repo", "publish", "repo", "--level", "1", "--watch", "--package", "out/package_manifest.json"];
    let said = fs::File::create(desk.path("said")).unwrap();
    let publish = Process(desk.command(&arguments).stderr(said).spawn().unwrap());
    let blob = |content: &str| {
        let id = colibri_common::merkle::build(content.as_bytes()).id;
        desk.path(&format!("repo/repository/blobs/1/{id}")).exists()
    };
    let said = || fs::read_to_string(desk.path("said")).unwrap();
    until("the first publish", || blob("one") && said().contains("published 1 packages"));
    // What cannot be published is told and waited out.
    desk.write("out/package_manifest.json", "{");
    until("the complaint", || said().contains("not published: out/package_manifest.json"));
    build("two");
    until("the second publish", || blob("two"));
    publish.signal("-TERM");
    assert_eq!(publish.end(), Some(0), "{}", said());
    let error = desk.run(&["repo", "publish", "repo", "--watch"]);
    assert!(String::from_utf8_lossy(&error.stderr).contains("--watch needs something to watch"));
}

#[test]
fn packages_are_looked_at_by_the_name_or_port_of_a_running_server() {
    let desk = Desk::new();
    let list = |arguments: &[&str]| desk.done(&[&["repo", "package", "list"], arguments].concat());
    let nobody = desk.failed(&["repo", "package", "list", "-r", "devhost"]);
    assert!(nobody.contains("devhost") && nobody.contains("--repo-path"), "{nobody}");
    desk.done(&["repo", "publish", "repo", "--level", "1", "--from-dir", "hello=app"]);
    let server = desk.start(&["--repo-path", "repo"]);
    let port = address(&server).port().to_string();
    for arguments in [&[][..], &["-r", "devhost"], &["--port", &port], &["-r", "devhost", "--port", &port]] {
        assert!(list(arguments).contains("hello/0"), "{arguments:?}");
    }
    let elsewhere = desk.failed(&["repo", "package", "list", "-r", "devhost", "--port", "1"]);
    assert!(elsewhere.contains("devhost at port 1"), "{elsewhere}");
    desk.done(&["repo", "create", "--dev", "other"]);
    desk.start(&["--repo-path", "other", "-r", "other"]);
    assert!(desk.failed(&["repo", "package", "list"]).contains("2 servers run"));
    assert!(!list(&["-r", "other"]).contains("hello"));
    assert!(desk.done(&["repo", "package", "show", "-r", "devhost", "hello"]).contains("meta/package"));
    desk.done(&["repo", "package", "extract-archive", "-r", "devhost", "-o", "hello.far", "hello"]);
    assert!(desk.done(&["package", "archive", "list", "hello.far"]).contains("file\n"));
    let both = desk.run(&["repo", "package", "list", "-r", "devhost", "--repo-path", "repo"]);
    assert_eq!(both.status.code(), Some(2), "a name and a folder are one too many");
}

#[test]
fn a_product_bundle_is_served_under_the_names_of_its_repositories() {
    let desk = Desk::new();
    desk.done(&["package", "build", "--from-dir", "app", "--name", "app", "-o", "out"]);
    desk.done(&["repo", "publish", "repo", "--level", "1", "--package", "out/package_manifest.json"]);
    fs::create_dir_all(desk.path("pb/deep")).unwrap();
    copy(&desk.path("repo/repository"), &desk.path("pb/deep/metadata"));
    fs::rename(desk.path("pb/deep/metadata/blobs"), desk.path("pb/deep/content")).unwrap();
    fs::remove_dir_all(desk.path("pb/deep/content/leaves")).unwrap();
    let entry = |name: &str| serde_json::json!({ "name": name, "metadata_path": "deep/metadata", "blobs_path": "deep/content" });
    let bundle = serde_json::json!({ "version": "2", "repositories": [entry("fuchsia.com"), entry("b")] });
    desk.write("pb/product_bundle.json", &bundle.to_string());
    let server = desk.start(&["--product-bundle", "pb"]);
    let id = colibri_common::merkle::build(b"one").id;
    for name in ["fuchsia.com", "b"] {
        get(address(&server), &format!("/{name}/timestamp.json"));
        assert_eq!(get(address(&server), &format!("/{name}/blobs/{id}")), b"one");
    }
    assert_eq!(server["urls"].as_array().unwrap().len(), 2);
    // Its packages are looked at by the repository's name; the server's alone says too little.
    assert!(desk.done(&["repo", "package", "show", "-r", "b", "app"]).contains("meta.far"));
    let several = desk.failed(&["repo", "package", "list", "-r", "devhost"]);
    assert!(several.contains("fuchsia.com, b"), "{several}");
    assert!(desk.done(&["repo", "package", "list", "--repo-path", "repo"]).contains("app/0"));
    desk.done(&["repo", "server", "stop", "--product-bundle", "pb"]);
    assert!(!desk.path("pb/deep/content/leaves").exists(), "a bundle is not written into");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

#[test]
fn a_mirror_follows_what_it_verified() {
    let desk = Desk::new();
    desk.write("app/large", &"large ".repeat(700_000));
    let publish = |extra: &[&str]| {
        desk.done(&["package", "build", "--from-dir", "app", "--name", "app", "-o", "out"]);
        let line = ["repo", "publish", "repo", "--level", "1", "--package", "out/package_manifest.json"];
        desk.done(&[&line[..], extra].concat());
    };
    publish(&[]);
    let server = desk.start(&["--repo-path", "repo"]);
    let url = server["urls"][0].as_str().unwrap().to_owned();
    let mirror = |extra: &[&str]| desk.json(&[&["repo", "mirror", "--json", &url, "m"], extra].concat());

    let error = desk.failed(&["repo", "mirror", &url, "m"]);
    assert!(error.contains("--trust-on-first-use"), "{error}");
    desk.done(&["repo", "create", "--dev", "other"]);
    let wrong = "other/repository/1.root.json";
    let error = desk.failed(&["repo", "mirror", &url, "m", "--trusted-root", wrong]);
    assert!(error.contains("timestamp.json") && error.contains(&url), "{error}");
    assert!(!desk.path("m/repository/root.json").exists());

    // A blob that is damaged at the source: nothing is visible, what was good is kept.
    let id = colibri_common::merkle::build(b"one").id;
    let blob = desk.path(&format!("repo/repository/blobs/1/{id}"));
    let good = fs::read(&blob).unwrap();
    fs::write(&blob, b"rotten").unwrap();
    let root = ["--trusted-root", "repo/repository/1.root.json"];
    let error = desk.failed(&[&["repo", "mirror", &url, "m"], &root[..]].concat());
    assert!(error.contains(&id.to_string()), "{error}");
    assert!(!desk.path("m/repository/root.json").exists());
    // Renamed into place, as publishing does: whoever looked at the bad one does not believe in it any more.
    fs::write(desk.path("good"), good).unwrap();
    fs::rename(desk.path("good"), &blob).unwrap();
    let first = mirror(&root);
    assert_eq!((&first["packages"], &first["blobs"]), (&1.into(), &3.into()), "{first}");
    assert!(first["blobs_fetched"].as_u64().unwrap() < 3, "what was got before is not fetched again: {first}");
    desk.done(&["repo", "verify", "m"]);
    assert!(!desk.path("m/.mirror").exists());
    let same = |name: &str| {
        let file = |dir: &str| fs::read(desk.path(&format!("{dir}/repository/{name}"))).unwrap();
        assert!(file("m") == file("repo"), "{name}");
    };
    ["root.json", "1.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"].into_iter().for_each(same);

    // Nothing new, then a release under a new root.
    let again = mirror(&[]);
    assert_eq!((&again["changed"], &again["blobs_fetched"]), (&false.into(), &0.into()), "{again}");
    desk.write("app/file", "two");
    publish(&["--refresh-root"]);
    let third = mirror(&[]);
    assert_eq!((&third["versions"]["root"], &third["blobs_fetched"]), (&2.into(), &2.into()), "{third}");
    ["root.json", "2.root.json", "timestamp.json", "3.targets.json"].into_iter().for_each(same);
    desk.done(&["repo", "verify", "m"]);

    // Without being asked whom to trust, on first use only.
    desk.json(&["repo", "mirror", "--json", &url, "tofu", "--trust-on-first-use", "--jobs", "1"]);
    desk.done(&["repo", "verify", "tofu"]);
}

#[test]
fn a_mirror_has_every_delegated_role_and_its_documents() {
    let desk = Desk::new();
    desk.done(&["repo", "create", "--dev", "--profile", "scale", "s"]);
    let publish = |name: &str| {
        desk.write("app/file", name);
        desk.done(&["package", "build", "--from-dir", "app", "--name", name, "-o", name]);
        let manifest = format!("{name}/package_manifest.json");
        desk.done(&["repo", "publish", "s", "--level", "1", "--package", &manifest]);
        colibri_repository::Repository::open(&desk.path("s")).unwrap().package(name).unwrap().hash
    };
    let release = publish("release");
    desk.done(&["repo", "rollout", "enable", "--dev", "s"]);
    desk.write("choice.json", &format!("{{\"releases\": [\"{release}\"]}}"));
    desk.done(&["repo", "rollout", "put", "s", "spring", "choice.json"]);
    let server = desk.start(&["--repo-path", "s"]);
    let url = server["urls"][0].as_str().unwrap().to_owned();
    let mirror = |extra: &[&str]| desk.json(&[&["repo", "mirror", "--json", &url, "m"], extra].concat());
    // A role that is not what its keys signed is not passed on.
    let snapshot: Value = serde_json::from_slice(&fs::read(desk.path("s/repository/snapshot.json")).unwrap()).unwrap();
    let version = &snapshot["signed"]["meta"]["bin-07e.json"]["version"];
    let bin = desk.path(&format!("s/repository/{version}.bin-07e.json"));
    let good = fs::read(&bin).unwrap();
    let replace = |content: &[u8]| {
        fs::write(desk.path("other"), content).unwrap();
        fs::rename(desk.path("other"), &bin).unwrap();
    };
    let text = String::from_utf8(good.clone()).unwrap();
    assert!(text.contains("\"spec_version\":\"1.0\""));
    replace(text.replacen("\"1.0\"", "\"1.1\"", 1).as_bytes());
    let root = ["--trusted-root", "s/repository/1.root.json"];
    let error = desk.failed(&[&["repo", "mirror", &url, "m"], &root[..]].concat());
    assert!(error.contains("bin-07e"), "{error}");
    assert!(!desk.path("m/repository/root.json").exists());
    replace(&good);
    let first = mirror(&root);
    assert_eq!((&first["packages"], &first["blobs"]), (&1.into(), &2.into()), "{first}");
    desk.done(&["repo", "verify", "m"]);
    let mirrored = || colibri_repository::Repository::open(&desk.path("m")).unwrap();
    assert_eq!(
        (mirrored().rollouts().unwrap(), mirrored().package("release").unwrap().hash),
        (vec!["spring".into()], release)
    );
    let documents = |dir: &str| {
        let files = fs::read_dir(desk.path(&format!("{dir}/repository/targets/rollout"))).unwrap();
        files.map(|file| file.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(documents("m"), documents("s"));
    let again = mirror(&[]);
    assert_eq!((&again["changed"], &again["blobs_fetched"]), (&false.into(), &0.into()), "{again}");
    publish("second");
    desk.done(&["repo", "rollout", "put", "s", "autumn", "choice.json"]);
    assert_eq!(mirror(&[])["packages"], 2);
    assert_eq!((documents("m"), mirrored().rollouts().unwrap().len()), (documents("s"), 2));
    desk.done(&["repo", "verify", "m"]);
    // And it can be passed on again.
    desk.done(&["repo", "export", "m", "out"]);
    desk.done(&["repo", "verify", "out"]);
}

#[test]
fn a_device_is_told_of_what_is_served() {
    let desk = Desk::new();
    desk.done(&["repo", "publish", "repo", "--level", "1", "--from-dir", "hello=app"]);
    let nobody = desk.failed(&["repo", "target", "register", "--device-dir", "device"]);
    assert!(nobody.contains("no server here serves devhost"), "{nobody}");
    assert!(!desk.path("device").exists());
    let server = desk.start(&["--repo-path", "repo", "--alias", "fuchsia.com"]);
    let target = |words: &[&str]| desk.done(&[&["repo", "target", "--device-dir", "device"], words].concat());
    let at = address(&server);
    assert_eq!(
        target(&["register"]),
        format!("registered fuchsia-pkg://devhost at http://{at}/devhost\n  fuchsia-pkg://fuchsia.com stands for it\n")
    );
    let device = |words: &[&str]| desk.run(&[&["device", "--dir", "device"], words].concat()).status.code();
    assert_eq!(device(&["resolve", "fuchsia-pkg://fuchsia.com/hello"]), Some(0));
    let listed = serde_json::from_str::<Value>(&target(&["list", "--json"])).unwrap();
    assert_eq!(
        (&listed[0]["repo_url"], &listed[0]["aliases"][0]),
        (&"fuchsia-pkg://devhost".into(), &"fuchsia.com".into())
    );

    // A rule about the same host is kept or replaced, as asked.
    let rule = r#"{"version":"1","content":[{"host_match":"fuchsia.com","host_replacement":"elsewhere",
        "path_prefix_match":"/","path_prefix_replacement":"/"}]}"#;
    assert_eq!(device(&["rule", "replace", "json", rule]), Some(0));
    let register = ["repo", "target", "--device-dir", "device", "register"];
    let taken = desk.failed(&[&register[..], &["--alias-conflict-mode", "error-out"]].concat());
    assert!(taken.contains("a rule about fuchsia.com"), "{taken}");
    assert_eq!(device(&["get-hash", "fuchsia-pkg://fuchsia.com/hello"]), Some(1));
    let others =
        target(&["register", "--storage-type", "persistent", "--alias", "fuchsia.com", "--alias", "b.com", "--json"]);
    assert!(others.contains("\"b.com\""), "{others}");
    for host in ["fuchsia.com", "b.com", "devhost"] {
        assert_eq!(device(&["get-hash", &format!("fuchsia-pkg://{host}/hello")]), Some(0), "{host}");
    }
    assert_eq!(target(&["deregister"]), "removed fuchsia-pkg://devhost\n");
    assert_eq!(desk.done(&["device", "--dir", "device", "rule", "list"]), "");
    assert!(desk.failed(&["repo", "target", "--device-dir", "device", "deregister"]).contains("fuchsia-pkg://devhost"));

    // In one step with the start.
    desk.start(&["--repo-path", "repo", "-r", "second", "--device-dir", "device", "--alias", "a.com"]);
    assert_eq!(device(&["pkg-status", "fuchsia-pkg://a.com/hello"]), Some(0));
    let expected = format!("{:<10}  ", "second");
    assert!(target(&["list"]).lines().any(|line| line.starts_with(&expected) && line.ends_with("  a.com")));
}
