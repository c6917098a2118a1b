//! Another membership for a running edge: checked whole, then taken over. Who stays keeps its health and its connections.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use colibri_fetch::BudgetLimits;
use tokio_util::task::AbortOnDropHandle;

use super::{Directory, Peers, follow};
use crate::config::PeersConfig;
use crate::error::EdgeError;

/// A membership that was checked and is not yet in use.
#[derive(Debug)]
pub(crate) struct Change {
    members: Vec<String>,
    directory: Option<Directory>,
    refresh: Duration,
    in_flight_max: u32,
}

impl Peers {
    /// Checks what `config` says of members, and where they are asked for.
    pub(crate) fn prepare(&self, config: &PeersConfig, in_flight_max: u32) -> Result<Change, EdgeError> {
        for name in &config.members {
            self.member(&name.to_ascii_lowercase())?;
        }
        let (members, directory) = (config.members.clone(), Directory::of(config)?);
        Ok(Change { members, directory, refresh: Duration::from_secs(config.refresh_s.max(1)), in_flight_max })
    }

    /// Takes it over. Members that only a directory knows stay until it was asked.
    pub(crate) fn change(self: &Arc<Self>, change: Change) -> Result<(), EdgeError> {
        let Change { members, directory, refresh, in_flight_max } = change;
        self.in_flight_max.store(in_flight_max, Ordering::Relaxed);
        for member in self.members().iter() {
            member.source.budget().set_limits(BudgetLimits { in_flight_max, ..BudgetLimits::default() });
        }
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.term += 1;
        following.task = None;
        match directory {
            None => self.set(&members)?,
            Some(directory) => {
                let task = follow(Arc::downgrade(self), directory, members, refresh, following.term);
                following.task = Some(AbortOnDropHandle::new(tokio::spawn(task)));
            }
        }
        Ok(())
    }
}
