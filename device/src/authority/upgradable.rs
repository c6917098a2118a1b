//! Upgradable packages as an authority: the versions that their own authority said, all at once or one by one, and the wait for
//! the first of its words after a start.
//!
//! The versions themselves are kept with the other indices (`kept.upgradable`), durably and never below the release's minimum
//! (`Table::check_upgrade`). Deliberately absent: asking that authority, and verifying its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use colibri_package::url::UnpinnedPackageUrl;
use tokio::sync::watch;

use crate::device::Device;
use crate::error::DeviceError;
use crate::sets::{Table, Upgrade, key};

/// Whether the versions of upgradable packages were said since the start.
#[derive(Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits for it, and not longer than this; whether it opened while it was waited for.
    pub async fn opened_within(&self, wait_s: u64) -> bool {
        let mut opened = self.0.subscribe();
        if wait_s == 0 || *opened.borrow() {
            return false;
        }
        let opens = tokio::time::timeout(Duration::from_secs(wait_s), opened.wait_for(|is_open| *is_open));
        matches!(opens.await, Ok(Ok(_)))
    }
}

impl Device {
    /// Replaces the versions of all upgradable packages, durably; those that are not named fall back. What waits for the first
    /// word after a start (`upgradable_wait_s`) goes on. Whoever calls has verified that their authority said so, and sees to
    /// it that packages come here before they are named: a version is used from now on whether or not it is here.
    ///
    /// # Errors
    /// No release runs, or it does not accept one of them: then nothing is changed.
    pub async fn set_upgradable(&self, versions: &BTreeMap<UnpinnedPackageUrl, Upgrade>) -> Result<(), DeviceError> {
        let release = self.release().ok_or(DeviceError::NoRelease)?;
        let none = BTreeMap::new();
        for (url, upgrade) in versions {
            Table::new(&release, &none).check_upgrade(url, *upgrade)?;
        }
        let upgrades = versions.iter().map(|(url, upgrade)| (key(url), *upgrade)).collect();
        self.cache().change(|kept| Table::new(&release, &upgrades).apply(kept)).await?;
        self.authorities().upgradable.open();
        Ok(())
    }

    /// Says that what is kept of upgradable packages is all there is for now: nobody need wait for more.
    pub fn upgradable_is_known(&self) {
        self.authorities().upgradable.open();
    }
}
