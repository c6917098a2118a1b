//! Being a long-running process: configuration, telemetry, metrics, admin port, drain.
//!
//! What is deliberately absent: anything about blobs, requests or roles. A `main` reads: [`config::load`],
//! [`telemetry::init`], build everything, [`admin::Admin::start`], serve, [`drain::shutdown_signal`], [`drain::Drain::wait`].

pub mod admin;
pub mod config;
pub mod drain;
pub mod error;
pub mod limits;
pub mod metrics;
pub mod telemetry;

pub use admin::{Admin, Health};
pub use config::{ConfigErrors, EXIT_BAD_CONFIGURATION, Loaded, Source, Sources, load};
pub use drain::{Drain, Drained, shutdown_signal};
pub use error::ServiceError;
pub use metrics::{MetricsError, Registry};
