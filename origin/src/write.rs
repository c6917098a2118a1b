//! The write API: publishing to a running origin (`docs/write-api.md`).
//!
//! On listeners of its own, for people with a token or a client certificate, over HTTP/2 and 1.1, without early data.
//! Everything a publish rests on is in `colibri-repository`; here is who may ask for it, how fast, and what they are told.
//! Deliberately absent: any way to read blobs or metadata, which is the read API's.

mod api;
mod audit;
mod auth;
mod config;
mod edges;
mod problem;
mod role;
mod route;
mod tokens;
mod uploads;

pub use api::WriteApi;
pub use config::{EdgeGateConfig, WriteConfig};
pub use role::WriteRole;
pub use tokens::{NewToken, TOKEN_PREFIX, TokenEntry, TokenError, TokenFile, Tokens};
