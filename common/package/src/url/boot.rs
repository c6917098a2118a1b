//! `fuchsia-boot` URLs: parsed, so that they can be shown and refused by name; nothing is resolved there.

use std::fmt;
use std::str::FromStr;

use percent_encoding::utf8_percent_encode;

use super::parts::{Parts, Scheme};
use super::{FRAGMENT, UrlError};
use crate::resource_path::ResourcePath;

/// `fuchsia-boot:///PATH[#RESOURCE]`: something in the boot file system; parsed so that it can be refused by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootUrl {
    path: String,
    resource: Option<ResourcePath>,
}

impl BootUrl {
    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The resource, if the URL names one.
    pub const fn resource(&self) -> Option<&ResourcePath> {
        self.resource.as_ref()
    }
}

impl FromStr for BootUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        match parts.scheme {
            None => return Err(UrlError::MissingScheme),
            Some(Scheme::Boot) => {}
            Some(Scheme::Package) => return Err(UrlError::InvalidScheme),
        }
        if parts.host.is_some() {
            return Err(UrlError::HostMustBeEmpty);
        }
        parts.no_hash()?;
        Ok(Self { path: format!("/{}", parts.segments.join("/")), resource: parts.resource })
    }
}

impl fmt::Display for BootUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fuchsia-boot://{}", self.path)?;
        let resource = self.resource.iter();
        resource.map(|path| utf8_percent_encode(path.as_str(), FRAGMENT)).try_for_each(|path| write!(f, "#{path}"))
    }
}
