//! Tests of delivery blobs: golden vectors, geometry, and every rule of the strict form broken once.

mod geometry;
mod golden;
mod hostile;

use std::path::Path;

use bytes::Bytes;
use colibri_common::merkle::{Leaves, build};

use super::{DeliveryType, Layout};

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Content that compresses about three to one and differs everywhere.
fn text(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut content = Vec::with_capacity(bytes + 16);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(format!("{:05} ", state >> 48).as_bytes());
    }
    content.truncate(bytes);
    content
}

fn leaves_of(content: &[u8]) -> Leaves {
    let tree = build(content);
    Leaves::check(tree.id, tree.leaves.wire()).unwrap()
}

fn layout_of(blob: &[u8], ty: DeliveryType, content: &[u8]) -> Layout {
    Layout::from_unit_h(ty, leaves_of(content), blob).unwrap()
}

/// The encoded bytes of a run of pieces.
fn bytes_of(layout: &Layout, blob: &[u8], pieces: std::ops::Range<u32>) -> Bytes {
    Bytes::copy_from_slice(&blob[layout.pieces_range(pieces).within(0)])
}
