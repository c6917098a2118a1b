//! [`Folders`]: a repository's folder in any layout of the real tools, read and never changed (reference "Fuchsia formats"
//! §5, Layout): metadata in `repository/` or the folder itself, blobs in `blobs/` beside it or below the metadata.
//!
//! It finds and checks what lies there. Storing, signing and judging what damage means are in other files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use colibri_common::merkle::{Builder, Tree};
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{
    Answer, FileMeta, MetadataError, Role, RoleName, Start, Step, TargetDescription, TargetName, TrustAnchor,
    TrustedSet, Update,
};
use colibri_package::MetaFar;
use colibri_package::delivery::{self, DeliveryType, Encoding, Layout, UNIT_H_PROBE_BYTES};

use crate::error::RepositoryError;
use crate::{layout, limits, offer};

/// Before every expiry: age is no damage.
const NEVER_EXPIRED: UnixSeconds = UnixSeconds(0);

/// Bytes of a raw blob read and hashed at a time; enough for all cores.
const HASHING_BYTES: usize = 16 << 20;

/// The forms in which a blob may lie there, the cheapest to read first.
const FORMS: [Encoding; 3] =
    [Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2), Encoding::Raw];

/// Where a repository's files lie.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Folder of the metadata.
    pub metadata: PathBuf,
    /// Folders of blobs, in the order in which they are searched.
    pub blobs: Vec<PathBuf>,
}

/// A stored form of a blob.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub id: BlobId,
    pub encoding: Encoding,
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The folder of blobs that it is in.
    pub place: PathBuf,
}

/// A package that targets names.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// `NAME/VARIANT`.
    pub name: String,
    pub hash: BlobId,
    /// The meta.far as a TUF target, below the metadata folder, if its name can be known.
    pub target: Option<PathBuf>,
    pub description: TargetDescription,
}

/// A target that is no package.
#[derive(Debug, Clone)]
pub struct ListedDocument {
    /// Its name.
    pub name: TargetName,
    /// What is signed of it.
    pub description: TargetDescription,
    /// Its file, below the metadata folder.
    pub(crate) target: PathBuf,
}

/// What a meta.far names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub contents: Vec<(String, BlobId)>,
    pub subpackages: Vec<(String, BlobId)>,
}

impl Folders {
    /// Finds the metadata: in `DIR/repository`, else in `DIR` itself.
    pub fn find(dir: &Path) -> Result<Self, RepositoryError> {
        let has_root =
            |folder: &PathBuf| folder.join(Role::Root.file()).is_file() || folder.join("1.root.json").is_file();
        let metadata = [dir.join(layout::SERVED), dir.to_owned()].into_iter().find(has_root);
        let metadata = metadata.ok_or_else(|| RepositoryError::NotARepository { path: dir.to_owned() })?;
        Ok(Self::at(metadata, vec![dir.join("blobs")]))
    }

    /// The metadata is here; blobs are in `blobs`, or below the metadata.
    pub fn at(metadata: PathBuf, mut blobs: Vec<PathBuf>) -> Self {
        let below = metadata.join("blobs");
        if !blobs.contains(&below) {
            blobs.push(below);
        }
        Self { metadata, blobs }
    }

    /// A metadata file, if it is there and not over `bytes_max`.
    fn file(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, RepositoryError> {
        read_capped(&self.metadata.join(name), bytes_max)
    }

    /// Names of the files of the metadata folder that are metadata: `ROLE.json` and `N.ROLE.json`.
    pub fn metadata_files(&self) -> Result<BTreeSet<String>, RepositoryError> {
        let names = names_in(&self.metadata)?.unwrap_or_default();
        Ok(names.into_iter().filter(|name| name.ends_with(".json") && !name.starts_with('.')).collect())
    }

    /// The oldest root here, which the chain starts from.
    pub fn first_root(&self) -> Result<Bytes, RepositoryError> {
        let numbered = |name: &String| name.strip_suffix(".root.json")?.parse::<u32>().ok();
        let first = self.metadata_files()?.iter().filter_map(numbered).min();
        let name = first.map_or_else(|| Role::Root.file().to_owned(), |version| Role::Root.numbered_file(version));
        let root = self.file(&name, Role::Root.bytes_max())?;
        root.ok_or_else(|| RepositoryError::NotARepository { path: self.metadata.clone() })
    }

    /// What the metadata proves, starting from `root`; it may have expired.
    pub fn refresh(&self, start: Start) -> Result<Result<TrustedSet, MetadataError>, RepositoryError> {
        self.refresh_at(start, NEVER_EXPIRED)
    }

    fn refresh_at(&self, start: Start, now: UnixSeconds) -> Result<Result<TrustedSet, MetadataError>, RepositoryError> {
        let mut update = Update::start(start, now);
        while let Step::Want(want) = update.next() {
            let found = self.file(&want.name, want.bytes_max)?;
            if let Err(error) = update.supply(found.map_or(Answer::NotFound, Answer::Found)) {
                return Ok(Err(error));
            }
        }
        Ok(update.finish())
    }

    /// What the metadata proves from its own oldest root on.
    pub fn trusted(&self) -> Result<TrustedSet, RepositoryError> {
        self.trusted_at(NEVER_EXPIRED)
    }

    /// [`Folders::trusted`], and none of it expired by `now`.
    pub fn trusted_at(&self, now: UnixSeconds) -> Result<TrustedSet, RepositoryError> {
        let start = Start::FromAnchor(TrustAnchor::RootFile(self.first_root()?));
        let refuse = |source: MetadataError| {
            let path = self.metadata.clone();
            match source.is_expired() {
                true => RepositoryError::Expired { path, source },
                false => RepositoryError::Metadata { path, source },
            }
        };
        self.with_delegated_at(self.refresh_at(start, now)?.map_err(refuse)?, now)
    }

    /// The set with every delegated role, each verified: the hash bins of a repository of the profile `scale`, and others.
    pub fn with_delegated(&self, set: TrustedSet) -> Result<TrustedSet, RepositoryError> {
        self.with_delegated_at(set, NEVER_EXPIRED)
    }

    fn with_delegated_at(&self, set: TrustedSet, now: UnixSeconds) -> Result<TrustedSet, RepositoryError> {
        let (numbered, mut failed) = (set.root().consistent_snapshot(), None);
        let read = |role: &RoleName, meta: &FileMeta| {
            let name = if numbered { role.numbered_file(meta.version) } else { role.file() };
            self.file(&name, Role::Targets.bytes_max()).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        };
        let whole = set.with_delegated(read, now);
        failed.map_or(Ok(()), Err)?;
        let damaged = |error: MetadataError| match error.is_expired() {
            true => RepositoryError::Expired { path: self.metadata.clone(), source: error },
            false => {
                RepositoryError::Damaged { path: self.metadata.join(error.file()), reason: error.rule().to_string() }
            }
        };
        whole.map_err(damaged)
    }

    /// The packages that `set` names, also in the delegated roles that it holds. Targets that are no packages are left out.
    pub fn listed(&self, set: &TrustedSet) -> Vec<Listed> {
        let listed = offer::targets_of(set).chain(offer::targets_elsewhere(set));
        let listed = listed.filter_map(|(name, description)| {
            let (package, variant) = name.as_str().split_once('/')?;
            let sha512 = description.hashes.sha512.as_deref().map(colibri_common::hex);
            let numbered = set.root().consistent_snapshot();
            let target = match sha512 {
                Some(hash) if numbered => Some(format!("{package}/{hash}.{variant}")),
                None if numbered => None,
                _ => Some(name.as_str().to_owned()),
            };
            Some(Listed {
                name: name.as_str().to_owned(),
                hash: description.merkle()?,
                target: target.map(|target| Path::new("targets").join(target)),
                description,
            })
        });
        listed.collect()
    }

    /// The targets of `set` that are no packages: any files, and what the role `rollout` says.
    pub fn documents(&self, set: &TrustedSet) -> Vec<ListedDocument> {
        let numbered = set.root().consistent_snapshot();
        let document = |(name, description): (TargetName, TargetDescription)| {
            let place = if numbered { name.with_hash(&description.hashes) } else { name.to_string() };
            ListedDocument { target: Path::new("targets").join(place), name, description }
        };
        let plain = offer::targets_of(set).chain(offer::targets_elsewhere(set));
        let plain = plain.filter(|(name, description)| description.merkle().is_none() || !name.as_str().contains('/'));
        plain.chain(offer::rollouts_of(set)).map(document).collect()
    }

    /// The stored forms of a blob.
    pub fn forms(&self, id: BlobId) -> Result<Vec<Form>, RepositoryError> {
        let mut forms = Vec::new();
        for place in &self.blobs {
            for encoding in FORMS {
                let path = form_path(place, encoding, id);
                match fs::metadata(&path) {
                    Ok(found) if found.is_file() => {
                        forms.push(Form { id, encoding, path, bytes: found.len(), place: place.clone() });
                    }
                    Ok(_) => {}
                    Err(error) if is_absence(&error) => {}
                    Err(error) => return Err(RepositoryError::read(&path, error)),
                }
            }
        }
        Ok(forms)
    }

    /// Every blob of which a form lies here.
    pub fn stored(&self) -> Result<BTreeSet<BlobId>, RepositoryError> {
        let mut found = BTreeSet::new();
        for place in &self.blobs {
            for folder in [place.clone(), place.join("1"), place.join("2")] {
                let names = names_in(&folder)?.unwrap_or_default();
                found.extend(names.iter().filter_map(|name| name.parse::<BlobId>().ok()));
            }
        }
        Ok(found)
    }

    /// The content of a blob, from the first form that proves to be it.
    pub fn content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        let mut reason = "it is missing".to_owned();
        for form in self.forms(id)? {
            match form.content() {
                Ok(content) => return Ok(content),
                Err(error) => reason = error,
            }
        }
        Err(RepositoryError::StoredBlob { id, reason })
    }

    /// What the package with this hash names.
    pub fn names(&self, hash: BlobId) -> Result<Names, RepositoryError> {
        let meta = MetaFar::parse(self.content(hash)?.into());
        let meta = meta.map_err(|error| RepositoryError::StoredBlob { id: hash, reason: error.to_string() })?;
        let contents = meta.contents().iter().map(|(path, id)| (path.to_string(), *id)).collect();
        let subpackages = meta.subpackages().iter().map(|(name, id)| (name.to_string(), *id)).collect();
        Ok(Names { contents, subpackages })
    }
}

/// Where a form of a blob lies below a folder of blobs.
pub(crate) fn form_path(place: &Path, encoding: Encoding, id: BlobId) -> PathBuf {
    match encoding {
        Encoding::Raw => place.join(id.to_string()),
        Encoding::Delivery(kind) => place.join(kind.to_string()).join(id.to_string()),
    }
}

impl Form {
    /// Reads the form and computes the tree of its content, which must be the blob.
    pub fn prove(&self) -> Result<Tree, String> {
        let tree = match self.encoding {
            Encoding::Raw => self.raw_tree().map_err(|error| error.to_string())?,
            Encoding::Delivery(kind) => {
                let encoded = self.read()?;
                let tree = delivery::content_tree(&encoded).map_err(|error| error.to_string())?;
                // The header may say that it is another type than the folder it lies in.
                Layout::from_unit_h(kind, tree.leaves.clone(), &encoded).map_err(|error| error.to_string())?;
                tree
            }
        };
        if tree.id == self.id { Ok(tree) } else { Err(format!("its content is blob {}", tree.id)) }
    }

    /// The content, which must be the blob.
    pub fn content(&self) -> Result<Vec<u8>, String> {
        let bytes = self.read()?;
        match self.encoding {
            Encoding::Delivery(_) => delivery::decode_verified(self.id, &bytes).map_err(|error| error.to_string()),
            Encoding::Raw => match colibri_common::merkle::build(&bytes).id {
                found if found == self.id => Ok(bytes),
                found => Err(format!("its content is blob {found}")),
            },
        }
    }

    /// Length of the content in bytes, as the form claims.
    pub fn content_bytes(&self) -> Result<u64, String> {
        if self.encoding == Encoding::Raw {
            return Ok(self.bytes);
        }
        let mut head = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(UNIT_H_PROBE_BYTES).read_to_end(&mut head));
        read.map_err(|error| error.to_string())?;
        Layout::claimed_content_bytes(&head).map_err(|error| error.to_string())
    }

    /// When it was stored, as far as the file system tells.
    pub fn modified(&self) -> Option<UnixSeconds> {
        let modified = fs::metadata(&self.path).ok()?.modified().ok()?;
        Some(UnixSeconds(modified.duration_since(UNIX_EPOCH).ok()?.as_secs()))
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        if self.bytes > limits::BLOB_CONTENT_BYTES_MAX {
            return Err(format!("it has {} bytes, over the limit of {}", self.bytes, limits::BLOB_CONTENT_BYTES_MAX));
        }
        fs::read(&self.path).map_err(|error| error.to_string())
    }

    fn raw_tree(&self) -> io::Result<Tree> {
        let mut file = File::open(&self.path)?;
        let mut builder = Builder::new();
        loop {
            let mut piece = Vec::new();
            if Read::by_ref(&mut file).take(HASHING_BYTES as u64).read_to_end(&mut piece)? == 0 {
                return Ok(builder.finish());
            }
            builder.push(&piece);
        }
    }
}

/// A whole file, if it is there; one over the cap is cut one byte beyond it, which every caller's cap refuses.
pub(crate) fn read_capped(path: &Path, bytes_max: u64) -> Result<Option<Bytes>, RepositoryError> {
    let file = match File::open(path) {
        Err(error) if is_absence(&error) => return Ok(None),
        opened => opened.map_err(|error| RepositoryError::read(path, error))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| RepositoryError::read(path, error))?;
    Ok(Some(bytes.into()))
}

/// The Unicode names in a folder; nothing if there is none.
fn names_in(folder: &Path) -> Result<Option<Vec<String>>, RepositoryError> {
    let failed = |error| RepositoryError::read(folder, error);
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absence(&error) => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(Some(names))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Everything that the packages name, recursively, each package read once.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Package hash to what it names; nothing where its meta.far cannot be read.
    pub packages: BTreeMap<BlobId, Option<Names>>,
    /// Every blob, meta.fars included.
    pub blobs: BTreeSet<BlobId>,
}

impl Reach {
    /// Walks from `listed` on. Unreadable packages are remembered as such and followed no further.
    pub fn of(folders: &Folders, listed: &[Listed]) -> Result<Self, RepositoryError> {
        let mut reach = Self::default();
        let mut open: Vec<BlobId> = listed.iter().map(|package| package.hash).collect();
        while let Some(hash) = open.pop() {
            if reach.packages.contains_key(&hash) {
                continue;
            }
            if reach.packages.len() as u64 >= limits::PACKAGES_PER_PUBLISH_MAX {
                let limit = limits::PACKAGES_PER_PUBLISH_MAX;
                return Err(RepositoryError::TooMany { what: "packages and subpackages", limit });
            }
            reach.blobs.insert(hash);
            let names = match folders.names(hash) {
                Ok(names) => Some(names),
                Err(RepositoryError::StoredBlob { .. }) => None,
                Err(error) => return Err(error),
            };
            if let Some(names) = &names {
                reach.blobs.extend(names.contents.iter().map(|(_, id)| *id));
                open.extend(names.subpackages.iter().map(|(_, id)| *id));
            }
            reach.packages.insert(hash, names);
        }
        Ok(reach)
    }

    /// Who among `listed` uses the blobs of `wanted`, and as what: path, with subpackages before it.
    pub fn users(&self, listed: &[Listed], wanted: &BTreeSet<BlobId>) -> BTreeMap<BlobId, Vec<(String, String)>> {
        let mut users: BTreeMap<BlobId, Vec<(String, String)>> = BTreeMap::new();
        for package in listed {
            let mut seen = BTreeSet::new();
            let mut open = vec![(String::new(), package.hash)];
            while let Some((prefix, hash)) = open.pop() {
                if !seen.insert(hash) {
                    continue;
                }
                let mut note = |path: String, id: BlobId| {
                    if wanted.contains(&id) {
                        users.entry(id).or_default().push((package.name.clone(), path));
                    }
                };
                note(format!("{prefix}meta/"), hash);
                let Some(Some(names)) = self.packages.get(&hash) else { continue };
                names.contents.iter().for_each(|(path, id)| note(format!("{prefix}{path}"), *id));
                open.extend(names.subpackages.iter().map(|(name, id)| (format!("{prefix}{name}/"), *id)));
            }
        }
        users
    }
}
