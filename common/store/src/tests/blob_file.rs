//! [`BlobFile`] on both disks: raw and encoded forms, guards, holes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{Tree, UNIT_BYTES};
use colibri_common::{ByteRange, ClaimedLength};
use colibri_package::delivery::{DeliveryType, Layout, encode};

use super::{flip_bit, on_both_disks, painted};
use crate::disk::Disk;
use crate::testing::CrashDisk;
use crate::{BlobFile, HolePunching, StoreError};

/// One form of a blob: what to put into a file, and where it lies.
struct Form {
    encoded: Bytes,
    layout: Layout,
}

/// Bytes that compress to about a half.
fn half_noise(length: usize) -> (Bytes, Tree) {
    let mut random = fastrand::Rng::with_seed(7);
    let content: Bytes = (0..length).map(|at| if at % 64 < 32 { random.u8(..) } else { b'.' }).collect();
    let tree = colibri_common::merkle::build(&content);
    (content, tree)
}

fn raw(content: &Bytes, tree: &Tree) -> Form {
    Form { encoded: content.clone(), layout: Layout::raw(tree.leaves.clone(), tree.length.into()).unwrap() }
}

fn encoded(content: &Bytes, tree: &Tree, level: i32) -> Form {
    let encoded = Bytes::from(encode(content, DeliveryType::Type1, Some(level)).unwrap());
    let layout = Layout::from_unit_h(DeliveryType::Type1, tree.leaves.clone(), &encoded).unwrap();
    Form { encoded, layout }
}

impl Form {
    fn write(&self, file: &BlobFile, unit: u32) -> Result<(), StoreError> {
        let pieces = self.layout.pieces_of(unit);
        let bytes = self.encoded.slice(self.layout.unit_range(unit).within(0));
        file.write(&self.layout.verify(pieces.start, bytes).unwrap())
    }

    fn write_all(&self, file: &BlobFile) {
        (0..self.layout.unit_count()).for_each(|unit| self.write(file, unit).unwrap());
    }

    fn whole(&self) -> ByteRange {
        ByteRange::whole(self.encoded.len() as u64)
    }
}

/// Every form worth testing: raw, compressed, uncompressed delivery, tiny, empty.
fn forms() -> Vec<Form> {
    let (big, big_tree) = half_noise(3 * UNIT_BYTES as usize + 20_000);
    let (noise, noise_tree) = {
        let mut random = fastrand::Rng::with_seed(8);
        let content: Bytes = (0..100_000).map(|_| random.u8(..)).collect();
        let tree = colibri_common::merkle::build(&content);
        (content, tree)
    };
    let (empty, empty_tree) = painted(0, 0);
    vec![
        raw(&big, &big_tree),
        encoded(&big, &big_tree, 1),
        encoded(&noise, &noise_tree, 1),
        raw(&empty, &empty_tree),
        encoded(&empty, &empty_tree, 1),
    ]
}

fn create(disk: &Arc<dyn Disk>, dir: &Path, form: &Form) -> BlobFile {
    let punching = HolePunching::probe(disk.as_ref(), dir).unwrap();
    BlobFile::create(disk.clone(), &dir.join("file"), form.layout.clone(), punching).unwrap()
}

#[test]
fn what_is_written_is_read_in_any_range() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        for form in &forms {
            let file = create(&disk, dir, form);
            assert_eq!(file.read(ByteRange::whole(form.layout.unit_h().len() as u64)).unwrap(), form.layout.unit_h());
            // Backwards, so that no unit depends on the ones before it.
            for unit in (0..form.layout.unit_count()).rev() {
                let range = form.layout.unit_range(unit);
                assert_eq!(file.has_unit(unit), range.is_empty());
                if !range.is_empty() {
                    let absent = file.read(range).unwrap_err();
                    assert!(matches!(absent, StoreError::UnitAbsent { unit: at, .. } if at == unit), "{absent}");
                }
                form.write(&file, unit).unwrap();
                assert!(file.has_unit(unit));
                assert_eq!(file.read(range).unwrap(), form.encoded[range.within(0)]);
            }
            assert!(!file.has_unit(form.layout.unit_count()));
            assert_eq!(file.read(form.whole()).unwrap(), form.encoded);
            let mut random = fastrand::Rng::with_seed(1);
            for _ in 0..50 {
                let start = random.u64(0..=form.encoded.len() as u64);
                let range = ByteRange::new(start, random.u64(start..=form.encoded.len() as u64));
                assert_eq!(file.read(range).unwrap(), form.encoded[range.within(0)], "{range}");
            }
            let beyond = ByteRange::whole(form.encoded.len() as u64 + 1);
            assert!(matches!(file.read(beyond), Err(StoreError::OutOfRange { .. })));
        }
    });
}

#[test]
fn pieces_of_another_form_or_blob_are_refused() {
    on_both_disks(|disk, dir| {
        let (content, tree) = half_noise(300_000);
        let form = encoded(&content, &tree, 1);
        let file = create(&disk, dir, &form);
        // Another level gives another seek table, so another identity.
        let refused = encoded(&content, &tree, 9).write(&file, 0).unwrap_err();
        assert!(matches!(refused, StoreError::WrongForm { .. }), "{refused}");
        assert!(matches!(raw(&content, &tree).write(&file, 0), Err(StoreError::WrongForm { .. })));
        let (other, other_tree) = painted(300_000, 9);
        assert!(matches!(encoded(&other, &other_tree, 1).write(&file, 0), Err(StoreError::WrongBlob { .. })));
        // A raw layout that believes in another length.
        let wrong = Layout::raw(tree.leaves.clone(), ClaimedLength(299_999)).unwrap();
        let file = BlobFile::create(disk.clone(), &dir.join("wrong"), wrong, HolePunching::Unsupported).unwrap();
        assert!(matches!(raw(&content, &tree).write(&file, 0), Err(StoreError::WrongForm { .. })));
        assert!(file.used_units().is_empty());
    });
}

#[test]
fn evicting_gives_space_back_and_hurts_no_neighbour() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        for form in forms.iter().filter(|form| form.layout.unit_count() > 1) {
            let file = create(&disk, dir, form);
            form.write_all(&file);
            let full = file.allocated_bytes().unwrap();
            let intact = |gone: &[u32]| {
                for unit in (0..form.layout.unit_count()).filter(|unit| !gone.contains(unit)) {
                    let range = form.layout.unit_range(unit);
                    assert_eq!(file.read(range).unwrap(), form.encoded[range.within(0)]);
                }
            };
            let held = file.hold(1..2);
            assert_eq!(file.evict(1).unwrap(), None, "held");
            assert!(file.has_unit(1));
            drop(held);
            let freed = file.evict(1).unwrap().unwrap();
            let unit_bytes = form.layout.unit_range(1).len();
            assert!(freed + 2 * 65_536 > unit_bytes, "{freed} of {unit_bytes}");
            assert!(file.allocated_bytes().unwrap() < full);
            assert!(!file.has_unit(1));
            assert_eq!(file.evict(1).unwrap(), Some(0), "nothing left to free");
            intact(&[1]);
            // Its neighbour goes: the block they shared goes too.
            file.evict(2).unwrap().unwrap();
            intact(&[1, 2]);
            form.write(&file, 1).unwrap();
            intact(&[2]);
            for unit in 0..form.layout.unit_count() {
                file.evict(unit).unwrap().unwrap();
            }
            assert!(file.allocated_bytes().unwrap() <= 65_536, "only unit H is left");
            assert_eq!(file.used_units(), Vec::<u32>::new());
            form.write_all(&file);
            intact(&[]);
            file.remove().unwrap();
            intact(&[]);
        }
    });
}

#[test]
fn without_holes_the_last_unit_frees_everything() {
    on_both_disks(|disk, dir| {
        let (content, tree) = half_noise(2 * UNIT_BYTES as usize);
        let form = raw(&content, &tree);
        let file =
            BlobFile::create(disk.clone(), &dir.join("file"), form.layout.clone(), HolePunching::Unsupported).unwrap();
        form.write_all(&file);
        assert_eq!(file.evict(0).unwrap(), Some(0));
        assert!(!file.has_unit(0));
        assert!(file.evict(1).unwrap().unwrap() >= 2 * UNIT_BYTES);
        assert_eq!(file.allocated_bytes().unwrap(), 0);
    });
}

#[test]
fn holes_are_probed() {
    let disk = CrashDisk::new();
    assert_eq!(HolePunching::probe(&disk, Path::new("/")).unwrap(), HolePunching::Blocks { bytes: 4096 });
    assert!(disk.list_dir(Path::new("/")).unwrap().is_empty());
    let dir = tempfile::tempdir().unwrap();
    // Whatever this machine's file system can do, asking leaves nothing behind.
    HolePunching::probe(&crate::OsDisk, dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn damage_is_found_by_guards_and_judged_by_leaves() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        for form in forms.iter().filter(|form| form.layout.unit_count() > 1) {
            let file = create(&disk, dir, form);
            form.write_all(&file);
            let range = form.layout.unit_range(1);
            flip_bit(disk.as_ref(), &dir.join("file"), range.start() + 9000);
            let early = ByteRange::new(range.start(), range.start() + 10);
            assert_eq!(file.read(early).unwrap(), form.encoded[early.within(0)], "another block than the damaged one");
            let damaged = file.read(form.whole()).unwrap_err();
            assert!(matches!(damaged, StoreError::UnitCorrupt { unit: 1, .. }), "{damaged}");
            assert!(!file.has_unit(1), "absent from now on");
            form.write(&file, 1).unwrap();
            assert_eq!(file.read(form.whole()).unwrap(), form.encoded);
            disk.open(&dir.join("file"), crate::disk::OpenMode::Write).unwrap().set_len(range.end()).unwrap();
            let damaged = file.read(form.layout.unit_range(2)).unwrap_err();
            assert!(matches!(damaged, StoreError::UnitCorrupt { unit: 2, .. }), "cut short: {damaged}");
        }
    });
}

#[test]
fn a_left_over_file_is_adopted_as_far_as_it_verifies() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        let path = dir.join("file");
        for form in &forms {
            let file = create(&disk, dir, form);
            form.write_all(&file);
            let adopt = |layout: &Layout| {
                BlobFile::adopt(disk.clone(), &path, layout.clone(), HolePunching::Unsupported).unwrap()
            };
            let again = adopt(&form.layout).unwrap();
            assert_eq!(again.read(form.whole()).unwrap(), form.encoded);
            if form.layout.unit_count() < 3 {
                continue;
            }
            file.evict(0).unwrap();
            flip_bit(disk.as_ref(), &path, form.layout.unit_range(2).start());
            let again = adopt(&form.layout).unwrap();
            let here: Vec<_> = (0..form.layout.unit_count()).filter(|unit| again.has_unit(*unit)).collect();
            assert_eq!(here, [1, 3]);
            form.write_all(&again);
            assert_eq!(again.read(form.whole()).unwrap(), form.encoded);
            if form.layout.identity().is_some() {
                flip_bit(disk.as_ref(), &path, 10);
                assert!(adopt(&form.layout).is_none(), "another unit H");
            }
        }
    });
}

#[test]
fn filling_never_syncs() {
    let crash = CrashDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(crash.clone());
    let (content, tree) = half_noise(3 * UNIT_BYTES as usize);
    let form = raw(&content, &tree);
    let file = create(&disk, Path::new("/"), &form);
    let synced = crash.synced_paths().len();
    form.write_all(&file);
    file.read(form.whole()).unwrap();
    file.evict(1).unwrap();
    assert_eq!(crash.synced_paths().len(), synced);
}

#[test]
fn a_full_disk_leaves_the_unit_absent() {
    let crash = CrashDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(crash.clone());
    let (content, tree) = half_noise(300_000);
    let form = raw(&content, &tree);
    let file = create(&disk, Path::new("/"), &form);
    crash.fail_after(0, crate::testing::Fault::NoSpace);
    assert!(matches!(form.write(&file, 0), Err(StoreError::NoSpace { .. })));
    crash.heal();
    assert!(!file.has_unit(0) && file.used_units().is_empty());
    assert!(matches!(file.read(form.whole()), Err(StoreError::UnitAbsent { .. })));
    assert_eq!(file.allocated_bytes().unwrap(), 0, "the half that was written is given back");
    form.write_all(&file);
    assert_eq!(file.read(form.whole()).unwrap(), form.encoded);
}

#[test]
fn readers_writers_and_evictions_at_once() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        let form = &forms[1];
        let file = create(&disk, dir, form);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let file = file.clone();
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..60 {
                        let unit = random.u32(0..form.layout.unit_count());
                        match random.u8(0..4) {
                            0 => drop(file.evict(unit).unwrap()),
                            1 => form.write(&file, unit).unwrap(),
                            _ => match file.read(form.layout.unit_range(unit)) {
                                Ok(bytes) => assert_eq!(bytes, form.encoded[form.layout.unit_range(unit).within(0)]),
                                Err(StoreError::UnitAbsent { .. }) => {}
                                Err(error) => panic!("seed {seed}: {error}"),
                            },
                        }
                    }
                });
            }
        });
        form.write_all(&file);
        assert_eq!(file.read(form.whole()).unwrap(), form.encoded);
    });
}
