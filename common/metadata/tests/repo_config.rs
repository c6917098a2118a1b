//! Repository configurations: both formats, the list, and what is refused.

use colibri_metadata::{RepoConfig, RepoConfigError, Role, TrustAnchor, TrustedSet};
use serde_json::{Value, json};

const KEY: &str = "be0b983f7396da675c40c6b93e47fced7c1e9ea8a32a1fe952ba8f519760b307";

fn full() -> Value {
    json!({
        "repo_url": "fuchsia-pkg://example.com",
        "root_version": 3,
        "root_threshold": 1,
        "root_keys": [{"type": "ed25519", "value": KEY}],
        "mirrors": [{"mirror_url": "http://h:8083/p", "subscribe": true, "blob_mirror_url": "http://b/blobs"}],
        "use_local_mirror": false,
        "repo_storage_type": "persistent",
    })
}

fn parse(value: &Value) -> Result<RepoConfig, RepoConfigError> {
    RepoConfig::parse(&serde_json::to_vec(value).unwrap())
}

#[test]
fn a_full_configuration_goes_round() {
    let config = parse(&full()).unwrap();
    assert_eq!(config.host(), "example.com");
    assert_eq!(config.mirrors[0].blob_url(), "http://b/blobs");
    assert_eq!(serde_json::to_value(&config).unwrap(), full());
    let TrustAnchor::Keys { root_keys, root_threshold, root_version } = config.trust_anchor() else {
        panic!("a configuration gives keys");
    };
    assert_eq!((root_keys[0].to_string().as_str(), root_threshold, root_version), (KEY, 1, 3));
}

#[test]
fn defaults_are_those_of_the_real_form() {
    let mut value = full();
    for field in ["root_version", "root_threshold", "use_local_mirror", "repo_storage_type"] {
        value.as_object_mut().unwrap().remove(field);
    }
    value["repo_url"] = json!("fuchsia-pkg://example.com/");
    value["mirrors"] = json!([{"mirror_url": "https://h/p", "blob_mirror_url": "https://h/p/blobs"}]);
    let config = parse(&value).unwrap();
    assert_eq!((config.root_version, config.root_threshold), (1, 1));
    assert_eq!(config.repo_url, "fuchsia-pkg://example.com");
    assert_eq!(config.mirrors[0].blob_mirror_url, None, "the implied address is left out");
    assert_eq!(config.mirrors[0].blob_url(), "https://h/p/blobs");
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["mirrors"], json!([{"mirror_url": "https://h/p", "subscribe": false}]));
    assert_eq!(written["repo_storage_type"], json!("ephemeral"));
}

#[test]
fn what_is_refused_says_why() {
    let long = format!("http://h/{}", "x".repeat(3000));
    let cases = [
        ("repo_url", json!("http://example.com"), "repo_url"),
        ("repo_url", json!("fuchsia-pkg://"), "repo_url"),
        ("repo_url", json!("fuchsia-pkg://Example.com"), "repo_url"),
        ("repo_url", json!("fuchsia-pkg://a/b"), "repo_url"),
        ("root_version", json!(0), "at least 1"),
        ("root_threshold", json!(0), "at least 1"),
        ("root_threshold", json!(2), "needs more"),
        ("root_keys", json!([]), "needs more"),
        ("root_keys", json!([{"type": "rsa", "value": KEY}]), "ed25519"),
        ("root_keys", json!([{"type": "ed25519", "value": "00"}]), "64"),
        ("root_keys", json!([{"type": "ed25519", "value": KEY, "x": 1}]), "unknown field"),
        ("mirrors", json!([{"mirror_url": "h/p"}]), "mirror address"),
        ("mirrors", json!([{"mirror_url": "file:///p"}]), "mirror address"),
        ("mirrors", json!([{"mirror_url": "http:///p"}]), "mirror address"),
        ("mirrors", json!([{"mirror_url": "http://h/ p"}]), "mirror address"),
        ("mirrors", json!([{"mirror_url": long}]), "mirror address"),
        ("repo_storage_type", json!("forever"), "forever"),
        ("unheard_of", json!(1), "unheard_of"),
    ];
    for (field, value, word) in cases {
        let mut config = full();
        config[field] = value.clone();
        let said = parse(&config).unwrap_err().to_string();
        assert!(said.contains(word) && !said.contains('\n'), "{field} = {value}: {said}");
    }
    assert!(RepoConfig::parse(b"{\"repo_url\":\"x\",\"repo_url\":\"y\"}").unwrap_err().to_string().contains("twice"));
    assert_eq!(RepoConfig::parse(&vec![b' '; 300 * 1024]), Err(RepoConfigError::TooLarge));
}

#[test]
fn a_list_is_wrapped_with_a_version() {
    let list = |version: &str| serde_json::to_vec(&json!({"version": version, "content": [full(), full()]})).unwrap();
    assert_eq!(RepoConfig::parse_list(&list("1")).unwrap().len(), 2);
    assert!(RepoConfig::parse_list(&list("2")).unwrap_err().to_string().contains("version"));
}

#[test]
fn the_older_form_is_converted() {
    let old = json!({
        "ID": "http://10.0.2.2:8083",
        "RepoURL": "http://10.0.2.2:8083",
        "BlobRepoURL": "http://10.0.2.2:8083/blobs",
        "RatePeriod": 60,
        "RootKeys": [{"Type": "ed25519", "Value": KEY}],
        "StatusConfig": {"Enabled": true},
        "Auto": true,
        "BlobKey": null,
    });
    let bytes = serde_json::to_vec(&old).unwrap();
    let config = RepoConfig::parse_format_1(&bytes, None).unwrap();
    assert_eq!(config.repo_url, "fuchsia-pkg://10.0.2.2-8083");
    assert!(config.mirrors[0].subscribe && config.mirrors[0].blob_mirror_url.is_none());
    assert_eq!(RepoConfig::parse_format_1(&bytes, Some("devhost")).unwrap().host(), "devhost");
    assert!(RepoConfig::parse_format_1(&bytes, Some("no host")).is_err());
}

#[test]
fn a_configuration_made_from_a_root_trusts_its_root_keys() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/tuf-repo/root.json");
    let set = TrustedSet::from_root_file(&std::fs::read(path).unwrap().into()).unwrap();
    let config = RepoConfig::from_root("devhost", set.root(), "http://[::1]:8083/devhost").unwrap();
    assert_eq!(config.root_keys[0].0.to_string(), KEY);
    assert_eq!(config.root_keys[0].0.id(), set.root().role_keys(Role::Root).key_ids[0]);
    assert_eq!(parse(&serde_json::to_value(&config).unwrap()).unwrap(), config);
    assert!(RepoConfig::from_root("", set.root(), "http://h").is_err());
}
