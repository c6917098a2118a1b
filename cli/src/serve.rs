//! What `origin serve` and `edge serve` share: layers of configuration, logs, telling people and scripts where the ports
//! are, and ending well. What is served is in the libraries.

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use colibri_common::hex;
#[cfg(feature = "edge")]
use colibri_edge::{EdgeError, process::EdgeProcessError};
#[cfg(feature = "origin")]
use colibri_origin::OriginError;
#[cfg(feature = "origin")]
use colibri_origin::write::TokenError;
use colibri_service::telemetry::{self, Format};
use colibri_service::{
    ConfigErrors, Drain, EXIT_BAD_CONFIGURATION, Loaded, LogFilter, ServiceError, Sources, on_hangup, shutdown_signal,
};
use serde::Serialize;
use serde_json::{Map, Value};

#[cfg(feature = "edge")]
use crate::edge::control::ControlError;
use crate::files::{self, FilesError};

/// Arguments of every verb that serves.
#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Address for HTTP/3 and TLS
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address for HTTP without TLS
    #[arg(long, value_name = "ADDRESS")]
    pub listen_plain: Option<String>,
    /// Address for metrics and health
    #[arg(long, value_name = "ADDRESS")]
    pub listen_admin: Option<String>,
    /// Folder of the certificate and its key; both are made on first start
    #[arg(long, value_name = "DIR")]
    pub tls_dir: Option<String>,
    /// Answer only HTTP/2 and HTTP/1.1
    #[arg(long)]
    pub no_http3: bool,
    /// TOML file with configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any key of the configuration; the value is JSON or plain text (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Print the effective configuration with the source of each value, check it, and exit
    #[arg(long)]
    pub check_config: bool,
    /// Write the bound ports here once ready, a line each: https=PORT, http=PORT, admin=PORT
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// How log lines look: human or json
    #[arg(long, value_name = "FORMAT", env = "COLIBRI_LOG_FORMAT", default_value = "human")]
    pub log_format: Format,
    /// What is logged, such as info (the default) or colibri_edge=debug,warn
    #[arg(long = "log", value_name = "FILTER", env = "COLIBRI_LOG")]
    pub log_filter: Option<String>,
}

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Mistakes in the layers of configuration.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The edge.
    #[cfg(feature = "edge")]
    #[error(transparent)]
    Edge(#[from] EdgeProcessError),
    /// The origin.
    #[cfg(feature = "origin")]
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// What a running edge was told.
    #[cfg(feature = "edge")]
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Tokens of the write API.
    #[cfg(feature = "origin")]
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Logs.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The file of ports.
    #[error(transparent)]
    PortFile(#[from] FilesError),
    /// The asynchronous runtime.
    #[error("the runtime cannot be started: {0}")]
    Runtime(std::io::Error),
    /// Standard output.
    #[error("printing failed: {0}")]
    Output(#[from] std::io::Error),
}

impl ServeError {
    /// 64 for what only another configuration can cure, else 1.
    pub fn exit_code(&self) -> ExitCode {
        let configuration = match self {
            Self::Config(_) | Self::Service(ServiceError::Filter { .. }) => true,
            #[cfg(feature = "edge")]
            Self::Edge(EdgeProcessError::Edge(error)) => {
                matches!(
                    error,
                    EdgeError::NoUpstream
                        | EdgeError::Upstream(_)
                        | EdgeError::Trust(_)
                        | EdgeError::Repository { .. }
                        | EdgeError::Window(_)
                )
            }
            #[cfg(feature = "origin")]
            Self::Origin(error) => matches!(
                error,
                OriginError::NoRepositories
                    | OriginError::TooManyRepositories(_)
                    | OriginError::Duplicate(_)
                    | OriginError::WriteConfig(_)
            ),
            _ => false,
        };
        if configuration { ExitCode::from(EXIT_BAD_CONFIGURATION) } else { ExitCode::FAILURE }
    }
}

/// Splits `KEY=VALUE`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must have the form of two parts with `=` between them".to_owned()),
    }
}

/// The flags that were given, as a layer of configuration.
#[derive(Debug)]
pub(crate) struct Flags(Map<String, Value>);

impl Flags {
    /// What `--set` says; the flags with names of their own come on top of it.
    pub fn new(args: &ServeArgs) -> Self {
        let mut flags = Self(Map::new());
        for (key, value) in &args.set {
            flags.put(key, parsed(value));
        }
        flags
            .text("listen", args.listen.as_ref())
            .text("listen_plain", args.listen_plain.as_ref())
            .text("listen_admin", args.listen_admin.as_ref())
            .text("tls_dir", args.tls_dir.as_ref())
            .text("log", args.log_filter.as_ref())
            .off("http3", args.no_http3)
    }

    /// A flag whose value is text.
    pub fn text(mut self, key: &str, value: Option<&String>) -> Self {
        if let Some(text) = value {
            self.put(key, text.as_str().into());
        }
        self
    }

    /// A flag whose value is a number. What is none is told with all other mistakes.
    pub fn number(mut self, key: &str, value: Option<&String>) -> Self {
        if let Some(text) = value {
            self.put(key, parsed(text));
        }
        self
    }

    /// A flag that may be repeated; all of it replaces what other layers list.
    pub fn list(mut self, key: &str, values: Vec<Value>) -> Self {
        if !values.is_empty() {
            self.put(key, values.into());
        }
        self
    }

    /// A flag that turns something off.
    pub fn off(mut self, key: &str, given: bool) -> Self {
        if given {
            self.put(key, false.into());
        }
        self
    }

    /// Sets a dotted key.
    fn put(&mut self, key: &str, value: Value) {
        let mut object = &mut self.0;
        let mut names = key.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                object.insert(name.to_owned(), value);
                return;
            }
            let below = object.entry(name).or_insert(Value::Null);
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            let Value::Object(below) = below else { return };
            object = below;
        }
    }

    /// All layers of this process's configuration.
    pub fn sources(self, args: &ServeArgs, environment_prefix: &str) -> Sources {
        Sources {
            file: args.config.clone(),
            environment_prefix: environment_prefix.to_owned(),
            overrides: Value::Object(self.0),
        }
    }
}

/// JSON if it is, else text.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Runs one server until it is told to end, with its logs on standard error: at first what `log` lets through.
pub(crate) fn block_on<F>(
    args: &ServeArgs,
    log: &str,
    server: impl FnOnce(LogFilter) -> F,
) -> Result<ExitCode, ServeError>
where
    F: Future<Output = Result<(), ServeError>>,
{
    let telemetry = telemetry::init(args.log_format, log)?;
    if let Some(stale) = &args.port_file {
        // Whoever waits for the file must not read the ports of an earlier run.
        match std::fs::remove_file(stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FilesError::io("removing the old file", stale)(error).into());
            }
            _ => {}
        }
    }
    runtime()?.block_on(server(telemetry.filter()))?;
    Ok(ExitCode::SUCCESS)
}

/// What a server's tasks run on.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, ServeError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)
}

/// Prints the effective configuration.
pub(crate) fn describe<T: Serialize>(loaded: &Loaded<T>, out: &mut dyn Write) -> Result<(), ServeError> {
    write!(out, "{}", loaded.describe())?;
    Ok(out.flush()?)
}

/// Where a server answers.
#[derive(Debug, Clone)]
pub(crate) struct Listeners {
    /// What it is and is called, such as `edge berlin`.
    pub title: String,
    /// The port with TLS.
    pub secure: SocketAddr,
    /// Whether HTTP/3 is answered there.
    pub http3: bool,
    /// The port without TLS.
    pub plain: Option<SocketAddr>,
    /// The port for metrics and health.
    pub admin: Option<SocketAddr>,
    /// The port of the write API with TLS.
    pub write: Option<SocketAddr>,
    /// The port of the write API without TLS.
    pub write_plain: Option<SocketAddr>,
    /// SHA-256 of the certificate's public key, if the server tells it.
    pub certificate_pin: Option<[u8; 32]>,
}

impl Listeners {
    fn lines(&self) -> Vec<String> {
        let Self { title, secure, plain, admin, write, write_plain, .. } = self;
        let protocols = if self.http3 { "h3, h2, h1" } else { "h2, h1" };
        let mut lines = vec![format!("{title} listening on https://{secure} ({protocols})")];
        lines.extend(plain.map(|plain| format!("{title} listening on http://{plain} (h2, h1)")));
        lines.extend(admin.map(|admin| format!("{title} metrics and health on http://{admin}")));
        lines.extend(write.map(|write| format!("{title} write API on https://{write} (h2, h1)")));
        lines.extend(write_plain.map(|write| format!("{title} write API on http://{write} (h2, h1)")));
        lines.extend(self.certificate_pin.map(|pin| format!("{title} certificate pin:{}", hex(&pin))));
        lines
    }

    fn ports(&self) -> String {
        let mut text = format!("https={}\n", self.secure.port());
        let Self { plain, admin, write, write_plain, .. } = *self;
        for (name, address) in [("http", plain), ("admin", admin), ("write", write), ("write-http", write_plain)] {
            if let Some(address) = address {
                // Writing to a string cannot fail.
                _ = writeln!(text, "{name}={}", address.port());
            }
        }
        text
    }

    /// Tells people, and scripts that asked for a file.
    fn announce(&self, args: &ServeArgs) -> Result<(), FilesError> {
        for line in self.lines() {
            match args.log_format {
                Format::Human => eprintln!("{line}"),
                // Among objects, a line that is none would break the reader.
                Format::Json => tracing::info!("{line}"),
            }
        }
        args.port_file.as_ref().map_or(Ok(()), |path| files::write(path, self.ports().as_bytes()))
    }
}

/// Says where a server with open ports answers, and lets it serve until SIGTERM or SIGINT, then drain.
pub(crate) async fn until_signal<F>(
    args: &ServeArgs,
    listeners: &Listeners,
    serve: impl FnOnce(&Drain) -> F,
) -> Result<(), ServeError>
where
    F: Future<Output = ()>,
{
    let drain = Drain::new();
    // Whoever sends it as soon as the process is ready must not end it.
    let mut hangups = pin!(on_hangup(|| {}));
    tokio::select! { biased; () = &mut hangups => {}, () = std::future::ready(()) => {} }
    let mut signal = pin!(shutdown_signal());
    // One poll puts the handlers in place, before anybody is told that the process is ready.
    tokio::select! { biased; _ = &mut signal => return Ok(()), () = std::future::ready(()) => {} }
    listeners.announce(args)?;
    let ending = async {
        let signal = signal.await;
        tracing::info!(
            signal,
            "accepting nothing new and finishing what is under way; a second signal ends it at once"
        );
        drain.begin();
    };
    tokio::join!(serve(&drain), ending);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners() -> Listeners {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Listeners {
            title: "edge berlin".to_owned(),
            secure: address(1),
            http3: true,
            plain: Some(address(2)),
            admin: Some(address(3)),
            write: Some(address(4)),
            write_plain: Some(address(5)),
            certificate_pin: Some([0xab; 32]),
        }
    }

    #[test]
    fn every_listener_has_a_line_and_a_port() {
        let all = listeners();
        let lines = all.lines();
        assert_eq!(lines[0], "edge berlin listening on https://127.0.0.1:1 (h3, h2, h1)");
        assert_eq!(lines[1], "edge berlin listening on http://127.0.0.1:2 (h2, h1)");
        assert_eq!(lines[2], "edge berlin metrics and health on http://127.0.0.1:3");
        assert_eq!(lines[3], "edge berlin write API on https://127.0.0.1:4 (h2, h1)");
        assert_eq!(lines[4], "edge berlin write API on http://127.0.0.1:5 (h2, h1)");
        assert_eq!(lines[5], format!("edge berlin certificate pin:{}", "ab".repeat(32)));
        assert_eq!(all.ports(), "https=1\nhttp=2\nadmin=3\nwrite=4\nwrite-http=5\n");
        let nothing = Listeners { plain: None, admin: None, write: None, write_plain: None, ..all };
        let few = Listeners { http3: false, certificate_pin: None, ..nothing };
        assert_eq!(few.lines(), ["edge berlin listening on https://127.0.0.1:1 (h2, h1)"]);
        assert_eq!(few.ports(), "https=1\n");
    }

    #[test]
    fn flags_become_a_tree_of_keys() {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let args = ServeArgs {
            set: vec![set("a.b", "[1]"), set("a.c", "text"), set("d", "x"), set("e", "true"), set("a.n", "1")],
            ..ServeArgs::default()
        };
        let flags = Flags::new(&args)
            .text("a.t", Some(&"5".to_owned()))
            .number("a.n", Some(&"5".to_owned()))
            .number("a.m", Some(&"many".to_owned()))
            .number("a.missing", None)
            .list("l", Vec::new())
            .off("h", true)
            .off("i", false)
            .text("d.below", Some(&"y".to_owned()));
        let expected = serde_json::json!({
            "a": {"b": [1], "c": "text", "n": 5, "t": "5", "m": "many"},
            "d": {"below": "y"}, "e": true, "h": false,
        });
        assert_eq!(flags.sources(&args, "X_").overrides, expected);
    }

    #[test]
    fn settings_have_two_parts() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for text in ["", "a", "=b", "a="] {
            assert!(key_value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_another_configuration_cures_code_64() {
        let code = |error: ServeError| format!("{:?}", error.exit_code());
        let bad = format!("{:?}", ExitCode::from(64));
        assert_eq!(code(ServeError::Edge(EdgeError::NoUpstream.into())), bad);
        assert_eq!(code(ServeError::Origin(OriginError::NoRepositories)), bad);
        assert_eq!(code(ServeError::Origin(OriginError::Stopping)), format!("{:?}", ExitCode::FAILURE));
    }
}
