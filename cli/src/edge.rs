//! `colibri edge serve`: a cache in front of an origin or another edge.

pub mod control;
mod explain;
mod quarantine;

use std::io::Write;
use std::process::ExitCode;

use colibri_edge::process::{EdgeProcess, EdgeProcessError, EdgeServerConfig};
use colibri_edge::{Edge, EdgeConfig};
use colibri_service::telemetry::Filter;
use colibri_service::{Registry, Reloading};
use serde_json::{Value, json};

use crate::serve::{self, Flags, Listeners, ServeArgs, ServeError};

/// Environment variables of an edge begin so.
const ENVIRONMENT_PREFIX: &str = "COLIBRI_EDGE_";

/// Works as an edge.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What an edge does.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Serves the read API in front of anything that speaks it, verifying every byte
    #[command(
        after_help = "Later layers win: defaults, --config FILE, environment, flags. --check-config prints every \
                            key; COLIBRI_EDGE_EDGE__MEMORY_BYTES=N sets edge.memory_bytes."
    )]
    Serve(Box<Serve>),
    /// How far a running edge has what new metadata reaches
    Warm(control::Warm),
    /// Keeps a release at a running edge: it is warmed first and evicted last, whatever is offered
    Pin(control::Pin),
    /// Takes the pin of a release away
    Unpin(control::Pin),
    /// Fills a running edge from a release bundle, where there is no network; every byte is verified
    Import(control::Import),
    /// Has a running edge read its configuration and certificate again, and says what changed
    Reload(control::Reload),
    /// Where a running edge has a blob, from which source it came, and why it was last fetched
    Explain(explain::Explain),
    /// What sources sent a running edge that was not what they were asked for
    Quarantine(quarantine::Quarantine),
}

/// Arguments of `edge serve`.
#[derive(Debug, Default, clap::Args)]
pub struct Serve {
    /// Base URL of what it stands in front of, best first (repeatable)
    #[arg(long, value_name = "URL")]
    pub upstream: Vec<String>,
    /// Its name in Cache-Status and towards upstream
    #[arg(long)]
    pub name: Option<String>,
    /// Budget of the memory tier, in bytes
    #[arg(long, value_name = "N")]
    pub memory_bytes: Option<String>,
    /// Folder of the disk tier; its content may be deleted at any time
    #[arg(long, value_name = "DIR")]
    pub disk_dir: Option<String>,
    /// Budget of the disk tier, in bytes
    #[arg(long, value_name = "N")]
    pub disk_bytes: Option<String>,
    /// Repository to follow as a verifying client, and its trusted root.json; others pass through (repeatable)
    #[arg(long, value_name = "NAME=FILE", value_parser = followed)]
    pub follow: Vec<(String, String)>,
    /// What all servers have
    #[command(flatten)]
    pub common: ServeArgs,
}

/// `NAME=FILE`.
fn followed(text: &str) -> Result<(String, String), String> {
    let (name, file) = text
        .split_once('=')
        .filter(|(name, file)| !name.is_empty() && !file.is_empty())
        .ok_or("give the repository's name and its trusted root, as devhost=devhost.root.json")?;
    Ok((name.to_owned(), file.to_owned()))
}

impl Serve {
    fn flags(&self) -> Flags {
        let followed = self.follow.iter().map(|(name, file)| json!({ "name": name, "root_file": file }));
        Flags::new(&self.common)
            .list("edge.upstreams", self.upstream.iter().map(|url| Value::from(url.as_str())).collect())
            .text("edge.name", self.name.as_ref())
            .number("edge.memory_bytes", self.memory_bytes.as_ref())
            .text("edge.disk.dir", self.disk_dir.as_ref())
            .number("edge.disk.bytes", self.disk_bytes.as_ref())
            .list("edge.repositories", followed.collect())
    }
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let args = match &args.verb {
        Verb::Serve(args) => args,
        Verb::Warm(args) => return control::warm(args, out),
        Verb::Pin(args) => return control::pin(args, out),
        Verb::Unpin(args) => return control::unpin(args, out),
        Verb::Import(args) => return control::import(args, out),
        Verb::Reload(args) => return control::reload(args, out),
        Verb::Explain(args) => return explain::explain(args, out),
        Verb::Quarantine(args) => return quarantine::quarantine(args, out),
    };
    let sources = args.flags().sources(&args.common, ENVIRONMENT_PREFIX);
    let loaded = colibri_service::load::<EdgeServerConfig>(sources.clone())?;
    let config = loaded.value.clone();
    if args.common.check_config {
        serve::describe(&loaded, out)?;
        config.log.parse::<Filter>()?;
        return check(&config.edge);
    }
    serve::block_on(&args.common, &config.log, |log| async {
        let process = EdgeProcess::start_from(&config, Some(Reloading { sources, log: Some(log) }))?;
        let listeners = Listeners {
            title: format!("edge {}", config.edge.name),
            secure: process.address(),
            http3: config.http3,
            plain: process.plain_address(),
            write: None,
            write_plain: None,
            admin: process.admin_address(),
            certificate_pin: None,
        };
        serve::until_signal(&args.common, &listeners, |drain| process.serve(drain.token())).await
    })
}

/// Builds the edge without opening its disk tier or any port: finds what the types of the configuration cannot.
fn check(config: &EdgeConfig) -> Result<ExitCode, ServeError> {
    let config = EdgeConfig { disk: None, ..config.clone() };
    serve::runtime()?
        .block_on(async { Edge::build(&config, &Registry::new()).map(drop) })
        .map_err(EdgeProcessError::from)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use colibri_edge::{DiskTierConfig, FollowedConfig};
    use colibri_service::Source;
    use colibri_service::config::load_with;

    use super::*;
    use crate::files::tests::Fixture;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn full() -> Serve {
        Serve {
            upstream: vec!["https://one".to_owned(), "https://two".to_owned()],
            name: text("7"),
            memory_bytes: text("1000"),
            disk_dir: text("tier"),
            disk_bytes: text("2000"),
            follow: vec![followed("devhost=root.json").unwrap()],
            common: ServeArgs {
                listen: text("127.0.0.1:1"),
                listen_plain: text("127.0.0.1:2"),
                listen_admin: text("127.0.0.1:3"),
                tls_dir: text("tls"),
                log_filter: text("warn"),
                no_http3: true,
                ..ServeArgs::default()
            },
        }
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let args = full();
        let loaded = load_with::<EdgeServerConfig>(args.flags().sources(&args.common, ENVIRONMENT_PREFIX), []).unwrap();
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let edge = EdgeConfig {
            name: "7".to_owned(),
            upstreams: vec!["https://one".to_owned(), "https://two".to_owned()],
            memory_bytes: 1000,
            repositories: vec![FollowedConfig {
                name: "devhost".parse().unwrap(),
                root_file: Some("root.json".into()),
                root: None,
            }],
            disk: Some(DiskTierConfig::new("tier".into(), 2000)),
            ..EdgeConfig::default()
        };
        let expected = EdgeServerConfig {
            listen: address(1),
            listen_plain: Some(address(2)),
            listen_admin: Some(address(3)),
            http3: false,
            tls_dir: "tls".into(),
            log: "warn".to_owned(),
            edge,
            ..EdgeServerConfig::default()
        };
        assert_eq!(loaded.value, expected);
        assert_eq!(loaded.sources["edge.name"], Source::Flag);
    }

    #[test]
    fn files_give_way_to_the_environment_and_that_to_flags() {
        let dir = Fixture::new(&[("edge.toml", b"drain_s = 1\n[edge]\nname = \"file\"\nmemory_bytes = 1\n")]);
        let args = Serve {
            name: text("flag"),
            common: ServeArgs { config: Some(dir.path("edge.toml")), ..ServeArgs::default() },
            ..Serve::default()
        };
        let environment = [("COLIBRI_EDGE_EDGE__MEMORY_BYTES", "2"), ("COLIBRI_EDGE_EDGE__NAME", "environment")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sources = args.flags().sources(&args.common, ENVIRONMENT_PREFIX);
        let loaded = load_with::<EdgeServerConfig>(sources, environment).unwrap();
        let EdgeServerConfig { drain_s, edge, .. } = &loaded.value;
        assert_eq!((*drain_s, edge.memory_bytes, edge.name.as_str()), (1, 2, "flag"));
    }

    #[test]
    fn all_mistakes_of_the_flags_are_told_together() {
        let set = vec![("edge.colour".to_owned(), "red".to_owned())];
        let common = ServeArgs { set, listen: text("nowhere"), ..ServeArgs::default() };
        let args = Serve { memory_bytes: text("much"), common, ..Serve::default() };
        let sources = args.flags().sources(&args.common, ENVIRONMENT_PREFIX);
        let mistakes = load_with::<EdgeServerConfig>(sources, []).unwrap_err().0;
        let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, ["edge.colour", "edge.memory_bytes", "listen"], "{mistakes:?}");
    }

    #[test]
    fn a_check_finds_what_types_cannot() {
        let upstreams = |url: &str| EdgeConfig { upstreams: vec![url.to_owned()], ..EdgeConfig::default() };
        check(&upstreams("https://origin.example")).unwrap();
        let trust = EdgeConfig { upstream_tls: "everybody".to_owned(), ..upstreams("https://origin.example") };
        for (config, named) in
            [(EdgeConfig::default(), "upstream"), (upstreams("gopher:"), "gopher"), (trust, "everybody")]
        {
            let error = check(&config).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(format!("{:?}", error.exit_code()), format!("{:?}", ExitCode::from(64)));
        }
    }
}
