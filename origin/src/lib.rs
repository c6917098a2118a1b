//! Serves repositories over the read API (architecture §5), from folders laid out as the real tools do.
//!
//! It reads files, proves them once, and answers. Where the keys of snapshot and timestamp are at hand it has them signed
//! again in time ([`Refresher`]); the write API ([`mod@write`]) is there only where a listener is configured for it. What is
//! deliberately absent: how things are signed (`repository`), the authority, any cache of blob bytes (the page cache is one).

mod blob_folders;
mod config;
mod content;
mod error;
mod events;
mod file;
mod find;
mod forms;
pub mod limits;
mod observe;
mod origin;
mod pages;
mod proof;
mod refresher;
mod reload;
mod repository;
mod serve;
mod small_files;
pub mod write;

pub use colibri_api::RepositoryName;
pub use colibri_repository::KeySources;
pub use config::{OriginConfig, RepositoryConfig};
pub use error::OriginError;
pub use observe::{Count, Counters, ObservedRequest, RequestObserver};
pub use origin::Origin;
pub use refresher::{RefreshMetrics, Refresher};
pub use reload::{Reloader, changeable};
pub use serve::{OriginServer, OriginServerConfig, run};
