//! Being a long-running process: configuration, telemetry, metrics, admin port, certificates and configuration that change,
//! drain.
//!
//! What is deliberately absent: anything about blobs, requests or roles. A `main` reads: [`config::load`],
//! [`telemetry::init`], build everything, [`admin::Admin::start`], serve, [`drain::shutdown_signal`], [`drain::Drain::wait`].

pub mod access_log;
pub mod admin;
pub mod certificates;
pub mod config;
pub mod drain;
pub mod error;
pub mod hangup;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod readiness;
pub mod reload;
pub mod telemetry;

pub use access_log::{AccessLog, AccessLogConfig};
pub use admin::{Admin, Health};
pub use certificates::{ReloadMetrics, TlsFiles};
pub use config::{ConfigErrors, EXIT_BAD_CONFIGURATION, Loaded, Source, Sources, load};
pub use drain::{Drain, Drained, shutdown_signal};
pub use error::ServiceError;
pub use hangup::on_hangup;
pub use listener::{ListenerConfig, register_counters};
pub use metrics::{MetricsError, Registry};
pub use readiness::{Readiness, sign_of_life_every};
pub use reload::{Changes, Reload, ReloadError, Reloading};
pub use telemetry::LogFilter;
