//! The edge under faults: what it promises its readers and its upstream when everybody around it misbehaves.

mod blobs;
mod chains;
mod documents;
mod liars;
mod site;
mod sources;
mod tiers;
mod upstream;
