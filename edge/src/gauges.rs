//! Budgets and what is used of them, as they are when metrics are rendered.

use std::sync::Arc;

use colibri_service::metrics::{IntGauge, MetricsError, Registry};

use crate::cache::Cache;
use crate::config::EdgeConfig;

/// What is used now of the room in memory that is not the tier's, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// By units that readers hold.
    pub pinned_bytes: u64,
    /// By units that are being filled.
    pub filling_bytes: u64,
}

/// Budgets of memory, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budgets {
    /// For units that are kept.
    pub tier_bytes: u64,
    /// See [`Used::pinned_bytes`].
    pub pinned_bytes: u64,
    /// See [`Used::filling_bytes`].
    pub filling_bytes: u64,
}

/// Exports them for the tiers of one edge.
pub(crate) fn export(config: &EdgeConfig, cache: &Arc<Cache>, registry: &Registry) -> Result<(), MetricsError> {
    let budgets = cache.budgets();
    let (disk_bytes, disk_files) = config.disk.as_ref().map_or((0, 0), |disk| (disk.bytes, disk.files));
    for (name, help, budget) in [
        ("colibri_edge_memory_budget_bytes", "budget for units in memory", budgets.tier_bytes),
        ("colibri_edge_pinned_budget_bytes", "room for what readers hold", budgets.pinned_bytes),
        ("colibri_edge_filling_budget_bytes", "room for units that are being filled", budgets.filling_bytes),
        ("colibri_edge_disk_budget_bytes", "budget of the disk tier, 0 without one", disk_bytes),
        ("colibri_edge_disk_budget_files", "most files of the disk tier, 0 without one", disk_files),
    ] {
        set(&registry.gauge(name, help)?, budget);
    }
    let pinned = registry.gauge("colibri_edge_pinned_bytes", "of the room for what readers hold, what is taken")?;
    let filling = registry.gauge("colibri_edge_filling_bytes", "of the room for units being filled, what is taken")?;
    let cache = Arc::downgrade(cache);
    registry.before_rendering(move || {
        let Some(cache) = cache.upgrade() else { return };
        let used = cache.used();
        set(&pinned, used.pinned_bytes);
        set(&filling, used.filling_bytes);
    });
    Ok(())
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}
