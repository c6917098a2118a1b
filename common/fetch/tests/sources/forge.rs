//! Delivery blobs that break the rules of the strict form on purpose, with checksums that are right.

use colibri_common::merkle;
use colibri_package::delivery::{Layout, encode};

use crate::site::TYPE;

/// A frame and how much content it is said to have.
pub type Frame = (u64, Vec<u8>);

/// The frames of the usual encoding.
pub fn frames(content: &[u8]) -> Vec<Frame> {
    let encoded = encode(content, TYPE, Some(1)).unwrap();
    let layout = Layout::from_unit_h(TYPE, merkle::build(content).leaves, &encoded).unwrap();
    let frame = |piece| (layout.piece_content(piece).len(), encoded[layout.piece_range(piece).within(0)].to_vec());
    (0..layout.piece_count()).map(frame).collect()
}

/// A compressed delivery blob of these frames, with `gap` bytes before the first and `tail` after the last.
pub fn delivery_blob(frames: &[Frame], gap: u64, tail: u64) -> Vec<u8> {
    let table_end = 32 + 32 * frames.len() as u64;
    let (mut table, mut body) = (Vec::new(), vec![0; gap as usize]);
    let mut content_at = 0;
    for (content_bytes, frame) in frames {
        let frame_at = table_end + body.len() as u64;
        for number in [content_at, *content_bytes, frame_at, frame.len() as u64] {
            table.extend_from_slice(&number.to_le_bytes());
        }
        content_at += content_bytes;
        body.extend_from_slice(frame);
    }
    body.extend(std::iter::repeat_n(0, tail as usize));
    let mut archive = vec![0; 32];
    archive[..8].copy_from_slice(&[0x46, 0x9b, 0x78, 0xef, 0x0f, 0xd0, 0xb2, 0x03]);
    archive[8..10].copy_from_slice(&2_u16.to_le_bytes());
    archive[12..16].copy_from_slice(&(frames.len() as u32).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&archive[..16]);
    crc.update(&archive[20..]);
    crc.update(&table);
    archive[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
    archive.extend_from_slice(&table);
    archive.extend_from_slice(&body);

    let mut header = vec![0; 28];
    header[..4].copy_from_slice(&[0xfc, 0x1a, 0xb1, 0x0b]);
    header[4..8].copy_from_slice(&1_u32.to_le_bytes());
    header[8..12].copy_from_slice(&28_u32.to_le_bytes());
    header[12..20].copy_from_slice(&(archive.len() as u64).to_le_bytes());
    header[24..28].copy_from_slice(&1_u32.to_le_bytes());
    let crc = crc32fast::hash(&header);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
    [header, archive].concat()
}

/// One zstd frame of a few hundred bytes that says nothing about its size and decodes to so many times 128 KiB of zeros.
pub fn bomb(blocks: usize) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    for block in 1..=blocks {
        // A run of one byte: size, type 1, and whether it is the last.
        let header = (128 << 10) << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn forged_blobs_are_only_as_wrong_as_they_should_be() {
    let content = crate::site::content(100_000, 1);
    assert_eq!(delivery_blob(&frames(&content), 0, 0), encode(&content, TYPE, Some(1)).unwrap());
}
