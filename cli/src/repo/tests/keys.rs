//! Keys, ceremonies and the audit log from the command line.

use super::*;

/// The words of a failure.
fn refused(arguments: &[&str]) -> String {
    repo(arguments).0.unwrap_err().to_string()
}

#[test]
fn keys_are_encrypted_unless_somebody_says_otherwise() {
    let dir = Fixture::new(&[]);
    let path = dir.path("repo");
    let said = refused(&["create", text(&path)]);
    for way in ["COLIBRI_KEY_PASSPHRASE", "--passphrase-file", "terminal", "--dev"] {
        assert!(said.contains(way), "{said}");
    }
    dir.write("passphrase", b"correct horse\n");
    let passphrase = dir.path("passphrase");
    done(&["create", "--passphrase-file", text(&passphrase), "--compat-expiry", text(&path)]);
    assert!(std::fs::read_to_string(path.join("keys/root.pem")).unwrap().contains("ENCRYPTED PRIVATE KEY"));
    let said = refused(&["publish", text(&path)]);
    assert!(said.contains("targets.pem") && !said.contains("horse"), "{said}");
    done(&["publish", "--passphrase-file", text(&passphrase), "--reason", "nothing new", text(&path)]);
    let status = done_json(&["status", "--json", text(&path)]);
    let roles: Vec<_> = status.as_array().unwrap().iter().map(|role| role["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["root", "targets", "snapshot", "timestamp"]);
    assert!(status.as_array().unwrap().iter().all(|role| role["can_sign"] == true && role["keys_here"] == 1));
    assert_eq!(status[3]["version"], 2);
    let table = done(&["status", text(&path)]);
    assert!(table.contains("1 of 1") && table.contains("SIGN AGAIN"), "{table}");
    let shown = done(&["audit", "show", text(&path)]);
    assert!(shown.contains("nothing new") && shown.contains("timestamp 2"), "{shown}");
    assert!(done(&["audit", "verify", text(&path)]).contains("lines;"));
}

#[test]
fn a_release_and_a_root_are_signed_elsewhere() {
    let desk = Desk::new();
    let repository = desk.repository.as_str();
    let alice = desk.dir.path("alice");
    std::fs::create_dir(&alice).unwrap();
    for key in ["root.pem", "targets.pem"] {
        std::fs::rename(desk.dir.path("repo/keys").join(key), alice.join(key)).unwrap();
    }
    let (alice, file) = (text(&alice).to_owned(), desk.dir.path("targets.json"));
    let a = desk.package("a", &[("file", b"a")]);
    assert!(refused(&["publish", repository, "--package", &a]).contains("private keys"));
    done(&["publish", "--level", "1", repository, "--package", &a, "--export-targets", text(&file)]);
    assert!(refused(&["targets", "import", repository, text(&file)]).contains("signatures"));
    assert!(done(&["targets", "sign", "--show", text(&file)]).contains("not enough yet"));
    let said = done(&["targets", "sign", "--signing-keys", &alice, text(&file)]);
    assert!(said.contains("a/0") && said.contains("1 of 1 needed signatures, enough"), "{said}");
    assert!(desk.names().is_empty());
    done(&["targets", "import", repository, text(&file)]);
    assert_eq!(desk.names(), ["a/0"]);
    assert!(refused(&["root", "import", repository, text(&file)]).contains("file of targets"));
    // Bob gets a root key too; his private key stays with him.
    let bob = desk.dir.path("root.bob.pem");
    assert!(done(&["keys", "new", "--dev", text(&bob)]).contains("BEGIN PUBLIC KEY"));
    assert!(refused(&["keys", "add", repository, "root", text(&bob)]).contains("private keys"));
    let file = desk.dir.path("root.json");
    done(&["keys", "add", "--export", text(&file), repository, "root", text(&bob)]);
    done(&["root", "sign", "--signing-keys", &alice, text(&file)]);
    assert!(done(&["root", "import", repository, text(&file)]).contains("root 2"));
    let keys = done_json(&["keys", "list", "--json", repository]);
    let of_root = keys.as_array().unwrap().iter().filter(|key| key["role"] == "root");
    assert_eq!(of_root.filter(|key| key["here"].is_null()).count(), 2, "{keys}");
    // Online keys are replaced with the root keys at hand.
    let said = done(&[
        "keys",
        "rotate",
        "--dev",
        "--signing-keys",
        text(&desk.dir.path("repo/keys")),
        repository,
        "timestamp",
        "--export",
        text(&file),
    ]);
    assert!(said.contains("timestamp gets key") && said.contains("timestamp loses key"), "{said}");
    done(&["root", "sign", "--signing-keys", &alice, text(&file)]);
    done(&["root", "import", repository, text(&file)]);
    assert!(done(&["audit", "verify", repository]).contains("lines;"));
    assert!(refused(&["keys", "revoke", repository, "timestamp", "00"]).contains("no key"));
    assert!(refused(&["keys", "threshold", repository, "root=3"]).contains("3 signatures"));
}

#[test]
fn a_cut_log_fails_the_check_until_somebody_says_why() {
    let desk = Desk::new();
    desk.publish(&[]);
    std::fs::remove_dir_all(desk.dir.path("repo/audit")).unwrap();
    let (outcome, said) = repo(&["audit", "verify", &desk.repository]);
    assert!(outcome.unwrap() == ExitCode::FAILURE && said.contains("WRONG"), "{said}");
    assert!(refused(&["audit", "admit", &desk.repository]).contains("reason"));
    done(&["audit", "admit", "--reason", "the disk was lost", &desk.repository]);
    let report = done_json(&["audit", "verify", "--json", &desk.repository]);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");
}

#[test]
fn rollouts_choose_among_what_is_offered() {
    let desk = Desk::new();
    let repository = desk.repository.as_str();
    let a = desk.package("a", &[("file", b"a")]);
    desk.publish(&["--package", &a]);
    let list: Value = serde_json::from_str(&desk.packages(&["--json"])).unwrap();
    let put = |name: &str, hash: &str| {
        desk.dir.write(name, format!("{{\"releases\": [\"{hash}\"], \"share\": 5}}").as_bytes());
        let file = desk.dir.path(name).display().to_string();
        repo(&["rollout", "put", repository, name, &file]).0.map_err(|error| error.to_string())
    };
    assert!(put("early", list[0]["hash"].as_str().unwrap()).unwrap_err().contains("rollout enable"));
    assert!(done(&["rollout", "enable", "--dev", repository]).contains("alone"));
    put("spring", list[0]["hash"].as_str().unwrap()).unwrap();
    assert!(put("bad", &"ab".repeat(32)).unwrap_err().contains("not listed"));
    assert_eq!(done(&["rollout", "list", repository]), "spring\n");
    assert!(done(&["status", repository]).contains("rollout"));
    done(&["rollout", "remove", repository, "spring"]);
    assert_eq!(done_json(&["rollout", "list", "--json", repository]), serde_json::json!([]));
    assert_eq!(desk.names(), ["a/0"]);
}
