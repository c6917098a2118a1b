//! Every order in which resolves and collections can go: the device's own [`Indices`], with a set of ids as the store, walked
//! step by step through all interleavings. Invariant 8: what a resolve found or wrote is there when it ends, and stays while
//! somebody has the package open.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;

fn id(number: u8) -> BlobId {
    BlobId::from_digest([number; 32])
}

/// Package 1 has blobs 10 and 12 and subpackage 3; package 2 has 11 and 12; the subpackage has 13.
fn contents(package: BlobId) -> Contents {
    let (blobs, subpackages): (&[u8], &[u8]) = match package.as_bytes()[0] {
        1 => (&[10, 12], &[3]),
        2 => (&[11, 12], &[]),
        _ => (&[13], &[]),
    };
    let set = |numbers: &[u8]| numbers.iter().copied().map(id).collect();
    Contents { blobs: set(blobs), subpackages: set(subpackages) }
}

/// What a resolver does wrong, to show that the walk would notice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// Tests whether content is here before announcing it.
    TestsFirst,
    /// Announces while a collection deletes.
    NeverWaits,
    /// Ends the fetch before it opens the package.
    OpensLate,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Start,
    /// Announced; to be tested, and fetched if absent.
    Blob(BlobId),
    Fetch(BlobId),
    Learn(BlobId),
    Finish,
    Open,
    Use,
    Done,
}

#[derive(Debug, Clone)]
struct Resolver {
    package: BlobId,
    at: At,
    writer: Option<WriterId>,
    lease: Option<indices::LeaseId>,
    queue: Vec<BlobId>,
    packages: BTreeSet<BlobId>,
    relies_on: BTreeSet<BlobId>,
    /// Found here before it was announced, by mistake.
    found_early: BTreeSet<BlobId>,
}

#[derive(Debug, Clone)]
struct Collector {
    doomed: Option<Vec<BlobId>>,
    left: u8,
}

#[derive(Debug, Clone)]
struct World {
    indices: Indices,
    store: BTreeSet<BlobId>,
    resolvers: Vec<Resolver>,
    collector: Collector,
    mistake: Mistake,
}

impl World {
    fn new(packages: &[u8], store: &[u8], collections: u8, mistake: Mistake) -> Self {
        let resolver = |package: &u8| Resolver {
            package: id(*package),
            at: At::Start,
            writer: None,
            lease: None,
            queue: Vec::new(),
            packages: BTreeSet::new(),
            relies_on: BTreeSet::new(),
            found_early: BTreeSet::new(),
        };
        Self {
            indices: Indices::default(),
            store: store.iter().copied().map(id).collect(),
            resolvers: packages.iter().map(resolver).collect(),
            collector: Collector { doomed: None, left: collections },
            mistake,
        }
    }

    /// One step of a resolver; nothing if it has to wait or is done.
    fn resolve(&self, index: usize) -> Option<Self> {
        let mut world = self.clone();
        let Self { indices, store, resolvers, collector, mistake } = &mut world;
        let this = &mut resolvers[index];
        let late = *mistake == Mistake::NeverWaits && collector.doomed.is_some();
        if late {
            indices.end_collection();
        }
        let waits = |error| assert_eq!(error, IndexError::Collecting, "nothing else is refused");
        let stepped = match this.at.clone() {
            At::Start => indices.start(this.package, Protection::Tracking).map_err(waits).ok().map(|writer| {
                this.writer = Some(writer);
                this.packages.insert(this.package);
                At::Blob(this.package)
            }),
            At::Blob(blob) => Some(if store.contains(&blob) || this.found_early.contains(&blob) {
                this.arrived(indices, blob)
            } else {
                At::Fetch(blob)
            }),
            At::Fetch(blob) => {
                store.insert(blob);
                Some(this.arrived(indices, blob))
            }
            At::Learn(package) => {
                let contents = contents(package);
                if *mistake == Mistake::TestsFirst && this.found_early.is_empty() {
                    this.found_early = contents.blobs.intersection(store).copied().chain([package]).collect();
                    Some(At::Learn(package))
                } else {
                    let learnt = indices.learnt(this.writer.unwrap(), package, contents.clone());
                    learnt.map_err(waits).ok().map(|()| {
                        this.packages.extend(&contents.subpackages);
                        this.queue.extend(contents.blobs.iter().chain(&contents.subpackages));
                        this.next()
                    })
                }
            }
            At::Finish if *mistake == Mistake::OpensLate => {
                indices.finish(this.writer.unwrap()).unwrap();
                Some(At::Open)
            }
            At::Finish => {
                this.lease = Some(indices.finish_open(this.writer.unwrap(), "test", UnixSeconds(1)).unwrap());
                Some(At::Use)
            }
            At::Open => indices.open(this.package, "test", UnixSeconds(1)).map_err(waits).ok().map(|lease| {
                this.lease = Some(lease);
                At::Use
            }),
            At::Use => {
                indices.close(this.lease.unwrap());
                this.relies_on.clear();
                Some(At::Done)
            }
            At::Done => None,
        };
        if late {
            indices.begin_collection().unwrap();
        }
        this.at = stepped?;
        Some(world)
    }

    /// One step of the collector: mark, delete one, …, end.
    fn collect(&self) -> Option<Self> {
        let mut world = self.clone();
        let Self { indices, store, collector, .. } = &mut world;
        match &mut collector.doomed {
            None if collector.left == 0 => return None,
            None => {
                collector.left -= 1;
                indices.begin_collection().expect("one at a time");
                for package in indices.unknown() {
                    if store.contains(&package) {
                        indices.know(package, contents(package));
                    }
                }
                let resident: BTreeMap<_, _> = store.iter().map(|blob| (*blob, 1)).collect();
                let choice = indices.holdings().choose(&resident, Depth::Unused);
                collector.doomed =
                    Some(store.iter().filter(|blob| !choice.protected.contains(blob)).copied().collect());
            }
            Some(doomed) => match doomed.pop() {
                Some(blob) => {
                    store.remove(&blob);
                }
                None => {
                    collector.doomed = None;
                    indices.end_collection();
                }
            },
        }
        Some(world)
    }

    /// What a resolve relies on and the store no longer has.
    fn lost(&self) -> Option<BlobId> {
        let relied_on = self.resolvers.iter().flat_map(|resolver| &resolver.relies_on);
        relied_on.copied().find(|blob| !self.store.contains(blob))
    }
}

impl Resolver {
    fn arrived(&mut self, indices: &mut Indices, blob: BlobId) -> At {
        indices.here(self.writer.unwrap(), blob).unwrap();
        self.relies_on.insert(blob);
        if self.packages.contains(&blob) { At::Learn(blob) } else { self.next() }
    }

    fn next(&mut self) -> At {
        self.queue.pop().map_or(At::Finish, At::Blob)
    }
}

/// Walks through every order. How many states there were, or the first in which something is lost.
fn walk(start: World) -> Result<usize, Box<World>> {
    let mut seen = HashSet::new();
    let mut open = vec![start];
    let mut ended = false;
    while let Some(world) = open.pop() {
        if world.lost().is_some() {
            return Err(Box::new(world));
        }
        // All state is in ordered maps, so what is printed alike is alike.
        if !seen.insert(format!("{world:?}")) {
            continue;
        }
        let steps = (0..world.resolvers.len()).filter_map(|index| world.resolve(index)).chain(world.collect());
        let before = open.len();
        open.extend(steps);
        if open.len() == before {
            let done = world.resolvers.iter().all(|resolver| resolver.at == At::Done);
            assert!(done, "somebody waits for ever: {world:?}");
            ended = true;
        }
    }
    assert!(ended);
    Ok(seen.len())
}

/// What is here at the start: nothing, everything, and some of it.
const STORES: [&[u8]; 4] = [&[], &[1, 2, 3, 10, 11, 12, 13, 99], &[1, 12, 99], &[10, 12, 13]];

#[test]
fn invariant_8_collection_in_any_order_never_removes_what_a_resolve_relies_on() {
    let mut states = 0;
    for store in STORES {
        for packages in [&[1, 2][..], &[1, 1], &[2, 2]] {
            states += walk(World::new(packages, store, 2, Mistake::None)).unwrap_or_else(|world| panic!("{world:?}"));
        }
    }
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn invariant_8_each_rule_is_needed() {
    for mistake in [Mistake::TestsFirst, Mistake::NeverWaits, Mistake::OpensLate] {
        let found = STORES.iter().any(|store| walk(World::new(&[1], store, 2, mistake)).is_err());
        assert!(found, "{mistake:?} would not be noticed");
    }
}

#[test]
fn steps_out_of_order_are_refused() {
    let mut indices = Indices::default();
    let out_of_order =
        |done: Result<(), IndexError>| assert!(matches!(done, Err(IndexError::OutOfOrder(_))), "{done:?}");
    let writer = indices.start(id(1), Protection::Tracking).unwrap();
    out_of_order(indices.learnt(writer, id(1), contents(id(1))));
    out_of_order(indices.here(writer, id(10)));
    out_of_order(indices.finish(writer));
    indices.here(writer, id(1)).unwrap();
    out_of_order(indices.finish(writer));
    indices.learnt(writer, id(1), contents(id(1))).unwrap();
    indices.here(writer, id(10)).unwrap();
    out_of_order(indices.learnt(writer, id(10), Contents::default()));
    out_of_order(indices.learnt(writer, id(3), contents(id(3))));
    indices.here(writer, id(12)).unwrap();
    indices.here(writer, id(3)).unwrap();
    out_of_order(indices.finish(writer));
    indices.learnt(writer, id(3), contents(id(3))).unwrap();
    out_of_order(indices.finish_open(writer, "test", UnixSeconds(1)).map(|_| ()));
    indices.here(writer, id(13)).unwrap();
    indices.finish(writer).unwrap();
    out_of_order(indices.finish(writer));
    out_of_order(indices.start(id(1), Protection::Retained).map(|_| ()));
}

#[test]
fn a_package_for_the_updater_is_protected_by_the_retained_index_alone() {
    let mut indices = Indices::default();
    let retained = Kept { retained_packages: [id(1)].into(), retained_blobs: [id(50)].into(), ..Kept::default() };
    indices.set_kept(retained).unwrap();
    let writer = indices.start(id(1), Protection::Retained).unwrap();
    indices.here(writer, id(1)).unwrap();
    assert_eq!(indices.holdings().firm, [id(1), id(50)].into(), "what is learnt is protected, no more");
    indices.learnt(writer, id(1), contents(id(1))).unwrap();
    assert_eq!(indices.holdings().firm, [1, 3, 10, 12, 50].map(id).into());
    // Replaced while it is being fetched; what was learnt serves whoever names the package again.
    indices.set_kept(Kept { retained_packages: [id(2)].into(), ..Kept::default() }).unwrap();
    assert_eq!(indices.holdings().firm, [id(2)].into());
    indices.set_kept(Kept { retained_packages: [id(1)].into(), ..Kept::default() }).unwrap();
    assert_eq!(indices.holdings().firm, [1, 3, 10, 12].map(id).into());
}

#[test]
fn several_versions_of_a_package_and_several_reasons_live_side_by_side() {
    let url = "fuchsia-pkg://host/app".to_owned();
    let version = "1".parse().unwrap();
    let current = kept::Current { hash: id(2), version, availability: colibri_release::Availability::Permanent };
    let mut indices = Indices::new(Kept {
        base: [id(1)].into(),
        upgradable: [(url, current)].into(),
        uses: [(id(1), UnixSeconds(5)), (id(7), UnixSeconds(6))].into(),
        ..Kept::default()
    });
    for package in [1, 2, 3] {
        indices.know(id(package), contents(id(package)));
    }
    let holdings = indices.holdings();
    assert_eq!(holdings.firm, [1, 2, 3, 10, 11, 12, 13].map(id).into());
    let evictable: Vec<_> = holdings.evictable.iter().map(|item| item.package).collect();
    assert_eq!(evictable, [id(1), id(7)]);
    // Base leaves 1; its blob 12 stays for 2.
    let mut kept = indices.kept().clone();
    kept.base.clear();
    kept.uses.clear();
    indices.set_kept(kept).unwrap();
    assert_eq!(indices.holdings().firm, [2, 11, 12].map(id).into());
    let lease = indices.open(id(1), "a program", UnixSeconds(9)).unwrap();
    assert!(indices.holdings().firm.contains(&id(13)), "subpackages of what is open stay too");
    indices.close(lease);
    assert!(!indices.holdings().firm.contains(&id(13)));
}

#[test]
fn what_is_kept_is_written_and_read() {
    let kept = Kept {
        base: [id(1)].into(),
        anchored: [(id(2), colibri_release::Availability::OnDemand)].into(),
        uses: [(id(3), UnixSeconds(4))].into(),
        ..Kept::default()
    };
    let read = Kept::parse(&kept.to_bytes().unwrap()).unwrap();
    assert_eq!(read, kept);
    for bad in [&b"{}"[..], b"{\"format\":2,\"kept\":{}}", b"{\"format\":1,\"kept\":{\"more\":1}}", b"", b"[]"] {
        assert!(Kept::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn leases_are_bounded_and_named() {
    let mut indices = Indices::default();
    let holder = "x".repeat(crate::limits::LEASE_HOLDER_BYTES_MAX);
    for _ in 0..crate::limits::LEASES_MAX {
        indices.open(id(1), &holder, UnixSeconds(1)).unwrap();
    }
    assert!(matches!(indices.open(id(1), "one more", UnixSeconds(1)), Err(IndexError::TooMany { .. })));
    let first = indices.opened().next().unwrap().0;
    indices.close(first);
    assert!(matches!(indices.open(id(1), &(holder + "x"), UnixSeconds(1)), Err(IndexError::TooMany { .. })));
    indices.open(id(1), "one more", UnixSeconds(1)).unwrap();
}
