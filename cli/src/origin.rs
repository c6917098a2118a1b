//! `colibri origin serve`: repositories on disk, behind the read API and, where it is asked for, the write API.

mod token;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use colibri_common::SystemClock;
use colibri_origin::write::WriteApi;
use colibri_origin::{KeySources, Origin, OriginError, OriginServer, OriginServerConfig};
use colibri_service::Reloading;
use colibri_service::metrics::Registry;
use colibri_service::telemetry::Filter;
use serde_json::json;

use crate::serve::{self, Flags, Listeners, ServeArgs, ServeError};

/// Environment variables of an origin begin so.
const ENVIRONMENT_PREFIX: &str = "COLIBRI_ORIGIN_";

/// Works as an origin.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What an origin does.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Serves repositories, proving each blob before announcing it
    #[command(
        after_help = "Later layers win: defaults, --config FILE, environment, flags. --check-config prints every \
                            key; COLIBRI_ORIGIN_TIMESTAMP_MAX_AGE_S=N sets timestamp_max_age_s."
    )]
    Serve(Box<Serve>),
    /// Makes, lists and revokes the tokens of the write API
    Token(token::Args),
}

/// Arguments of `origin serve`.
#[derive(Debug, Default, clap::Args)]
pub struct Serve {
    /// Serve the repository in this folder under this name (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = serve::key_value)]
    pub repo: Vec<(String, String)>,
    /// Its name in Cache-Status
    #[arg(long)]
    pub name: Option<String>,
    /// How long caches may keep a timestamp, in seconds
    #[arg(long, value_name = "N")]
    pub timestamp_max_age_s: Option<String>,
    /// Address of the write API, with TLS; default is none
    #[arg(long, value_name = "ADDR")]
    pub write_listen: Option<String>,
    /// Loopback address of the write API without TLS; default is none
    #[arg(long, value_name = "ADDR")]
    pub write_listen_plain: Option<String>,
    /// File of the write API's tokens, made by `colibri origin token create`
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<String>,
    /// What all servers have
    #[command(flatten)]
    pub common: ServeArgs,
}

impl Serve {
    fn flags(&self) -> Flags {
        let repositories = self.repo.iter().map(|(name, path)| json!({ "name": name, "path": path })).collect();
        Flags::new(&self.common)
            .list("repositories", repositories)
            .text("cache_name", self.name.as_ref())
            .number("timestamp_max_age_s", self.timestamp_max_age_s.as_ref())
            .text("write.listen", self.write_listen.as_ref())
            .text("write.listen_plain", self.write_listen_plain.as_ref())
            .text("write.token_file", self.token_file.as_ref())
    }
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    match &args.verb {
        Verb::Serve(args) => serve(args, out),
        Verb::Token(args) => token::run(args, out),
    }
}

/// Keys and passphrase in the environment.
fn keys() -> Result<KeySources, OriginError> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    KeySources::from_variables(variables).map_err(|error| OriginError::Keys(Box::new(error)))
}

fn serve(args: &Serve, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let sources = args.flags().sources(&args.common, ENVIRONMENT_PREFIX);
    let loaded = colibri_service::load::<OriginServerConfig>(sources.clone())?;
    if args.common.check_config {
        serve::describe(&loaded, out)?;
        let config = &loaded.value;
        config.log.parse::<Filter>()?;
        Origin::open(config.origin(), Arc::new(SystemClock))?;
        if config.write.is_on() {
            WriteApi::open(&config.write, &config.repositories, Arc::new(SystemClock), &Registry::new(), &keys()?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = loaded.value;
    serve::block_on(&args.common, &config.log, |log| async {
        let server = OriginServer::bind_with_keys(&config, Arc::new(SystemClock), &keys()?)?;
        let server = server.reloading(&config, Reloading { sources, log: Some(log) })?;
        let listeners = Listeners {
            title: format!("origin {}", config.cache_name),
            secure: server.address(),
            http3: config.http3,
            plain: server.plain_address(),
            admin: server.admin_address(),
            write: server.write_address(),
            write_plain: server.write_plain_address(),
            certificate_pin: Some(server.certificate_pin()),
        };
        serve::until_signal(&args.common, &listeners, |drain| server.serve(drain.token())).await
    })
}

#[cfg(test)]
mod tests {
    use colibri_origin::RepositoryConfig;
    use colibri_origin::write::WriteConfig;
    use colibri_service::config::load_with;

    use super::*;
    use crate::files::tests::{Fixture, printed};

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_flag_reaches_its_key() {
        let args = Serve {
            repo: vec![("one".to_owned(), "a=b".to_owned()), ("two".to_owned(), "c".to_owned())],
            name: text("7"),
            timestamp_max_age_s: text("8"),
            write_listen: text("127.0.0.1:4"),
            write_listen_plain: text("127.0.0.1:5"),
            token_file: text("t.json"),
            common: ServeArgs {
                listen: text("127.0.0.1:1"),
                listen_plain: text("127.0.0.1:2"),
                listen_admin: text("127.0.0.1:3"),
                tls_dir: text("certificates"),
                log_filter: text("warn"),
                no_http3: true,
                ..ServeArgs::default()
            },
        };
        let loaded = load_with::<OriginServerConfig>(args.flags().sources(&args.common, ENVIRONMENT_PREFIX), []);
        let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let repository = |name: &str, path: &str| RepositoryConfig::new(name.parse().unwrap(), path);
        let expected = OriginServerConfig {
            listen: address(1),
            listen_plain: Some(address(2)),
            listen_admin: Some(address(3)),
            http3: false,
            tls_dir: "certificates".into(),
            log: "warn".to_owned(),
            repositories: vec![repository("one", "a=b"), repository("two", "c")],
            timestamp_max_age_s: 8,
            cache_name: "7".to_owned(),
            write: WriteConfig {
                listen: Some(address(4)),
                listen_plain: Some(address(5)),
                token_file: "t.json".into(),
                ..WriteConfig::default()
            },
            ..OriginServerConfig::default()
        };
        assert_eq!(loaded.unwrap().value, expected);
    }

    #[test]
    fn all_mistakes_of_the_flags_are_told_together() {
        let args = Serve {
            repo: vec![("blobs".to_owned(), "dir".to_owned())],
            timestamp_max_age_s: text("soon"),
            common: ServeArgs { set: vec![("colour".to_owned(), "red".to_owned())], ..ServeArgs::default() },
            ..Serve::default()
        };
        let sources = args.flags().sources(&args.common, ENVIRONMENT_PREFIX);
        let mistakes = load_with::<OriginServerConfig>(sources, []).unwrap_err().0;
        let keys: Vec<_> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, ["colour", "repositories", "timestamp_max_age_s"], "{mistakes:?}");
    }

    #[test]
    fn a_check_prints_and_then_looks_at_the_repositories() {
        let dir = Fixture::new(&[]);
        let check = |repo: &[(&str, String)]| {
            let repo = repo.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
            let common = ServeArgs { check_config: true, ..ServeArgs::default() };
            let verb = Verb::Serve(Box::new(Serve { repo, common, ..Serve::default() }));
            printed(|out| run(&Args { verb }, out))
        };
        let missing = dir.path("missing").display().to_string();
        let (outcome, text) = check(&[("devhost", missing)]);
        assert!(outcome.unwrap_err().to_string().contains("missing"));
        assert!(
            text.lines().any(|line| line.starts_with("repositories = ") && line.ends_with("# command line")),
            "{text}"
        );
        let (outcome, _) = check(&[]);
        assert_eq!(format!("{:?}", outcome.unwrap_err().exit_code()), format!("{:?}", ExitCode::from(64)));
    }
}
