//! [`Rules`]: the rewrite rules of a device: those it was shipped with, and those that people set, which go first and are
//! durable when the device has a folder.

use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_package::url::AbsolutePackageUrl;
use colibri_store::{DocumentName, Documents};

use crate::error::DeviceError;
use crate::limits::{RULES_BYTES_MAX, RULES_MAX};
use crate::rewrite::{self, RewriteError, Rule};
use crate::static_config::StaticConfig;

/// All rewrite rules of a device.
#[derive(Debug)]
pub struct Rules {
    shipped: Vec<Rule>,
    set: Mutex<Vec<Rule>>,
    may_be_set: bool,
    kept: Option<Documents>,
}

impl Rules {
    /// No rules; those that are set are forgotten with the process.
    pub fn in_memory() -> Self {
        Self { shipped: Vec::new(), set: Mutex::default(), may_be_set: true, kept: None }
    }

    /// Rules kept in `documents`, after those of `shipped`. A list that cannot be read is told and left out: a device that can
    /// do less is better than one that can do nothing.
    pub fn open(documents: Documents, shipped: &StaticConfig) -> Result<Self, DeviceError> {
        let stored = if shipped.dynamic { documents.get(&document_name(), RULES_BYTES_MAX)? } else { None };
        let set = stored.map(|stored| {
            rewrite::parse(&stored).unwrap_or_else(|error| {
                tracing::error!("the rewrite rules that were set cannot be used: {error}");
                Vec::new()
            })
        });
        let (shipped, may_be_set) = (shipped.rules.clone(), shipped.dynamic);
        Ok(Self { shipped, set: Mutex::new(set.unwrap_or_default()), may_be_set, kept: Some(documents) })
    }

    /// The URL that is meant by `url`.
    pub fn rewrite(&self, url: &AbsolutePackageUrl) -> AbsolutePackageUrl {
        rewrite::rewrite(self.set().iter().chain(&self.shipped), url)
    }

    /// All, in the order in which they are tried.
    pub fn list(&self) -> Vec<Rule> {
        self.set().iter().chain(&self.shipped).cloned().collect()
    }

    /// Those that were set.
    pub fn dynamic(&self) -> Vec<Rule> {
        self.set().clone()
    }

    /// Puts `rules` in the place of all that were set; none of them to clear.
    ///
    /// # Errors
    /// The device does not allow it, there are too many, or they cannot be made durable: then all is as it was.
    pub fn replace(&self, rules: Vec<Rule>) -> Result<(), DeviceError> {
        self.change(|set| *set = rules)
    }

    /// Changes those that were set, in one step.
    ///
    /// # Errors
    /// As [`Rules::replace`].
    pub fn change(&self, change: impl FnOnce(&mut Vec<Rule>)) -> Result<(), DeviceError> {
        if !self.may_be_set {
            return Err(DeviceError::StaticOnly);
        }
        let mut set = self.set();
        let mut changed = set.clone();
        change(&mut changed);
        let text = rewrite::to_json(&changed).to_string();
        if changed.len() > RULES_MAX || text.len() as u64 > RULES_BYTES_MAX {
            return Err(RewriteError::TooMany.into());
        }
        if let Some(documents) = &self.kept {
            documents.put(&document_name(), text.as_bytes())?;
        }
        *set = changed;
        Ok(())
    }

    fn set(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn document_name() -> DocumentName {
    "rewrites.json".parse().expect("a good name")
}
