//! `colibri repo server start`: claims a name, checks what is to be served, opens the port, publishes on change if asked.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use colibri_common::{Clock, SystemClock};
use colibri_origin::{Origin, OriginConfig, RepositoryConfig};
use colibri_repository::{Publish, Repository, RepositorySource, sources};
use colibri_service::telemetry::{self, Format};
use colibri_service::{Drain, shutdown_signal};
use colibri_transport::server::{Server, ServerConfig};
use serde_json::json;
use tempfile::TempDir;

use super::instances::{Instance, Instances, Place, Served};
use super::{DEVHOST, RepoError, ServerError};
use crate::device::registrations::DevicePlace;
use crate::files::{self, FilesError};
use crate::repo::publish;
use crate::repo::signing::SigningArgs;
use crate::repo::target::{self, How, OnConflict, Storage};
use crate::repo::watch::{self, Inputs};

/// How long requests under way may take at the end: less than `server stop` waits.
const DRAIN: Duration = Duration::from_secs(2);

/// Arguments of `repo server start`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Start {
    /// Where to answer; port 0 picks one
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8083")]
    pub address: SocketAddr,
    /// Serve in the background, until `repo server stop`
    #[arg(long, conflicts_with = "foreground")]
    pub background: bool,
    /// Serve here, until Ctrl-C (what happens without a word too)
    #[arg(long)]
    pub foreground: bool,
    /// Name of the server, and of the repository in its addresses
    #[arg(short = 'r', long, value_name = "NAME", default_value = DEVHOST)]
    pub repository: String,
    /// The repository's folder
    #[arg(long, value_name = "DIR", required_unless_present = "product_bundle", conflicts_with = "product_bundle")]
    pub repo_path: Option<PathBuf>,
    /// A product bundle: each of its repositories is served under its own name
    #[arg(long, value_name = "DIR")]
    pub product_bundle: Option<PathBuf>,
    /// Root metadata to trust; default is the repository's own oldest root. Metadata not chained to it is an error
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// Write the bound port here
    #[arg(long, value_name = "FILE")]
    pub port_path: Option<PathBuf>,
    /// Sign the metadata again at the start
    #[arg(long, conflicts_with = "product_bundle")]
    pub refresh_metadata: bool,
    /// Publish the packages of this list now and whenever they change: --watch --package-list FILE --time-versioning
    /// --ignore-missing-packages in one
    #[arg(long, value_name = "FILE", conflicts_with = "product_bundle")]
    pub auto_publish: Option<PathBuf>,
    /// Publish the packages named below now and whenever they change
    #[arg(long, conflicts_with = "product_bundle")]
    pub watch: bool,
    /// What to publish
    #[command(flatten)]
    pub inputs: Inputs,
    /// Metadata versions are seconds since 1970 instead of the next number
    #[arg(long)]
    pub time_versioning: bool,
    /// zstd level instead of 14; a low one is quicker while developing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: Option<i32>,
    /// Folder of the private keys; default is keys in the repository's folder
    #[arg(long, value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,
    /// Register it on the device in this folder once it serves, as `repo target register` does
    #[arg(long, value_name = "DIR", conflicts_with = "no_device")]
    pub device_dir: Option<PathBuf>,
    /// How it is registered there; aliases are for devices that `repo target register` tells of it later, too
    #[command(flatten)]
    pub how: How,
    /// Accepted for scripts written for the real tools: without --device-dir no device is told of it
    #[arg(long)]
    pub no_device: bool,
    /// Print one JSON object once it serves
    #[arg(long)]
    pub json: bool,
    /// This is the process in the background
    #[arg(long, hide = true)]
    pub in_background: bool,
}

const HELP: &str = "\
Each repository answers at http://ADDRESS/NAME, tells devices of itself at /NAME/repo.config, and of every new
timestamp at /NAME/auto. A second start that asks for the same does nothing; one that asks for something else under
the same name is an error.

Examples:
  colibri repo server start --repo-path repo --background
  colibri repo server start --repo-path repo --watch --from-dir hello=app
  colibri device repo add url http://localhost:8083/devhost/repo.config";

/// Starts.
pub(super) fn run(args: &Start, instances: &Instances, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    check_name(&args.repository)?;
    let asked = args.asked()?;
    match instances.claim(&args.repository)? {
        Err(running) if running.asked == asked => {
            eprintln!("server {} runs already (process {})", running.name, running.pid);
            tell(args, &running, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(running) => {
            let Instance { name, address, pid, .. } = running;
            Err(ServerError::Runs { name, address, pid }.into())
        }
        Ok(place) if args.background => {
            // The name is for the other process.
            drop(place);
            in_background(args, instances, out)
        }
        Ok(place) => serve(args, instances, place, asked, out),
    }
}

fn check_name(name: &str) -> Result<(), ServerError> {
    let known: Result<colibri_origin::RepositoryName, _> = name.parse();
    known.map(drop).map_err(|_| ServerError::Name(name.to_owned()))
}

/// What is to be served.
struct Site {
    /// The repository's folder, or the product bundle.
    dir: PathBuf,
    served: Vec<Served>,
    configs: Vec<RepositoryConfig>,
    /// A product bundle's repositories as folders of the form that an origin knows.
    _links: Option<TempDir>,
}

impl Site {
    fn of(args: &Start, instances: &Instances) -> Result<Self, RepoError> {
        let dir = args.product_bundle.as_ref().or(args.repo_path.as_ref()).cloned().unwrap_or_default();
        let found = sources(&dir)?;
        for source in &found {
            source.check(args.trusted_root.as_deref().map(files::read).transpose()?)?;
        }
        if args.product_bundle.is_none() {
            let path = dir.canonicalize().map_err(FilesError::io("opening", &dir))?;
            let configs = vec![config(&args.repository, &path)?];
            let served = vec![Served { name: args.repository.clone(), path }];
            return Ok(Self { dir, served, configs, _links: None });
        }
        let links = tempfile::Builder::new().prefix("bundle-").tempdir_in(instances.dir());
        let links = links.map_err(FilesError::io("making a folder in", instances.dir()))?;
        let mut site = Self { dir, served: Vec::new(), configs: Vec::new(), _links: None };
        for source in &found {
            let name = source.name.clone().unwrap_or_else(|| args.repository.clone());
            check_name(&name)?;
            let folder = links.path().join(&name);
            link(source, &folder)?;
            site.configs.push(config(&name, &folder)?);
            site.served.push(Served { name, path: source.metadata_dir().to_owned() });
        }
        site._links = Some(links);
        Ok(site)
    }
}

fn config(name: &str, path: &Path) -> Result<RepositoryConfig, ServerError> {
    let parsed = name.parse().map_err(|_| ServerError::Name(name.to_owned()))?;
    Ok(RepositoryConfig::new(parsed, path))
}

/// Metadata and blobs side by side, wherever the bundle keeps them.
fn link(source: &RepositorySource, folder: &Path) -> Result<(), RepoError> {
    files::create_dir(folder)?;
    let blobs = source.blob_dirs().iter().find(|blobs| blobs.is_dir());
    for (target, name) in [(Some(source.metadata_dir()), "repository"), (blobs.map(PathBuf::as_path), "blobs")] {
        let Some(target) = target else { continue };
        let target = target.canonicalize().map_err(FilesError::io("opening", target))?;
        let link = folder.join(name);
        std::os::unix::fs::symlink(target, &link).map_err(FilesError::io("linking", &link))?;
    }
    Ok(())
}

/// Serves until somebody asks this process to end.
fn serve(
    args: &Start,
    instances: &Instances,
    place: Place,
    asked: serde_json::Value,
    out: &mut dyn Write,
) -> Result<ExitCode, RepoError> {
    // Only the first server of a process can say where logs go.
    let _telemetry = telemetry::init(Format::Human, "warn").ok();
    if args.refresh_metadata {
        open(args)?.refresh(SystemClock.now())?;
    }
    let site = Site::of(args, instances)?;
    let config = OriginConfig {
        repositories: site.configs.clone(),
        timestamp_max_age_s: 0,
        // A product bundle is not ours to write into.
        keep_computed_leaves: args.product_bundle.is_none(),
        subscribe: true,
        ..OriginConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut signal = std::pin::pin!(shutdown_signal());
        // One poll puts the handlers in place before anybody is told that it serves.
        tokio::select! { biased; _ = &mut signal => return Ok(()), () = std::future::ready(()) => {} }
        let origin = Origin::open(config, Arc::new(SystemClock)).map_err(ServerError::from)?;
        let server = Server::bind(ServerConfig::plain(args.address), origin.handler()).map_err(ServerError::from)?;
        let instance = Instance {
            name: args.repository.clone(),
            address: server.address().to_string(),
            repositories: site.served.clone(),
            product_bundle: args.product_bundle.as_ref().and_then(|path| path.canonicalize().ok()),
            aliases: args.how.alias.clone(),
            mode: if args.in_background { "background" } else { "foreground" }.to_owned(),
            pid: std::process::id(),
            started: SystemClock.now().0,
            log: args.in_background.then(|| instances.log(&args.repository)),
            asked,
        };
        if let Some(path) = &args.port_path {
            files::write(path, server.address().port().to_string().as_bytes())?;
        }
        if let Some(dir) = &args.device_dir {
            for (source, served) in sources(&site.dir)?.iter().zip(&site.served) {
                target::register(&DevicePlace::of(dir), &instance, &served.name, source, &args.how)?;
            }
        }
        let publisher = Publisher::start(args);
        place.record(&instance)?;
        tell(args, &instance, out)?;
        let drain = Drain::new();
        let ending = async {
            signal.await;
            origin.end_events();
            drain.begin();
        };
        tokio::join!(server.serve(drain.token(), DRAIN), ending);
        tokio::task::spawn_blocking(move || publisher.map_or(Ok(()), Publisher::end)).await.unwrap_or(Ok(()))
    });
    drop(place);
    ended.map(|()| ExitCode::SUCCESS)
}

fn open(args: &Start) -> Result<Repository, RepoError> {
    let dir = args.repo_path.clone().unwrap_or_default();
    signing(args.signing_keys.clone()).open(&dir)
}

fn signing(signing_keys: Option<PathBuf>) -> SigningArgs {
    SigningArgs { signing_keys, ..SigningArgs::default() }
}

/// Publishes on change, on a thread of its own.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<(), RepoError>>,
}

impl Publisher {
    /// Begins, if that was asked for.
    fn start(args: &Start) -> Option<Self> {
        let mut inputs = args.inputs.clone();
        let mut time_versioning = args.time_versioning;
        if let Some(list) = &args.auto_publish {
            inputs.package_list.push(list.clone());
            inputs.ignore_missing_packages = true;
            time_versioning = true;
        } else if !args.watch {
            return None;
        }
        let (dir, keys, level) = (args.repo_path.clone().unwrap_or_default(), args.signing_keys.clone(), args.level);
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let outcome = watch::watch(&inputs, &asked, |gathered| {
                let repository = signing(keys.clone()).open(&dir)?;
                let report = repository.publish(&Publish {
                    manifests: gathered.manifests.clone(),
                    package_archives: gathered.archives.clone(),
                    compression_level: level,
                    time_versioning,
                    ..Publish::new(SystemClock.now())
                })?;
                Ok(publish::summary(&report))
            });
            if let Err(error) = &outcome {
                eprintln!("colibri: publishing on change ended: {error}");
            }
            outcome
        });
        Some(Self { stop, thread })
    }

    fn end(self) -> Result<(), RepoError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Ok(()))
    }
}

/// Where a person or script finds it.
fn tell(args: &Start, instance: &Instance, out: &mut dyn Write) -> Result<(), RepoError> {
    let urls: Vec<String> =
        instance.repositories.iter().map(|repository| format!("{}/{}", instance.url(), repository.name)).collect();
    if args.json {
        let report = json!({ "name": instance.name, "address": instance.address, "pid": instance.pid, "urls": urls });
        files::print_json(out, &report)?;
    } else {
        for (repository, url) in instance.repositories.iter().zip(&urls) {
            writeln!(out, "{} is served at {url}", repository.path.display())?;
            writeln!(out, "  on a device: colibri device repo add url {url}/repo.config")?;
        }
    }
    Ok(out.flush()?)
}

/// Starts this program again, apart from this terminal, and waits until it serves.
fn in_background(args: &Start, instances: &Instances, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let log = instances.log(&args.repository);
    let failed = FilesError::io("writing", &log);
    let stderr = File::create(&log).map_err(&failed)?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(args.again(instances)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
    let mut child = command.spawn()?;
    let instance = wait_until_recorded(&mut child, args, instances, &log)?;
    tell(args, &instance, out)?;
    Ok(ExitCode::SUCCESS)
}

fn wait_until_recorded(
    child: &mut Child,
    args: &Start,
    instances: &Instances,
    log: &Path,
) -> Result<Instance, RepoError> {
    loop {
        // Asked before it is looked for: a server that has ended is not there.
        let ended = child.try_wait()?;
        if let Some(instance) = instances.get(&args.repository)?
            && instance.pid == child.id()
        {
            return Ok(instance);
        }
        if let Some(status) = ended {
            let said = fs::read_to_string(log).unwrap_or_default();
            return Err(ServerError::DidNotStart(format!("{}({status})", said)).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Start {
    /// What makes two starts the same.
    fn asked(&self) -> Result<serde_json::Value, RepoError> {
        let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        Ok(json!({
            "address": self.address.to_string(),
            "repo_path": self.repo_path.as_ref().map(whole),
            "product_bundle": self.product_bundle.as_ref().map(whole),
            "trusted_root": self.trusted_root.as_ref().map(whole),
            "auto_publish": self.auto_publish.as_ref().map(whole),
            "watch": self.watch,
            "package": self.inputs.package.iter().map(whole).collect::<Vec<_>>(),
            "package_list": self.inputs.package_list.iter().map(whole).collect::<Vec<_>>(),
            "package_archive": self.inputs.package_archive.iter().map(whole).collect::<Vec<_>>(),
            "device_dir": self.device_dir.as_ref().map(whole),
            "aliases": self.how.alias,
            "from_dir": self.inputs.from_dir.iter().map(|(name, dir)| (name, whole(dir))).collect::<Vec<_>>(),
        }))
    }

    /// The same, as arguments of the process in the background.
    fn again(&self, instances: &Instances) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["repo", "server", "start", "--in-background"].map(OsString::from).to_vec();
        let mut put = |flag: &str, value: OsString| words.extend([OsString::from(flag), value]);
        put("--servers-dir", instances.dir().into());
        put("--address", self.address.to_string().into());
        put("--repository", (&self.repository).into());
        let paths = [
            ("--repo-path", &self.repo_path),
            ("--product-bundle", &self.product_bundle),
            ("--trusted-root", &self.trusted_root),
            ("--port-path", &self.port_path),
            ("--auto-publish", &self.auto_publish),
            ("--signing-keys", &self.signing_keys),
            ("--device-dir", &self.device_dir),
        ];
        for (flag, path) in paths {
            if let Some(path) = path {
                put(flag, path.into());
            }
        }
        let lists = [
            ("--package", &self.inputs.package),
            ("--package-list", &self.inputs.package_list),
            ("--package-archive", &self.inputs.package_archive),
        ];
        for (flag, list) in lists {
            list.iter().for_each(|path| put(flag, path.into()));
        }
        for (name, dir) in &self.inputs.from_dir {
            let mut value = OsString::from(format!("{name}="));
            value.push(dir);
            put("--from-dir", value);
        }
        self.how.alias.iter().for_each(|alias| put("--alias", alias.into()));
        if self.how.storage_type == Storage::Persistent {
            put("--storage-type", "persistent".into());
        }
        if self.how.alias_conflict_mode == OnConflict::ErrorOut {
            put("--alias-conflict-mode", "error-out".into());
        }
        if let Some(level) = self.level {
            put("--level", level.to_string().into());
        }
        let switches = [
            ("--refresh-metadata", self.refresh_metadata),
            ("--watch", self.watch),
            ("--time-versioning", self.time_versioning),
            ("--ignore-missing-packages", self.inputs.ignore_missing_packages),
        ];
        words.extend(switches.iter().filter(|(_, given)| *given).map(|(flag, _)| OsString::from(flag)));
        words
    }
}
