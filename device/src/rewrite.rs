//! Rewrite rules: which package URL is meant by another (reference "Fuchsia device side" §7.4). Pure; where rules are kept is in
//! `rules`.
//!
//! A rule looks at host and path (`/NAME` or `/NAME/VARIANT`), never at the hash, which stays.

use std::fmt;

use colibri_package::url::{AbsolutePackageUrl, RepositoryUrl, UrlError};
use serde::{Deserialize, Serialize};

use crate::limits::{RULES_BYTES_MAX, RULES_MAX};

/// Why something is no rewrite rule, or no list of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// A host to match or to put there.
    #[error("InvalidHost: `{host}` is not the host of a repository: {error}")]
    InvalidHost {
        /// As given.
        host: String,
        /// Which rule of URLs it breaks.
        error: UrlError,
    },
    /// A path to match or to put there.
    #[error("InvalidPath: `{0}` is not a path: it starts with `/` and has neither `?` nor `#`")]
    InvalidPath(String),
    /// A prefix on one side, a whole path on the other.
    #[error(
        "InconsistentPaths: either both of `{matched}` and `{replacement}` end with `/` (a prefix) or neither does"
    )]
    InconsistentPaths {
        /// Path to match.
        matched: String,
        /// Path to put there.
        replacement: String,
    },
    /// A list that does not parse.
    #[error("rewrite rules are {{\"version\":\"1\",\"content\":[RULE…]}}: {0}")]
    Malformed(String),
    /// A longer list than is kept.
    #[error("a list of rewrite rules has at most {RULES_MAX} rules and {RULES_BYTES_MAX} bytes")]
    TooMany,
}

/// One rule. Its `Debug` form is what `pkgctl rule list` prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    host_match: RepositoryUrl,
    host_replacement: RepositoryUrl,
    path_prefix_match: String,
    path_prefix_replacement: String,
}

/// A rule as JSON has it.
#[derive(Serialize, Deserialize)]
struct RuleForm {
    host_match: String,
    host_replacement: String,
    path_prefix_match: String,
    path_prefix_replacement: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListForm {
    version: String,
    content: Vec<RuleForm>,
}

impl Rule {
    /// A rule that puts one host and path in the place of another: paths that end with `/` are prefixes, others are whole.
    pub fn new(
        host_match: &str,
        host_replacement: &str,
        path_prefix_match: &str,
        path_prefix_replacement: &str,
    ) -> Result<Self, RewriteError> {
        let host = |host: &str| {
            RepositoryUrl::from_host(host).map_err(|error| RewriteError::InvalidHost { host: host.to_owned(), error })
        };
        let (host_match, host_replacement) = (host(host_match)?, host(host_replacement)?);
        let (matched, replacement) = (path_prefix_match.to_owned(), path_prefix_replacement.to_owned());
        for path in [&matched, &replacement] {
            if !path.starts_with('/') || path.contains(['?', '#']) {
                return Err(RewriteError::InvalidPath(path.clone()));
            }
        }
        if matched.ends_with('/') != replacement.ends_with('/') {
            return Err(RewriteError::InconsistentPaths { matched, replacement });
        }
        Ok(Self { host_match, host_replacement, path_prefix_match: matched, path_prefix_replacement: replacement })
    }

    /// A rule for everything of a host.
    pub fn whole_host(host_match: &str, host_replacement: &str) -> Result<Self, RewriteError> {
        Self::new(host_match, host_replacement, "/", "/")
    }

    /// The host it looks for.
    pub fn host_match(&self) -> &str {
        self.host_match.host()
    }

    /// The host it puts there.
    pub fn host_replacement(&self) -> &str {
        self.host_replacement.host()
    }

    /// The URL that is meant; nothing if the rule says nothing about it, an error if what comes out is no package URL.
    pub fn apply(&self, url: &AbsolutePackageUrl) -> Option<Result<AbsolutePackageUrl, UrlError>> {
        let unpinned = url.as_unpinned();
        if *unpinned.repository() != self.host_match {
            return None;
        }
        let name = unpinned.name();
        let path = unpinned.variant().map_or_else(|| format!("/{name}"), |variant| format!("/{name}/{variant}"));
        let path = if self.path_prefix_match.ends_with('/') {
            format!("{}{}", self.path_prefix_replacement, path.strip_prefix(&self.path_prefix_match)?)
        } else if path == self.path_prefix_match {
            self.path_prefix_replacement.clone()
        } else {
            return None;
        };
        let hash = url.hash().map_or_else(String::new, |hash| format!("?hash={hash}"));
        Some(format!("{}{path}{hash}", self.host_replacement).parse())
    }

    fn form(&self) -> RuleForm {
        RuleForm {
            host_match: self.host_match().to_owned(),
            host_replacement: self.host_replacement().to_owned(),
            path_prefix_match: self.path_prefix_match.clone(),
            path_prefix_replacement: self.path_prefix_replacement.clone(),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule")
            .field("host_match", &self.host_match())
            .field("host_replacement", &self.host_replacement())
            .field("path_prefix_match", &self.path_prefix_match)
            .field("path_prefix_replacement", &self.path_prefix_replacement)
            .finish()
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.form().serialize(serializer)
    }
}

/// The URL that is meant by `url`: the first rule that says something decides; one whose answer is no package URL is skipped.
pub fn rewrite<'a>(rules: impl IntoIterator<Item = &'a Rule>, url: &AbsolutePackageUrl) -> AbsolutePackageUrl {
    for rule in rules {
        match rule.apply(url) {
            None => {}
            Some(Ok(meant)) => return meant,
            Some(Err(error)) => tracing::warn!("rule {rule:?} makes no package URL of {url}, skipping it: {error}"),
        }
    }
    url.clone()
}

/// Reads a list of rules, version 1.
pub fn parse(bytes: &[u8]) -> Result<Vec<Rule>, RewriteError> {
    if bytes.len() as u64 > RULES_BYTES_MAX {
        return Err(RewriteError::TooMany);
    }
    let list: ListForm = serde_json::from_slice(bytes).map_err(|error| RewriteError::Malformed(error.to_string()))?;
    if list.version != "1" {
        return Err(RewriteError::Malformed(format!("version {:?} is not known", list.version)));
    }
    if list.content.len() > RULES_MAX {
        return Err(RewriteError::TooMany);
    }
    let rule = |form: RuleForm| {
        Rule::new(&form.host_match, &form.host_replacement, &form.path_prefix_match, &form.path_prefix_replacement)
    };
    list.content.into_iter().map(rule).collect()
}

/// The list as [`parse`] reads it.
pub fn to_json(rules: &[Rule]) -> serde_json::Value {
    serde_json::json!({ "version": "1", "content": rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "?hash=15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

    fn rule(host_match: &str, host_replacement: &str, matched: &str, replacement: &str) -> Rule {
        Rule::new(host_match, host_replacement, matched, replacement).unwrap()
    }

    fn url(rest: &str) -> AbsolutePackageUrl {
        format!("fuchsia-pkg://{rest}").parse().unwrap()
    }

    #[test]
    fn what_is_no_rule() {
        let kind =
            |rule: Result<Rule, RewriteError>| rule.unwrap_err().to_string().split(':').next().unwrap().to_owned();
        for (host_match, host_replacement) in
            [("", "a.com"), ("a.com", "A.COM"), ("a_b", "a.com"), ("a.com", "a.com/x")]
        {
            assert_eq!(kind(Rule::new(host_match, host_replacement, "/", "/")), "InvalidHost", "{host_match:?}");
        }
        for (matched, replacement) in [("", "/"), ("/", ""), ("roll", "/roll"), ("/roll", "roll"), ("/a?hash=0", "/a")]
        {
            assert_eq!(kind(Rule::new("a.com", "b.com", matched, replacement)), "InvalidPath", "{matched:?}");
        }
        for (matched, replacement) in [("/a/", "/b"), ("/a", "/b/"), ("/", "/b")] {
            assert_eq!(kind(Rule::new("a.com", "b.com", matched, replacement)), "InconsistentPaths", "{matched:?}");
        }
    }

    #[test]
    fn what_rules_make_of_urls() {
        let whole = Rule::whole_host("fuchsia.com", "devhost").unwrap();
        let literal = rule("fuchsia.com", "fuchsia.com", "/rolldice", "/fortune");
        let variant = rule("fuchsia.com", "fuchsia.com", "/rolldice/0", "/fortune/beta");
        let prefix = rule("fuchsia.com", "a.com", "/rolldice/", "/fortune/");
        let deeper = rule("fuchsia.com", "a.com", "/", "/all/");
        let shallower = rule("fuchsia.com", "a.com", "/old/", "/");
        for (rule, from, to) in [
            (&whole, "fuchsia.com/rolldice", Some("devhost/rolldice")),
            (&whole, "fuchsia.com/rolldice/0", Some("devhost/rolldice/0")),
            (&whole, "fuchsia.com.evil/rolldice", None),
            (&whole, "devhost/rolldice", None),
            (&literal, "fuchsia.com/rolldice", Some("fuchsia.com/fortune")),
            (&literal, "fuchsia.com/rolldice/0", None),
            (&literal, "fuchsia.com/rolldice2", None),
            (&variant, "fuchsia.com/rolldice/0", Some("fuchsia.com/fortune/beta")),
            (&variant, "fuchsia.com/rolldice", None),
            (&prefix, "fuchsia.com/rolldice/0", Some("a.com/fortune/0")),
            (&prefix, "fuchsia.com/rolldice", None),
            (&deeper, "fuchsia.com/rolldice", Some("a.com/all/rolldice")),
            (&shallower, "fuchsia.com/old/rolldice", Some("a.com/rolldice")),
        ] {
            for hash in ["", HASH] {
                let made = rule.apply(&url(&format!("{from}{hash}"))).map(Result::unwrap);
                assert_eq!(made, to.map(|to| url(&format!("{to}{hash}"))), "{rule:?} {from}{hash}");
            }
        }
        // A package has a name and at most a variant.
        assert!(deeper.apply(&url("fuchsia.com/rolldice/0")).unwrap().is_err());
    }

    #[test]
    fn the_first_rule_that_makes_a_package_url_decides() {
        let rules = [
            rule("fuchsia.com", "no.com", "/rolldice/0", "/a b/c/d"),
            rule("fuchsia.com", "one.com", "/", "/"),
            rule("fuchsia.com", "two.com", "/", "/"),
            rule("one.com", "three.com", "/", "/"),
        ];
        assert_eq!(rewrite(&rules, &url("fuchsia.com/rolldice")), url("one.com/rolldice"), "once, not again and again");
        assert_eq!(rewrite(&rules, &url("fuchsia.com/rolldice/0")), url("one.com/rolldice/0"), "a bad one is skipped");
        assert_eq!(rewrite(&rules, &url("example.org/rolldice")), url("example.org/rolldice"));
        assert_eq!(rewrite(&[], &url("fuchsia.com/x")), url("fuchsia.com/x"));
    }

    #[test]
    fn lists_are_read_and_written_in_the_form_of_the_real_tools() {
        let text = r#"{"version":"1","content":[
            {"host_match":"a.com","host_replacement":"b.com","path_prefix_match":"/foo","path_prefix_replacement":"/bar"},
            {"host_match":"a.com","host_replacement":"b.com","path_prefix_match":"/foo/","path_prefix_replacement":"/bar/"}]}"#;
        let rules = parse(text.as_bytes()).unwrap();
        assert_eq!(rules, [rule("a.com", "b.com", "/foo", "/bar"), rule("a.com", "b.com", "/foo/", "/bar/")]);
        assert_eq!(to_json(&rules), serde_json::from_str::<serde_json::Value>(text).unwrap());
        for (text, named) in [
            (r#"{"version":"9001","content":[]}"#, "9001"),
            (r#"{"version":"1"}"#, "content"),
            (r#"{"version":"1","content":[],"more":1}"#, "more"),
            (r#"{"version":"1","content":[{"host_match":"a.com"}]}"#, "host_replacement"),
            (&text.replace("/bar/", "/bar"), "InconsistentPaths"),
            ("", "version"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert_eq!(parse(&vec![b' '; RULES_BYTES_MAX as usize + 1]), Err(RewriteError::TooMany));
    }

    #[test]
    fn printed_as_pkgctl_prints_it() {
        let printed = format!("{:#?}", Rule::whole_host("fuchsia.com", "devhost").unwrap());
        let lines = [
            "Rule {",
            "    host_match: \"fuchsia.com\",",
            "    host_replacement: \"devhost\",",
            "    path_prefix_match: \"/\",",
            "    path_prefix_replacement: \"/\",",
            "}",
        ];
        assert_eq!(printed, lines.join("\n"));
    }
}
