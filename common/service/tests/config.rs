//! Layers, precedence, and mistakes told together.

use std::path::PathBuf;

use colibri_service::config::{ConfigErrors, Loaded, Source, Sources, load_with};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Example {
    address: String,
    port: u16,
    label: Option<String>,
    tags: Vec<String>,
    api_token: String,
    limits: Limits,
    upstream: Option<Upstream>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    memory_bytes: u64,
    ratio: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    url: String,
    weight: u32,
}

impl Default for Example {
    fn default() -> Self {
        Self {
            address: "::".to_owned(),
            port: 443,
            label: None,
            tags: vec!["default".to_owned()],
            api_token: String::new(),
            limits: Limits::default(),
            upstream: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, ratio: 0.5 }
    }
}

struct Case {
    _dir: tempfile::TempDir,
    path: PathBuf,
    result: Result<Loaded<Example>, ConfigErrors>,
}

fn read(toml: &str, environment: &[(&str, &str)], flags: serde_json::Value) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.toml");
    std::fs::write(&path, toml).unwrap();
    let sources =
        Sources { file: Some(path.clone()), environment_prefix: "COLIBRI_EDGE_".to_owned(), overrides: flags };
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Case { _dir: dir, path, result: load_with(sources, environment) }
}

fn mistakes(case: &Case) -> Vec<(String, Source, String)> {
    let errors = case.result.clone().unwrap_err();
    errors.0.into_iter().map(|mistake| (mistake.key, mistake.source, mistake.reason)).collect()
}

#[test]
fn nothing_given_gives_the_defaults() {
    let loaded: Loaded<Example> = load_with(Sources::default(), []).unwrap();
    assert_eq!(loaded.value, Example::default());
    assert!(loaded.sources.is_empty());
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let case = read(
        "address = \"file\"\nport = 1\ntags = [\"a\", \"b\"]\n[limits]\nmemory_bytes = 5\n",
        &[
            ("COLIBRI_EDGE_PORT", "2"),
            ("COLIBRI_EDGE_LIMITS__RATIO", "0.25"),
            ("COLIBRI_ORIGIN_PORT", "9"),
            ("HOME", "/"),
        ],
        json!({ "port": 3, "label": null }),
    );
    let loaded = case.result.unwrap();
    let expected = Example {
        address: "file".to_owned(),
        port: 3,
        tags: vec!["a".to_owned(), "b".to_owned()],
        limits: Limits { memory_bytes: 5, ratio: 0.25 },
        ..Example::default()
    };
    assert_eq!(loaded.value, expected);
    let file = Source::File(case.path);
    let sources: Vec<_> = loaded.sources.into_iter().collect();
    assert_eq!(
        sources,
        [
            ("address".to_owned(), file.clone()),
            ("limits.memory_bytes".to_owned(), file.clone()),
            ("limits.ratio".to_owned(), Source::Environment("COLIBRI_EDGE_LIMITS__RATIO".to_owned())),
            ("port".to_owned(), Source::Flag),
            ("tags".to_owned(), file),
        ]
    );
}

#[test]
fn an_unknown_key_is_named_in_every_layer() {
    let case = read(
        "colour = 1\n[limits]\nmemory = 2\n",
        &[("COLIBRI_EDGE_PROT", "2"), ("COLIBRI_EDGE_LIMITS__RATE", "x")],
        json!({ "verbosity": 3 }),
    );
    let found: Vec<_> = mistakes(&case).into_iter().map(|(key, source, _)| (key, source)).collect();
    let file = Source::File(case.path.clone());
    assert_eq!(
        found,
        [
            ("colour".to_owned(), file.clone()),
            ("limits.memory".to_owned(), file),
            ("limits.rate".to_owned(), Source::Environment("COLIBRI_EDGE_LIMITS__RATE".to_owned())),
            ("prot".to_owned(), Source::Environment("COLIBRI_EDGE_PROT".to_owned())),
            ("verbosity".to_owned(), Source::Flag),
        ]
    );
    let text = case.result.unwrap_err().to_string();
    assert!(text.contains("5 mistakes") && text.contains("known here: memory_bytes, ratio"), "{text}");
}

#[test]
fn mistakes_of_all_kinds_are_told_together() {
    let case = read(
        "port = 70000\nunknown = true\n[limits]\nmemory_bytes = \"much\"\n",
        &[("COLIBRI_EDGE_LIMITS__RATIO", "half"), ("COLIBRI_EDGE_TAGS", "one")],
        json!({ "address": 7 }),
    );
    let mut keys: Vec<_> = mistakes(&case).into_iter().map(|(key, _, _)| key).collect();
    keys.sort();
    assert_eq!(keys, ["address", "limits.memory_bytes", "limits.ratio", "port", "tags", "unknown"]);
}

#[test]
fn text_from_the_environment_stays_text() {
    let case = read("", &[("COLIBRI_EDGE_ADDRESS", "127001"), ("COLIBRI_EDGE_LABEL", "true")], json!({}));
    let value = case.result.unwrap().value;
    assert_eq!((value.address.as_str(), value.label.as_deref()), ("127001", Some("true")));
}

#[test]
fn an_optional_part_may_come_from_several_layers() {
    let case =
        read("[upstream]\nurl = \"https://a\"\nweight = 1\n", &[("COLIBRI_EDGE_UPSTREAM__WEIGHT", "7")], json!({}));
    assert_eq!(case.result.unwrap().value.upstream, Some(Upstream { url: "https://a".to_owned(), weight: 7 }));
    let case = read("[upstream]\nurl = \"https://a\"\nweight = 1\nhost = 2\n", &[], json!({}));
    let (key, _, reason) = mistakes(&case).remove(0);
    assert!(key == "upstream" && reason.contains("host"), "{key}: {reason}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let case = read("port = = 1", &[("COLIBRI_EDGE_WRONG", "1")], json!({}));
    let found = mistakes(&case);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].2.contains("TOML"), "{found:?}");
    let missing = Sources { file: Some("/nowhere/edge.toml".into()), ..Sources::default() };
    let text = load_with::<Example>(missing, []).unwrap_err().to_string();
    assert!(text.contains("/nowhere/edge.toml") && !text.contains('\n'), "{text}");
}

#[test]
fn the_description_shows_values_and_sources_but_no_secrets() {
    let case = read("api_token = \"hunter2\"\n", &[("COLIBRI_EDGE_LIMITS__MEMORY_BYTES", "9")], json!({ "port": 1 }));
    let path = case.path.display().to_string();
    let text = case.result.unwrap().describe();
    let expected = [
        "address = \"::\"  # default".to_owned(),
        format!("api_token = (not shown)  # file {path}"),
        "label is not set  # default".to_owned(),
        "limits.memory_bytes = 9  # environment COLIBRI_EDGE_LIMITS__MEMORY_BYTES".to_owned(),
        "limits.ratio = 0.5  # default".to_owned(),
        "port = 1  # command line".to_owned(),
        "tags = [\"default\"]  # default".to_owned(),
        "upstream is not set  # default".to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}
