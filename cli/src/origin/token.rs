//! `colibri origin token create|list|revoke`: who may write to an origin.
//!
//! The file may be changed while the origin runs: it looks at it with every request.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_api::RepositoryName;
use colibri_common::{Clock, SystemClock, UnixSeconds};
use colibri_origin::write::{NewToken, TokenEntry, TokenFile, WriteRole};
use serde_json::{Value, json};

use crate::serve::ServeError;

/// Seconds in a day.
const DAY_S: u64 = 86_400;

/// Arguments of `origin token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is done to tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes a token and prints it, this once; the file keeps only its SHA-256
    #[command(after_help = "Example: colibri origin token create --token-file tokens.json --name ci --role publisher \
                            --days 90 > ci.token")]
    Create(Create),
    /// Shows names, roles and ends of all tokens, never a token
    List(List),
    /// Ends a token at once
    Revoke(Revoke),
}

/// Where the tokens are.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The file of tokens: `write.token_file` of the origin's configuration
    #[arg(long, value_name = "FILE", env = "COLIBRI_ORIGIN_WRITE__TOKEN_FILE")]
    pub token_file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `origin token create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Whose it is or what it is for
    #[arg(long)]
    pub name: String,
    /// What its holder may do: reader, publisher or admin
    #[arg(long, value_name = "ROLE")]
    pub role: WriteRole,
    /// A repository it is for (repeatable); default is all
    #[arg(long, value_name = "NAME")]
    pub repo: Vec<RepositoryName>,
    /// Days until it ends; default is never
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub days: Option<u32>,
    /// Where the tokens are
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `origin token list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Where the tokens are
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `origin token revoke`.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Its id (the 8 digits after colibri_) or name; all live tokens of that name end
    pub wanted: String,
    /// Take it out of the file too
    #[arg(long)]
    pub forget: bool,
    /// Where the tokens are
    #[command(flatten)]
    pub place: Place,
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, ServeError> {
    let now = SystemClock.now();
    match &args.verb {
        Verb::Create(args) => create(args, now, out)?,
        Verb::List(args) => list(args, now, out)?,
        Verb::Revoke(args) => revoke(args, now, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &Create, now: UnixSeconds, out: &mut dyn Write) -> Result<(), ServeError> {
    let new = NewToken {
        name: args.name.clone(),
        role: args.role,
        repositories: args.repo.clone(),
        expires: args.days.map(|days| now.plus(u64::from(days) * DAY_S)),
    };
    let (entry, token) = TokenFile::new(&args.place.token_file).create(new, now)?;
    if args.place.json {
        let mut shown = entry_json(&entry, now);
        shown["token"] = token.into();
        writeln!(out, "{shown}")?;
    } else {
        writeln!(out, "{token}")?;
        eprintln!("token {} ({}) is {}; it is not shown again", entry.id, entry.name, entry.role);
    }
    Ok(())
}

fn list(args: &List, now: UnixSeconds, out: &mut dyn Write) -> Result<(), ServeError> {
    let tokens = TokenFile::new(&args.place.token_file).read()?;
    if args.place.json {
        let entries: Vec<_> = tokens.entries().map(|entry| entry_json(entry, now)).collect();
        return Ok(writeln!(out, "{}", json!({ "tokens": entries }))?);
    }
    for entry in tokens.entries() {
        let repositories: Vec<_> = entry.repositories.iter().map(RepositoryName::as_str).collect();
        let places = if repositories.is_empty() { "all".to_owned() } else { repositories.join(",") };
        let (id, role, name) = (&entry.id, entry.role.name(), &entry.name);
        writeln!(out, "{id}  {role:<9}  {:<8}  {places}  {name}", state(entry, now))?;
    }
    Ok(())
}

fn revoke(args: &Revoke, now: UnixSeconds, out: &mut dyn Write) -> Result<(), ServeError> {
    let revoked = TokenFile::new(&args.place.token_file).revoke(&args.wanted, args.forget, now)?;
    if args.place.json {
        let entries: Vec<_> = revoked.iter().map(|entry| entry_json(entry, now)).collect();
        return Ok(writeln!(out, "{}", json!({ "revoked": entries }))?);
    }
    for entry in &revoked {
        writeln!(out, "revoked {} ({})", entry.id, entry.name)?;
    }
    Ok(())
}

fn state(entry: &TokenEntry, now: UnixSeconds) -> &'static str {
    match (entry.revoked, entry.is_live(now)) {
        (Some(_), _) => "revoked",
        (None, true) => "live",
        (None, false) => "ended",
    }
}

fn entry_json(entry: &TokenEntry, now: UnixSeconds) -> Value {
    json!({
        "id": entry.id,
        "name": entry.name,
        "role": entry.role.name(),
        "repositories": entry.repositories,
        "created": entry.created,
        "expires": entry.expires,
        "revoked": entry.revoked,
        "state": state(entry, now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::{Fixture, printed};

    #[test]
    fn a_token_is_printed_once_and_listed_without_itself() {
        let dir = Fixture::new(&[]);
        let place = |json| Place { token_file: dir.path("tokens.json"), json };
        let verb = |verb| printed(|out| run(&Args { verb }, out));
        let make = Create {
            name: "ci".to_owned(),
            role: WriteRole::Publisher,
            repo: vec!["one".parse().unwrap()],
            days: Some(2),
            place: place(true),
        };
        let (done, text) = verb(Verb::Create(make));
        done.unwrap();
        let made: Value = serde_json::from_str(&text).unwrap();
        let token = made["token"].as_str().unwrap();
        assert!(token.starts_with("colibri_"));
        let created = made["created"].as_u64().unwrap();
        assert_eq!(made["expires"].as_u64().unwrap(), created + 2 * DAY_S);
        let (_, text) = verb(Verb::List(List { place: place(false) }));
        let id = made["id"].as_str().unwrap();
        assert_eq!(text, format!("{id}  publisher  live      one  ci\n"));
        let revoke = || Verb::Revoke(Revoke { wanted: "ci".to_owned(), forget: false, place: place(false) });
        assert_eq!(verb(revoke()).1, format!("revoked {id} (ci)\n"));
        let error = verb(revoke()).0.unwrap_err().to_string();
        assert!(error.contains("ci") && error.contains("tokens.json"), "{error}");
        assert!(verb(Verb::List(List { place: place(true) })).1.contains("\"state\":\"revoked\""));
    }
}
