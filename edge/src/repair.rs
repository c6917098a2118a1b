//! [`Repairs`]: what a scrub of the disk tier finds rotten is fetched again, the piece and no more, one unit after the other,
//! as a background matter within the budgets of the sources. What no source has now goes from the disk.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use colibri_fetch::{BlobFetcher, Class};
use tokio::sync::mpsc;

use crate::cache::Cache;
use crate::disk::{Damage, DiskTier};
use crate::limits::REPAIRS_QUEUED_MAX;
use crate::unit::UnitKey;

/// The way to whoever repairs.
#[derive(Debug)]
pub(crate) struct Repairs {
    queue: mpsc::Sender<Damage>,
    queued: Arc<Mutex<HashSet<UnitKey>>>,
}

impl Repairs {
    /// Asks for a repair; false if too many are waiting already, or nobody repairs any more.
    pub fn ask(&self, damage: Damage) -> bool {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.contains(&damage.key) || (self.queue.try_send(damage).is_ok() && queued.insert(damage.key))
    }
}

/// Repairs what `disk` finds damaged from now on, for as long as it lives. Nothing says under which of its paths a blob came:
/// `places` are tried in turn.
pub(crate) fn start(cache: &Arc<Cache>, disk: &DiskTier, fetcher: &BlobFetcher, places: Vec<String>) {
    let (queue, mut asked) = mpsc::channel::<Damage>(REPAIRS_QUEUED_MAX);
    let repairs = Repairs { queue, queued: Arc::default() };
    let (queued, cache) = (repairs.queued.clone(), Arc::downgrade(cache));
    let fetcher = fetcher.clone().with_class(Class::Background);
    disk.repaired_by(repairs);
    tokio::spawn(async move {
        while let Some(damage) = asked.recv().await {
            let Some(cache) = cache.upgrade() else { return };
            cache.repair(&fetcher, &places, damage).await;
            queued.lock().unwrap_or_else(PoisonError::into_inner).remove(&damage.key);
        }
    });
}
