//! [`Overlay`]: what developers put in the place of the package sets of a device, base included: single packages, or every
//! package that a repository lists. Only in engineering mode, and never where the running release forbids it; what is there
//! is then kept, and without effect. Durable until it is cleared.

use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_package::url::{AbsolutePackageUrl, RepositoryUrl};
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use crate::authority::{Lookup, ResolvedBy};
use crate::device::Device;
use crate::error::DeviceError;
use crate::limits::{OVERLAY_BYTES_MAX, OVERLAY_MAX};
use crate::sets::key;

/// One thing that an overlay puts in the place of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlaid {
    /// A package: as its URL pins it, else as its repository lists it.
    Package(AbsolutePackageUrl),
    /// Every package that this repository lists, whatever host it is asked for by.
    Repository(RepositoryUrl),
}

/// All of it, in the order in which it was added; packages go before repositories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Single packages.
    pub packages: Vec<AbsolutePackageUrl>,
    /// Repositories.
    pub repositories: Vec<RepositoryUrl>,
}

/// The overlay of a device, in its place.
#[derive(Debug)]
pub(crate) struct Overlays {
    overlay: Mutex<Overlay>,
    kept: Option<Documents>,
}

/// The document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: String,
    packages: Vec<String>,
    repositories: Vec<String>,
}

impl Overlay {
    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.repositories.is_empty()
    }

    fn add(&mut self, overlaid: Overlaid) {
        match overlaid {
            Overlaid::Package(url) => {
                let wanted = key(url.as_unpinned());
                self.packages.retain(|other| key(other.as_unpinned()) != wanted);
                self.packages.push(url);
            }
            Overlaid::Repository(url) => {
                self.repositories.retain(|other| *other != url);
                self.repositories.push(url);
            }
        }
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        let form: Form = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if form.version != "1" {
            return Err(format!("it has version {:?}; this program reads \"1\"", form.version));
        }
        let packages = form.packages.iter().map(|url| url.parse().map_err(|error| format!("{url:?}: {error}")));
        let packages = packages.collect::<Result<_, _>>()?;
        let repositories = form.repositories.iter().map(|url| url.parse().map_err(|error| format!("{url:?}: {error}")));
        Ok(Self { packages, repositories: repositories.collect::<Result<_, _>>()? })
    }

    fn to_json(&self) -> Result<Vec<u8>, DeviceError> {
        let form = Form {
            version: "1".to_owned(),
            packages: self.packages.iter().map(ToString::to_string).collect(),
            repositories: self.repositories.iter().map(ToString::to_string).collect(),
        };
        let json = serde_json::to_vec(&form).map_err(|error| DeviceError::Internal(error.to_string()))?;
        if self.packages.len() + self.repositories.len() > OVERLAY_MAX || json.len() as u64 > OVERLAY_BYTES_MAX {
            let text = format!("an overlay has at most {OVERLAY_MAX} entries and {OVERLAY_BYTES_MAX} bytes");
            return Err(DeviceError::TooMuch(text));
        }
        Ok(json)
    }
}

impl Overlays {
    /// Nothing, and forgotten with the process.
    pub fn in_memory() -> Self {
        Self { overlay: Mutex::default(), kept: None }
    }

    /// What is kept in `documents`. What cannot be read is told and left out.
    pub fn open(documents: Documents) -> Result<Self, DeviceError> {
        let stored = documents.get(&document_name(), OVERLAY_BYTES_MAX)?;
        let overlay = stored.map(|stored| {
            Overlay::parse(&stored).unwrap_or_else(|error| {
                tracing::error!("the developer overlay cannot be used: {error}");
                Overlay::default()
            })
        });
        Ok(Self { overlay: Mutex::new(overlay.unwrap_or_default()), kept: Some(documents) })
    }

    fn lock(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Overlay)) -> Result<(), DeviceError> {
        let mut overlay = self.lock();
        let mut changed = overlay.clone();
        change(&mut changed);
        let json = changed.to_json()?;
        if let Some(documents) = &self.kept {
            documents.put(&document_name(), &json)?;
        }
        *overlay = changed;
        Ok(())
    }
}

fn document_name() -> DocumentName {
    "overlay.json".parse().expect("a good name")
}

impl Device {
    /// The developer overlay, whether or not it is in force.
    pub fn overlay(&self) -> Overlay {
        self.overlays().lock().clone()
    }

    /// Whether an overlay counts on this device.
    ///
    /// # Errors
    /// Why not: no engineering mode, or the running release forbids it.
    pub fn overlay_permitted(&self) -> Result<(), DeviceError> {
        if !self.config().engineering {
            return Err(DeviceError::NotEngineering);
        }
        match self.release().filter(|release| release.forbids_overlay()) {
            Some(release) => Err(DeviceError::OverlayForbidden(format!("{} {}", release.product(), release.version()))),
            None => Ok(()),
        }
    }

    /// Adds to the overlay, durably, in the place of what it had for the same package or repository.
    ///
    /// # Errors
    /// No overlay counts here, its repository is not configured, there would be too much, or the disk refuses.
    pub fn overlay_add(&self, overlaid: Overlaid) -> Result<(), DeviceError> {
        self.overlay_permitted()?;
        if let Overlaid::Repository(url) = &overlaid {
            self.repositories().get(url.host())?;
        }
        self.overlays().change(|overlay| overlay.add(overlaid))
    }

    /// Ends the overlay, durably; also where none counts.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn overlay_clear(&self) -> Result<(), DeviceError> {
        self.overlays().change(|overlay| *overlay = Overlay::default())
    }

    /// The overlay, if there is one and it counts.
    fn overlay_in_force(&self) -> Option<Overlay> {
        let overlay = self.overlay();
        (!overlay.is_empty() && self.overlay_permitted().is_ok()).then_some(overlay)
    }

    /// Whether an overlay in force names this repository: then it is trusted as it is configured.
    pub(crate) fn overlay_trusts(&self, host: &str) -> bool {
        self.overlay_in_force().is_some_and(|overlay| {
            let of_packages = overlay.packages.iter().map(|url| self.rules().rewrite(url).repository().host() == host);
            of_packages.chain(overlay.repositories.iter().map(|url| url.host() == host)).any(|is_named| is_named)
        })
    }

    /// What the overlay says of a URL without a pin, which would ask for one version whoever has it. A repository of it that cannot be asked is an error: to fall back to what developers want
    /// to be rid of would not be told apart from success.
    pub(crate) async fn overlaid(&self, url: &AbsolutePackageUrl) -> Result<Option<Lookup>, DeviceError> {
        let Some(overlay) = self.overlay_in_force().filter(|_| url.hash().is_none()) else { return Ok(None) };
        let by = ResolvedBy::Overlay;
        let wanted = key(url.as_unpinned());
        if let Some(package) = overlay.packages.iter().find(|package| key(package.as_unpinned()) == wanted) {
            let meant = self.rules().rewrite(url);
            let hash = match package.hash() {
                Some(hash) => hash,
                None => self.listed_hash(&meant).await?,
            };
            return Ok(Some(Lookup { url: meant, hash, by }));
        }
        for repository in &overlay.repositories {
            let package = repository.package(url.name().clone(), url.variant().cloned());
            let meant = AbsolutePackageUrl::Unpinned(package);
            match self.listed_hash(&meant).await {
                Ok(hash) => return Ok(Some(Lookup { url: meant, hash, by })),
                Err(DeviceError::PackageNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_for_each_package_and_repository() {
        let mut overlay = Overlay::default();
        let (plain, pinned) = ("fuchsia-pkg://a.com/p", format!("fuchsia-pkg://a.com/p/0?hash={}", "1".repeat(64)));
        overlay.add(Overlaid::Package(plain.parse().unwrap()));
        overlay.add(Overlaid::Package("fuchsia-pkg://a.com/q".parse().unwrap()));
        overlay.add(Overlaid::Package(pinned.parse().unwrap()));
        overlay.add(Overlaid::Repository("fuchsia-pkg://b".parse().unwrap()));
        overlay.add(Overlaid::Repository("fuchsia-pkg://b".parse().unwrap()));
        let shown: Vec<_> = overlay.packages.iter().map(ToString::to_string).collect();
        assert_eq!((shown, overlay.repositories.len()), (vec!["fuchsia-pkg://a.com/q".to_owned(), pinned], 1));
        assert_eq!(Overlay::parse(&overlay.to_json().unwrap()), Ok(overlay));
        for bad in ["", "{}", r#"{"version":"2","packages":[],"repositories":[]}"#] {
            assert!(Overlay::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = (0..=OVERLAY_MAX).map(|number| format!("fuchsia-pkg://a.com/p{number}").parse().unwrap());
        assert!(Overlay { packages: many.collect(), ..Overlay::default() }.to_json().is_err());
    }
}
