//! `device export`: a package that is on the device as a folder of files, or as a package archive with everything that it
//! needs.
//!
//! Files are read from the device and verified by it; here they are only put together. Deliberately absent: sharing blocks
//! with the store (`resolve --out` does that), because what is exported leaves the device.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_device::daemon::wire::{self, Event, PackageFiles};
use colibri_package::far::{self, Content};
use colibri_package::package::MetaFar;
use colibri_package::{ResourcePath, archive};
use http::Method;
use serde_json::json;

use super::api::{self, Api};
use super::packages::parse_hash;
use super::{Console, DeviceVerbError};
use crate::files::{self, FilesError};
use crate::progress::{bytes, step};

/// Bytes of a meta.far that is read.
const META_FAR_BYTES_MAX: u64 = colibri_package::limits::META_FAR_BYTES_MAX;

/// Arguments of `device export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: take a package from one device to a repository elsewhere\n  \
    colibri device export HASH hello.far\n  \
    colibri repo publish --package-archive hello.far repo")]
pub struct Export {
    /// The package hash
    pub hash: String,
    /// What to write: a package archive if the name ends in .far, else a new folder
    pub to: PathBuf,
}

/// What was written.
struct Written {
    files: u64,
    bytes: u64,
}

/// Runs the verb.
pub(super) async fn run(
    args: &Export,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let hash = parse_hash(&args.hash)?;
    let to = &args.to;
    if to.symlink_metadata().is_ok() {
        return Err(DeviceVerbError::Argument {
            given: to.display().to_string(),
            reason: "exists already: remove it or choose another name".to_owned(),
        });
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::create_dir(parent)?;
    let api = connect().await?;
    // It stays on the device meanwhile.
    let mut lease = api.events("/open", api::json(&wire::Open { packages: vec![hash], url: None })?).await?;
    let Event::Opened(_) = lease.next().await? else {
        return Err(DeviceVerbError::Daemon("it does not open the package".to_owned()));
    };
    let exporting = step(&format!("exporting {hash}"));
    let work = tempfile::Builder::new().prefix(".export-").tempdir_in(parent);
    let work = work.map_err(|error| DeviceVerbError::Folder { path: parent.to_owned(), error })?;
    let written = match to.extension().is_some_and(|extension| extension == "far") {
        true => write_archive(&api, hash, work.path(), to).await?,
        false => write_tree(&api, hash, &work.path().join("tree"), to).await?,
    };
    drop((exporting, lease));
    if console.json {
        let to = to.display().to_string();
        console.print_json(&json!({ "hash": hash, "to": to, "files": written.files, "bytes": written.bytes }))?;
    } else {
        writeln!(console.out, "{} files ({}) in {}", written.files, bytes(written.bytes), to.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn meta_far(api: &Api, hash: BlobId) -> Result<(Bytes, MetaFar), DeviceVerbError> {
    let response = api.send(Method::GET, &format!("/blobs/{hash}"), Bytes::new()).await?;
    let read = response.into_body().read_all(META_FAR_BYTES_MAX).await;
    let content = read.map_err(|error| DeviceVerbError::Daemon(error.to_string()))?;
    let parsed = MetaFar::parse(content.clone()).map_err(FilesError::package(Path::new("meta.far")))?;
    Ok((content, parsed))
}

/// Writes a blob into a new file; its length.
async fn write_blob(api: &Api, id: BlobId, path: &Path) -> Result<u64, DeviceVerbError> {
    let response = api.send(Method::GET, &format!("/blobs/{id}"), Bytes::new()).await?;
    let mut body = response.into_body();
    let mut file = File::create_new(path).map_err(FilesError::io("writing", path))?;
    let mut length = 0;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| DeviceVerbError::Daemon(error.to_string()))?;
        file.write_all(&piece).map_err(FilesError::io("writing", path))?;
        length += piece.len() as u64;
    }
    Ok(length)
}

/// Writes the files of a package, read-only, and puts them in their place at once.
async fn write_tree(api: &Api, hash: BlobId, staging: &Path, to: &Path) -> Result<Written, DeviceVerbError> {
    let (_, parsed) = meta_far(api, hash).await?;
    let mut written = Written { files: 0, bytes: 0 };
    let PackageFiles { contents, .. } = api.get(&format!("/packages/{hash}")).await?;
    for file in contents {
        // Nothing that the device says leads out of the folder.
        let path: ResourcePath = file
            .path
            .parse()
            .map_err(|error| DeviceVerbError::Daemon(format!("it names a file {:?}: {error}", file.path)))?;
        let place = staging.join(path.to_string());
        files::create_dir(place.parent().unwrap_or(staging))?;
        written.bytes += match (file.blob, parsed.meta_file(&file.path)) {
            (Some(blob), _) => write_blob(api, blob, &place).await?,
            (None, Some(content)) => {
                fs::write(&place, &content).map_err(FilesError::io("writing", &place))?;
                content.len() as u64
            }
            (None, None) => {
                return Err(DeviceVerbError::Daemon(format!("it names a file {:?} that is not there", file.path)));
            }
        };
        written.files += 1;
        fs::set_permissions(&place, Permissions::from_mode(0o444)).map_err(FilesError::io("writing", &place))?;
    }
    fs::rename(staging, to).map_err(FilesError::io("writing", to))?;
    Ok(written)
}

/// Writes an archive of a package, its subpackages and all their blobs.
async fn write_archive(api: &Api, hash: BlobId, work: &Path, to: &Path) -> Result<Written, DeviceVerbError> {
    let mut packages = vec![hash];
    let mut seen = BTreeSet::from([hash]);
    let mut blobs = BTreeSet::new();
    while let Some(package) = packages.pop() {
        let PackageFiles { contents, subpackages, .. } = api.get(&format!("/packages/{package}")).await?;
        blobs.extend(contents.into_iter().filter_map(|file| file.blob));
        packages.extend(subpackages.into_iter().map(|(_, id)| id).filter(|id| seen.insert(*id)));
    }
    blobs.extend(seen);
    blobs.remove(&hash);
    let (root, _) = meta_far(api, hash).await?;
    let mut sources = BTreeMap::new();
    let mut written = Written { files: 1 + blobs.len() as u64, bytes: root.len() as u64 };
    for id in blobs {
        let path = work.join(id.to_string());
        let length = write_blob(api, id, &path).await?;
        written.bytes += length;
        sources.insert(id.to_string(), (path, length));
    }
    let content = |(path, length): &(PathBuf, u64)| {
        let path = path.clone();
        let open = move || Ok(Box::new(File::open(path)?) as Box<dyn std::io::Read>);
        Content { length: *length, open: Box::new(open) }
    };
    let mut entries: BTreeMap<&[u8], Content<'_>> =
        sources.iter().map(|(name, source)| (name.as_bytes(), content(source))).collect();
    entries.insert(archive::META_FAR.as_bytes(), Content::bytes(&root));
    files::write_with(to, |mut file| far::write(&mut file, entries).map_err(FilesError::far(to)))?;
    Ok(written)
}
