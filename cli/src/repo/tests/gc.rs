//! `repo gc` and `repo pins`.

use serde_json::json;

use super::{Desk, done, done_json, repo};
use crate::repo::ExitCode;

#[test]
fn what_is_offered_no_longer_goes_unless_it_is_pinned() {
    let desk = Desk::new();
    let first = desk.package("hello", &[("data/x", b"one")]);
    done(&["publish", "--package", &first, &desk.repository]);
    let pinned =
        done(&["pins", "add", "first", "--owner", "me", "--reason", "shipped", "--package", "hello", &desk.repository]);
    assert_eq!(pinned, "first keeps 1 hashes\n");
    let second = desk.package("hello", &[("data/x", b"two")]);
    done(&["publish", "--package", &second, &desk.repository]);
    let gc = |more: &[&str]| {
        let words = [&["gc", "--keep-sets", "1", "--grace-hours", "0", "--json"], more, &[&desk.repository]].concat();
        done_json(&words)
    };
    assert_eq!(gc(&[])["blobs_removed"], 0);
    let list = done_json(&["pins", "list", "--json", &desk.repository]);
    assert_eq!((&list[0]["owner"], &list[0]["reason"]), (&json!("me"), &json!("shipped")));
    assert!(done(&["pins", "list", &desk.repository]).contains("shipped"));
    assert_eq!(done(&["pins", "remove", "first", &desk.repository]), "first removed\n");
    assert_eq!(repo(&["pins", "remove", "first", &desk.repository]).0.unwrap(), ExitCode::FAILURE);
    let promised = gc(&["--dry-run"]);
    let report = gc(&[]);
    assert!(report["blobs_removed"].as_u64() > Some(0), "{report}");
    assert_eq!(report["bytes_removed"], promised["bytes_removed"]);
    assert!(done(&["gc", &desk.repository]).starts_with("0 blobs removed, "));
    done(&["verify", &desk.repository]);
}
