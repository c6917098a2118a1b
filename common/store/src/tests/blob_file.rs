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
use crate::{Belief, BlobFile, HolePunching, Run, StoreError};

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

/// Bytes of a range, unit by unit; nothing if one is not whole.
fn read(file: &BlobFile, range: ByteRange) -> Option<Bytes> {
    let head = file.layout().unit_h();
    let mut joined = head.to_vec();
    let units = file.layout().units_of(range);
    let start = if units.is_empty() { head.len() as u64 } else { file.layout().unit_range(units.start).start() };
    if start > head.len() as u64 {
        joined.clear();
    }
    let base = if start > head.len() as u64 { start } else { 0 };
    for unit in units {
        if file.layout().unit_range(unit).is_empty() {
            continue;
        }
        for run in file.read_unit(unit, Belief::Guards).ok()? {
            let Run::Here { offset, bytes } = run else { return None };
            assert_eq!(offset, base + joined.len() as u64);
            joined.extend_from_slice(&bytes);
        }
    }
    Some(Bytes::from(joined).slice(range.within(base)))
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
            // Backwards, so that no unit depends on the ones before it.
            for unit in (0..form.layout.unit_count()).rev() {
                let range = form.layout.unit_range(unit);
                assert_eq!(file.has_unit(unit), range.is_empty());
                if !range.is_empty() {
                    let absent = file.read_unit(unit, Belief::Guards).unwrap_err();
                    assert!(matches!(absent, StoreError::UnitAbsent { unit: at, .. } if at == unit), "{absent}");
                }
                form.write(&file, unit).unwrap();
                assert!(file.has_unit(unit));
                assert_eq!(read(&file, range).unwrap(), form.encoded[range.within(0)]);
            }
            assert!(!file.has_unit(form.layout.unit_count()));
            assert_eq!(read(&file, form.whole()).unwrap(), form.encoded);
            let mut random = fastrand::Rng::with_seed(1);
            for _ in 0..50 {
                let start = random.u64(0..=form.encoded.len() as u64);
                let range = ByteRange::new(start, random.u64(start..=form.encoded.len() as u64));
                assert_eq!(read(&file, range).unwrap(), form.encoded[range.within(0)], "{range}");
            }
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
                    assert_eq!(read(&file, range).unwrap(), form.encoded[range.within(0)]);
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
            let overhead = BlobFile::overhead_bytes(&form.layout) + 65_536;
            assert!(file.allocated_bytes().unwrap() <= overhead, "unit H and what stands behind the form are left");
            assert_eq!(file.used_units(), Vec::<u32>::new());
            form.write_all(&file);
            intact(&[]);
            file.remove().unwrap();
            intact(&[]);
        }
    });
}

#[test]
fn without_holes_only_removal_frees() {
    on_both_disks(|disk, dir| {
        let (content, tree) = half_noise(2 * UNIT_BYTES as usize);
        let form = raw(&content, &tree);
        let file =
            BlobFile::create(disk.clone(), &dir.join("file"), form.layout.clone(), HolePunching::Unsupported).unwrap();
        form.write_all(&file);
        assert_eq!((file.evict(0).unwrap(), file.evict(1).unwrap()), (Some(0), Some(0)));
        assert!(!file.has_unit(0) && file.used_units().is_empty());
        file.remove().unwrap();
        assert_eq!(disk.file_len(&dir.join("file")).unwrap(), None);
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

/// The pieces of a unit that were found damaged just now.
fn damaged(file: &BlobFile, unit: u32, belief: Belief) -> Vec<u32> {
    let runs = file.read_unit(unit, belief).unwrap_or_default();
    let pieces = runs.into_iter().filter_map(|run| match run {
        Run::Missing { pieces, damaged: true } => Some(pieces),
        _ => None,
    });
    pieces.flatten().collect()
}

#[test]
fn damage_is_found_by_guards_judged_by_leaves_and_mended_piece_by_piece() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        for form in forms.iter().filter(|form| form.layout.unit_count() > 1) {
            let file = create(&disk, dir, form);
            form.write_all(&file);
            let range = form.layout.unit_range(1);
            let bad = form.layout.piece_at(range.start() + 9000);
            flip_bit(disk.as_ref(), &dir.join("file"), range.start() + 9000);
            assert_eq!(damaged(&file, 1, Belief::Guards), [bad]);
            assert!(!file.has_unit(1), "that piece is absent from now on");
            assert_eq!(damaged(&file, 1, Belief::Guards), [] as [u32; 0]);
            let runs = file.read_unit(1, Belief::Guards).unwrap();
            assert!(runs.contains(&Run::Missing { pieces: bad..bad + 1, damaged: false }), "the others are here");
            let piece = form.layout.piece_range(bad);
            file.write(&form.layout.verify(bad, form.encoded.slice(piece.within(0))).unwrap()).unwrap();
            assert_eq!(read(&file, form.whole()).unwrap(), form.encoded);
            let end = form.layout.unit_range(2).end() - 1;
            disk.open(&dir.join("file"), crate::disk::OpenMode::Write).unwrap().set_len(end).unwrap();
            assert_eq!(
                damaged(&file, 2, Belief::Guards).last(),
                Some(&(form.layout.pieces_of(2).end - 1)),
                "cut short"
            );
        }
    });
}

/// Whoever writes a matching guard beside wrong bytes is believed only where guards are.
#[test]
fn leaves_decide_where_guards_are_in_doubt() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        for form in forms.iter().filter(|form| form.layout.unit_count() > 1) {
            let path = dir.join("file");
            form.write_all(&create(&disk, dir, form));
            let punching = HolePunching::probe(disk.as_ref(), dir).unwrap();
            let recover = |belief| BlobFile::recover(disk.clone(), &path, punching, belief).unwrap().unwrap();
            // Wrong bytes with their guard and their unit's check.
            let bad = form.layout.pieces_of(1).start;
            let range = form.layout.piece_range(bad);
            let raw = disk.open(&path, crate::disk::OpenMode::Write).unwrap();
            raw.write_at(range.start(), &vec![7; range.len() as usize]).unwrap();
            let tail = crate::blob_file::Tail::of(&form.layout);
            raw.write_at(tail.guard_at(bad), &crc32c::crc32c(&vec![7; range.len() as usize]).to_le_bytes()).unwrap();
            let pieces = form.layout.pieces_of(1);
            let mut guards = vec![0; 4 * pieces.len()];
            raw.read_exact_at(tail.guard_at(bad), &mut guards).unwrap();
            let check = crate::blob_file::check_of(1, &guards);
            raw.write_at(tail.check_at(1), &check.to_le_bytes()).unwrap();
            assert_eq!(damaged(&recover(Belief::Guards), 1, Belief::Guards), [] as [u32; 0]);
            assert_eq!(damaged(&recover(Belief::Guards), 1, Belief::Leaves), [bad]);
            let doubted = recover(Belief::Leaves);
            assert_eq!(damaged(&doubted, 1, Belief::Guards), [bad]);
            assert_eq!(damaged(&doubted, 2, Belief::Guards), [] as [u32; 0]);
            assert_eq!(
                read(&doubted, form.layout.unit_range(2)).unwrap(),
                form.encoded[form.layout.unit_range(2).within(0)]
            );
        }
    });
}

#[test]
fn a_left_over_file_says_what_it_is_and_is_taken_over() {
    let forms = forms();
    on_both_disks(|disk, dir| {
        let path = dir.join("file");
        for form in &forms {
            let file = create(&disk, dir, form);
            form.write_all(&file);
            let last = form.layout.unit_count() - 1;
            if last > 1 {
                file.evict(1).unwrap();
            }
            let length = file.prove_length().unwrap();
            assert_eq!(length.bytes(), form.layout.content_length().0);
            drop(file);
            let glance = BlobFile::glance(disk.as_ref(), &path).unwrap().unwrap();
            assert_eq!((glance.id, glance.encoding), (form.layout.id(), form.layout.encoding()));
            assert_eq!(glance.unit_count, last + 1);
            let there: Vec<u32> = (0..=last).filter(|unit| last < 2 || *unit != 1).collect();
            assert_eq!(glance.units, there);
            for belief in [Belief::Guards, Belief::Leaves] {
                let again = BlobFile::recover(disk.clone(), &path, HolePunching::Unsupported, belief).unwrap().unwrap();
                assert_eq!(again.layout().identity(), form.layout.identity());
                assert_eq!(again.prove_length(), Some(length));
                for unit in 0..=last {
                    let range = form.layout.unit_range(unit);
                    let found = read(&again, range);
                    assert_eq!(found.is_some(), there.contains(&unit));
                    assert!(found.is_none_or(|bytes| bytes == form.encoded[range.within(0)]));
                }
                if belief == Belief::Leaves {
                    form.write_all(&again);
                    assert_eq!(read(&again, form.whole()).unwrap(), form.encoded);
                }
            }
        }
    });
}

/// Any byte of the file changed, or the file cut anywhere: never a wrong byte, at worst nothing.
#[test]
fn a_garbled_file_gives_right_bytes_or_none() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (content, tree) = half_noise(2 * UNIT_BYTES as usize + 30_000);
    for form in [raw(&content, &tree), encoded(&content, &tree, 1)] {
        let disk: Arc<dyn Disk> = Arc::new(CrashDisk::new());
        for _ in 0..60 {
            let file = create(&disk, Path::new("/"), &form);
            form.write_all(&file);
            drop(file);
            let file = disk.open(Path::new("/file"), crate::disk::OpenMode::Write).unwrap();
            let length = file.length().unwrap();
            let behind = length - BlobFile::overhead_bytes(&form.layout);
            for _ in 0..random.u8(1..4) {
                let at = if random.bool() { random.u64(behind..length) } else { random.u64(0..length) };
                let noise: Vec<u8> = (0..random.usize(1..600)).map(|_| random.u8(..)).collect();
                file.write_at(at, &noise).unwrap();
            }
            if random.u8(0..4) == 0 {
                file.set_len(random.u64(0..length)).unwrap();
            } else {
                file.set_len(length).unwrap();
            }
            let belief = if random.bool() { Belief::Guards } else { Belief::Leaves };
            _ = BlobFile::glance(disk.as_ref(), Path::new("/file"));
            let again = BlobFile::recover(disk.clone(), Path::new("/file"), HolePunching::Unsupported, belief);
            let Some(again) = again.unwrap() else { continue };
            for unit in 0..form.layout.unit_count() {
                for run in again.read_unit(unit, Belief::Guards).unwrap_or_default() {
                    if let Run::Here { offset, bytes } = run {
                        assert!(bytes == form.encoded[offset as usize..offset as usize + bytes.len()]);
                    }
                }
            }
        }
    }
}

/// What a killed process wrote of a unit it did not finish is given back.
#[test]
fn trimming_gives_back_what_is_in_no_unit() {
    on_both_disks(|disk, dir| {
        let (content, tree) = half_noise(4 * UNIT_BYTES as usize);
        let form = raw(&content, &tree);
        let file = create(&disk, dir, &form);
        form.write(&file, 1).unwrap();
        let right = file.allocated_bytes().unwrap();
        let raw = disk.open(&dir.join("file"), crate::disk::OpenMode::Write).unwrap();
        raw.write_at(0, &vec![1; UNIT_BYTES as usize]).unwrap();
        raw.write_at(3 * UNIT_BYTES, &vec![1; 100_000]).unwrap();
        file.trim().unwrap();
        assert!(file.allocated_bytes().unwrap() <= right + 65_536);
        assert_eq!(read(&file, form.layout.unit_range(1)).unwrap(), form.encoded[form.layout.unit_range(1).within(0)]);
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
    read(&file, form.whole()).unwrap();
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
    assert!(matches!(file.read_unit(0, Belief::Guards), Err(StoreError::UnitAbsent { .. })));
    assert!(file.allocated_bytes().unwrap() <= 8192, "the half that was written is given back");
    form.write_all(&file);
    assert_eq!(read(&file, form.whole()).unwrap(), form.encoded);
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
                            _ => match file.read_unit(unit, Belief::Guards) {
                                Ok(runs) => runs.iter().for_each(|run| match run {
                                    Run::Here { offset, bytes } => {
                                        let part = ByteRange::new(*offset, *offset + bytes.len() as u64);
                                        assert_eq!(*bytes, form.encoded[part.within(0)]);
                                    }
                                    // Somebody else is at it. Zeros from under a reader would be damage.
                                    Run::Missing { damaged, .. } => assert!(!damaged, "seed {seed}"),
                                }),
                                Err(StoreError::UnitAbsent { .. }) => {}
                                Err(error) => panic!("seed {seed}: {error}"),
                            },
                        }
                    }
                });
            }
        });
        form.write_all(&file);
        assert_eq!(read(&file, form.whole()).unwrap(), form.encoded);
    });
}
