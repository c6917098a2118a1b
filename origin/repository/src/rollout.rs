//! The delegated role `rollout`: its own online key, documents under `rollout/*`, and nothing else.
//!
//! Targets delegates `rollout/*` to it, terminating: whoever looks for such a name asks this role and no other, and whoever
//! looks for another name never asks it. Its documents refer to releases; before one is signed here, and on every device before
//! one is followed, [`check_references`] refuses what the top-level targets role does not list. So a stolen rollout key chooses
//! among releases and introduces none. Deliberately absent: what the other fields of a document mean (the authority).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{RoleKeys, RoleName, TargetName, Targets, TrustedSet, canonical, utc};
use colibri_release::{ListedPackages, check_references};
use serde_json::{Map, Value, json};

use crate::audit::Pending;
use crate::ceremony::Ceremony;
use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::keys::{KeyForm, KeyRing, KeyRole, ListedKey};
use crate::metadata::{MetadataFolder, NEVER_EXPIRED, Terms};
use crate::named_targets::{ExtraTarget, NamedTargets, target_name};
use crate::offer::Offer;
use crate::repository::{Repository, Versions};
use crate::roles::{self, SignedFile};
use crate::sign_targets::{self, Entries};

/// What it may sign.
const PATHS: &str = "rollout/*";

/// A name that only it may sign, to find its file.
const ANY: &str = "rollout/-";

fn role() -> Result<RoleName, RepositoryError> {
    KeyRole::Rollout.name().parse().map_err(|error| RepositoryError::Rollout(format!("{error}")))
}

/// The name of the target of a rollout.
fn name_of(name: &str) -> Result<TargetName, RepositoryError> {
    if name.contains('/') {
        return Err(RepositoryError::Rollout(format!("{name:?} is not the name of a rollout: it has a slash")));
    }
    target_name(&format!("{}/{name}", KeyRole::Rollout))
}

/// `previous` with the role before all others, under these keys.
pub(crate) fn delegations(previous: Option<&Value>, keys: &[ListedKey], threshold: u32) -> Value {
    let part = |name: &str| previous.and_then(|previous| previous.get(name)).cloned();
    let mut roles = match part("roles") {
        Some(Value::Array(roles)) => roles,
        _ => Vec::new(),
    };
    roles.retain(|role| role.get("name").and_then(Value::as_str) != Some(KeyRole::Rollout.name()));
    let mut listed = match part("keys") {
        Some(Value::Object(listed)) => listed,
        _ => Map::new(),
    };
    let still: Vec<&Value> = roles.iter().filter_map(|role| role.get("keyids")?.as_array()).flatten().collect();
    listed.retain(|id, _| still.iter().any(|known| known.as_str() == Some(id)));
    let mut ids: Vec<_> = keys.iter().map(ListedKey::id).collect();
    ids.sort();
    let rollout = json!({
        "name": KeyRole::Rollout.name(), "keyids": ids, "threshold": threshold, "terminating": true, "paths": [PATHS],
    });
    listed.extend(keys.iter().map(|key| (key.id().as_str().to_owned(), key.to_json())));
    roles.insert(0, rollout);
    json!({"keys": listed, "roles": roles})
}

impl MetadataFolder {
    /// The keys that targets names for the role; none if there is no such role.
    pub fn rollout_keys(&self, committed: &TrustedSet) -> Result<Option<RoleKeys>, RepositoryError> {
        let delegations = committed.targets().and_then(Targets::delegations);
        Ok(match delegations {
            Some(delegations) => delegations.role_keys(&role()?).cloned(),
            None => None,
        })
    }

    /// The set with the role's file, verified; without it if there is none yet.
    pub fn with_rollout(&self, committed: &TrustedSet, now: UnixSeconds) -> Result<TrustedSet, RepositoryError> {
        let listed = committed.snapshot().is_some_and(|snapshot| snapshot.meta().contains_key("rollout.json"));
        if !listed || self.rollout_keys(committed)?.is_none() {
            return Ok(committed.clone());
        }
        self.search(committed.clone(), &target_name(ANY)?, &BTreeMap::new(), now)
    }

    /// The role's file after `offer`, signed by `keys`.
    pub fn draft_rollout(
        &self,
        committed: &TrustedSet,
        offer: &Offer,
        wanted: &RoleKeys,
        terms: &Terms,
        keys: &KeyRing,
        pending: &mut Pending,
    ) -> Result<SignedFile, RepositoryError> {
        let role = role()?;
        let set = self.with_rollout(committed, NEVER_EXPIRED)?;
        let (mut entries, previous) = match set.delegated(&role) {
            Some(held) => (self.bin(&set, &role)?.1, held.version()),
            None => (Entries::new(), 0),
        };
        offer.apply(&mut entries)?;
        let version = self.next_version(&role.file(), previous, terms)?;
        let expires = terms.expiries.at(KeyRole::Rollout, terms.now);
        let date = utc::format(expires);
        let date =
            date.ok_or_else(|| RepositoryError::OutOfRange("rollout would live beyond the year 9999".to_owned()))?;
        let rest = json!({"_type": "targets", "spec_version": "1.0", "version": version, "expires": date});
        let Value::Object(rest) = rest else { return Err(self.damaged("a role is an object")) };
        let signers = keys.enough(KeyRole::Rollout, wanted)?;
        let file = roles::sign_written(role.file(), version, &sign_targets::write(&rest, &entries)?, &signers)?;
        pending.record("sign", KeyRole::Rollout, &file)?;
        Ok(file)
    }

    /// Runs a drafted role through the client.
    pub fn check_rollout(
        &self,
        set: TrustedSet,
        drafts: &BTreeMap<colibri_store::DocumentName, Bytes>,
        now: UnixSeconds,
    ) -> Result<TrustedSet, RepositoryError> {
        self.search(set, &target_name(ANY)?, drafts, now)
    }
}

impl Repository {
    /// Gives the role `rollout` one new key, made in the folder of keys, and forgets the ones before: for the first time, and
    /// whenever a key is lost or stolen. What the role said stays.
    ///
    /// # Errors
    /// The keys of targets, snapshot or timestamp are not here; see [`Self::export_rollout_key`].
    pub fn enable_rollout(&self, form: KeyForm, now: UnixSeconds) -> Result<ListedKey, RepositoryError> {
        let committed = self.metadata.committed()?;
        self.keys.signers(committed.root(), colibri_metadata::Role::Targets)?;
        let key = self.keys.generate(KeyRole::Rollout, form)?;
        self.transact(&self.terms(now, false), &Pass::plain(now), &mut |_| {
            let offer = Offer { rollout_keys: vec![key.clone()], ..Offer::default() };
            Ok(Change { targets: TargetsChange::Offer(offer), rollout: Some(Offer::default()), ..Change::default() })
        })?;
        Ok(key)
    }

    /// The next targets, unsigned, which give the role `rollout` this key alone; for people who hold the targets key elsewhere.
    ///
    /// # Errors
    /// The metadata is damaged, or its profile does not allow it.
    pub fn export_rollout_key(&self, key: &ListedKey, now: UnixSeconds) -> Result<Ceremony, RepositoryError> {
        let offer = Offer { rollout_keys: vec![key.clone()], ..Offer::default() };
        self.targets_ceremony(&self.metadata.committed()?, &offer, &self.terms(now, false))
    }

    /// Offers a rollout under `rollout/NAME`, instead of one of that name if there is one.
    ///
    /// # Errors
    /// The document refers to something that targets does not list, is no such document, or a key is not here.
    pub fn put_rollout(&self, name: &str, document: &[u8], now: UnixSeconds) -> Result<Versions, RepositoryError> {
        let target = name_of(name)?;
        let value = canonical::parse(document).map_err(|e| RepositoryError::Rollout(format!("{name}: {e}")))?;
        roles::check_text(&value).map_err(|reason| RepositoryError::Rollout(format!("{name}: {reason}")))?;
        let content = Bytes::copy_from_slice(document);
        self.transact(&self.terms(now, false), &Pass::plain(now), &mut |head| {
            let custom = self.check_rollout_document(&head.set, name, document)?;
            let mut named = NamedTargets::default();
            named.extra(&ExtraTarget { name: target.to_string(), content: content.clone(), custom })?;
            self.blobs.put_targets(&named.files)?;
            Ok(Change { rollout: Some(Offer { put: named.entries, ..Offer::default() }), ..Change::default() })
        })
    }

    /// Offers a rollout no longer.
    ///
    /// # Errors
    /// There is none of that name, or a key is not here.
    pub fn remove_rollout(&self, name: &str, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        let target = name_of(name)?;
        self.transact(&self.terms(now, false), &Pass::plain(now), &mut |_| {
            let remove = [target.clone()].into();
            Ok(Change { rollout: Some(Offer { remove, ..Offer::default() }), ..Change::default() })
        })
    }

    /// Names of the rollouts that are offered.
    ///
    /// # Errors
    /// The metadata is damaged.
    pub fn rollouts(&self) -> Result<Vec<String>, RepositoryError> {
        let set = self.metadata.with_rollout(&self.metadata.committed()?, NEVER_EXPIRED)?;
        let held = set.delegated(&role()?);
        let names = held.into_iter().flat_map(|held| held.iter());
        Ok(names.filter_map(|(name, _)| Some(name.as_str().split_once('/')?.1.to_owned())).collect())
    }

    /// The role's keys and file, if there are both.
    pub(crate) fn rollout_in(&self, committed: &TrustedSet) -> Result<Option<(RoleKeys, Targets)>, RepositoryError> {
        let Some(keys) = self.metadata.rollout_keys(committed)? else { return Ok(None) };
        let set = self.metadata.with_rollout(committed, NEVER_EXPIRED)?;
        Ok(set.delegated(&role()?).map(|held| (keys, held.clone())))
    }

    /// Checks that every release that a rollout refers to is listed by targets: the role at the top, and the bins that share
    /// its keys. What `rollout` itself lists does not count. Gives what is said beside the document: where in the bins readers
    /// find what the role at the top does not list itself.
    fn check_rollout_document(
        &self,
        set: &TrustedSet,
        name: &str,
        document: &[u8],
    ) -> Result<Option<Value>, RepositoryError> {
        let top = set.targets().into_iter().flat_map(Targets::iter);
        let top: BTreeSet<BlobId> = top.filter_map(|(_, target)| target.merkle()).collect();
        let whole = self.metadata.with_all_bins(set.clone(), &BTreeMap::new())?;
        let listed = ListedPackages::of(&whole, NEVER_EXPIRED);
        let rollout = check_references(document, |hash| listed.contains(hash))
            .map_err(|error| RepositoryError::Rollout(format!("{name}: {error}")))?;
        let binned = rollout.releases().iter().filter(|hash| !top.contains(hash));
        let hints = binned.filter_map(|hash| Some((hash.to_string(), json!(listed.name_of(*hash)?.as_str()))));
        let hints: Map<String, Value> = hints.collect();
        Ok((!hints.is_empty()).then(|| json!({ "releases": hints })))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use colibri_metadata::{Answer, Found, Search, Start, Step, TrustAnchor, Update};
    use colibri_release::{Rollout, RolloutError};

    use super::*;
    use crate::test_desk::{NOW, of_archive};
    use crate::{CreateOptions, Profile};

    struct Scene {
        desk: crate::test_desk::Desk,
        repository: Repository,
        listed: colibri_common::BlobId,
    }

    fn scene(profile: Profile) -> Scene {
        let desk = crate::test_desk::Desk::new();
        let options = CreateOptions { profile, ..CreateOptions::new(NOW) };
        let repository = Repository::create(&desk.dir.path().join("repo"), options).unwrap();
        repository.publish(&of_archive(desk.archive(1))).unwrap();
        let listed = repository.package("hello").unwrap().hash;
        Scene { desk, repository, listed }
    }

    fn read(repository: &Repository, name: &str) -> Answer {
        fs::read(repository.served_dir().join(name)).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.into()))
    }

    /// What a device finds under `name`: who says it, and the document.
    fn device(repository: &Repository, name: &str) -> Option<(Found, Vec<u8>, TrustedSet)> {
        let anchor = TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap());
        let mut update = Update::start(Start::FromAnchor(anchor), NOW);
        while let Step::Want(want) = update.next() {
            update.supply(read(repository, &want.name)).unwrap();
        }
        let mut search = Search::start(update.finish().unwrap(), name.parse().unwrap(), NOW);
        while let Step::Want(want) = search.next() {
            search.supply(read(repository, &want.name)).unwrap();
        }
        let (set, found) = search.finish().unwrap();
        let found = found?;
        let sha512 = colibri_common::hex(found.target.hashes.sha512.as_ref().unwrap());
        let (folder, file) = name.rsplit_once('/').unwrap();
        let path = repository.served_dir().join(format!("targets/{folder}/{sha512}.{file}"));
        Some((found, fs::read(path).unwrap(), set))
    }

    fn document(hash: colibri_common::BlobId) -> Vec<u8> {
        serde_json::to_vec_pretty(&json!({"releases": [hash], "share": 5})).unwrap()
    }

    fn follow(document: &[u8], set: &TrustedSet) -> Result<Rollout, RolloutError> {
        let listed = ListedPackages::of(set, NOW);
        check_references(document, |hash| listed.contains(hash))
    }

    #[test]
    fn a_rollout_refers_to_what_targets_lists() {
        let Scene { repository, listed, desk: _desk } = scene(Profile::Compat);
        assert!(repository.put_rollout("spring", &document(listed), NOW).is_err(), "there is no such role yet");
        repository.enable_rollout(KeyForm::Plain, NOW).unwrap();
        repository.put_rollout("spring", &document(listed), NOW).unwrap();
        assert_eq!(repository.rollouts().unwrap(), ["spring"]);
        let (found, text, _) = device(&repository, "rollout/spring").unwrap();
        assert_eq!(found.role.unwrap().as_str(), "rollout");
        assert_eq!(text, document(listed));
        // The rest goes on as before.
        assert_eq!(repository.package("hello").unwrap().hash, listed);
        let unlisted = colibri_common::merkle::build(b"unlisted").id;
        for bad in [
            document(unlisted),
            b"{}".to_vec(),
            br#"{"releases":[],"x":1.5}"#.to_vec(),
            br#"{"releases":[],"x":"\u0007"}"#.to_vec(),
        ] {
            let error = repository.put_rollout("bad", &bad, NOW).unwrap_err();
            assert!(matches!(error, RepositoryError::Rollout(_)), "{error}");
        }
        assert!(repository.put_rollout("a/b", &document(listed), NOW).is_err());
        // A new key takes the place of the old one, and what was said stays.
        let old = repository.metadata().unwrap();
        repository.enable_rollout(KeyForm::Plain, NOW).unwrap();
        assert_ne!(
            repository.metadata.rollout_keys(&old).unwrap(),
            repository.metadata.rollout_keys(&repository.metadata().unwrap()).unwrap()
        );
        assert!(device(&repository, "rollout/spring").is_some());
        repository.remove_rollout("spring", NOW).unwrap();
        assert!(device(&repository, "rollout/spring").is_none() && repository.rollouts().unwrap().is_empty());
        let report = repository.audit_verify().unwrap();
        assert!(report.is_good(), "{report:?}");
    }

    #[test]
    fn a_stolen_rollout_key_introduces_no_hash() {
        for profile in [Profile::Compat, Profile::Scale] {
            let Scene { repository, desk, listed } = scene(profile);
            repository.enable_rollout(KeyForm::Plain, NOW).unwrap();
            // The thief has all online keys, and signs past the origin's own check: an unlisted release, and the same release as
            // a target of its own, in its role and outside of its paths.
            desk.build("evil", 9, desk.archive(9));
            let evil = colibri_common::merkle::build(b"evil").id;
            let mut named = NamedTargets::default();
            let extra =
                |name: &str, custom| ExtraTarget { name: name.to_owned(), content: document(evil).into(), custom };
            named.extra(&extra("rollout/evil", None)).unwrap();
            let as_package = Some(json!({"merkle": evil, "size": 4}));
            named.extra(&extra("rollout/package", as_package.clone())).unwrap();
            named.extra(&extra("evil/0", as_package.clone())).unwrap();
            named.extra(&extra("hello/0", as_package)).unwrap();
            let root = repository.metadata().unwrap().root().clone();
            fs::remove_file(repository.dir().join("keys/targets.pem")).unwrap();
            assert!(!repository.keys.can_sign(&root, colibri_metadata::Role::Targets).unwrap());
            repository.blobs.put_targets(&named.files).unwrap();
            let forged = &mut |_: &crate::metadata::Head| {
                let rollout = Some(Offer { put: named.entries.clone(), ..Offer::default() });
                Ok(Change { rollout, ..Change::default() })
            };
            let pass = Pass { because: Some("forged"), ..Pass::plain(NOW) };
            repository.transact(&repository.terms(NOW, false), &pass, forged).unwrap();
            // It is found, genuinely signed; whoever follows it asks what it refers to.
            let (_, text, set) = device(&repository, "rollout/evil").unwrap();
            assert_eq!(follow(&text, &set), Err(RolloutError::NotListed(evil)));
            // Its own word that there is such a package does not count.
            let (_, text, set) = device(&repository, "rollout/package").unwrap();
            assert_eq!(follow(&text, &set), Err(RolloutError::NotListed(evil)));
            // Outside of its paths nobody asks it.
            assert!(device(&repository, "evil/0").is_none(), "{profile}");
            let (found, ..) = device(&repository, "hello/0").unwrap();
            assert_eq!(found.target.merkle(), Some(listed));
        }
    }

    #[test]
    fn the_role_is_signed_again_in_time() {
        let Scene { repository, desk: _desk, .. } = scene(Profile::Compat);
        repository.enable_rollout(KeyForm::Plain, NOW).unwrap();
        let status = repository.status().unwrap();
        assert_eq!(
            status.last().map(|role| (role.role, role.version, role.can_sign)),
            Some((KeyRole::Rollout, 1, true))
        );
        let later = NOW.plus(5 * 86_400);
        assert!(repository.refresh_what_is_due(later).unwrap().contains(&KeyRole::Rollout));
        assert_eq!(repository.status().unwrap().last().unwrap().version, 2);
    }
}
