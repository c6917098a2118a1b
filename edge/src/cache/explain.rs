//! What the tiers hold of a blob and how that came to be, for people who ask. Looks without touching: nothing is fetched, no
//! counter moves, nothing becomes more worth keeping.

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::delivery::{DeliveryType, Encoding};
use serde::Serialize;

use super::Cache;
use crate::history::Past;
use crate::limits::EXPLAINED_UNITS_MAX;
use crate::unit::UnitKey;

/// Every encoding there is.
const ENCODINGS: [Encoding; 3] =
    [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];

/// One encoding of a blob.
#[derive(Debug, Serialize)]
pub(crate) struct FormState {
    encoding: String,
    /// Whether its shape is in memory. If it is not, what the disk tier has is found when somebody asks for it.
    opened: bool,
    /// Length, bytes.
    bytes: Option<u64>,
    /// How many units it has; of very many only the first are listed.
    unit_count: Option<u32>,
    units: Vec<UnitState>,
}

/// One unit.
#[derive(Debug, Serialize)]
struct UnitState {
    unit: u32,
    bytes: u64,
    in_memory: bool,
    on_disk: bool,
    in_flight: bool,
    #[serde(flatten)]
    past: Past,
}

impl Cache {
    /// Since when is remembered what happened to units.
    pub fn remembers_since(&self) -> UnixSeconds {
        self.tiers.history.since()
    }

    /// What is here of a blob.
    pub fn explain(&self, id: BlobId) -> Vec<FormState> {
        ENCODINGS.into_iter().map(|encoding| self.explain_form(id, encoding)).collect()
    }

    fn explain_form(&self, id: BlobId, encoding: Encoding) -> FormState {
        let tiers = &self.tiers;
        let Some(opened) = tiers.shapes.opened(id, encoding) else {
            return FormState {
                encoding: encoding.to_string(),
                opened: false,
                bytes: None,
                unit_count: None,
                units: Vec::new(),
            };
        };
        let layout = &opened.layout;
        let units = (0..layout.unit_count().min(EXPLAINED_UNITS_MAX)).map(|unit| {
            let key = UnitKey::of(layout, unit);
            UnitState {
                unit,
                bytes: layout.unit_range(unit).len(),
                in_memory: tiers.memory.has(&key),
                on_disk: tiers.disk.as_ref().is_some_and(|disk| disk.has(&key)),
                in_flight: tiers.is_coming(&key),
                past: tiers.history.of(id, encoding, unit).unwrap_or_default(),
            }
        });
        FormState {
            encoding: encoding.to_string(),
            opened: true,
            bytes: Some(layout.encoded_length().0),
            unit_count: Some(layout.unit_count()),
            units: units.collect(),
        }
    }
}
