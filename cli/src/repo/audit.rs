//! `colibri repo audit`: the log of every signing act.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::Repository;
use serde_json::{Value, json};

use super::RepoError;
use super::signing::SigningArgs;
use crate::files;
use crate::table::print_table;

/// Arguments of `repo audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with the log.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Follows the log from its first line and compares it with every snapshot here; exit code 1 if it does not tell all
    Verify(Look),
    /// Prints the log
    Show(Look),
    /// Says why lines were lost, after a restore for instance, and signs that (needs --reason)
    Admit(Admit),
}

/// Arguments of verbs that look.
#[derive(Debug, clap::Args)]
pub struct Look {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Arguments of `repo audit admit`.
#[derive(Debug, clap::Args)]
pub struct Admit {
    /// Where online keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Verify(args) => verify(args, out),
        Verb::Show(args) => show(args, out),
        Verb::Admit(args) => {
            let count = args.signing.open(&args.repo_path)?.audit_admit(SystemClock.now())?;
            writeln!(out, "{count} losses admitted")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verify(args: &Look, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let report = Repository::open(&args.repo_path)?.audit_verify()?;
    if args.json {
        let report_json = json!({
            "lines": report.lines, "head": report.head, "snapshots": report.anchors,
            "findings": report.findings, "notices": report.notices,
        });
        files::print_json(out, &report_json)?;
    } else {
        writeln!(out, "{} lines; {} signed snapshots name lines that are there", report.lines, report.anchors)?;
        for notice in &report.notices {
            writeln!(out, "note: {notice}")?;
        }
        for finding in &report.findings {
            writeln!(out, "WRONG: {finding}")?;
        }
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(args: &Look, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let lines = Repository::open(&args.repo_path)?.audit_lines()?;
    if args.json {
        files::print_json(out, &Value::Array(lines))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["LINE", "TIME", "ACT", "WHAT", "KEYS", "BY", "REASON"].map(str::to_owned).to_vec()];
    for line in &lines {
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let what = match (line.get("role").and_then(Value::as_str), line.get("version")) {
            (Some(role), Some(version)) => format!("{role} {version}"),
            _ => String::new(),
        };
        let keys = line.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let keys: Vec<String> = keys.iter().filter_map(Value::as_str).map(|id| id.chars().take(8).collect()).collect();
        let number = line.get("n").and_then(Value::as_u64).unwrap_or_default().to_string();
        rows.push(vec![number, text("at"), text("act"), what, keys.join(" "), text("by"), text("reason")]);
    }
    print_table(out, &rows)?;
    Ok(ExitCode::SUCCESS)
}
