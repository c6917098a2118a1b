//! `colibri repo import` and `repo export`: whole repositories in and out, signed metadata byte for byte.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_repository::{
    CopyMode, Export as Exporting, Repository, RepositorySource, Transfer, TransferProgress, TransferReport, export,
    sources,
};
use serde_json::{Value, json};

use super::{RepoError, versions_json, versions_line};
use crate::files::{self, FilesError};
use crate::progress::step;

/// How files come into another folder.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum Mode {
    /// Copied
    #[default]
    Copy,
    /// Another name for the same file, where one file system allows it
    HardLink,
}

impl From<Mode> for CopyMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Copy => Self::Copy,
            Mode::HardLink => Self::HardLink,
        }
    }
}

/// Arguments of `repo import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A second import of the same repository brings what is new.\n\n\
                        Example: colibri repo import ./product_bundle ./repo && colibri origin serve --repo fuchsia.com=./repo")]
pub struct Import {
    /// Of a product bundle with several repositories, only this one
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// How blobs come over
    #[arg(long, value_name = "MODE", default_value = "copy")]
    pub copy_mode: Mode,
    /// Bring its private keys too, so that it can be published into
    #[arg(long)]
    pub with_keys: bool,
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
    /// A repository folder, or a product bundle
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// The folder to bring it into; of a product bundle with several repositories, each goes into DIR/NAME
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `repo export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A second export into the same folder writes what is new, the timestamp last.\n\n\
                        Example: colibri repo export ./repo /srv/www/devhost --mirror-url http://example.com/devhost")]
pub struct Export {
    /// How blobs come over
    #[arg(long, value_name = "MODE", default_value = "copy")]
    pub copy_mode: Mode,
    /// Also write repo.config, which tells devices that OUT is served at this address
    #[arg(long, value_name = "URL")]
    pub mirror_url: Option<String>,
    /// The repository's name in the fuchsia-pkg URLs of repo.config
    #[arg(long, value_name = "HOST", default_value = "devhost", requires = "mirror_url")]
    pub name: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The folder to serve
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
}

/// Imports.
pub(super) fn import(args: &Import, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let found = chosen(args)?;
    let several = found.len() > 1;
    let mut reports = Vec::new();
    for source in &found {
        let dir = match (&source.name, several) {
            (Some(name), true) => args.dir.join(name),
            _ => args.dir.clone(),
        };
        let step = step(&format!("importing {} into {}", source.metadata_dir().display(), dir.display()));
        let hear = |at: TransferProgress| step.progress(at.blobs_done as u64, at.blobs_total as u64);
        let transfer = Transfer { copy_mode: args.copy_mode.into(), with_keys: args.with_keys, progress: Some(&hear) };
        let report = Repository::import(source, &dir, &transfer)?;
        step.done(&format!("{} blobs are proven", report.blobs));
        if !args.json {
            print("imported", &report, &dir, out)?;
        }
        reports.push(to_json(&report, &dir));
    }
    if args.json {
        files::print_json(out, &Value::Array(reports))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The repositories of the source that were asked for, each with a name that can be a folder.
fn chosen(args: &Import) -> Result<Vec<RepositorySource>, RepoError> {
    let mut found = sources(&args.source)?;
    if let Some(wanted) = &args.repository {
        let names: Vec<String> = found.iter().filter_map(|source| source.name.clone()).collect();
        found.retain(|source| source.name.as_ref() == Some(wanted));
        if found.is_empty() {
            let names = names.join(", ");
            let reason = format!("{} has no repository {wanted}, only: {names}", args.source.display());
            return Err(FilesError::Usage(reason).into());
        }
    }
    let plain = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
    if let Some(name) = found.iter().filter_map(|source| source.name.as_ref()).find(|name| !plain(name)) {
        return Err(FilesError::Usage(format!("a repository cannot be called {name:?}")).into());
    }
    Ok(found)
}

/// Exports.
pub(super) fn export_to(args: &Export, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let step = step(&format!("exporting {} into {}", args.dir.display(), args.out.display()));
    let hear = |at: TransferProgress| step.progress(at.blobs_done as u64, at.blobs_total as u64);
    let repo_config = args.mirror_url.as_deref().map(|url| (args.name.as_str(), url));
    let exporting = Exporting { copy_mode: args.copy_mode.into(), repo_config, progress: Some(&hear) };
    let report = export(&args.dir, &args.out, &exporting)?;
    step.done(&format!("{} blobs are proven", report.blobs));
    if args.json {
        files::print_json(out, &to_json(&report, &args.out))?;
    } else {
        print("exported", &report, &args.out, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(done: &str, report: &TransferReport, dir: &Path, out: &mut dyn Write) -> std::io::Result<()> {
    let TransferReport { packages, blobs, blobs_new, versions } = *report;
    writeln!(out, "{done} into {}: {packages} packages, {blobs} blobs, {blobs_new} of them new", dir.display())?;
    writeln!(out, "now {}", versions_line(versions))
}

fn to_json(report: &TransferReport, dir: &Path) -> Value {
    let TransferReport { packages, blobs, blobs_new, versions } = *report;
    json!({
        "path": dir.display().to_string(),
        "packages": packages,
        "blobs": blobs,
        "blobs_new": blobs_new,
        "versions": versions_json(versions),
    })
}
