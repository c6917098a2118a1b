//! The images of a system update: where each goes, and which of them belong together; the same for update packages and signed
//! manifests.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use crate::update_package::UpdateMode;

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageTarget {
    /// A partition of one of the slots.
    Partition {
        /// Which slot.
        slot: ImageSlot,
        /// Which partition of it.
        kind: PartitionKind,
    },
    /// Firmware of this type; the empty one is the board's default.
    Firmware(String),
}

/// A slot as an update names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSlot {
    /// The slot that does not run now.
    Fuchsia,
    /// Recovery.
    Recovery,
}

/// A partition of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionKind {
    /// Kernel and boot file system.
    Zbi,
    /// What the boot loader verifies it by.
    Vbmeta,
}

/// Why a list of images is none of an update.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImagesError {
    /// Two images for one place.
    #[error("two images for {0}")]
    Duplicate(ImageTarget),
    /// A slot that could not be verified at boot.
    #[error("a vbmeta for {0} without its zbi")]
    VbmetaAlone(ImageSlot),
    /// A normal update must bring a system.
    #[error("the update has mode normal and no zbi for the fuchsia slot")]
    NoSystem,
    /// An update of recovery must not bring another system.
    #[error("the update has mode force-recovery and an image for the fuchsia slot")]
    SystemInRecovery,
}

/// Whether these images make an update of this mode.
pub(crate) fn check_images<'a>(
    mode: UpdateMode,
    images: impl IntoIterator<Item = &'a ImageTarget>,
) -> Result<(), ImagesError> {
    let mut targets = BTreeSet::new();
    for target in images {
        if !targets.insert(target) {
            return Err(ImagesError::Duplicate(target.clone()));
        }
    }
    let has = |slot, kind| targets.contains(&ImageTarget::Partition { slot, kind });
    for slot in [ImageSlot::Fuchsia, ImageSlot::Recovery] {
        if has(slot, PartitionKind::Vbmeta) && !has(slot, PartitionKind::Zbi) {
            return Err(ImagesError::VbmetaAlone(slot));
        }
    }
    match (mode, has(ImageSlot::Fuchsia, PartitionKind::Zbi)) {
        (UpdateMode::Normal, false) => Err(ImagesError::NoSystem),
        (UpdateMode::ForceRecovery, true) => Err(ImagesError::SystemInRecovery),
        _ => Ok(()),
    }
}

impl fmt::Display for ImageSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fuchsia => "fuchsia",
            Self::Recovery => "recovery",
        })
    }
}

impl fmt::Display for ImageTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { slot, kind: PartitionKind::Zbi } => write!(f, "zbi of slot {slot}"),
            Self::Partition { slot, kind: PartitionKind::Vbmeta } => write!(f, "vbmeta of slot {slot}"),
            Self::Firmware(kind) => write!(f, "firmware {kind:?}"),
        }
    }
}
