//! `colibri package build|archive|diff`: host files to packages, byte-reproducibly; packages to single files and back; and
//! what differs between two of them.

pub mod archive;
mod build;
pub(crate) mod depfile;
mod diff;
mod inputs;
mod sources;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_package::AbiRevision;

use crate::files::FilesError;

#[cfg(any(feature = "repo", test))]
pub use build::build;

const PACKAGE_MANIFEST: &str = "package_manifest.json";
const BLOBS_JSON: &str = "blobs.json";

/// Works on packages.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with packages.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Builds a package: writes meta.far and package_manifest.json
    Build(Build),
    /// Works on package archives: a package with every blob it needs, in one file
    Archive {
        /// What to do
        #[command(subcommand)]
        verb: archive::Verb,
    },
    /// Says what differs between two packages and what a device fetches to get from one to the other
    Diff(diff::Args),
}

/// Arguments of `package build`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = BUILD_HELP)]
pub struct Build {
    /// Build manifest: `PACKAGE_PATH=HOST_PATH` lines, or JSON; host paths are relative to the working directory
    #[arg(required_unless_present = "from_dir", conflicts_with = "from_dir")]
    pub build_manifest: Option<PathBuf>,
    /// Take every file below this directory instead; those under its meta/ go into meta.far
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<PathBuf>,
    /// The package's name, if --from-dir has no meta/package
    #[arg(long, requires = "from_dir")]
    pub name: Option<String>,
    /// Where to write
    #[arg(short, long, visible_alias = "out", value_name = "DIR", default_value = "out")]
    pub output: PathBuf,
    /// API level that the package was built for; default is the newest known one
    #[arg(long, value_name = "N", conflicts_with = "abi_revision")]
    pub api_level: Option<u32>,
    /// ABI revision that the package was built for, e.g. 0xECCEA2F70ACD6FC0
    #[arg(long, value_name = "N")]
    pub abi_revision: Option<String>,
    /// Name in the package manifest, if it is published under another name than its own
    #[arg(long, value_name = "NAME")]
    pub published_name: Option<String>,
    /// Host of the repository it is meant for
    #[arg(long, value_name = "HOST")]
    pub repository: Option<String>,
    /// Write meta.far.d, a Ninja dependency file
    #[arg(long)]
    pub depfile: bool,
    /// Write blobs.json, the manifest's blobs as a bare array
    #[arg(long)]
    pub blobs_json: bool,
    /// Write blobs.manifest, `HASH=HOST_PATH` per blob
    #[arg(long)]
    pub blobs_manifest: bool,
    /// Copy every blob to blobs/HASH in the output directory and let the manifest name those
    #[arg(long)]
    pub blobs: bool,
    /// JSON array of the package manifests that become subpackages
    #[arg(long, value_name = "FILE")]
    pub subpackages_build_manifest_path: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const BUILD_HELP: &str = "\
Inputs:
  Lines        bin/hello=build/hello        content, becomes a blob
               meta/hello.cm=build/hello.cm goes into meta.far
               meta/package=meta_package    {\"name\":\"hello\",\"version\":\"0\"}, must be there
  JSON         {\"version\":\"1\",\"content\":{\"/\":{\"bin/hello\":\"build/hello\"},\"/meta/\":{\"package\":\"meta_package\"}}}
  --from-dir   every file at its relative path; links are followed, empty directories are left out
  Subpackages  [{\"package_manifest_file\":\"child/package_manifest.json\",\"name\":\"child\"}]

The same inputs give the same bytes. Content is hashed where it lies: the manifest names it, relative to itself.
With --blobs it is copied to OUT/blobs/HASH, and OUT stands for itself.

Example:
  colibri package build --from-dir app --name hello -o out
  colibri repo publish --package out/package_manifest.json repo";

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, FilesError> {
    match &args.verb {
        Verb::Build(args) => run_build(args, out)?,
        Verb::Archive { verb } => archive::run(verb, out)?,
        Verb::Diff(args) => diff::run(args, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_build(args: &Build, out: &mut dyn Write) -> Result<(), FilesError> {
    let built = build::build(args)?;
    if args.json {
        crate::files::print_json(out, &built.json())?;
    } else {
        writeln!(out, "{}  {}", built.hash(), built.path())?;
        writeln!(out, "{}", built.package_manifest.display())?;
    }
    Ok(())
}

/// The ABI revision that the arguments name, else the newest known one.
fn abi_revision(args: &Build) -> Result<AbiRevision, FilesError> {
    if let Some(text) = &args.abi_revision {
        return text.parse().map_err(|error| FilesError::Usage(format!("{error}")));
    }
    let Some(level) = args.api_level else { return Ok(AbiRevision::LATEST) };
    AbiRevision::of_api_level(level).ok_or_else(|| {
        let known: Vec<_> = AbiRevision::api_levels().map(|level| level.to_string()).collect();
        let known = known.join(", ");
        FilesError::Usage(format!("API level {level} is not known here; known are {known}; or give --abi-revision"))
    })
}
