//! What a signature is over: both canonical forms, never the bytes as they happen to lie there.

use bytes::Bytes;
use colibri_common::hex;
use colibri_metadata::canonical::{Form, encode, rewrite};
use colibri_metadata::{Role, Rule, TargetName};
use serde_json::{Value, json};

use crate::fixture::{Key, Repo, fresh};

/// Names whose canonical forms differ, or nearly do.
const ODD: [&str; 6] = ["tab\t/0", "line\nfeed", "nul is refused\u{1}", "q\"uote", "back\\slash", "é\u{7f}\u{2028}"];

/// A repository with odd target names whose targets file is `bytes`, given the signed part.
fn repo_with(file: impl Fn(&Value, &Key) -> Vec<u8>) -> Repo {
    let mut repo = Repo::new();
    repo.hashes = false;
    for name in ODD {
        repo.add_target(name, name.as_bytes());
    }
    repo.publish();
    let bytes = file(&repo.targets_signed(), &repo.keys(Role::Targets)[0]);
    repo.files.insert("1.targets.json".into(), bytes.into());
    repo
}

fn envelope_around(signed_text: &str, signature: &[u8], key: &Key) -> Vec<u8> {
    format!(r#"{{"signatures":[{{"keyid":"{}","sig":"{}"}}],"signed":{signed_text}}}"#, key.id(), hex(signature)).into()
}

fn finds_all(repo: &Repo) {
    let set = fresh(repo).set();
    let names: Vec<TargetName> = set.targets().unwrap().iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), ODD.len() + 1);
    assert!(names.is_sorted());
    for name in ODD {
        let name: TargetName = name.parse().unwrap();
        assert_eq!(set.find(&name).unwrap().length, name.as_str().len() as u64, "{name:?}");
    }
}

/// The text backwards: keys in descending order, with white space and needless escapes.
fn ugly(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by(|left, right| right.0.cmp(left.0));
            let members: Vec<_> =
                keys.into_iter().map(|(key, value)| format!("\n {} : {}", ugly(&json!(key)), ugly(value))).collect();
            format!("{{{}\t}}", members.join(" ,"))
        }
        Value::Array(items) => format!("[ {} ]", items.iter().map(ugly).collect::<Vec<_>>().join(" , ")),
        Value::String(text) => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
            format!("\"{units}\"")
        }
        other => other.to_string(),
    }
}

#[test]
fn a_signature_over_either_form_counts_however_the_file_is_written() {
    for form in [Form::Escaped, Form::Bare] {
        for write in [|signed: &Value| String::from_utf8(encode(signed).unwrap()).unwrap(), ugly] {
            finds_all(&repo_with(|signed, key| {
                let message = rewrite(&encode(signed).unwrap(), form).unwrap();
                envelope_around(&write(signed), &key.sign(&message), key)
            }));
        }
    }
}

#[test]
fn the_two_forms_differ_exactly_in_control_characters() {
    let forms = |value: Value| {
        let text = encode(&value).unwrap();
        (rewrite(&text, Form::Escaped).unwrap(), rewrite(&text, Form::Bare).unwrap())
    };
    let (escaped, bare) = forms(json!({"é\u{7f}\"\\": ["/", 1, null, true, -1]}));
    assert_eq!(escaped, bare);
    for character in (0..0x20_u8).map(char::from) {
        let (escaped, bare) = forms(json!([character.to_string()]));
        assert_ne!(escaped, bare, "{character:?}");
        assert!(!escaped.iter().any(u8::is_ascii_control), "what makes taking both sound");
    }
}

/// The bytes as they lie there are signed, but they are not canonical: two readers could take them for two documents.
#[test]
fn a_signature_over_bytes_that_are_not_canonical_does_not_count() {
    let raw = |text: String, key: &Key| {
        let signature = key.sign(text.as_bytes());
        envelope_around(&text, &signature, key)
    };
    type Write = fn(&Value) -> String;
    let writes: [Write; 4] = [
        ugly,
        |signed| serde_json::to_string_pretty(signed).unwrap(),
        |signed| encode_text(signed).replacen("{\"", "{ \"", 1),
        |signed| encode_text(signed).replace("hello/0", "hello\\/0"),
    ];
    for write in writes {
        let repo = repo_with(|signed, key| raw(write(signed), key));
        assert!(matches!(fresh(&repo).error().rule(), Rule::Threshold { valid: 0, threshold: 1, .. }));
    }
    finds_all(&repo_with(|signed, key| raw(encode_text(signed), key)));
}

fn encode_text(signed: &Value) -> String {
    String::from_utf8(encode(signed).unwrap()).unwrap()
}

#[test]
fn a_target_listed_twice_is_refused_in_whatever_spelling() {
    for twin in [r#""hello/0""#, r#""hello\/0""#, r#""\u0068ello/0""#] {
        for at_front in [true, false] {
            let repo = repo_with(|signed, key| {
                let target = encode_text(&signed["targets"]["hello/0"]);
                let text = encode_text(signed);
                let text = match at_front {
                    true => text.replacen("\"targets\":{", &format!("\"targets\":{{{twin}:{target},"), 1),
                    false => text.replacen("},\"version\"", &format!(",{twin}:{target}}},\"version\""), 1),
                };
                envelope_around(&text, &key.sign(text.as_bytes()), key)
            });
            let driven = fresh(&repo);
            assert!(matches!(driven.error().rule(), Rule::Malformed(text) if text.contains("twice")), "{twin}");
        }
    }
}

#[test]
fn a_key_behind_the_signed_part_is_no_second_signed_part() {
    let repo = repo_with(|signed, key| {
        let good = envelope_around(&encode_text(signed), &key.sign(&encode(signed).unwrap()), key);
        let text = String::from_utf8(good).unwrap();
        format!("{},\"signed\":{{}}}}", &text[..text.len() - 1]).into()
    });
    assert!(matches!(fresh(&repo).error().rule(), Rule::Malformed(text) if text.contains("twice")));
    let empty = Bytes::from_static(b"{\"signatures\":[],\"signed\":{}}");
    let mut repo = Repo::new();
    repo.files.insert("timestamp.json".into(), empty);
    assert!(matches!(fresh(&repo).error().rule(), Rule::Threshold { valid: 0, .. }), "signatures come before the form");
}
