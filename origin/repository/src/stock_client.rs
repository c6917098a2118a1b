//! The client that real Fuchsia devices carry (crate `tuf`), run against a repository's folder: what would it refuse?
//!
//! It reads the files as they lie, trusts the repository's own root and keeps nothing. It asks the machine for the time. It
//! is no part of how Colibri itself verifies.

use std::fmt::Display;
use std::path::Path;

use colibri_metadata::Role;
use futures_executor::block_on;
use futures_util::AsyncReadExt;
use tuf::client::{Client, Config};
use tuf::crypto::PublicKey;
use tuf::metadata::{MetadataVersion, RawSignedMetadata, RootMetadata, TargetPath};
use tuf::pouf::Pouf1;
use tuf::repository::{EphemeralRepository, FileSystemRepository, FileSystemRepositoryBuilder};

use crate::error::RepositoryError;
use crate::folders::{Folders, Listed, Reach};

type Stock = Client<Pouf1, EphemeralRepository<Pouf1>, FileSystemRepository<Pouf1>>;

/// A line for each thing that a device with the stock client would refuse; none if it is content.
///
/// # Errors
/// There is no repository, or our own client cannot read its metadata at all (see [`crate::verify`]).
pub fn refusals(dir: &Path) -> Result<Vec<String>, RepositoryError> {
    let folders = Folders::find(dir)?;
    let set = folders.trusted()?;
    let listed = folders.listed(&set);
    let mut refusals = Vec::new();
    let mut from_file = None;
    match block_on(from_root_file(&folders, &folders.first_root()?)) {
        Ok(client) => from_file = Some(client),
        Err(error) => refusals.push(format!("starting from its oldest root file: {error}")),
    }
    // As `repo.config` tells devices: the keys and the version of the newest root.
    let root = set.root();
    let keys: Vec<colibri_metadata::PublicKey> = root.public_keys(Role::Root).collect();
    let (version, threshold) = (root.version(), root.role_keys(Role::Root).threshold);
    if let Err(error) = block_on(from_root_keys(&folders, &keys, version, threshold)) {
        refusals.push(format!("starting from the root keys of version {version}: {error}"));
    }
    if let Some(mut client) = from_file {
        for package in &listed {
            refusals
                .extend(block_on(find(&mut client, package)).err().map(|error| format!("{}: {error}", package.name)));
        }
    }
    let reach = Reach::of(&folders, &listed)?;
    for (id, users) in reach.users(&listed, &reach.blobs) {
        // Devices ask for `blobs/1/HASH` and know no other form.
        let served = folders.blobs.iter().any(|place| place.join("1").join(id.to_string()).is_file());
        if let (false, Some((package, path))) = (served, users.first()) {
            refusals.push(format!("{package}: blob {id} ({path}) is not there as delivery blob of type 1"));
        }
    }
    Ok(refusals)
}

fn remote(folders: &Folders) -> FileSystemRepository<Pouf1> {
    FileSystemRepositoryBuilder::new(&folders.metadata).targets_prefix("targets").build()
}

async fn from_root_file(folders: &Folders, root: &[u8]) -> tuf::Result<Stock> {
    let root = RawSignedMetadata::<Pouf1, RootMetadata>::new(root.to_vec());
    let local = EphemeralRepository::new();
    let mut client = Client::with_trusted_root(Config::default(), &root, local, remote(folders)).await?;
    client.update().await?;
    Ok(client)
}

async fn from_root_keys(
    folders: &Folders,
    keys: &[colibri_metadata::PublicKey],
    version: u32,
    threshold: u32,
) -> tuf::Result<()> {
    let key = |key: &colibri_metadata::PublicKey| {
        PublicKey::from_ed25519_with_keyid_hash_algorithms(
            key.ed25519_bytes().map_or(&[][..], |bytes| bytes).to_vec(),
            None,
        )
    };
    let keys = keys.iter().map(key).collect::<tuf::Result<Vec<_>>>()?;
    let (local, version) = (EphemeralRepository::new(), MetadataVersion::Number(version));
    let client = Client::with_trusted_root_keys(Config::default(), version, threshold, &keys, local, remote(folders));
    client.await?.update().await.map(drop)
}

/// The client finds the package and fetches its meta.far as a target.
async fn find(client: &mut Stock, package: &Listed) -> Result<(), String> {
    let said = |error: &dyn Display| error.to_string();
    let path = TargetPath::new(package.name.as_str()).map_err(|error| said(&error))?;
    let target = client.fetch_target_description(&path).await.map_err(|error| said(&error))?;
    if target.custom().get("merkle").and_then(|hash| hash.as_str()) != Some(package.hash.to_string().as_str()) {
        return Err("its entry does not give the package hash as custom.merkle".to_owned());
    }
    let mut content = Vec::new();
    let mut reader = client.fetch_target(&path).await.map_err(|error| said(&error))?;
    reader.read_to_end(&mut content).await.map(drop).map_err(|error| said(&error))
}
