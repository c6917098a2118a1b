//! `device rule`: which package URLs stand for others.

use std::path::PathBuf;
use std::process::ExitCode;

use colibri_device::daemon::wire::Rules;
use colibri_device::limits::RULES_BYTES_MAX;
use colibri_device::{Rule, rewrite};
use serde_json::json;

use super::api::{self, Api};
use super::{Console, DeviceVerbError, Make};
use crate::files::FilesError;

/// Arguments of `device rule`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A rule looks at the host and path of a package URL, and puts others in their place: paths that end with / are \
    prefixes, others are whole. Rules that were set are tried before those that the device was shipped with; the first that \
    applies decides.\n\n\
    Example: all of fuchsia.com from the desk's repository\n  \
    colibri device rule replace json '{\"version\":\"1\",\"content\":[{\"host_match\":\"fuchsia.com\",\
    \"host_replacement\":\"devhost\",\"path_prefix_match\":\"/\",\"path_prefix_replacement\":\"/\"}]}'"
)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with rewrite rules.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Prints all rules, in the order in which they are tried
    List,
    /// Removes all rules that were set
    Clear,
    /// Prints the rules that were set, as JSON that `rule replace` takes
    DumpDynamic,
    /// Puts rules in the place of all that were set
    Replace {
        /// Where they are
        #[command(subcommand)]
        from: ReplaceFrom,
    },
}

/// Where rules come from.
#[derive(Debug, clap::Subcommand)]
pub enum ReplaceFrom {
    /// From a file
    File {
        /// The rules
        file: PathBuf,
    },
    /// From the command line
    Json {
        /// The rules
        config: String,
    },
}

impl ReplaceFrom {
    fn rules(&self) -> Result<Vec<Rule>, DeviceVerbError> {
        match self {
            Self::File { file } => {
                let length = std::fs::metadata(file).map_err(FilesError::io("reading", file))?.len();
                // The parser says what the limit is.
                let text = match length <= RULES_BYTES_MAX {
                    true => std::fs::read(file).map_err(FilesError::io("reading", file))?,
                    false => vec![b' '; usize::try_from(RULES_BYTES_MAX).unwrap_or(0) + 1],
                };
                let refused = |error| DeviceVerbError::RulesFile { path: file.clone(), error };
                rewrite::parse(&text).map_err(refused)
            }
            Self::Json { config } => {
                let refused = |error: rewrite::RewriteError| DeviceVerbError::Argument {
                    given: config.clone(),
                    reason: error.to_string(),
                };
                rewrite::parse(config.as_bytes()).map_err(refused)
            }
        }
    }
}

/// Runs the verb.
pub(super) async fn run(
    args: &Args,
    connect: impl AsyncFn(Make) -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let rules = async || connect(Make::Refused).await?.get::<Rules>("/rules").await;
    match &args.verb {
        Verb::List => {
            let Rules { all, .. } = rules().await?;
            if console.json {
                console.print_json(&json!(all))?;
            } else {
                for rule in all {
                    let list = json!({ "version": "1", "content": [rule] }).to_string();
                    let parsed =
                        rewrite::parse(list.as_bytes()).map_err(|error| DeviceVerbError::Daemon(error.to_string()))?;
                    parsed.iter().try_for_each(|rule| writeln!(console.out, "{rule:#?}"))?;
                }
            }
        }
        Verb::DumpDynamic => {
            let Rules { dynamic, .. } = rules().await?;
            if console.json {
                console.print_json(&dynamic)?;
            } else {
                writeln!(console.out, "{dynamic:#}")?;
            }
        }
        Verb::Clear => replace(&connect(Make::Refused).await?, &[]).await?,
        Verb::Replace { from } => {
            let rules = from.rules()?;
            replace(&connect(Make::Allowed).await?, &rules).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn replace(api: &Api, rules: &[Rule]) -> Result<(), DeviceVerbError> {
    api.put::<Rules>("/rules", api::json(&rewrite::to_json(rules))?).await.map(drop)
}
