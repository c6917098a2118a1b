//! What `repo root` and `repo targets` have in common: files that collect signatures on several machines.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_repository::{Ceremony, CeremonyFile, KeyRole, RepositoryError};
use serde_json::{Map, Value};

use super::RepoError;
use super::signing::SigningArgs;
use crate::files;

/// Arguments of `repo root sign` and `repo targets sign`.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Write here instead of into FILE
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Take the signatures of this copy of the file too (repeatable)
    #[arg(long, value_name = "FILE")]
    pub merge: Vec<PathBuf>,
    /// Only show what would be signed and who has signed
    #[arg(long)]
    pub show: bool,
    /// The file that `export` wrote
    pub file: PathBuf,
}

/// Reads a file of a ceremony for `role`.
pub(super) fn read(path: &Path, role: KeyRole) -> Result<Ceremony, RepoError> {
    let at = |error: RepositoryError| RepositoryError::Ceremony(format!("{}: {error}", path.display()));
    let ceremony = Ceremony::parse(&files::read(path)?).map_err(at)?;
    if ceremony.role() != role {
        let words = format!("it is a file of {}, not of {role}", ceremony.role());
        return Err(at(RepositoryError::Ceremony(words)).into());
    }
    Ok(ceremony)
}

/// Writes a file that nobody has signed yet.
pub(super) fn export(ceremony: &Ceremony, path: &Path, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    files::write(path, &ceremony.to_bytes()?)?;
    describe(ceremony, out)?;
    writeln!(out, "{}: to be signed with `repo {} sign`", path.display(), ceremony.role())?;
    Ok(ExitCode::SUCCESS)
}

/// Adds the signatures of every key at hand that the file needs.
pub(super) fn sign(args: &Sign, role: KeyRole, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let mut ceremony = read(&args.file, role)?;
    for path in &args.merge {
        ceremony.merge(&read(path, role)?)?;
    }
    describe(&ceremony, out)?;
    if !args.show {
        // Without a folder there may still be keys in variables.
        let keys = args.signing.signing_keys.clone().unwrap_or_else(|| PathBuf::from("keys"));
        let signed = match ceremony.sign(&keys, args.signing.sources()?) {
            Err(RepositoryError::Ceremony(_)) if !args.merge.is_empty() => Vec::new(),
            signed => signed?,
        };
        for id in signed {
            writeln!(out, "signed with key {id}")?;
        }
        files::write(args.output.as_ref().unwrap_or(&args.file), &ceremony.to_bytes()?)?;
    }
    for need in ceremony.state()? {
        let (signed, state) = (need.signed.len(), if need.is_met() { "enough" } else { "not enough yet" });
        writeln!(out, "{}: {signed} of {} needed signatures, {state}", need.of, need.threshold)?;
        for id in need.open {
            writeln!(out, "  not signed by {id}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person should look at before signing.
fn describe(ceremony: &Ceremony, out: &mut dyn Write) -> std::io::Result<()> {
    let field = if ceremony.role() == KeyRole::Root { "roles" } else { "targets" };
    let entries =
        |file: &CeremonyFile| file.signed().get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    // Hash bins may be thousands.
    let (empty, others): (Vec<_>, Vec<_>) = ceremony.files().iter().partition(|file| {
        ceremony.files().len() > 1 && entries(file).is_empty() && file.signed().get("delegations").is_none()
    });
    for file in others {
        describe_file(file, &entries(file), out)?;
    }
    if !empty.is_empty() {
        writeln!(out, "and {} hash bins without targets", empty.len())?;
    }
    Ok(())
}

fn describe_file(file: &CeremonyFile, entries: &Map<String, Value>, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |name: &str| file.signed().get(name).and_then(Value::as_str).unwrap_or("?");
    let name = file.name().strip_suffix(".json").unwrap_or(file.name());
    writeln!(out, "{name} version {}, expires {}", file.version(), text("expires"))?;
    for (name, entry) in entries {
        let hash = entry.get("custom").and_then(|custom| custom.get("merkle")?.as_str());
        let threshold = entry.get("threshold").and_then(Value::as_u64);
        let ids = entry.get("keyids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match (hash, threshold) {
            (Some(hash), _) => writeln!(out, "  {name}  {hash}")?,
            (None, Some(threshold)) => {
                let ids: Vec<_> = ids.iter().filter_map(Value::as_str).collect();
                writeln!(out, "  {name}: {threshold} of {}", ids.join(", "))?;
            }
            (None, None) => writeln!(out, "  {name}")?,
        }
    }
    Ok(())
}
