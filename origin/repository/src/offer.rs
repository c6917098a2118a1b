//! [`Offer`]: which targets there are next, drafted as signed targets files: one file in `compat`, in `scale` only the bins that
//! change.
//!
//! What a bin says is read through the verifying client before it is carried on. Deliberately absent: what snapshot and
//! timestamp say of it (`draft`), and making it visible (`metadata`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{
    Answer, Role, RoleName, Root, Search, Step, TargetDescription, TargetName, Targets, TrustedSet, utc,
};
use colibri_store::DocumentName;
use serde_json::{Map, Value, json};

use crate::bins::Bins;
use crate::error::RepositoryError;
use crate::keys::{KeyRole, ListedKey};
use crate::layout;
use crate::limits;
use crate::metadata::{MetadataFolder, NEVER_EXPIRED, Terms};
use crate::named_targets;
use crate::profile::{self, Profile};
use crate::roles::{self, SignedFile};
use crate::rollout;
use crate::sign_targets::{self, Entries, Entry};

/// A change of what is offered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    /// Targets that are new or other than before.
    pub put: Entries,
    /// Targets that are no longer offered; each must be offered now.
    pub remove: BTreeSet<TargetName>,
    /// Nothing else is offered any more.
    pub clean: bool,
    /// Every targets file is signed again, whether it changes or not.
    pub again: bool,
    /// Those whose life is half over are.
    pub renew: bool,
    /// The keys that the role `rollout` has from now on; empty for those of now.
    pub rollout_keys: Vec<ListedKey>,
}

impl Offer {
    /// What is offered now, signed again.
    pub fn again() -> Self {
        Self { again: true, ..Self::default() }
    }

    /// What is offered now, signed again where it will not live much longer.
    pub fn renew() -> Self {
        Self { renew: true, ..Self::default() }
    }

    /// The parts of this change that fall into each bin.
    fn by_bin(&self, bins: Bins) -> BTreeMap<u32, Self> {
        let mut parts: BTreeMap<u32, Self> = BTreeMap::new();
        if self.clean || self.renew {
            let part = || Self { clean: self.clean, ..Self::default() };
            parts.extend((0..bins.count()).map(|bin| (bin, part())));
        }
        for (name, entry) in &self.put {
            parts.entry(bins.of_target(name)).or_default().put.insert(name.clone(), entry.clone());
        }
        for name in &self.remove {
            parts.entry(bins.of_target(name)).or_default().remove.insert(name.clone());
        }
        parts
    }

    /// Refuses new names that would make the stock client refuse a `compat` repository. What has such a name already can still
    /// be signed again, and removed.
    pub fn check_compat(&self) -> Result<(), RepositoryError> {
        self.put.keys().try_for_each(|name| named_targets::check_compat(name.as_str()))
    }

    /// Changes these entries.
    pub fn apply(&self, entries: &mut Entries) -> Result<(), RepositoryError> {
        for name in &self.remove {
            entries.remove(name).ok_or_else(|| RepositoryError::UnknownPackage(name.to_string()))?;
        }
        if self.clean {
            entries.clear();
        }
        entries.extend(self.put.iter().map(|(name, entry)| (name.clone(), entry.clone())));
        Ok(())
    }
}

/// Signs the `signed` part of a targets file: its unnumbered name, its version, canonical bytes.
pub(crate) type SignTargets<'a> = dyn FnMut(String, u32, Vec<u8>) -> Result<SignedFile, RepositoryError> + 'a;

/// Reads a metadata file by its name, if it is there and not longer than a number of bytes.
pub(crate) type ReadFile<'a> = dyn FnMut(&str, u64) -> Result<Option<Bytes>, RepositoryError> + 'a;

/// Targets files, drafted.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    pub files: Vec<SignedFile>,
    /// What the snapshot says of them.
    pub listed: Map<String, Value>,
    /// Bins to be checked, each by a target that falls into it.
    pub touched: BTreeMap<u32, TargetName>,
    /// Whether each of these names must lead to its bin; those of targets that are offered may lead to a role before the bins.
    pub reached: bool,
    /// All bins are to be checked.
    pub all_bins: bool,
}

impl MetadataFolder {
    /// Drafts the targets files that `offer` changes. `root` is the one in force.
    pub fn draft_targets(
        &self,
        committed: &TrustedSet,
        root: &Root,
        offer: &Offer,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        match profile::bins_of(committed) {
            Some(bins) if !offer.again && bins_are_as_ours(committed, root) => {
                self.draft_changed(committed, bins, offer, terms, sign)
            }
            Some(bins) => {
                let entries = self.next_entries(committed, offer)?;
                let top = self.next_top(committed, offer)?;
                self.draft_all_bins(Some(committed), bins, root, top, &entries, terms, sign)
            }
            None => self.draft_flat(committed, offer, terms, sign),
        }
    }

    /// The targets of a new repository: none.
    pub fn first_targets(
        &self,
        profile: Profile,
        root: &Root,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        let bins = (profile == Profile::Scale).then_some(Bins::NEW);
        match bins {
            Some(bins) => self.draft_all_bins(None, bins, root, Map::new(), &Entries::new(), terms, sign),
            None => self.flat_file(Map::new(), 0, &Entries::new(), terms, sign),
        }
    }

    fn draft_flat(
        &self,
        committed: &TrustedSet,
        offer: &Offer,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        offer.check_compat()?;
        let entries = self.next_entries(committed, offer)?;
        let version = committed.version(Role::Targets).unwrap_or(0);
        self.flat_file(self.next_top(committed, offer)?, version, &entries, terms, sign)
    }

    /// What the role at the top says besides its targets.
    pub fn next_top(&self, committed: &TrustedSet, offer: &Offer) -> Result<Map<String, Value>, RepositoryError> {
        let mut top = self.signed_part(committed, Role::Targets)?;
        if !offer.rollout_keys.is_empty() {
            let delegations = rollout::delegations(top.get("delegations"), &offer.rollout_keys, 1);
            top.insert("delegations".into(), delegations);
        }
        Ok(top)
    }

    /// All that is offered next.
    pub fn next_entries(&self, committed: &TrustedSet, offer: &Offer) -> Result<Entries, RepositoryError> {
        let mut entries = Entries::new();
        if !offer.clean || !offer.remove.is_empty() {
            entries = self.entries(committed)?;
        }
        offer.apply(&mut entries)?;
        Ok(entries)
    }

    fn flat_file(
        &self,
        rest: Map<String, Value>,
        previous: u32,
        entries: &Entries,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        let file = self.targets_file(Role::Targets.file(), previous, rest, entries, terms, sign)?;
        profile::check_room(Role::Targets, file.bytes.len() as u64)?;
        let listed = Map::from_iter([(Role::Targets.file().to_owned(), file.meta())]);
        Ok(Offered { files: vec![file], listed, ..Offered::default() })
    }

    /// Only the files that change, or that are to be renewed.
    fn draft_changed(
        &self,
        committed: &TrustedSet,
        bins: Bins,
        offer: &Offer,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        let mut offered = Offered { all_bins: offer.renew, ..Offered::default() };
        let parts = offer.by_bin(bins);
        let whole = (parts.len() as u64 > limits::BINS_SEARCHED_MAX)
            .then(|| self.with_all_bins(committed.clone(), &BTreeMap::new()))
            .transpose()?;
        let renewed = |expires: UnixSeconds| offer.renew && terms.is_half_over(KeyRole::Targets, expires);
        for (bin, part) in parts {
            let role = bins.role(bin);
            let first = part.put.keys().chain(&part.remove).next();
            let searched;
            let set = match (&whole, first) {
                (Some(whole), _) => whole,
                (None, Some(first)) => {
                    searched = self.search(committed.clone(), first, &BTreeMap::new(), NEVER_EXPIRED)?;
                    &searched
                }
                (None, None) => continue,
            };
            let (mut rest, mut entries) = self.bin(set, &role)?;
            let before = entries.clone();
            part.apply(&mut entries)?;
            let held = set.delegated(&role);
            if entries == before && !held.is_some_and(|held| renewed(held.expires())) {
                continue;
            }
            rest.remove("targets");
            let file =
                self.targets_file(&role.file(), held.map_or(0, Targets::version), rest, &entries, terms, sign)?;
            offered.listed.insert(role.listed_as(), json!({"version": file.version}));
            offered.files.push(file);
            offered.touched.extend(first.or_else(|| before.keys().next()).map(|name| (bin, name.clone())));
        }
        if !offer.rollout_keys.is_empty() || committed.targets().is_some_and(|top| renewed(top.expires())) {
            let previous = committed.version(Role::Targets).unwrap_or(0);
            let top = self.next_top(committed, offer)?;
            let file = self.targets_file(Role::Targets.file(), previous, top, &Entries::new(), terms, sign)?;
            offered.listed.insert(Role::Targets.file().to_owned(), json!({"version": file.version}));
            offered.files.push(file);
        }
        Ok(offered)
    }

    /// Every bin and the role above them.
    #[expect(clippy::too_many_arguments, reason = "all of them together are the draft")]
    fn draft_all_bins(
        &self,
        committed: Option<&TrustedSet>,
        bins: Bins,
        root: &Root,
        mut top: Map<String, Value>,
        entries: &Entries,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<Offered, RepositoryError> {
        let mut spread = vec![Entries::new(); bins.count() as usize];
        for (name, entry) in entries {
            spread[bins.of_target(name) as usize].insert(name.clone(), entry.clone());
        }
        let mut offered = Offered { all_bins: true, ..Offered::default() };
        for (bin, entries) in (0..bins.count()).zip(&spread) {
            let role = bins.role(bin);
            let previous = committed.and_then(|set| set.snapshot()?.meta().get(&role.listed_as()));
            let previous = previous.map_or(0, |meta| meta.version);
            let file = self.targets_file(&role.file(), previous, Map::new(), entries, terms, sign)?;
            offered.listed.insert(role.listed_as(), json!({"version": file.version}));
            offered.files.push(file);
        }
        let delegations = delegations(top.remove("delegations"), bins, root);
        top.insert("delegations".into(), delegations);
        let previous = committed.and_then(|set| set.version(Role::Targets)).unwrap_or(0);
        let file = self.targets_file(Role::Targets.file(), previous, top, &Entries::new(), terms, sign)?;
        offered.listed.insert(Role::Targets.file().to_owned(), json!({"version": file.version}));
        offered.files.push(file);
        Ok(offered)
    }

    /// One targets file: `rest` is what else it says.
    fn targets_file(
        &self,
        name: &str,
        previous: u32,
        mut rest: Map<String, Value>,
        entries: &Entries,
        terms: &Terms,
        sign: &mut SignTargets<'_>,
    ) -> Result<SignedFile, RepositoryError> {
        let version = self.next_version(name, previous, terms)?;
        let expires = terms.expiries.at(KeyRole::Targets, terms.now);
        let date = utc::format(expires).ok_or_else(|| {
            RepositoryError::OutOfRange(format!("{name} would expire {} s after 1970, beyond the year 9999", expires.0))
        })?;
        rest.insert("_type".into(), json!(Role::Targets.name()));
        rest.insert("spec_version".into(), json!("1.0"));
        rest.insert("version".into(), json!(version));
        rest.insert("expires".into(), json!(date));
        if name == Role::Targets.file() {
            rest.insert("custom".into(), json!({"fuchsia_spec_version": 1}));
        }
        sign(name.to_owned(), version, sign_targets::write(&rest, entries)?)
    }

    /// The entries of what is committed, with all that they say.
    pub fn entries(&self, committed: &TrustedSet) -> Result<Entries, RepositoryError> {
        let mut entries = self.entries_in(&self.signed_part(committed, Role::Targets)?)?;
        if let Some(bins) = profile::bins_of(committed) {
            let set = self.with_all_bins(committed.clone(), &BTreeMap::new())?;
            for bin in 0..bins.count() {
                entries.extend(self.bin(&set, &bins.role(bin))?.1);
            }
        }
        Ok(entries)
    }

    fn entries_in(&self, signed: &Map<String, Value>) -> Result<Entries, RepositoryError> {
        let listed = signed.get("targets").and_then(Value::as_object);
        let listed = listed.ok_or_else(|| self.damaged("a targets file has no targets"))?;
        let entry = |(name, description): (&String, &Value)| {
            let parsed = name.parse::<TargetName>();
            let parsed = parsed.map_err(|error| self.damaged(&format!("target {name:?}: {error}")))?;
            Ok((parsed, Entry::of(description)?))
        };
        listed.iter().map(entry).collect()
    }

    /// What a verified bin says: all of it, and its targets.
    pub fn bin(&self, set: &TrustedSet, role: &RoleName) -> Result<(Map<String, Value>, Entries), RepositoryError> {
        let missing = || self.damaged(&format!("{} is not what the snapshot lists", role.file()));
        let name = role.file();
        let held = set.delegated(role).and_then(|_| set.files().find(|(file, _)| *file == name));
        let signed = held.and_then(|(_, bytes)| roles::signed_part(bytes)).ok_or_else(missing)?;
        let entries = self.entries_in(&signed)?;
        Ok((signed, entries))
    }

    /// The set with the bin that `name` falls into, verified; read from `drafts` or here.
    pub fn search(
        &self,
        set: TrustedSet,
        name: &TargetName,
        drafts: &BTreeMap<DocumentName, Bytes>,
        now: UnixSeconds,
    ) -> Result<TrustedSet, RepositoryError> {
        let mut search = Search::start(set, name.clone(), now);
        while let Step::Want(want) = search.next() {
            let found = self.read_served(&want.name, want.bytes_max, drafts)?;
            search.supply(found.map_or(Answer::NotFound, Answer::Found)).map_err(|e| self.at(e))?;
        }
        Ok(search.finish().map_err(|e| self.at(e))?.0)
    }

    /// The set with every bin, each verified.
    pub fn with_all_bins(
        &self,
        set: TrustedSet,
        drafts: &BTreeMap<DocumentName, Bytes>,
    ) -> Result<TrustedSet, RepositoryError> {
        with_all_bins(set, &mut |name, bytes_max| self.read_served(name, bytes_max, drafts), &|reason| {
            self.damaged(reason)
        })
    }

    /// Runs what was drafted through the client: `set` is what it has after a refresh.
    pub fn check_offered(
        &self,
        mut set: TrustedSet,
        offered: &Offered,
        drafts: &BTreeMap<DocumentName, Bytes>,
        now: UnixSeconds,
    ) -> Result<TrustedSet, RepositoryError> {
        if offered.all_bins {
            set = self.with_all_bins(set, drafts)?;
        }
        let bins = profile::bins_of(&set);
        for (bin, name) in &offered.touched {
            set = self.search(set, name, drafts, now)?;
            let held = bins.is_some_and(|bins| set.delegated(&bins.role(*bin)).is_some());
            if offered.reached && !held {
                return Err(RepositoryError::Ceremony(format!(
                    "whoever looks for a target in the hash bin {bin} is led elsewhere by targets.json"
                )));
            }
        }
        Ok(set)
    }

    fn read_served(
        &self,
        file: &str,
        bytes_max: u64,
        drafts: &BTreeMap<DocumentName, Bytes>,
    ) -> Result<Option<Bytes>, RepositoryError> {
        let name = layout::metadata(file)?;
        match drafts.get(&name) {
            Some(bytes) => Ok(Some(bytes.clone())),
            None => self.read(&name, bytes_max),
        }
    }
}

/// The set with every bin that its targets delegate to, read with `read` and verified; the same set if there are none.
pub(crate) fn with_all_bins(
    set: TrustedSet,
    read: &mut ReadFile<'_>,
    damaged: &dyn Fn(&str) -> RepositoryError,
) -> Result<TrustedSet, RepositoryError> {
    let Some(bins) = profile::bins_of(&set) else { return Ok(set) };
    let Some(snapshot) = set.snapshot() else { return Ok(set) };
    let mut files: Vec<(String, Bytes)> = set.files().map(|(name, bytes)| (name.into_owned(), bytes.clone())).collect();
    let held: BTreeSet<String> = files.iter().map(|(name, _)| name.clone()).collect();
    for bin in 0..bins.count() {
        let role = bins.role(bin);
        if held.contains(&role.file()) {
            continue;
        }
        let meta = snapshot.meta().get(&role.listed_as());
        let version = meta.map(|meta| meta.version);
        let version = version.ok_or_else(|| damaged(&format!("the snapshot does not list {}", role.listed_as())))?;
        let numbered = set.root().consistent_snapshot();
        let name = if numbered { role.numbered_file(version) } else { role.file() };
        let bytes = read(&name, Role::Targets.bytes_max())?;
        files.push((role.file(), bytes.ok_or_else(|| damaged(&format!("{name} is missing")))?));
    }
    let refused = |error: colibri_metadata::MetadataError| damaged(&error.to_string());
    let loaded = TrustedSet::load(files).map_err(refused)?;
    if let Some(error) = loaded.set_aside().first() {
        return Err(damaged(&error.to_string()));
    }
    let lost = (0..bins.count()).map(|bin| bins.role(bin)).find(|role| loaded.delegated(role).is_none());
    match lost {
        Some(role) => Err(damaged(&format!("{} is not the version that the snapshot lists", role.file()))),
        None => Ok(loaded),
    }
}

/// All targets of a set: those at the top and those in the bins that it holds.
pub(crate) fn targets_of(set: &TrustedSet) -> impl Iterator<Item = (TargetName, TargetDescription)> + '_ {
    let bins = profile::bins_of(set);
    let held = bins.into_iter().flat_map(|bins| (0..bins.count()).map(move |bin| bins.role(bin)));
    let binned = held.filter_map(|role| set.delegated(&role));
    set.targets().into_iter().chain(binned).flat_map(|targets| targets.iter())
}

/// Targets that a set leaves to delegated roles other than bins, as far as it holds these and a search leads there. What the
/// role `rollout` says is none of them.
pub(crate) fn targets_elsewhere(set: &TrustedSet) -> impl Iterator<Item = (TargetName, TargetDescription)> + '_ {
    let other = |name: &RoleName| !Bins::is_bin(name.as_str()) && name.as_str() != KeyRole::Rollout.name();
    let others = set.delegated_roles().filter(move |(name, _)| other(name));
    others.flat_map(|(_, role)| role.iter()).filter(|(name, target)| set.find(name).as_ref() == Some(target))
}

/// What the role `rollout` says where it is asked, as far as a set holds it.
pub(crate) fn rollouts_of(set: &TrustedSet) -> impl Iterator<Item = (TargetName, TargetDescription)> + '_ {
    let roles = set.delegated_roles().filter(|(name, _)| name.as_str() == KeyRole::Rollout.name());
    roles.flat_map(|(_, role)| role.iter()).filter(|(name, target)| set.find(name).as_ref() == Some(target))
}

/// Whether all targets lie in the bins, and these are delegated to the keys that sign targets under `root`.
fn bins_are_as_ours(committed: &TrustedSet, root: &Root) -> bool {
    let top = committed.targets().filter(|top| top.is_empty());
    let delegations = top.and_then(Targets::delegations);
    let bin = delegations.and_then(|to| to.roles().iter().find(|role| Bins::is_bin(role.name.as_str())));
    bin.is_some_and(|bin| bin.keys == *root.role_keys(Role::Targets))
}

/// `delegations` with the bins last, since they cover everything, under the keys that sign targets.
fn delegations(previous: Option<Value>, bins: Bins, root: &Root) -> Value {
    let wanted = root.role_keys(Role::Targets);
    let mut previous = match previous {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut roles = match previous.remove("roles") {
        Some(Value::Array(roles)) => roles,
        _ => Vec::new(),
    };
    let name = |role: &Value| role.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    roles.retain(|role| !Bins::is_bin(&name(role)));
    let used: BTreeSet<String> = roles
        .iter()
        .filter_map(|role| role.get("keyids")?.as_array())
        .flatten()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    let mut keys = match previous.remove("keys") {
        Some(Value::Object(keys)) => keys,
        _ => Map::new(),
    };
    keys.retain(|id, _| used.contains(id));
    for id in &wanted.key_ids {
        if let Some(key) = root.keys().get(id) {
            keys.insert(id.to_string(), key.to_json());
        }
    }
    let ids: Vec<&str> = wanted.key_ids.iter().map(colibri_metadata::KeyId::as_str).collect();
    roles.extend(bins.to_json(&ids, wanted.threshold));
    json!({ "keys": keys, "roles": roles })
}
