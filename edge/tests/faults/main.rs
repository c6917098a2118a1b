//! The edge under faults: what it promises its readers and its upstream when everybody around it misbehaves.

mod access;
mod auto;
mod blobs;
mod chains;
mod desk;
mod documents;
mod liars;
mod metadata;
mod parts;
mod peers;
mod process;
mod relay;
mod reload;
mod site;
mod sources;
mod tiers;
mod upstream;
mod warm;
