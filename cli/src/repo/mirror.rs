//! `colibri repo mirror`: follows a repository that somebody else serves, over the read API.
//!
//! What is fetched is laid into `DIR/.mirror`: metadata with all delegated roles, verified, targets, and every blob, proven
//! while it arrives. Then it is imported as a whole: whoever
//! serves DIR meanwhile sees the old state. An interrupted run goes on with the blobs it has not got yet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, Clock, SystemClock};
use colibri_fetch::metadata::refresh_from;
use colibri_fetch::{BlobFetcher, FetchError, Known, Recorder, Source, SourceOrder, SourceUrl, Sources, Unverified};
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet};
use colibri_package::delivery::{DeliveryType, Encoding, VerifiedPieces};
use colibri_repository::{CopyMode, Repository, RepositorySource, Transfer, TransferReport};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{RepoError, versions_json, versions_line};
use crate::device::configuration::Connection;
use crate::files::{self, FilesError};
use crate::progress::{Step, step};

/// Below DIR: what has been fetched and is not imported yet.
const STAGE: &str = ".mirror";

/// The encodings that are asked for, the better one first.
const ENCODINGS: [Encoding; 2] = [Encoding::Delivery(DeliveryType::Type1), Encoding::Raw];

/// Arguments of `repo mirror`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Run it again to follow; only what is new is fetched.\n\n\
                        Example: colibri repo mirror https://origin.example/fuchsia.com ./mirror --trusted-root 1.root.json")]
pub struct Mirror {
    /// How it connects
    #[command(flatten)]
    pub connection: Connection,
    /// Root metadata to trust at first; later runs trust what they have
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// Trust the first root that the server shows: only as good as the connection
    #[arg(long, conflicts_with = "trusted_root")]
    pub trust_on_first_use: bool,
    /// Blobs fetched at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Address of the repository
    #[arg(value_name = "URL")]
    pub url: SourceUrl,
    /// The folder that follows it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Why a repository could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Nothing says what to trust.
    #[error(
        "nothing says which root to trust: give --trusted-root FILE, or accept what the server shows with --trust-on-first-use"
    )]
    NoRoot,
    /// The metadata cannot be had or believed.
    #[error("{url}: {reason}")]
    Metadata {
        /// The repository.
        url: SourceUrl,
        /// What is wrong.
        reason: String,
    },
    /// A blob cannot be had.
    #[error(transparent)]
    Blob(#[from] FetchError),
    /// Sockets or trust anchors.
    #[error(transparent)]
    Connection(#[from] colibri_transport::TransportError),
    /// A task ended early.
    #[error("fetching ended early: {0}")]
    Task(String),
}

/// Mirrors.
pub(super) fn run(args: &Mirror, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let existing = if args.dir.join("repository").is_dir() { Some(Repository::open(&args.dir)?) } else { None };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let step = step(&format!("following {}", args.url));
    let stage = Stage::open(&args.dir)?;
    let site = runtime.block_on(Site::open(args, existing.as_ref()))?;
    let before = existing.as_ref().map(Repository::versions).transpose()?;
    stage.write_metadata(&site)?;
    runtime.block_on(site.fetch_documents(&stage, &args.dir.join("repository")))?;
    let fetched = runtime.block_on(site.fetch_blobs(&stage, usize::from(args.jobs), &step))?;
    let transfer = Transfer { copy_mode: CopyMode::HardLink, ..Transfer::default() };
    let report = Repository::import(&stage.source(), &args.dir, &transfer)?;
    stage.remove()?;
    step.done(&format!("{fetched} blobs fetched"));
    tell(args, &report, fetched, before == Some(report.versions), out)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(
    args: &Mirror,
    report: &TransferReport,
    fetched: usize,
    current: bool,
    out: &mut dyn Write,
) -> Result<(), RepoError> {
    let TransferReport { packages, blobs, versions, .. } = *report;
    if args.json {
        let path = args.dir.display().to_string();
        let versions = versions_json(versions);
        let report = json!({
            "path": path, "packages": packages, "blobs": blobs, "blobs_fetched": fetched, "changed": !current,
            "versions": versions,
        });
        return Ok(files::print_json(out, &report)?);
    }
    let news = if current { "nothing new" } else { "followed" };
    writeln!(out, "{news}: {packages} packages, {blobs} blobs, {fetched} of them fetched now")?;
    Ok(writeln!(out, "{}: {}", args.dir.display(), versions_line(versions))?)
}

/// What the server offers, verified.
struct Site {
    fetcher: BlobFetcher,
    set: TrustedSet,
    /// Every metadata file that was read, by name.
    files: BTreeMap<String, Bytes>,
}

impl Site {
    /// Refreshes from what is trusted.
    async fn open(args: &Mirror, existing: Option<&Repository>) -> Result<Self, RepoError> {
        let sources = Sources::new(vec![Source::new(args.url.clone())], SourceOrder::Listed);
        let agent = concat!("colibri/", env!("CARGO_PKG_VERSION"));
        let client = args.connection.client().map_err(MirrorError::from)?;
        let fetcher = BlobFetcher::new(client, Arc::new(sources), agent);
        let failed = |reason: String| MirrorError::Metadata { url: args.url.clone(), reason };
        let mut files = BTreeMap::new();
        let start = match existing {
            Some(repository) => {
                let set = repository.metadata()?;
                files.insert(Role::Root.numbered_file(set.root().version()), repository.trusted_root_bytes()?);
                Start::FromSet(set)
            }
            None => {
                let root = first_root(args, &fetcher).await?;
                let set = TrustedSet::from_root_file(&root).map_err(|error| failed(error.to_string()))?;
                files.insert(Role::Root.numbered_file(set.root().version()), root.clone());
                Start::FromAnchor(TrustAnchor::RootFile(root))
            }
        };
        let recorder = Recorder::new(&fetcher);
        let set = refresh_from(&recorder, start, SystemClock.now()).await;
        let set = set.map_err(|unfinished| failed(unfinished.error.to_string()))?;
        files.extend(recorder.into_files());
        // A number stands for one file for ever: what is here is not fetched again.
        let served = args.dir.join("repository");
        let known =
            |file: &str| set.root().consistent_snapshot().then(|| fs::read(served.join(file)).ok().map(Bytes::from));
        let known = |file: &str| known(file).flatten();
        let known = Known { file: &known, first: true };
        let (set, delegated) =
            fetcher.delegated(set.clone(), SystemClock.now(), known).await.map_err(MirrorError::from)?;
        files.extend(delegated);
        Ok(Self { fetcher, set, files })
    }

    /// Fetches every target that is no package, unless it is below `kept`.
    async fn fetch_documents(&self, stage: &Stage, kept: &Path) -> Result<(), RepoError> {
        let kept = RepositorySource::at(kept.to_owned(), Vec::new());
        for document in stage.source().lacking_documents()? {
            let here = fs::read(kept.document_path(&document)).ok();
            let bytes = match here.filter(|bytes| document.description.is(bytes).is_ok()) {
                Some(bytes) => bytes.into(),
                None => {
                    let numbered = self.set.root().consistent_snapshot();
                    let fetched =
                        self.fetcher.target("/targets", &document.name, &document.description, numbered).await;
                    fetched.map_err(MirrorError::from)?
                }
            };
            let path = stage.source().document_path(&document);
            files::create_dir(path.parent().unwrap_or(&path))?;
            files::write(&path, &bytes)?;
        }
        Ok(())
    }

    /// Fetches every blob that is not here yet: meta.fars first, then what they name.
    async fn fetch_blobs(&self, stage: &Stage, jobs: usize, step: &Step) -> Result<usize, RepoError> {
        let (places, mut done, mut total) = (Arc::new(Semaphore::new(jobs)), 0, 0);
        loop {
            let wanted = stage.source().lacking()?;
            if wanted.is_empty() {
                return Ok(done);
            }
            total += wanted.len();
            let mut tasks = JoinSet::new();
            for id in wanted {
                let (fetcher, places, blobs) = (self.fetcher.clone(), places.clone(), stage.blobs());
                tasks.spawn(async move {
                    let _place = places.acquire_owned().await;
                    fetch(&fetcher, id, &blobs).await
                });
            }
            while let Some(joined) = tasks.join_next().await {
                joined.map_err(|error| MirrorError::Task(error.to_string()))??;
                done += 1;
                step.progress(done as u64, total as u64);
            }
        }
    }
}

/// What is trusted at first.
async fn first_root(args: &Mirror, fetcher: &BlobFetcher) -> Result<Bytes, RepoError> {
    if let Some(path) = &args.trusted_root {
        return Ok(files::read(path)?.into());
    }
    if !args.trust_on_first_use {
        return Err(MirrorError::NoRoot.into());
    }
    for name in ["/1.root.json", "/root.json"] {
        match fetcher.document(name, Role::Root.bytes_max(), None).await {
            Ok(Unverified::Document { bytes, .. }) => return Ok(bytes),
            Ok(Unverified::NotModified) | Err(FetchError::NotFound { .. }) => {}
            Err(error) => return Err(MirrorError::from(error).into()),
        }
    }
    Err(MirrorError::Metadata { url: args.url.clone(), reason: "it has no root.json".to_owned() }.into())
}

/// Fetches one blob, proven piece by piece, into a file that gets its name when it is whole.
async fn fetch(fetcher: &BlobFetcher, id: BlobId, blobs: &Path) -> Result<(), RepoError> {
    let mut refused = None;
    for encoding in ENCODINGS {
        let opened = match fetcher.open("", id, encoding).await {
            Ok(opened) => opened,
            Err(error @ FetchError::NotFound { .. }) => {
                refused.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(MirrorError::from(error).into()),
        };
        let path = match encoding {
            Encoding::Raw => blobs.join(id.to_string()),
            Encoding::Delivery(kind) => blobs.join(kind.to_string()).join(id.to_string()),
        };
        let partial = path.with_extension("part");
        let failed = FilesError::io("writing", &partial);
        let file = File::create(&partial).map_err(&failed)?;
        let layout = &opened.layout;
        let put = |pieces: &VerifiedPieces| file.write_all_at(pieces.encoded(), pieces.encoded_offset());
        file.write_all_at(layout.unit_h(), 0).map_err(&failed)?;
        for pieces in &opened.early {
            put(pieces).map_err(&failed)?;
        }
        // What was shown while opening reaches to the end.
        let end = opened.early.first().map_or(layout.piece_count(), VerifiedPieces::first_piece);
        for unit in 0..layout.unit_count() {
            let pieces = layout.pieces_of(unit);
            let pieces = pieces.start..pieces.end.min(end);
            if pieces.is_empty() {
                continue;
            }
            let mut written = Ok(());
            let mut sink = |pieces: VerifiedPieces| {
                if written.is_ok() {
                    written = put(&pieces);
                }
            };
            fetcher.pieces("", layout, unit, pieces, &mut sink).await.map_err(MirrorError::from)?;
            written.map_err(&failed)?;
        }
        fs::rename(&partial, &path).map_err(&failed)?;
        return Ok(());
    }
    let error = refused.unwrap_or_else(|| FetchError::Local(format!("blob {id} was not asked for")));
    Err(MirrorError::from(error).into())
}

/// Where what was fetched lies until it is imported.
struct Stage {
    dir: PathBuf,
    /// Blobs that are here for good.
    kept: PathBuf,
}

impl Stage {
    fn open(dir: &Path) -> Result<Self, RepoError> {
        let stage = Self { dir: dir.join(STAGE), kept: dir.join("repository/blobs") };
        files::create_dir(&stage.blobs().join("1"))?;
        Ok(stage)
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    fn metadata(&self) -> PathBuf {
        self.dir.join("repository")
    }

    fn source(&self) -> RepositorySource {
        RepositorySource::at(self.metadata(), vec![self.kept.clone(), self.blobs()])
    }

    /// The files as the server gave them, numbered and not. Those of an earlier run are forgotten.
    fn write_metadata(&self, site: &Site) -> Result<(), RepoError> {
        let dir = self.metadata();
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(FilesError::io("removing", &dir))?;
        }
        files::create_dir(&dir)?;
        for (name, bytes) in &site.files {
            files::write(&dir.join(name), bytes)?;
        }
        // What has not changed was not read again.
        let plain = |name: &str| Role::ALL.iter().any(|role| role.file() == name);
        for (name, bytes) in site.set.files().filter(|(name, _)| plain(name)) {
            files::write(&dir.join(&*name), bytes)?;
            let role = Role::ALL.into_iter().find(|role| role.file() == name && *role != Role::Timestamp);
            if let Some((role, version)) = role.and_then(|role| Some((role, site.set.version(role)?))) {
                files::write(&dir.join(role.numbered_file(version)), bytes)?;
            }
        }
        Ok(())
    }

    fn remove(&self) -> Result<(), FilesError> {
        fs::remove_dir_all(&self.dir).map_err(FilesError::io("removing", &self.dir))
    }
}
