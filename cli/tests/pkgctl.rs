//! The program under its other name, the one that people know from devices.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const RULES: &str = r#"{"version":"1","content":[{"host_match":"fuchsia.com","host_replacement":"devhost",
    "path_prefix_match":"/","path_prefix_replacement":"/"}]}"#;

fn pkgctl(dir: &Path, arguments: &[&str]) -> Output {
    let program = dir.join("pkgctl");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_colibri"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.env_remove("COLIBRI_DEVICE_DIR").current_dir(dir).args(arguments);
    command.output().unwrap()
}

#[test]
fn the_verbs_of_a_device_without_a_word_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = pkgctl(dir.path(), arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for verb in ["resolve", "open", "get-hash", "pkg-status", "repo", "rule", "gc"] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
    }
    assert!(help.contains("Usage: pkgctl "), "{help}");
    let (code, _, error) = run(&["repo"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("there is no device in ./colibri-device"), "{error}");
    assert_eq!(run(&["rule", "replace", "json", RULES]), (Some(0), String::new(), String::new()));
    let (code, listed, _) = run(&["rule", "list"]);
    assert!(code == Some(0) && listed.contains("host_replacement: \"devhost\""), "{listed}");
    let (code, _, error) = run(&["device", "repo"]);
    assert!(code == Some(2) && error.contains("unrecognized subcommand 'device'"), "{error}");
    // What a resolve is about is in the log, for those who want to see it.
    let (code, out, error) = run(&["--log", "resolve", "fuchsia-pkg://fuchsia.com/app"]);
    assert_eq!((code, &*out), (Some(1), "resolving fuchsia-pkg://fuchsia.com/app\n"));
    let as_what = "fuchsia-pkg://fuchsia.com/app as fuchsia-pkg://devhost/app with TUF";
    // Beside it goes how far it is.
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("[pkg-resolver] ")).collect();
    assert_eq!(lines[0], format!("[pkg-resolver] INFO: attempting to resolve {as_what}"));
    assert!(
        lines[1].starts_with(&format!("[pkg-resolver] INFO: failed to resolve {as_what}: RepoNotFound: ")),
        "{error}"
    );
}
