//! [`Trees`]: the materialised trees that a device keeps for packages that are open, one folder per package hash.
//!
//! A tree is made for a lease and stays while the package does: collection removes it with the package, so that the space of
//! hard-linked files comes back. Deliberately absent: trees elsewhere (`materialise` makes those for whoever asks, and they
//! belong to him).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use colibri_common::BlobId;

use crate::materialise::{Rights, remove_tree};

/// Prefix of a tree that is being removed.
const GONE: &str = ".gone-";
/// What the name of a tree ends with whose files may be executed: should a package leave base while somebody has it open, its
/// next tree is another one.
const EXECUTES: &str = "+x";

/// The folder of trees.
#[derive(Debug, Clone)]
pub(crate) struct Trees {
    dir: PathBuf,
}

impl Trees {
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where the tree of a package with these rights is, or will be. The folder above it is there afterwards.
    pub fn place(&self, package: BlobId, rights: Rights) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.dir)?;
        Ok(self.dir.join(match rights {
            Rights::Read => package.to_string(),
            Rights::Execute => format!("{package}{EXECUTES}"),
        }))
    }

    /// Removes the trees of packages that are not kept, and what interrupted calls left. How many whole ones.
    pub fn retain(&self, is_kept: impl Fn(BlobId) -> bool) -> io::Result<u64> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(package) = package_of(name) {
                if !is_kept(package) {
                    // First the name: half a tree is never seen under it.
                    let gone = self.dir.join(format!("{GONE}{name}"));
                    clear(&gone)?;
                    fs::rename(entry.path(), &gone)?;
                    clear(&gone)?;
                    removed += 1;
                }
            } else if is_left_over(name, &is_kept) {
                clear(&entry.path())?;
            }
        }
        Ok(removed)
    }
}

/// The package of a tree of this name.
fn package_of(name: &str) -> Option<BlobId> {
    name.strip_suffix(EXECUTES).unwrap_or(name).parse().ok()
}

/// What a call that was interrupted left: half removed, or half made for a package that nobody has open.
fn is_left_over(name: &str, is_kept: impl Fn(BlobId) -> bool) -> bool {
    let half_made = name.strip_prefix('.').and_then(|name| name.strip_suffix(".unfinished"));
    let of_package = half_made.and_then(package_of);
    name.starts_with(GONE) || of_package.is_some_and(|package| !is_kept(package))
}

fn clear(dir: &Path) -> io::Result<()> {
    match remove_tree(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
