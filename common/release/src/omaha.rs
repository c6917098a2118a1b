//! What a versioning authority's answer offers (Omaha v3 in JSON, reference "Omaha v3 and CUPv2" §4 to §6): read strictly
//! where something is decided, with unknown fields ignored, as the protocol wants it.
//!
//! Deliberately absent: proof of who answered (`cup`), requests, the server's side.

use serde::Deserialize;

use crate::limits;
use crate::version::ProductVersion;

/// Bytes that may stand before the document so that no browser runs it.
const NO_SCRIPT: &str = ")]}'\n";

/// An answer to an update check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OmahaAnswer {
    /// One per app, in the answer's order.
    pub apps: Vec<AppAnswer>,
}

/// What is said to one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppAnswer {
    /// Its id.
    pub id: String,
    /// What it may install; nothing if there is no update.
    pub offer: Option<Offer>,
}

/// An update on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Version of what is offered.
    pub version: ProductVersion,
    /// Where it is: every base with every package name.
    pub urls: Vec<String>,
    /// Not to wait for a good moment.
    pub urgent: bool,
}

/// Why an answer says nothing that can be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OmahaError {
    /// Not the protocol's JSON.
    #[error("the versioning authority's answer: {0}")]
    Malformed(String),
    /// More than is taken.
    #[error("the versioning authority's answer has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An app was refused, so that the whole answer counts for nothing (as the stock client has it).
    #[error("the versioning authority answered {status:?} for app {app}")]
    Refused {
        /// The app.
        app: String,
        /// What it was told.
        status: String,
    },
    /// An offer that lacks what is needed to install it.
    #[error("the offer for app {app} {reason}")]
    Offer {
        /// The app.
        app: String,
        /// What is wrong.
        reason: String,
    },
}

impl OmahaAnswer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// It is not an answer, or one app in it is refused.
    pub fn parse(body: &str) -> Result<Self, OmahaError> {
        let document = body.strip_prefix(NO_SCRIPT).unwrap_or(body);
        let malformed = |error: serde_json::Error| OmahaError::Malformed(error.to_string());
        // Also what is ignored must be JSON: nothing is acted on that another reader would refuse as a whole.
        serde_json::from_str::<serde_json::Value>(document).map_err(malformed)?;
        let Envelope { response } = serde_json::from_str(document).map_err(malformed)?;
        if response.protocol != "3.0" {
            return Err(OmahaError::Malformed(format!("protocol {:?} is not 3.0", response.protocol)));
        }
        if response.app.len() as u64 > limits::OMAHA_APPS_MAX {
            return Err(OmahaError::TooMany { what: "apps", limit: limits::OMAHA_APPS_MAX });
        }
        let apps = response.app.into_iter().map(App::answer).collect::<Result<_, _>>()?;
        Ok(Self { apps })
    }
}

#[derive(Deserialize)]
struct Envelope {
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    protocol: String,
    app: Vec<App>,
}

#[derive(Deserialize)]
struct App {
    appid: String,
    status: String,
    updatecheck: Option<UpdateCheck>,
}

#[derive(Deserialize)]
struct UpdateCheck {
    status: String,
    urls: Option<Urls>,
    manifest: Option<Manifest>,
    #[serde(rename = "_urgent_update", default)]
    urgent: bool,
}

#[derive(Deserialize)]
struct Urls {
    url: Vec<Codebase>,
}

#[derive(Deserialize)]
struct Codebase {
    codebase: String,
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
    packages: Packages,
}

#[derive(Deserialize)]
struct Packages {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

impl App {
    fn answer(self) -> Result<AppAnswer, OmahaError> {
        let Self { appid, status, updatecheck } = self;
        let refused = |status: &str| OmahaError::Refused { app: appid.clone(), status: status.to_owned() };
        if status != "ok" {
            return Err(refused(&status));
        }
        let check = updatecheck.ok_or_else(|| refused("ok, without an update check"))?;
        let offer = match check.status.as_str() {
            "noupdate" => None,
            "ok" => Some(check.offer(&appid)?),
            other => return Err(refused(other)),
        };
        Ok(AppAnswer { id: appid, offer })
    }
}

impl UpdateCheck {
    fn offer(self, app: &str) -> Result<Offer, OmahaError> {
        let bad = |reason: String| OmahaError::Offer { app: app.to_owned(), reason };
        let manifest = self.manifest.ok_or_else(|| bad("has no manifest".to_owned()))?;
        let version = manifest.version.parse().map_err(|error| bad(format!("has no version: {error}")))?;
        let bases = self.urls.map(|urls| urls.url).unwrap_or_default();
        let names = &manifest.packages.package;
        let count = bases.len().saturating_mul(names.len()) as u64;
        if count == 0 {
            return Err(bad("says not where it is".to_owned()));
        }
        if count > limits::OMAHA_URLS_MAX {
            return Err(OmahaError::TooMany { what: "URLs", limit: limits::OMAHA_URLS_MAX });
        }
        let urls =
            bases.iter().flat_map(|base| names.iter().map(|package| format!("{}{}", base.codebase, package.name)));
        Ok(Offer { version, urls: urls.collect(), urgent: self.urgent })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(app: &Value) -> String {
        json!({"response": {"protocol": "3.0", "server": "prod", "daystart": {"elapsed_days": 1}, "app": [app]}})
            .to_string()
    }

    fn offered() -> Value {
        json!({"appid": "a", "status": "ok", "cohort": "1:1:", "updatecheck": {
            "status": "ok",
            "urls": {"url": [{"codebase": "fuchsia-pkg://example.com/"}, {"codebase": "fuchsia-pkg://other.com/"}]},
            "manifest": {
                "version": "1.2.3.4",
                "actions": {"action": [{"event": "install", "run": "update?hash=1"}]},
                "packages": {"package": [{"name": "update?hash=1", "required": true, "fp": "2.1.2.3.4"}]}
            }
        }})
    }

    #[test]
    fn an_offer_is_every_base_with_every_name() {
        let plain = answer(&offered());
        for body in [plain.clone(), format!(")]}}'\n{plain}")] {
            let read = OmahaAnswer::parse(&body).unwrap();
            let offer = read.apps[0].offer.as_ref().unwrap();
            assert_eq!((read.apps[0].id.as_str(), offer.version.to_string().as_str()), ("a", "1.2.3.4"));
            let urls = ["fuchsia-pkg://example.com/update?hash=1", "fuchsia-pkg://other.com/update?hash=1"];
            assert_eq!((offer.urls.as_slice(), offer.urgent), (&urls.map(str::to_owned)[..], false));
        }
        let mut urgent = offered();
        urgent["updatecheck"]["_urgent_update"] = json!(true);
        assert!(OmahaAnswer::parse(&answer(&urgent)).unwrap().apps[0].offer.as_ref().unwrap().urgent);
        let none = json!({"appid": "a", "status": "ok", "updatecheck": {"status": "noupdate"}});
        assert_eq!(OmahaAnswer::parse(&answer(&none)).unwrap().apps[0].offer, None);
    }

    #[test]
    fn what_is_ignored_must_be_json_too() {
        let none = json!({"appid": "a", "status": "ok", "updatecheck": {"status": "noupdate"}, "other": "here"});
        let body = answer(&none);
        assert!(OmahaAnswer::parse(&body).is_ok());
        for bad in [r#""\udad0\"ok""#, "1e999", r#""\u12""#] {
            let refused = OmahaAnswer::parse(&body.replace(r#""here""#, bad)).unwrap_err();
            assert!(matches!(refused, OmahaError::Malformed(_)), "{bad}: {refused}");
        }
    }

    #[test]
    fn what_cannot_be_acted_on_is_refused() {
        let with = |path: &str, value: Value| {
            let mut app = offered();
            *app.pointer_mut(path).unwrap() = value;
            OmahaAnswer::parse(&answer(&app)).unwrap_err()
        };
        assert!(matches!(with("/status", json!("error-unknownApplication")), OmahaError::Refused { .. }));
        assert!(matches!(with("/updatecheck", json!(null)), OmahaError::Refused { .. }));
        assert!(matches!(with("/updatecheck/status", json!("restricted")), OmahaError::Refused { .. }));
        assert!(matches!(with("/updatecheck/manifest", json!(null)), OmahaError::Offer { .. }));
        assert!(matches!(with("/updatecheck/manifest/version", json!("new")), OmahaError::Offer { .. }));
        assert!(matches!(with("/updatecheck/urls", json!(null)), OmahaError::Offer { .. }));
        let many = json!(vec![json!({"name": "p"}); 1000]);
        assert!(matches!(
            with("/updatecheck/manifest/packages/package", many),
            OmahaError::TooMany { what: "URLs", .. }
        ));
        assert!(matches!(OmahaAnswer::parse("[]"), Err(OmahaError::Malformed(_))));
        let apps = json!({"response": {"protocol": "3.0", "app": vec![offered(); 65]}}).to_string();
        assert!(matches!(OmahaAnswer::parse(&apps), Err(OmahaError::TooMany { what: "apps", .. })));
        let other = json!({"response": {"protocol": "4.0", "app": []}}).to_string();
        assert!(matches!(OmahaAnswer::parse(&other), Err(OmahaError::Malformed(_))));
    }
}
