//! [`Repository::merge`]: the packages of other repositories, offered by this one under its own keys.

use std::collections::BTreeMap;
use std::path::Path;

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::PackagePath;

use crate::bundle::RepositorySource;
use crate::error::RepositoryError;
use crate::repository::Repository;
use crate::submit::Submit;
use crate::transfer::{Held, Transfer, TransferReport};

/// What this repository itself is called in conflicts.
const ITSELF: &str = "what is there";

/// Whom to believe where two repositories have one name and different packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefer {
    /// Nobody: it is an error that names every conflict.
    #[default]
    Neither,
    /// The first named; what is there already comes before all.
    First,
    /// The last named.
    Last,
}

impl Repository {
    /// Offers the packages of `sources` (each with a name for messages) besides those offered now.
    ///
    /// # Errors
    /// A source is damaged, packages of one name differ, or a key is missing. What was visible before stays visible.
    pub fn merge(
        &self,
        sources: &[(String, RepositorySource)],
        prefer: Prefer,
        now: UnixSeconds,
        options: &Transfer<'_>,
    ) -> Result<TransferReport, RepositoryError> {
        let held = sources.iter().map(|(_, source)| Held::of(&source.folders, source.folders.trusted()?));
        let held = held.collect::<Result<Vec<_>, RepositoryError>>()?;
        let mut offered: BTreeMap<String, (BlobId, &str)> = BTreeMap::new();
        for entry in self.packages()? {
            offered.insert(format!("{}/{}", entry.name, entry.variant), (entry.hash, ITSELF));
        }
        let mut conflicts = Vec::new();
        for ((label, _), held) in sources.iter().zip(&held) {
            for package in &held.listed {
                match offered.get(&package.name) {
                    Some((hash, from)) if *hash != package.hash => match prefer {
                        Prefer::Neither => {
                            let line = format!("  {}: {hash} ({from}), {} ({label})", package.name, package.hash);
                            conflicts.push(line);
                        }
                        Prefer::First => {}
                        Prefer::Last => _ = offered.insert(package.name.clone(), (package.hash, label)),
                    },
                    Some(_) => {}
                    None => _ = offered.insert(package.name.clone(), (package.hash, label)),
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(RepositoryError::MergeConflict { count: conflicts.len(), named: conflicts.join("\n") });
        }
        let (mut blobs, mut blobs_new) = (0, 0);
        for ((_, source), held) in sources.iter().zip(&held) {
            blobs += held.reach.blobs.len();
            blobs_new += self.take_blobs_of(&source.folders, held, options)?;
        }
        let new = offered.iter().filter(|(_, (_, from))| *from != ITSELF);
        let packages = new.map(|(name, (hash, _))| Ok((path_of(name, self.dir())?, *hash)));
        let packages = packages.collect::<Result<Vec<_>, RepositoryError>>()?;
        let count = packages.len();
        let versions = self.submit(&Submit { packages, ..Submit::new(now) })?;
        Ok(TransferReport { packages: count, blobs, blobs_new, versions })
    }
}

fn path_of(name: &str, dir: &Path) -> Result<PackagePath, RepositoryError> {
    let bad = || RepositoryError::Damaged { path: dir.to_owned(), reason: format!("{name} is no package's name") };
    let (package, variant) = name.split_once('/').ok_or_else(bad)?;
    Ok(PackagePath { name: package.parse().map_err(|_| bad())?, variant: variant.parse().map_err(|_| bad())? })
}
