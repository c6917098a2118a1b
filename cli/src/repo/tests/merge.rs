//! `repo merge`: packages of several repositories in one, conflicts by name.

use super::*;

#[test]
fn packages_of_several_repositories_are_offered_by_one() {
    let [one, two] = [Desk::new(), Desk::new()];
    let a = one.package("a", &[("file", b"a")]);
    one.publish(&["--package", &a]);
    let b = two.package("b", &[("file", b"b")]);
    let other_a = two.package("a", &[("file", b"another")]);
    two.publish(&["--package", &b]);
    let out = one.dir.path("all");
    let names = || {
        let list = done_json(&["package", "list", "--json", "--repo-path", text(&out)]);
        let name = |package: &Value| (package["name"].to_string(), package["hash"].to_string());
        list.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    let report = done_json(&["merge", "--json", "-o", text(&out), &one.repository, &two.repository]);
    assert_eq!((&report["packages"], &report["blobs_new"]), (&2.into(), &4.into()), "{report}");
    done(&["verify", text(&out)]);
    assert_eq!(names().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["\"a/0\"", "\"b/0\""]);
    // One name, two packages: both are named, and nothing has changed.
    two.publish(&["--package", &other_a]);
    let before = names();
    let error = repo(&["merge", "-o", text(&out), &two.repository]).0.unwrap_err().to_string();
    assert!(error.contains("a/0: ") && error.contains(&two.repository), "{error}");
    assert_eq!(names(), before);
    done(&["merge", "--prefer", "first", "-o", text(&out), &two.repository]);
    assert_eq!(names(), before);
    done(&["merge", "--prefer", "last", "-o", text(&out), &two.repository]);
    assert!(names()[0] != before[0] && names()[1] == before[1]);
    done(&["verify", text(&out)]);
}
