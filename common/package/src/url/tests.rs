//! All tables of `url.json`, round trips, and what our parser refuses beyond them.

use super::*;

fn tables() -> serde_json::Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/url.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// `InvalidPathSegment(InvalidCharacter A)` as the tables write it.
fn table_name(error: &UrlError) -> String {
    format!("{error:?}").replace("InvalidCharacter('", "InvalidCharacter ").replace("'))", ")")
}

fn list(value: &serde_json::Value) -> &Vec<serde_json::Value> {
    value.as_array().unwrap()
}

fn check_errors<T: FromStr<Err = UrlError> + fmt::Debug>(cases: &serde_json::Value) {
    assert!(!list(cases).is_empty());
    for case in list(cases) {
        let (text, name) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let error = text.parse::<T>().unwrap_err();
        assert_eq!(table_name(&error), name, "{text}");
    }
}

#[test]
fn absolute_package_table() {
    let table = &tables()["absolute_package"];
    for text in list(&table["ok"]).iter().map(|text| text.as_str().unwrap()) {
        let url: AbsolutePackageUrl = text.parse().unwrap();
        assert_eq!(url.to_string(), text);
        assert_eq!((url.repository().host(), url.name().as_str()), ("example.org", "name"));
        assert_eq!(url.variant().is_some(), text.contains("variant"));
        assert_eq!(url.hash().is_some(), text.contains("hash="));
        assert_eq!(text.parse::<PinnedPackageUrl>().is_ok(), text.contains("hash="));
        assert_eq!(text.parse::<UnpinnedPackageUrl>().is_ok(), !text.contains("hash="));
    }
    check_errors::<AbsolutePackageUrl>(&table["err"]);
}

#[test]
fn absolute_component_table() {
    let table = &tables()["absolute_component"];
    for case in list(&table["ok"]) {
        let (text, resource) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let url: AbsoluteComponentUrl = text.parse().unwrap();
        assert_eq!(url.resource().as_str(), resource);
        assert_eq!(url.to_string(), text);
    }
    check_errors::<AbsoluteComponentUrl>(&table["err"]);
}

#[test]
fn repository_table() {
    let table = &tables()["repository"];
    for case in list(&table["ok"]) {
        let url: RepositoryUrl = case[0].as_str().unwrap().parse().unwrap();
        assert_eq!(url.to_string(), case[1].as_str().unwrap());
    }
    check_errors::<RepositoryUrl>(&table["err"]);
}

#[test]
fn relative_tables() {
    let tables = tables();
    for text in list(&tables["relative_package"]["ok"]).iter().map(|text| text.as_str().unwrap()) {
        assert_eq!(text.parse::<RelativePackageUrl>().unwrap().to_string(), text);
    }
    check_errors::<RelativePackageUrl>(&tables["relative_package"]["err"]);
    for case in list(&tables["relative_component"]["ok"]) {
        let url: RelativeComponentUrl = case[0].as_str().unwrap().parse().unwrap();
        assert_eq!(url.package().name().as_str(), case[1].as_str().unwrap());
        assert_eq!(url.resource().as_str(), case[2].as_str().unwrap());
        assert_eq!(url.to_string(), case[0].as_str().unwrap());
    }
    check_errors::<RelativeComponentUrl>(&tables["relative_component"]["err"]);
}

#[test]
fn errors_that_every_kind_of_url_gives() {
    let tables = tables();
    let cases = &tables["any"]["err"];
    check_errors::<RepositoryUrl>(cases);
    check_errors::<AbsolutePackageUrl>(cases);
    check_errors::<AbsoluteComponentUrl>(cases);
    check_errors::<RelativePackageUrl>(cases);
    check_errors::<RelativeComponentUrl>(cases);
}

#[test]
fn host_table() {
    let table = &tables()["host"];
    for host in list(&table["ok"]).iter().map(|host| host.as_str().unwrap()) {
        assert_eq!(RepositoryUrl::from_host(host).unwrap().host(), host);
    }
    for host in list(&table["err_invalid_host"]).iter().map(|host| host.as_str().unwrap()) {
        assert_eq!(check_host(host), Err(UrlError::InvalidHost), "{host}");
    }
    for host in list(&table["err_url_parse"]).iter().map(|host| host.as_str().unwrap()) {
        assert!(matches!(check_host(host), Err(UrlError::UrlParseError(_))), "{host}");
    }
}

#[test]
fn hosts_that_end_in_a_number_are_ipv4_addresses() {
    for good in ["127.0.0.1", "1.2.3", "0x7f.1", "256", "4294967295", "1.2.3.4.", "0x", "a1", "1.a", "010.1"] {
        assert_eq!(check_host(good), Ok(()), "{good}");
    }
    for bad in ["1.2.3.256", "256.1.1.1", "1.2.3.4.5", "4294967296", "a.1", "08", "1..2", "99999999999999999999999"] {
        assert!(check_host(bad).is_err(), "{bad}");
    }
}

#[test]
fn boot_urls_are_parsed() {
    let url: BootUrl = "fuchsia-boot:///pkg/name#meta/x.cm".parse().unwrap();
    assert_eq!((url.path(), url.resource().unwrap().as_str()), ("/pkg/name", "meta/x.cm"));
    assert_eq!(url.to_string(), "fuchsia-boot:///pkg/name#meta/x.cm");
    assert_eq!("fuchsia-boot:///".parse::<BootUrl>().unwrap().path(), "/");
    assert_eq!("fuchsia-boot://host/x".parse::<BootUrl>(), Err(UrlError::HostMustBeEmpty));
    assert_eq!("fuchsia-pkg:///x".parse::<BootUrl>(), Err(UrlError::InvalidScheme));
    assert_eq!("/x".parse::<BootUrl>(), Err(UrlError::MissingScheme));
    let hash = "0".repeat(64);
    assert_eq!(format!("fuchsia-boot:///x?hash={hash}").parse::<BootUrl>(), Err(UrlError::CannotContainHash));
}

#[test]
fn whatwg_rules_that_matter() {
    let parse = |text: &str| text.parse::<AbsolutePackageUrl>().map(|url| url.to_string());
    let plain = Ok("fuchsia-pkg://example.org/name".to_owned());
    assert_eq!(parse("FUCHSIA-pkg://example.org/name"), plain, "schemes are case-insensitive");
    assert_eq!(parse("fuchsia-pkg://example.org/./name"), plain);
    assert_eq!(parse("fuchsia-pkg://example.org/x/%2e%2E/name"), plain);
    assert_eq!(parse("fuchsia-pkg://example.org/../name#"), plain, "an empty fragment is absent");
    assert_eq!(parse("fuchsia-pkg://example.org/name?"), plain);
    for bad in ["fuchsia-pkg://exa\tmple.org/name", " fuchsia-pkg://example.org/name", "fuchsia-pkg://e.org/name\n"] {
        assert!(matches!(parse(bad), Err(UrlError::UrlParseError(_))), "{bad:?}");
    }
    assert_eq!(parse("fuchsia-pkg:name"), Err(UrlError::MissingHost));
    assert_eq!(parse("fuchsia-pkg://example.org/name?x=1"), Err(UrlError::ExtraQueryParameters));
    assert_eq!(parse("fuchsia-pkg://example.org:70000/name"), Err(UrlError::UrlParseError("the port is no number")));
    assert!(matches!(parse("fuchsia-pkg://example.org/name/"), Err(UrlError::InvalidPathSegment(_))));
    assert!(parse(&format!("fuchsia-pkg://example.org/{}", "a".repeat(70_000))).is_err());
}

#[test]
fn resources_survive_printing_and_parsing() {
    for resource in ["a%41b", "a b", "☺\u{7f}\t", "a#b?c=d&e", "\"<>`", "%"] {
        let package = "fuchsia-pkg://h/n".parse().unwrap();
        let url = AbsoluteComponentUrl { package, resource: resource.parse().unwrap() };
        assert_eq!(url.to_string().parse::<AbsoluteComponentUrl>().unwrap(), url, "{url}");
    }
    let not_utf8 = "fuchsia-pkg://h/n#%FF".parse::<AbsoluteComponentUrl>();
    assert_eq!(not_utf8, Err(UrlError::ResourcePathPercentDecode));
}
