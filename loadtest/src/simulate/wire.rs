//! [`Wire`]: what a blob costs on the wire, as the real fetch asks for it: leaves, the beginning of the delivery blob, its last
//! piece, its units.
//!
//! A device fetches from an edge by the same rules as an edge from its upstream, so one description serves both. Generated content
//! cannot be compressed, so its delivery blob is a header and the content; that of a meta.far is made and measured.

use colibri_common::merkle::{self, LEAF_BYTES, leaf_count, unit_count};
use colibri_fetch::limits::OPEN_WHOLE_BYTES_MAX;
use colibri_package::delivery::{DeliveryType, UNIT_H_PROBE_BYTES, encode};
use colibri_package::{AbiRevision, PackageBuild};

/// Bytes of a leaf in a list of leaves.
const LEAF_HASH_BYTES: u64 = 32;

/// Bytes before the content of an uncompressed delivery blob.
const HEADER_BYTES: u64 = 28;

/// zstd level at which a run publishes.
const LEVEL: i32 = 1;

/// A blob on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Body bytes of all answers together.
    pub bytes: u64,
    /// Bytes that it takes in a cache.
    pub kept_bytes: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Times that a unit of it is asked of an edge.
    pub asked: u64,
    /// Units, which an edge fills once.
    pub units: u64,
    /// Requests.
    pub requests: u32,
    /// Requests that wait for one another.
    pub rounds: u32,
}

impl Wire {
    /// A blob of generated content.
    pub fn of_content(content_bytes: u64) -> Self {
        Self::of(content_bytes, HEADER_BYTES + content_bytes)
    }

    /// A blob with this encoded form.
    fn of(content_bytes: u64, encoded_bytes: u64) -> Self {
        let leaves = leaf_count(content_bytes);
        let leaves_bytes = if leaves > 1 { leaves * LEAF_HASH_BYTES } else { 0 };
        let units = unit_count(content_bytes);
        let of = |bytes, asked, requests, rounds| Self {
            bytes: leaves_bytes + bytes,
            kept_bytes: encoded_bytes,
            content_bytes,
            asked,
            units,
            requests,
            rounds,
        };
        if encoded_bytes <= UNIT_H_PROBE_BYTES {
            // The first request brings all of it.
            of(encoded_bytes, 1, 2, 2)
        } else if units == 1 && encoded_bytes <= OPEN_WHOLE_BYTES_MAX {
            of(encoded_bytes, 2, 3, 3)
        } else {
            // The beginning is fetched for its seek table, the last leaf for the length; then the units, but for that leaf.
            let last_alone = u64::from(content_bytes - (units - 1) * merkle::UNIT_BYTES <= LEAF_BYTES);
            let ranges = units - last_alone;
            let requests = u32::try_from(3 + ranges).unwrap_or(u32::MAX);
            of(UNIT_H_PROBE_BYTES + content_bytes, 2 + ranges, requests, 4)
        }
    }

    /// The meta.far of a package with these files. What it lists is drawn: a hash looks like any other.
    pub fn of_meta_far(name: &str, paths: &[String]) -> Self {
        let built = || {
            let mut build = PackageBuild::new(name.parse().ok()?, AbiRevision(1));
            for path in paths {
                build.add_content(path, merkle::build(path.as_bytes()).id).ok()?;
            }
            let meta_far = build.finish().ok()?;
            let encoded = encode(&meta_far, DeliveryType::Type1, Some(LEVEL)).ok()?;
            Some(Self::of(meta_far.len() as u64, encoded.len() as u64))
        };
        // Names of a catalogue are names of packages and files; should they ever not be, a meta.far is about this large.
        built().unwrap_or_else(|| Self::of_content(16 << 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_as_they_are_fetched() {
        let small = Wire::of_content(2);
        assert_eq!((small.bytes, small.asked, small.units), (30, 1, 1), "one leaf needs no list");
        let probed = Wire::of_content(32_768);
        assert_eq!((probed.bytes, probed.asked, probed.requests), (4 * 32 + 32_796, 1, 2));
        let whole = Wire::of_content(60_000);
        assert_eq!((whole.bytes, whole.asked, whole.requests), (8 * 32 + 60_028, 2, 3));
        let large = Wire::of_content(65_536);
        assert_eq!((large.bytes, large.asked, large.units), (8 * 32 + 32_796 + 65_536, 3, 1));
        let two = Wire::of_content(3 << 20);
        assert_eq!((two.bytes, two.asked, two.units), (384 * 32 + 32_796 + (3 << 20), 4, 2));
        let ends = Wire::of_content((2 << 20) + 100);
        assert_eq!((ends.asked, ends.units), (3, 2), "the second unit came with the proof of the length");
    }

    #[test]
    fn a_meta_far_grows_with_what_it_lists() {
        let paths = |count: usize| (0..count).map(|file| format!("data/file-{file:05}")).collect::<Vec<_>>();
        let (few, many) = (Wire::of_meta_far("system", &paths(2)), Wire::of_meta_far("system", &paths(400)));
        assert!(
            few.bytes < many.bytes && few.content_bytes >= 8192 && few.content_bytes % 4096 == 0,
            "{few:?} {many:?}"
        );
        // A hash in hex cannot be written in less than half of its letters.
        assert!(many.kept_bytes > 400 * 32, "{many:?}");
    }
}
