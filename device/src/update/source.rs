//! [`UpdateSource`]: where an update is, by the form of its URL, as the stock updater tells them apart; and where a signed
//! manifest says that its blobs are. Deliberately absent: fetching.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use colibri_fetch::SourceUrl;
use colibri_package::delivery::DeliveryType;
use colibri_package::url::AbsolutePackageUrl;

use super::UpdateError;
use crate::config::Preference;

/// Where an update is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateSource {
    /// An update package: `fuchsia-pkg://HOST/update`.
    Package(AbsolutePackageUrl),
    /// A signed manifest of blobs.
    Manifest(ManifestPlace),
}

/// Where a signed manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestPlace {
    /// `https://…`. Who serves it does not matter: its signature is looked at.
    Url(SourceUrl),
    /// A file of this machine; it must say absolutely where its blobs are.
    File(PathBuf),
}

/// Where blobs are, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlobAddress {
    /// Without the delivery type.
    pub base: SourceUrl,
    pub preference: Preference,
}

impl From<AbsolutePackageUrl> for UpdateSource {
    fn from(url: AbsolutePackageUrl) -> Self {
        Self::Package(url)
    }
}

impl FromStr for UpdateSource {
    type Err = UpdateError;

    /// `fuchsia-pkg://` is a package, `https://` and `http://` a manifest on a server, `file:///` one in a file.
    fn from_str(given: &str) -> Result<Self, UpdateError> {
        let refused = |reason: String| UpdateError::Source { given: given.to_owned(), reason };
        match given.split_once("://") {
            Some(("fuchsia-pkg", _)) => {
                Ok(Self::Package(given.parse().map_err(|error| refused(format!("not a package URL: {error}")))?))
            }
            Some(("http" | "https", rest)) => {
                let url: SourceUrl = given.parse().map_err(|error| refused(format!("{error}")))?;
                if !rest.trim_end_matches('/').contains('/') {
                    return Err(refused("it names a server, not a manifest on it".to_owned()));
                }
                Ok(Self::Manifest(ManifestPlace::Url(url)))
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Manifest(ManifestPlace::File(path.into()))),
            _ => {
                Err(refused("it should be fuchsia-pkg://HOST/update, https://HOST/MANIFEST or file:///PATH".to_owned()))
            }
        }
    }
}

impl fmt::Display for UpdateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(url) => url.fmt(f),
            Self::Manifest(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for ManifestPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl ManifestPlace {
    /// The blobs that a manifest found here says are at `given`: the last segment is the delivery type, as the stock updater
    /// has it; without one they are raw.
    pub(super) fn blobs(&self, given: &str) -> Result<BlobAddress, UpdateError> {
        let refused =
            |reason: String| UpdateError::BlobAddress { from: self.to_string(), given: given.to_owned(), reason };
        let whole = self.resolve(given).map_err(refused)?;
        let whole: SourceUrl = whole.parse().map_err(|error| refused(format!("{error}")))?;
        let raw = BlobAddress { base: whole.clone(), preference: Preference::Raw };
        let Some((base, last)) = whole.as_str().rsplit_once('/') else { return Ok(raw) };
        let Ok(number) = last.parse::<u32>() else { return Ok(raw) };
        // A host that is a number is no delivery type.
        let Ok(base) = base.parse::<SourceUrl>() else { return Ok(raw) };
        let kind = DeliveryType::try_from(number).map_err(|error| refused(error.to_string()))?;
        Ok(BlobAddress { base, preference: Preference::Delivery(kind) })
    }

    /// RFC 3986 §5.2, as far as references without query and fragment go.
    fn resolve(&self, reference: &str) -> Result<String, String> {
        if reference.contains("://") {
            return Ok(reference.to_owned());
        }
        let Self::Url(url) = self else {
            return Err("a manifest in a file must say absolutely where its blobs are".to_owned());
        };
        let scheme_bytes = url.as_str().find("://").map_or(0, |at| at + 3);
        if let Some(authority) = reference.strip_prefix("//") {
            return Ok(format!("{}{authority}", &url.as_str()[..scheme_bytes]));
        }
        let path_at = scheme_bytes + url.authority().len();
        let (server, path) = url.as_str().split_at(path_at);
        let folder =
            if reference.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |(folder, _)| folder) };
        let mut segments: Vec<&str> = Vec::new();
        for segment in folder.split('/').chain(reference.split('/')) {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        Ok(segments.iter().fold(server.to_owned(), |url, segment| format!("{url}/{segment}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> ManifestPlace {
        match url.parse().unwrap() {
            UpdateSource::Manifest(place) => place,
            UpdateSource::Package(url) => panic!("{url}"),
        }
    }

    #[test]
    fn the_form_of_a_url_says_what_it_is() {
        for url in ["fuchsia-pkg://a.com/update", "https://a.com/m", "http://a.com:8083/x/m", "file:///tmp/m"] {
            let source: UpdateSource = url.parse().unwrap();
            assert_eq!(matches!(source, UpdateSource::Package(_)), url.starts_with("fuchsia"), "{url}");
            assert_eq!(source.to_string(), url.trim_start_matches("file://"));
        }
        for bad in
            ["update", "/tmp/m", "ftp://a.com/m", "https://a.com", "https://a.com/", "file://m", "fuchsia-pkg://"]
        {
            let refused = bad.parse::<UpdateSource>().unwrap_err();
            assert!(refused.to_string().starts_with(&format!("`{bad}` is no update: ")), "{refused}");
        }
    }

    #[test]
    fn blobs_are_beside_the_manifest_or_elsewhere() {
        let at = |given: &str| {
            let found = place("https://a.com/products/toucan/update.manifest").blobs(given).unwrap();
            (found.base.to_string(), found.preference)
        };
        let delivered = |base: &str| (base.to_owned(), Preference::Delivery(DeliveryType::Type1));
        assert_eq!(at("blobs/1"), delivered("https://a.com/products/toucan/blobs"));
        assert_eq!(at("../../blobs/1/"), delivered("https://a.com/blobs"));
        assert_eq!(at("./../../../../blobs/1"), delivered("https://a.com/blobs"));
        assert_eq!(at("/blobs/1"), delivered("https://a.com/blobs"));
        assert_eq!(at("//b.com/blobs/1"), delivered("https://b.com/blobs"));
        assert_eq!(at("http://b.com/1"), delivered("http://b.com"));
        assert_eq!(at("blobs"), ("https://a.com/products/toucan/blobs".to_owned(), Preference::Raw));
        assert_eq!(at("https://7").0, "https://7");
        let manifest = place("https://a.com/m");
        for bad in ["blobs/9", "ftp://b.com/1", "https://b.com/1?x=y", "https://"] {
            assert!(matches!(manifest.blobs(bad), Err(UpdateError::BlobAddress { .. })), "{bad}");
        }
        let file = place("file:///m");
        assert!(file.blobs("http://b.com/1").is_ok());
        let refused = file.blobs("blobs/1").unwrap_err();
        assert!(refused.to_string().contains("must say absolutely"), "{refused}");
    }
}
