//! The audit log: what it tells, and that nothing can be taken out of it unnoticed.

use std::fs;
use std::path::PathBuf;

use colibri_metadata::{Role, TrustAnchor};
use colibri_repository::{Act, Repository, RepositoryError};
use serde_json::Value;

use crate::fixture::{Desk, NOW, client, publish_of};

/// A repository with a few signing acts.
fn busy(desk: &Desk) -> Repository {
    let by = Act { by: Some("alice".to_owned()), reason: Some("first release".to_owned()) };
    let repository = desk.repository().with_act(by);
    let package = desk.build("hello", &[], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    repository.refresh(NOW).unwrap();
    repository
}

fn parts(repository: &Repository) -> Vec<PathBuf> {
    let mut parts: Vec<_> =
        fs::read_dir(repository.dir().join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.sort();
    parts
}

fn findings(repository: &Repository) -> String {
    let report = repository.audit_verify().unwrap();
    assert!(!report.is_good(), "{report:?}");
    report.findings.join("\n")
}

#[test]
fn every_act_is_told_with_who_what_when_and_why() {
    let desk = Desk::new();
    let repository = busy(&desk);
    let lines = repository.audit_lines().unwrap();
    let acts: Vec<_> = lines.iter().map(|line| line["role"].as_str().unwrap_or("")).collect();
    assert_eq!(
        acts,
        ["", "root", "targets", "snapshot", "timestamp", "targets", "snapshot", "timestamp", "snapshot", "timestamp"]
    );
    let targets = &lines[5];
    assert_eq!((&targets["by"], &targets["reason"]), (&Value::from("alice"), &Value::from("first release")));
    assert_eq!((&targets["version"], &targets["at"]), (&Value::from(2), &Value::from("2026-01-10T00:00:00Z")));
    let set = repository.metadata().unwrap();
    assert_eq!(targets["keys"][0], set.root().role_keys(Role::Targets).key_ids[0].as_str());
    let report = repository.audit_verify().unwrap();
    assert!(report.is_good() && report.lines == 10 && report.anchors == 4, "{report:?}");
    // Devices read snapshots that name lines.
    client(repository.dir(), TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap()), NOW).unwrap();
}

#[test]
fn lines_cut_off_changed_taken_out_or_moved_are_found() {
    let desk = Desk::new();
    let repository = busy(&desk);
    let all = parts(&repository);
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let texts: Vec<_> = all.iter().map(text).collect();
    let restore = || all.iter().zip(&texts).for_each(|(path, text)| fs::write(path, text).unwrap());
    // The end: the last document, the last line, half of the last line.
    fs::remove_file(all.last().unwrap()).unwrap();
    assert!(findings(&repository).contains("does not have") || findings(&repository).contains("no line tells"));
    restore();
    for cut in [texts[2].trim_end().rfind('\n').unwrap() + 1, texts[2].len() - 20] {
        fs::write(&all[2], &texts[2][..cut]).unwrap();
        findings(&repository);
    }
    restore();
    // Somewhere before.
    fs::remove_file(&all[1]).unwrap();
    assert!(findings(&repository).contains("does not follow"));
    restore();
    fs::write(&all[1], texts[1].replace("first release", "nothing at all")).unwrap();
    findings(&repository);
    let mut moved: Vec<_> = texts[1].lines().collect();
    moved.swap(0, 1);
    fs::write(&all[1], moved.join("\n") + "\n").unwrap();
    findings(&repository);
    restore();
    fs::remove_dir_all(repository.dir().join("audit")).unwrap();
    findings(&repository);
    fs::create_dir(repository.dir().join("audit")).unwrap();
    restore();
    assert!(repository.audit_verify().unwrap().is_good());
    // A whole log written anew, with a chain that holds: every signed snapshot speaks against it.
    let other = tempfile::tempdir().unwrap();
    let rewritten = Repository::create(&other.path().join("r"), colibri_repository::CreateOptions::new(NOW)).unwrap();
    rewritten.refresh(NOW).unwrap();
    rewritten.refresh(NOW).unwrap();
    fs::remove_dir_all(repository.dir().join("audit")).unwrap();
    fs::create_dir(repository.dir().join("audit")).unwrap();
    for path in parts(&rewritten) {
        fs::copy(&path, repository.dir().join("audit").join(path.file_name().unwrap())).unwrap();
    }
    assert!(findings(&repository).contains("names"));
}

#[test]
fn a_loss_stays_visible_until_somebody_says_why_and_signing_goes_on() {
    let desk = Desk::new();
    let repository = busy(&desk);
    fs::remove_file(parts(&repository).last().unwrap()).unwrap();
    // Devices must not go without news because of a log.
    repository.refresh(NOW).unwrap();
    repository.refresh(NOW).unwrap();
    assert!(findings(&repository).contains("nobody has said why"));
    let error = repository.clone().with_act(Act::default()).audit_admit(NOW).unwrap_err();
    assert!(matches!(error, RepositoryError::AuditText(_)), "{error}");
    let because = Act { reason: Some("restored from the backup of Monday".to_owned()), by: None };
    assert_eq!(repository.clone().with_act(because.clone()).audit_admit(NOW).unwrap(), 1);
    let report = repository.audit_verify().unwrap();
    assert!(report.is_good() && report.notices.iter().any(|notice| notice.contains("admitted")), "{report:?}");
    assert!(repository.with_act(because).audit_admit(NOW).is_err(), "nothing is left to admit");
}

#[test]
fn words_that_cannot_be_signed_are_refused_before_anything_is() {
    let desk = Desk::new();
    let repository = busy(&desk);
    let before = repository.versions().unwrap();
    for reason in ["bell \u{7}", "two\nlines"] {
        let act = Act { by: None, reason: Some(reason.to_owned()) };
        let error = repository.clone().with_act(act).refresh(NOW).unwrap_err();
        assert!(matches!(error, RepositoryError::AuditText(_)), "{error}");
    }
    assert_eq!(repository.versions().unwrap(), before);
}
