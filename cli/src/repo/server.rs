//! `colibri repo server start|list|stop`: repositories of a developer's desk, served over plain HTTP (reference "Fuchsia
//! command line" §11.2). The serving itself is the origin's; what the real tools' server does to a connected device is not
//! here: a device is told by `device repo add url`.

pub(super) mod instances;
mod start;
mod stop;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_origin::OriginError;

use super::RepoError;
use crate::files;
use crate::table::print_table;
use instances::{Instance, Instances};

/// Name of a repository where none is given, and of the server then.
pub(super) const DEVHOST: &str = "devhost";

/// Arguments of `repo server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Where running servers are recorded; default is colibri/servers in XDG_RUNTIME_DIR, else in XDG_STATE_HOME
    #[arg(long, value_name = "DIR", env = "COLIBRI_SERVERS_DIR", global = true)]
    pub servers_dir: Option<PathBuf>,
}

/// What to do with servers.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Serves a repository folder or product bundle, here or in the background
    Start(Box<start::Start>),
    /// Lists the servers that run
    List(List),
    /// Ends servers
    Stop(stop::Stop),
}

/// Arguments of `repo server list`.
#[derive(Debug, Default, clap::Args)]
pub struct List {
    /// Print everything that is known of each
    #[arg(long)]
    pub full: bool,
    /// Only the server of this name (repeatable)
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Why a desk's server could not be started, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another server has the name.
    #[error(
        "a server called {name} runs already, at {address} (process {pid}) and differently: stop it with `repo server stop {name}`, or choose another --repository"
    )]
    Runs {
        /// Its name.
        name: String,
        /// Where it answers.
        address: String,
        /// Its process.
        pid: u32,
    },
    /// A host stands for another repository already.
    #[error(
        "the device has a rule about {alias} already, which leads elsewhere (`device rule list` shows it): say --alias-conflict-mode replace to put the new one in its place"
    )]
    AliasTaken {
        /// The host.
        alias: String,
    },
    /// Another server is about to have the name.
    #[error("a server called {0} is just being started or ended: try again")]
    Busy(String),
    /// A name that cannot be one.
    #[error("{0:?} cannot be the name of a repository: letters, digits, `.`, `_` and `-`, not starting with `.`")]
    Name(String),
    /// Nobody to stop.
    #[error("no server {0} runs")]
    NoneRuns(String),
    /// Several may be meant.
    #[error("{0} servers run: name one, or say --all")]
    Several(usize),
    /// Nobody serves what is asked for.
    #[error("no server here serves {asked}: `repo server list` shows those that run; or say --repo-path DIR")]
    NothingServed {
        /// What was asked for.
        asked: String,
    },
    /// A product bundle of which one repository must be named.
    #[error("server {server} serves several repositories: say which with --repository, of {names}")]
    SeveralServed {
        /// The server.
        server: String,
        /// What it serves.
        names: String,
    },
    /// It was told to end and did not.
    #[error("server {name} (process {pid}) was told to end and still runs after {waited_s} s")]
    StillRuns {
        /// Its name.
        name: String,
        /// Its process.
        pid: u32,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// The process in the background ended.
    #[error("the server did not start:\n{0}")]
    DidNotStart(String),
    /// Nowhere to record servers.
    #[error("neither XDG_RUNTIME_DIR, XDG_STATE_HOME nor HOME is set: say --servers-dir DIR")]
    NoPlace,
    /// The origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The port.
    #[error(transparent)]
    Transport(#[from] colibri_transport::TransportError),
    /// The system refused a signal.
    #[error("process {pid} cannot be told to end: {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let instances = Instances::open(args.servers_dir.clone())?;
    match &args.verb {
        Verb::Start(start) => start::run(start, &instances, out),
        Verb::List(list) => run_list(list, &instances, out),
        Verb::Stop(stop) => stop::run(stop, &instances, out),
    }
}

fn run_list(args: &List, instances: &Instances, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let mut running = instances.running()?;
    running.retain(|instance| args.name.is_empty() || args.name.contains(&instance.name));
    if args.json {
        let all = serde_json::to_value(&running).map_err(|error| std::io::Error::other(error.to_string()))?;
        files::print_json(out, &all)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.full {
        for instance in &running {
            let text =
                serde_json::to_string_pretty(instance).map_err(|error| std::io::Error::other(error.to_string()))?;
            writeln!(out, "{text}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["NAME", "ADDRESS", "PID", "REPOSITORIES"].map(str::to_owned).to_vec()];
    rows.extend(running.iter().map(row));
    print_table(out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(instance: &Instance) -> Vec<String> {
    let repositories = instance.repositories.iter().map(|repository| repository.path.display().to_string());
    let repositories = repositories.collect::<Vec<_>>().join(" ");
    vec![instance.name.clone(), instance.address.clone(), instance.pid.to_string(), repositories]
}
