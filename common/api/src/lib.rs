//! The read API as pure functions over `http` types: paths, ranges, conditionals, cache headers, `Cache-Status`, error bodies.
//!
//! Origin, edge and client all go through this package, so a path, an entity tag or a status means the same at every hop
//! (architecture §5). What is deliberately absent: sockets, files, bodies, time, and any knowledge of what a blob contains.

pub mod accept;
pub mod cache;
pub mod cache_status;
pub mod coding;
pub mod conditional;
pub mod limits;
pub mod multipart;
pub mod path;
pub mod plan;
pub mod problem;
pub mod range;
pub mod trace;

pub use accept::prefers_json;
pub use cache_status::{CacheStatus, Forward};
pub use coding::{Coding, UnknownCoding, negotiate};
pub use conditional::{Decision, DeliveryTag, ETag};
pub use multipart::{Multipart, Piece};
pub use path::{BlobForm, MetadataFile, PathError, RepositoryName, Route, parse_path};
pub use plan::{Representation, ResponsePlan, head_for};
pub use problem::{ApiError, ProblemResponse};
pub use range::{ByteRangeSpec, ContentRange, ContentRangeError, RangeRequest, Unsatisfiable};
pub use trace::Trace;
