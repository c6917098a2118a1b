//! `colibri edge warm|pin|unpin|import|reload`: what an operator tells a running edge, on its admin port.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_transport::{Body, Client, ClientConfig};
use http::Method;
use serde_json::{Value, json};

use crate::progress::{bytes, step};
use crate::serve::{self, ServeError};
use crate::table::print_table;

/// Longest answer of an admin port, bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Which edge.
#[derive(Debug, clap::Args)]
pub struct Admin {
    /// The edge's admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9443")]
    pub admin: String,
}

/// Arguments of `edge warm`.
#[derive(Debug, clap::Args)]
pub struct Warm {
    /// What to do
    #[command(subcommand)]
    pub verb: WarmVerb,
}

/// What to do about warming.
#[derive(Debug, clap::Subcommand)]
pub enum WarmVerb {
    /// Shows how much of each release, and of what else is listed, is missing here
    #[command(after_help = "Example: colibri edge warm status --admin http://edge7:9443")]
    Status(Status),
}

/// Arguments of `edge warm status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object; sizes are bytes
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `edge pin` and `edge unpin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri edge pin fleet.example release-8 --admin http://edge7:9443")]
pub struct Pin {
    /// The repository, as the edge knows it
    pub repository: String,
    /// The package that carries the release: NAME, NAME/VARIANT or its package hash
    pub release: String,
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
}

/// Arguments of `edge import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri edge import --repository fleet.example /media/usb/release.bundle\n\n\
                        The edge must follow the repository, because what it trusts decides what is taken. It reads the \
                        file itself: on its own machine, and with its own rights.")]
pub struct Import {
    /// A release bundle, on the edge's machine
    pub file: PathBuf,
    /// The repository, as the edge knows it
    #[arg(long, value_name = "NAME")]
    pub repository: String,
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `edge reload`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri edge reload --admin http://edge7:9443\n\n\
                        The same as SIGHUP, but that the answer is here: if anything is wrong, nothing was changed.")]
pub struct Reload {
    /// Which edge
    #[command(flatten)]
    pub admin: Admin,
    /// Print one JSON object: the keys that hold from now on, and those that wait for the next start
    #[arg(long)]
    pub json: bool,
}

/// Why an edge did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It cannot be reached.
    #[error("the edge's admin port {url} cannot be reached: {reason}; --admin says where it is (`listen_admin`)")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why not.
        reason: String,
    },
    /// It said no.
    #[error("the edge refused: {0}")]
    Refused(String),
    /// The file to import.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Shows how far an edge is warmed.
pub fn warm(args: &Warm, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let WarmVerb::Status(Status { admin, json }) = &args.verb;
    let answer = ask(admin, Method::GET, "/warm", &Value::Null)?;
    if *json {
        writeln!(out, "{answer}").map_err(ServeError::Output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let none = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&none).clone();
    let mut rows = vec![["REPOSITORY", "RELEASE", "BLOBS", "MISSING", "TO FETCH"].map(str::to_owned).to_vec()];
    for repository in list(&answer["repositories"]) {
        for release in list(&repository["releases"]) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mark = if release["pinned"] == true { " (pinned)" } else { "" };
            let missing = bytes(release["bytes_missing"].as_u64().unwrap_or(0));
            let unknown = release["blobs_of_unknown_length"].as_u64().unwrap_or(0);
            let more = if unknown > 0 { format!(" and {unknown} blobs of unknown length") } else { String::new() };
            rows.push(vec![
                text(&repository["repository"]),
                format!("{}{mark}", text(&release["name"])),
                release["blobs"].to_string(),
                release["blobs_missing"].to_string(),
                missing + &more,
            ]);
        }
    }
    match rows.len() {
        1 => writeln!(out, "nothing is warmed: the edge follows no repository, or has not walked a set yet"),
        _ => print_table(out, &rows),
    }
    .map_err(ServeError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Pins a release.
pub fn pin(args: &Pin, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let answer = ask(&args.admin, Method::POST, "/pins", &args.which())?;
    let hash = answer["hash"].as_str().unwrap_or_default();
    writeln!(out, "{} is pinned: package {hash}", args.release).map_err(ServeError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a pin away.
pub fn unpin(args: &Pin, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    ask(&args.admin, Method::DELETE, "/pins", &args.which())?;
    writeln!(out, "{} is no longer pinned", args.release).map_err(ServeError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Has the configuration read again.
pub fn reload(args: &Reload, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let answer = ask(&args.admin, Method::POST, "/reload", &Value::Null)?;
    let keys = |name: &str| -> Vec<String> {
        let keys = answer[name].as_array().into_iter().flatten();
        keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()
    };
    let (applied, waiting) = (keys("applied"), keys("at_next_start"));
    let text = match applied.as_slice() {
        _ if args.json => format!("{answer}\n"),
        [] => "nothing that can change at run time is new\n".to_owned(),
        keys => format!("new from now on: {}\n", keys.join(", ")),
    };
    out.write_all(text.as_bytes()).map_err(ServeError::Output)?;
    if !args.json && !waiting.is_empty() {
        writeln!(out, "new from the next start on: {}", waiting.join(", ")).map_err(ServeError::Output)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Imports a bundle.
pub fn import(args: &Import, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    // Its own working folder is not the edge's.
    let file = std::path::absolute(&args.file);
    let file = file.map_err(|error| ControlError::File { path: args.file.clone(), error })?;
    let what = json!({ "repository": args.repository, "file": file });
    let answer = {
        let _step = step(&format!("the edge checks and takes in {}", file.display()));
        ask(&args.admin, Method::POST, "/import", &what)?
    };
    if args.json {
        writeln!(out, "{answer}").map_err(ServeError::Output)?;
    } else {
        let (blobs, size) = (&answer["blobs"], bytes(answer["bytes"].as_u64().unwrap_or(0)));
        let release = answer["release"].as_str().unwrap_or_default();
        writeln!(out, "{release}: {blobs} blobs, {size}").map_err(ServeError::Output)?;
    }
    match answer["blobs_without_room"].as_u64() {
        None | Some(0) => Ok(ExitCode::SUCCESS),
        Some(left) => Err(ControlError::Refused(format!("{left} blobs found no room on its disk")).into()),
    }
}

impl Pin {
    fn which(&self) -> Value {
        json!({ "repository": self.repository, "release": self.release })
    }
}

/// Asks the admin port; what it answers if it did what was wanted.
pub(super) fn ask(admin: &Admin, method: Method, path: &str, body: &Value) -> Result<Value, ServeError> {
    let url = format!("{}{path}", admin.admin.trim_end_matches('/'));
    let unreachable = |reason: String| ControlError::Unreachable { url: url.clone(), reason };
    let request = http::Request::builder().method(method).uri(&url).body(Body::full(body.to_string()));
    let request = request.map_err(|error| unreachable(error.to_string()))?;
    let asking = async {
        // An import takes its time.
        let config =
            ClientConfig { header_timeout: std::time::Duration::from_secs(24 * 3600), ..ClientConfig::default() };
        let client = Client::new(config).map_err(|error| unreachable(error.to_string()))?;
        let response = client.send(request).await.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status();
        let read = response.into_body().read_all(ANSWER_BYTES_MAX).await;
        let answer = read.map_err(|error| unreachable(error.to_string()))?;
        let value: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let text = value["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        Err(ControlError::Refused(text))
    };
    Ok(serve::runtime()?.block_on(asking)?)
}
