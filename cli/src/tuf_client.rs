//! `colibri tuf-client`: the metadata core as a plain TUF client, with the command line that the public conformance suite
//! drives (theupdateframework/tuf-conformance, CLIENT-CLI.md). Hidden: a person uses `colibri device`.
//!
//! Two folders are kept: trusted metadata under unnumbered names, byte for byte, and targets whose hashes matched. Exit codes:
//! 0 done, 1 anything else.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{Clock, SystemClock, UnixSeconds, hex, sha256};
use colibri_fetch::metadata::{Mirrors, refresh};
use colibri_fetch::trust_store::TrustFolder;
use colibri_fetch::{BlobFetcher, FetchError, Source, SourceOrder, Sources};
use colibri_metadata::limits::ROOT_BYTES_MAX;
use colibri_metadata::{MetadataError, Start, TargetDescription, TargetName, TargetNameError, TrustedSet};
use colibri_store::{DocumentName, Documents, OsDisk, StoreError};
use colibri_transport::{Client, ClientConfig, TransportError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest file name of a target after its encoding; a longer one is called by its hash. Bytes.
const FILE_NAME_BYTES_MAX: usize = 200;

/// How we introduce ourselves.
const AGENT: &str = concat!("colibri-tuf-client/", env!("CARGO_PKG_VERSION"));

/// All but the unreserved characters of RFC 3986 §2.3.
const IN_FILE_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Follows a TUF repository as the conformance suite asks.
///
/// Example: colibri tuf-client --metadata-dir m init root.json, then
/// colibri tuf-client --metadata-dir m --metadata-url http://localhost:8888/metadata refresh
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where trusted metadata is kept
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// A target to download; may be repeated
    #[arg(long, value_name = "NAME")]
    target_name: Vec<String>,
    /// Where the repository's targets are
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where downloaded targets are kept
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    verb: Verb,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Begins to trust a root
    Init {
        /// The root's file
        root: PathBuf,
    },
    /// Brings the trusted metadata up to date
    Refresh,
    /// Refreshes, then downloads the named targets in order
    Download,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum TufClientError {
    /// An option that the verb needs.
    #[error("this needs {0}")]
    Needs(&'static str),
    /// Nothing to start from.
    #[error("there is no trusted root in {}: make one with `init ROOT`", .0.display())]
    NoRoot(PathBuf),
    /// The root's file.
    #[error("{}: {error}", path.display())]
    RootFile {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The root's file is too long.
    #[error("{} has more than {ROOT_BYTES_MAX} bytes", .0.display())]
    RootTooLarge(PathBuf),
    /// The root is not to be trusted.
    #[error(transparent)]
    Root(#[from] MetadataError),
    /// A target's name.
    #[error("target {name:?}: {error}")]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        error: TargetNameError,
    },
    /// The repository has no such target.
    #[error("the repository has no target {0}")]
    NoTarget(TargetName),
    /// Something could not be had, or not be believed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Connecting.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The asynchronous runtime, or standard output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, TufClientError> {
    let folder = TrustFolder::new(documents(&args.metadata_dir)?);
    match &args.verb {
        Verb::Init { root } => {
            let set = TrustedSet::from_root_file(&read_root(root)?)?;
            folder.save(&set)?;
            writeln!(out, "trusting root version {}", set.root().version())?;
        }
        Verb::Refresh => {
            let desk = Desk::new(args, folder)?;
            desk.block_on(async { desk.refresh().await.map(drop) })?;
        }
        Verb::Download => {
            let desk = Desk::new(args, folder)?;
            let names = args
                .target_name
                .iter()
                .map(|name| name.parse().map_err(|error| TufClientError::Name { name: name.clone(), error }));
            let names = names.collect::<Result<Vec<TargetName>, _>>()?;
            let (Some(base), Some(dir)) = (&args.target_base_url, &args.target_dir) else {
                return Err(TufClientError::Needs("--target-base-url and --target-dir"));
            };
            desk.block_on(desk.download(&names, base, documents(dir)?, out))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn documents(dir: &Path) -> Result<Documents, StoreError> {
    Documents::open(Arc::new(OsDisk), dir)
}

fn read_root(path: &Path) -> Result<Bytes, TufClientError> {
    use std::io::Read;
    let failed = |error| TufClientError::RootFile { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(ROOT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > ROOT_BYTES_MAX {
        return Err(TufClientError::RootTooLarge(path.to_owned()));
    }
    Ok(bytes.into())
}

/// What refreshing and downloading work with.
struct Desk {
    folder: TrustFolder,
    dir: PathBuf,
    client: Client,
    metadata: Sources,
    /// Fixed for the whole run (§5.1).
    now: UnixSeconds,
    runtime: tokio::runtime::Runtime,
}

impl Desk {
    fn new(args: &Args, folder: TrustFolder) -> Result<Self, TufClientError> {
        let url = args.metadata_url.as_deref().ok_or(TufClientError::Needs("--metadata-url"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(ClientConfig::default())?;
        let (dir, metadata) = (args.metadata_dir.clone(), one_source(url)?);
        Ok(Self { folder, dir, client, metadata, now: SystemClock.now(), runtime })
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What was proven is kept, also when the refresh then fails.
    async fn refresh(&self) -> Result<TrustedSet, TufClientError> {
        let set = self.folder.load()?.ok_or_else(|| TufClientError::NoRoot(self.dir.clone()))?;
        let refreshed = refresh(&self.client, &self.metadata, "", AGENT, Start::FromSet(set), self.now).await;
        self.keep(refreshed.map(|set| (set, ()))).map(|(set, ())| set)
    }

    fn keep<T>(
        &self,
        outcome: Result<(TrustedSet, T), colibri_fetch::metadata::Unfinished<FetchError>>,
    ) -> Result<(TrustedSet, T), TufClientError> {
        let kept = match &outcome {
            Ok((set, _)) => Some(set),
            Err(unfinished) => unfinished.floor.as_ref(),
        };
        if let Some(set) = kept {
            self.folder.save(set)?;
        }
        outcome.map_err(|unfinished| unfinished.error.into())
    }

    async fn download(
        &self,
        names: &[TargetName],
        base: &str,
        targets: Documents,
        out: &mut dyn Write,
    ) -> Result<(), TufClientError> {
        let fetcher = BlobFetcher::new(self.client.clone(), Arc::new(one_source(base)?), AGENT);
        let mirrors =
            Mirrors { client: &self.client, sources: &self.metadata, place: "", agent: AGENT, bandwidth: None };
        let mut set = self.refresh().await?;
        for name in names {
            let searched = mirrors.search(set, name, self.now).await;
            let found;
            (set, found) = self.keep(searched)?;
            let target = found.ok_or_else(|| TufClientError::NoTarget(name.clone()))?.target;
            let file = file_name(name)?;
            if !is_there(&targets, &file, &target) {
                let numbered = set.root().consistent_snapshot();
                let bytes = fetcher.target("", name, &target, numbered).await?;
                targets.put(&file, &bytes)?;
            }
            writeln!(out, "{name}: {}", targets.path(&file).display())?;
        }
        Ok(())
    }
}

fn one_source(url: &str) -> Result<Sources, FetchError> {
    Ok(Sources::new(vec![Source::new(url.parse()?)], SourceOrder::Listed))
}

/// A file name of its own for each target, without folders.
fn file_name(name: &TargetName) -> Result<DocumentName, StoreError> {
    let encoded = utf8_percent_encode(name.as_str(), IN_FILE_NAMES).to_string();
    if encoded.len() > FILE_NAME_BYTES_MAX {
        return DocumentName::new(&format!("sha256%3A{}", hex(&sha256(name.as_str().as_bytes()))));
    }
    DocumentName::new(&encoded)
}

/// Whether the target was downloaded before.
fn is_there(targets: &Documents, file: &DocumentName, target: &TargetDescription) -> bool {
    let stored = targets.get(file, target.length).ok().flatten();
    stored.is_some_and(|bytes| target.is(&bytes).is_ok())
}
