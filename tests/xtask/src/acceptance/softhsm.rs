//! A timestamp key in a PKCS#11 token (SoftHSM of Debian), used through `deploy/keys/pkcs11-sign.sh` as docs/keys.md says: it
//! replaces the key in a file, signs a publish, and without its PIN nothing is signed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::binary::Binary;
use super::work::{empty_dir, ensure, json, outcome, read, write};
use crate::run::{Failure, command, output, root, run};

/// Debian's.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const PIN: &str = "271828";

/// Plays it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("softhsm")?;
    let repository = dir.join("repository");
    let path = |path: &Path| path.display().to_string();
    make_token(&dir)?;
    let colibri = |arguments: &[&str], pin: &str| {
        let mut command = binary.command(["repo"]);
        command.args(arguments).env("SOFTHSM2_CONF", dir.join("softhsm2.conf")).env("PKCS11_PIN", pin);
        command
    };
    let (place, public) = (path(&repository), path(&dir.join("timestamp.pub.pem")));
    run(colibri(&["create", "--dev", &place], PIN))?;
    let keys = json(colibri(&["keys", "list", "--json", &place], PIN))?;
    let old = of_timestamp(&keys).first().cloned().ok_or_else(|| format!("no timestamp key in {keys}"))?;
    let folder = repository.join("keys");
    let script = path(&root().join("deploy/keys/pkcs11-sign.sh"));
    let signers = format!(
        "[[signer]]\nrole = \"timestamp\"\ncommand = [\"{script}\", \"timestamp\"]\npublic_key = \"timestamp.pub\"\n"
    );
    write(&folder.join("signers.toml"), signers)?;
    write(&folder.join("timestamp.pub"), read(Path::new(&public))?)?;
    run(colibri(&["keys", "add", &place, "timestamp", &public], PIN))?;
    run(colibri(&["keys", "revoke", "--reason", "it moves into the token", &place, "timestamp", &old], PIN))?;
    let file = folder.join("timestamp.pem");
    fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    run(colibri(&["publish", &place], PIN))?;

    let keys = json(colibri(&["keys", "list", "--json", &place], PIN))?;
    let now = of_timestamp(&keys);
    let timestamp = read(&repository.join("repository/timestamp.json"))?;
    ensure(now.len() == 1 && now[0] != old && timestamp.contains(&now[0]), || {
        format!("the timestamp is not signed by the token's key alone: {keys}\n{timestamp}")
    })?;
    run(colibri(&["audit", "verify", &place], PIN))?;
    run(colibri(&["verify", &place], PIN))?;
    let (signed, said) = outcome(colibri(&["publish", &place], "000000"))?;
    ensure(!signed && said.contains("pkcs11-sign.sh"), || format!("with a wrong PIN: {said}"))?;
    ensure(!said.contains("000000"), || format!("the PIN is repeated: {said}"))?;
    ensure(read(&repository.join("repository/timestamp.json"))? == timestamp, || {
        "a publish that could not be signed changed the timestamp".to_owned()
    })
}

/// Ids of the timestamp keys.
fn of_timestamp(keys: &Value) -> Vec<String> {
    let keys = keys.as_array().map(Vec::as_slice).unwrap_or_default();
    let of_role = keys.iter().filter(|key| key["role"] == "timestamp");
    of_role.filter_map(|key| key["id"].as_str().map(str::to_owned)).collect()
}

/// A token in `dir` with an ECDSA P-256 key called `timestamp`, and `timestamp.pub.pem` beside it.
fn make_token(dir: &Path) -> Result<(), Failure> {
    let tokens = dir.join("tokens");
    fs::create_dir(&tokens).map_err(|error| format!("{}: {error}", tokens.display()))?;
    write(&dir.join("softhsm2.conf"), format!("directories.tokendir = {}\n", tokens.display()))?;
    let tool = |program: &str, arguments: &[&str]| -> Command {
        let mut command = command(program, arguments);
        command.env("SOFTHSM2_CONF", dir.join("softhsm2.conf")).env("PKCS11_PIN", PIN);
        command
    };
    run(tool("softhsm2-util", &["--init-token", "--free", "--label", "colibri", "--so-pin", PIN, "--pin", PIN]))?;
    let token = ["--module", MODULE, "--token-label", "colibri"];
    let key = ["--login", "--pin", "env:PKCS11_PIN", "--keypairgen", "--key-type", "EC:prime256v1"];
    output(tool("pkcs11-tool", &[&token[..], &key, &["--label", "timestamp"]].concat()))?;
    let der = dir.join("timestamp.der").display().to_string();
    let read_key = ["--read-object", "--type", "pubkey", "--label", "timestamp", "--output-file", &der];
    run(tool("pkcs11-tool", &[&token[..], &read_key].concat()))?;
    let pem = dir.join("timestamp.pub.pem").display().to_string();
    run(tool("openssl", &["pkey", "-pubin", "-inform", "DER", "-in", &der, "-out", &pem]))
}
