//! Fast against reference at every boundary; golden roots; every single-bit flip of data, leaves or length rejected.

use bytes::Bytes;

use super::*;
use crate::{BlobId, ClaimedLength};

/// Lengths around every boundary of the tree: leaf, unit (one hash block), two levels.
const INTERESTING: &[usize] = &[
    0, 1, 31, 32, 8191, 8192, 8193, 16383, 16384, 16385, 100_000, 2_097_151, 2_097_152, 2_097_153, 4_194_304,
    4_194_305, 6_300_000,
];

/// Bytes whose period is prime, so that swapped leaves cannot cancel out.
fn painted(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn fast_equals_reference() {
    for &length in INTERESTING {
        let data = painted(length);
        let tree = build(&data);
        assert_eq!(tree.id.as_bytes(), &reference::root(&data), "length {length}");
        assert_eq!(tree.length.bytes(), length as u64);
        assert_eq!(tree.leaves.count(), leaf_count(length as u64));
    }
}

#[test]
fn pieces_of_any_size_give_the_same_tree() {
    let data = painted(2_097_153);
    let whole = build(&data);
    for piece in [1000, 8191, 8192, 8193, 65_536, 2_000_000] {
        let mut builder = Builder::new();
        data.chunks(piece).for_each(|chunk| builder.push(chunk));
        let tree = builder.finish();
        assert_eq!(tree.id, whole.id, "pieces of {piece}");
        assert_eq!(tree.leaves, whole.leaves);
    }
}

#[test]
fn checked_leaves_verify_any_run() {
    for &length in INTERESTING {
        let data = Bytes::from(painted(length));
        let tree = build(&data);
        let leaves = Leaves::check(tree.id, tree.leaves.wire()).unwrap();
        let last = leaves.last_leaf(ClaimedLength(length as u64)).unwrap();
        let run = leaves.verify(last.start(), data.slice(last.within(0))).unwrap();
        assert_eq!(run.length().map(|proven| proven.bytes()), Some(length as u64));
        if length > 16_384 {
            let middle = leaves.verify(8192, data.slice(8192..16_384)).unwrap();
            assert_eq!(middle.length(), None, "only the last leaf proves the length");
        }
    }
}

#[test]
fn verifier_in_order_proves_the_length_only_at_the_last_leaf() {
    for &length in INTERESTING {
        let data = painted(length);
        let tree = build(&data);
        let mut verifier = Verifier::new(tree.leaves.clone(), tree.length.into()).unwrap();
        let mut seen = 0;
        for chunk in data.chunks(5000) {
            if let Some(run) = verifier.push(chunk).unwrap() {
                assert_eq!(run.offset(), seen);
                seen += run.bytes().len() as u64;
                assert_eq!(run.length().is_some(), seen == length as u64);
            }
        }
        assert_eq!(verifier.finish().unwrap().bytes(), length as u64);
    }
}

#[test]
fn every_bit_flip_of_data_is_rejected() {
    for length in [1, 100, 8192, 8193, 20_000] {
        let data = painted(length);
        let tree = build(&data);
        for bit in 0..length * 8 {
            // Every bit of the small ones, a spread of the large one.
            if length > 8193 && bit % 61 != 0 {
                continue;
            }
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let offset = (bit / 8) as u64 / LEAF_BYTES * LEAF_BYTES;
            let end = (offset + LEAF_BYTES).min(length as u64);
            let leaf = Bytes::copy_from_slice(&flipped[offset as usize..end as usize]);
            let refused = tree.leaves.verify(offset, leaf).unwrap_err();
            assert!(matches!(refused, VerifyError::BadLeaf { offset: at, .. } if at == offset), "bit {bit}: {refused}");
        }
    }
}

#[test]
fn every_bit_flip_of_leaves_is_rejected() {
    let tree = build(&painted(20_000));
    let wire = tree.leaves.wire();
    for bit in 0..wire.len() * 8 {
        let mut flipped = wire.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Leaves::check(tree.id, Bytes::from(flipped)).is_err(), "bit {bit}");
    }
}

#[test]
fn every_bit_flip_of_the_length_is_rejected() {
    for length in [0_usize, 1, 8192, 8193, 20_000] {
        let data = painted(length);
        let tree = build(&data);
        for bit in 0..64 {
            let claim = length as u64 ^ (1 << bit);
            let outcome =
                Verifier::new(tree.leaves.clone(), ClaimedLength(claim)).map_err(drop).and_then(|mut verifier| {
                    verifier.push(&data).map_err(drop)?;
                    verifier.finish().map_err(drop)
                });
            assert!(outcome.is_err(), "length {length} claimed as {claim}");
        }
    }
}

#[test]
fn zero_leaves_and_wrong_counts_are_refused() {
    let tree = build(&painted(20_000));
    let mut longer = tree.leaves.wire().to_vec();
    longer.extend([0; 32]);
    // The padded hash block is the same, so only the all-zero rule refuses this list.
    assert_eq!(Leaves::check(tree.id, Bytes::from(longer)), Err(LeavesError::ZeroLeaf(3)));
    assert_eq!(Leaves::check(tree.id, Bytes::from(vec![1; 32])), Err(LeavesError::Shape(32)));
    assert_eq!(Leaves::check(tree.id, Bytes::from(vec![1; 65])), Err(LeavesError::Shape(65)));
    let count = LeavesError::Count { count: 3, claimed: 24_577 };
    assert_eq!(tree.leaves.fits(ClaimedLength(24_577)), Err(count));
}

#[test]
fn runs_that_end_early_or_late_are_refused() {
    let data = Bytes::from(painted(20_000));
    let tree = build(&data);
    assert!(matches!(tree.leaves.verify(0, data.slice(..9000)), Err(VerifyError::TooShort { .. })));
    assert!(matches!(tree.leaves.verify(1, data.slice(1..)), Err(VerifyError::Misaligned { .. })));
    let longer = Bytes::from(painted(30_000));
    assert!(matches!(tree.leaves.verify(0, longer), Err(VerifyError::TooLong { .. })));
    assert!(matches!(tree.leaves.verify(0, Bytes::new()), Err(VerifyError::TooShort { .. })));
    assert!(matches!(tree.leaves.verify(16_384, data.slice(16_384..19_999)), Err(VerifyError::BadLeaf { .. })));
}

#[test]
fn levels_of_the_golden_small_tree() {
    let leaves = build(&[0xab; 16_385]).leaves;
    let golden = [
        "1dc023a7a88f56fab52e0b078a92cd566546d11aed479c66a14d6592e0f011eb",
        "8536fc17e46fdd573e125afa9fc0ddf2f7de7c836feee0c1e172cd1ca1e65e79",
        "b0730e5cad707ab71d50ce06f0088fb0c3583dac0fbe8eea537f28f78ff1679d",
    ];
    for (index, hash) in golden.iter().enumerate() {
        assert_eq!(crate::hex(&leaves.hash(index as u64)), *hash);
    }
    let root: BlobId = "54c9eb182fc5bfc2984ca45049cf8cf1d071f2165e5190605b7970f824e03d8f".parse().unwrap();
    assert_eq!(leaves.id(), root);
}
