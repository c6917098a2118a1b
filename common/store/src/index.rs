//! The index of a [`Store`](crate::Store): which blobs are whole, their leaves, and pins, in one redb file reached through
//! the [`Disk`] seam. The only file here that names redb.
//!
//! Every change is one transaction, committed with quick repair, so that a crashed index opens at once. After an I/O error
//! the database is closed and opened afresh by the next call: what was committed is there, what was not is not. Deliberately
//! absent: recency, use counts, anything that would make reads write.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use colibri_common::{BlobId, DIGEST_BYTES, Digest};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle,
    WriteTransaction,
};

use crate::disk::{Disk, DiskFile, OpenMode, folder_of};
use crate::error::{AtPath, StoreError};
use crate::layout::StoreLayout;
use crate::limits::{INDEX_CACHE_BYTES, PINS_MAX};

/// Blob to its length.
const BLOBS: TableDefinition<'_, &Digest, u64> = TableDefinition::new("blobs-1");
/// Blob to its leaves in wire form.
const LEAVES: TableDefinition<'_, &Digest, &[u8]> = TableDefinition::new("leaves-1");
/// Pin name to ids, concatenated.
const PINS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pins-1");
/// Blobs whose row is gone and whose file is going.
const REMOVING: TableDefinition<'_, &Digest, ()> = TableDefinition::new("removing-1");

#[derive(Debug)]
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    open: RwLock<Option<Database>>,
}

type Outcome<T> = Result<T, redb::Error>;

impl Index {
    /// Opens the index of a store, made if it is missing.
    pub(crate) fn open(disk: Arc<dyn Disk>, layout: &StoreLayout) -> Result<Self, StoreError> {
        let path = layout.index();
        if disk.file_len(&path).at(&path)?.is_none() {
            create(disk.as_ref(), &layout.new_index(), &path)?;
        }
        let index = Self { disk, path, open: RwLock::default() };
        index.reopened(|_| Ok(()))?;
        if !index.read(|transaction| Ok(transaction.list_tables()?.any(|table| table.name() == REMOVING.name())))? {
            // An earlier version of this program made it.
            index.write(|transaction| Ok(transaction.open_table(REMOVING).map(drop)?))?;
        }
        Ok(index)
    }

    /// Length of a whole blob.
    pub(crate) fn length(&self, id: BlobId) -> Result<Option<u64>, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(BLOBS)?.get(id.as_bytes())?.map(|length| length.value())))
    }

    /// Length and leaf list (wire form) of a whole blob.
    pub(crate) fn blob(&self, id: BlobId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.read(|transaction| {
            let Some(length) = transaction.open_table(BLOBS)?.get(id.as_bytes())? else { return Ok(None) };
            let leaves = transaction.open_table(LEAVES)?;
            let list = leaves.get(id.as_bytes())?.map(|list| Bytes::copy_from_slice(list.value()));
            Ok(Some((length.value(), list.unwrap_or_default())))
        })
    }

    /// All whole blobs and their lengths.
    pub(crate) fn blobs(&self) -> Result<HashMap<BlobId, u64>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(BLOBS)?;
            table
                .iter()?
                .map(|row| row.map(|(id, length)| (BlobId::from_digest(*id.value()), length.value())))
                .collect::<Result<_, _>>()
                .map_err(Into::into)
        })
    }

    /// Records a blob as whole.
    pub(crate) fn insert(&self, id: BlobId, length_bytes: u64, leaves: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(REMOVING)?.remove(id.as_bytes())?;
            transaction.open_table(BLOBS)?.insert(id.as_bytes(), length_bytes)?;
            if !leaves.is_empty() {
                transaction.open_table(LEAVES)?.insert(id.as_bytes(), leaves)?;
            }
            Ok(())
        })
    }

    /// Forgets blobs. Their files stay, as unfinished ones.
    pub(crate) fn forget(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.write(|transaction| forget(transaction, ids))
    }

    /// Forgets a blob, and remembers that its file is to go; false, and nothing changed, if there is no such row.
    pub(crate) fn remove(&self, id: BlobId) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let was_here = transaction.open_table(BLOBS)?.get(id.as_bytes())?.is_some();
            if was_here {
                remove(transaction, &[id])?;
            }
            Ok(was_here)
        })
    }

    /// Forgets those of these blobs that no pin protects, and remembers that their files are to go, in one transaction: a pin
    /// is either committed before, and protects, or after, and its owner sees that the blob is gone. Gives what was forgotten.
    pub(crate) fn remove_unpinned(&self, ids: &[BlobId]) -> Result<Vec<(BlobId, u64)>, StoreError> {
        self.write(|transaction| {
            let pinned = pinned(&transaction.open_table(PINS)?)?;
            let mut doomed = Vec::new();
            for id in ids.iter().filter(|id| !pinned.contains(id)) {
                let row = transaction.open_table(BLOBS)?.get(id.as_bytes())?.map(|length| (*id, length.value()));
                doomed.extend(row);
            }
            remove(transaction, &doomed.iter().map(|(id, _)| *id).collect::<Vec<_>>())?;
            Ok(doomed)
        })
    }

    /// Blobs whose files are to go.
    pub(crate) fn removing(&self) -> Result<Vec<BlobId>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(REMOVING)?;
            let ids = table.iter()?.map(|row| row.map(|(id, _)| BlobId::from_digest(*id.value())));
            ids.collect::<Result<_, _>>().map_err(Into::into)
        })
    }

    /// Whether the file of a blob is to go.
    pub(crate) fn is_removing(&self, id: BlobId) -> Result<bool, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(REMOVING)?.get(id.as_bytes())?.is_some()))
    }

    /// The files of these are gone, durably, or are to stay.
    pub(crate) fn removed(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut removing = transaction.open_table(REMOVING)?;
            for id in ids {
                removing.remove(id.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Makes or replaces a pin; false, and nothing changed, if it would be one too many.
    pub(crate) fn pin(&self, name: &str, ids: &[BlobId]) -> Result<bool, StoreError> {
        let list: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        self.write(|transaction| {
            let mut pins = transaction.open_table(PINS)?;
            if pins.len()? >= PINS_MAX && pins.get(name)?.is_none() {
                return Ok(false);
            }
            pins.insert(name, list.as_slice())?;
            Ok(true)
        })
    }

    /// Removes a pin; false if there was none.
    pub(crate) fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        self.write(|transaction| Ok(transaction.open_table(PINS)?.remove(name)?.is_some()))
    }

    /// All pins.
    pub(crate) fn pins(&self) -> Result<BTreeMap<String, Vec<BlobId>>, StoreError> {
        self.read(|transaction| {
            let mut pins = BTreeMap::new();
            for row in transaction.open_table(PINS)?.iter()? {
                let (name, list) = row?;
                pins.insert(name.value().to_owned(), ids_of(list.value()).collect());
            }
            Ok(pins)
        })
    }

    /// All blobs that a pin protects.
    pub(crate) fn pinned(&self) -> Result<HashSet<BlobId>, StoreError> {
        self.read(|transaction| pinned(&transaction.open_table(PINS)?))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Outcome<T>) -> Result<T, StoreError> {
        self.with(|database| work(&database.begin_read()?))
    }

    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Outcome<T>) -> Result<T, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Result<T, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = open.as_ref() else {
            drop(open);
            return self.reopened(work);
        };
        let done = work(database);
        drop(open);
        done.map_err(|error| self.failed(error))
    }

    fn reopened<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Result<T, StoreError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let database = match open.take() {
            Some(database) => database,
            None => {
                let file = self.disk.open(&self.path, OpenMode::Write).at(&self.path)?;
                open_database(file).map_err(|error| damage(&self.path, error))?
            }
        };
        let done = work(open.insert(database));
        drop(open);
        done.map_err(|error| self.failed(error))
    }

    /// Closes the database, which refuses everything after an I/O error, and names the error.
    fn failed(&self, error: redb::Error) -> StoreError {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
        damage(&self.path, error)
    }
}

/// Makes an empty index under a name nobody looks at, then moves it: `index.redb` is always a whole database (the commit
/// synced it).
fn create(disk: &dyn Disk, temp: &Path, path: &Path) -> Result<(), StoreError> {
    if disk.file_len(temp).at(temp)?.is_some() {
        disk.remove_file(temp).at(temp)?;
    }
    let file = disk.open(temp, OpenMode::CreateNew).at(temp)?;
    let make = || {
        let database = open_database(file.clone())?;
        let transaction = database.begin_write()?;
        transaction.open_table(BLOBS)?;
        transaction.open_table(LEAVES)?;
        transaction.open_table(PINS)?;
        transaction.open_table(REMOVING)?;
        transaction.commit()?;
        Ok(())
    };
    make().map_err(|error| damage(temp, error))?;
    disk.rename(temp, path).at(path)?;
    let folder = folder_of(path);
    disk.sync_dir(&folder).at(&folder)
}

fn open_database(file: Arc<dyn DiskFile>) -> Outcome<Database> {
    Ok(Database::builder().set_cache_size(INDEX_CACHE_BYTES).create_with_backend(Backend(file))?)
}

fn damage(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(source) => StoreError::io(path, source),
        redb::Error::PreviousIo => {
            StoreError::io(path, io::Error::other("an earlier operation on the index failed; try again"))
        }
        other => StoreError::Index { path: path.to_owned(), reason: other.to_string() },
    }
}

fn remove(transaction: &WriteTransaction, ids: &[BlobId]) -> Outcome<()> {
    let mut removing = transaction.open_table(REMOVING)?;
    for id in ids {
        removing.insert(id.as_bytes(), ())?;
    }
    drop(removing);
    forget(transaction, ids)
}

fn forget(transaction: &WriteTransaction, ids: &[BlobId]) -> Outcome<()> {
    let mut blobs = transaction.open_table(BLOBS)?;
    let mut leaves = transaction.open_table(LEAVES)?;
    for id in ids {
        blobs.remove(id.as_bytes())?;
        leaves.remove(id.as_bytes())?;
    }
    Ok(())
}

fn pinned(pins: &impl ReadableTable<&'static str, &'static [u8]>) -> Outcome<HashSet<BlobId>> {
    let mut pinned = HashSet::new();
    for row in pins.iter()? {
        pinned.extend(ids_of(row?.1.value()));
    }
    Ok(pinned)
}

fn ids_of(list: &[u8]) -> impl Iterator<Item = BlobId> {
    list.as_chunks::<DIGEST_BYTES>().0.iter().copied().map(BlobId::from_digest)
}

/// A redb file on our seam. The store's own lock keeps other processes out, so redb's locking stays unsupported.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_len(length_bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::create_dir_durably;
    use crate::testing::CrashDisk;

    #[test]
    fn an_index_of_an_earlier_version_is_opened() {
        let disk: Arc<dyn Disk> = Arc::new(CrashDisk::new());
        let layout = StoreLayout::new(Path::new("/store"));
        create_dir_durably(disk.as_ref(), Path::new("/store")).unwrap();
        let index = Index::open(disk.clone(), &layout).unwrap();
        let id = BlobId::from_digest([7; DIGEST_BYTES]);
        index.insert(id, 5, &[]).unwrap();
        assert!(index.write(|transaction| Ok(transaction.delete_table(REMOVING)?)).unwrap());
        drop(index);
        let index = Index::open(disk, &layout).unwrap();
        assert_eq!((index.length(id).unwrap(), index.removing().unwrap()), (Some(5), vec![]));
        assert!(index.remove(id).unwrap());
        assert_eq!(index.removing().unwrap(), [id]);
    }
}
