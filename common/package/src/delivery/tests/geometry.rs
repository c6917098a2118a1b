//! Units and pieces tile the encoded form; every byte belongs to exactly one piece and one unit.

use colibri_common::merkle::UNIT_BYTES;
use colibri_common::{ByteRange, ClaimedLength};

use super::super::*;
use super::*;

fn check_tiling(layout: &Layout, blob: &[u8], content: &[u8]) {
    let mut at = layout.unit_h().len() as u64;
    assert_eq!(&blob[..at as usize], &layout.unit_h()[..]);
    let mut next = 0;
    for unit in 0..layout.unit_count() {
        let pieces = layout.pieces_of(unit);
        assert_eq!(pieces.start, next, "units are contiguous runs of pieces");
        assert_eq!(layout.unit_range(unit), layout.pieces_range(pieces.clone()));
        for piece in pieces.clone() {
            let range = layout.piece_range(piece);
            assert_eq!(range.start(), at, "pieces are contiguous");
            assert_eq!(layout.unit_of(piece), unit);
            if !range.is_empty() {
                assert_eq!((layout.piece_at(range.start()), layout.piece_at(range.end() - 1)), (piece, piece));
                assert_eq!(layout.units_of(range), unit..unit + 1);
                assert_eq!(layout.pieces_of_content(layout.piece_content(piece)), piece..piece + 1);
            }
            at = range.end();
        }
        if !pieces.is_empty() {
            let run = layout.verify(pieces.start, bytes_of(layout, blob, pieces.clone())).unwrap();
            assert_eq!((run.encoded_offset(), run.encoded().len()), {
                let range = layout.unit_range(unit);
                (range.start(), range.len() as usize)
            });
            for part in run.content() {
                let start = part.offset() as usize;
                assert_eq!(part.bytes(), &content[start..start + part.bytes().len()]);
            }
        }
        next = pieces.end;
    }
    assert_eq!((next, at), (layout.piece_count(), blob.len() as u64), "nothing is left over");
    assert!(layout.unit_range(layout.unit_count()).is_empty() && layout.piece_range(next).is_empty());
    let past = ByteRange::new(at, at + 100);
    assert!(layout.units_of(past).is_empty() && layout.units_of(ByteRange::whole(0)).is_empty());
}

#[test]
fn raw_delivery_and_compressed_forms_tile() {
    let unit = UNIT_BYTES as usize;
    for bytes in [0, 1, 8191, 8192, 8193, 100_000, unit, unit + 1, 3 * unit - 5000] {
        let content = text(bytes, bytes as u64);
        let raw = Layout::raw(leaves_of(&content), ClaimedLength(bytes as u64)).unwrap();
        check_tiling(&raw, &content, &content);
        for ty in [DeliveryType::Type1, DeliveryType::Type2] {
            let blob = encode(&content, ty, Some(1)).unwrap();
            check_tiling(&layout_of(&blob, ty, &content), &blob, &content);
        }
        let mut plain =
            super::super::header::Header { ty: DeliveryType::Type1, payload_bytes: bytes as u64, compressed: false }
                .to_bytes()
                .to_vec();
        plain.extend_from_slice(&content);
        check_tiling(&layout_of(&plain, DeliveryType::Type1, &content), &plain, &content);
    }
}

#[test]
fn a_window_without_a_frame_start_is_an_empty_unit() {
    let content = text(2 * UNIT_BYTES as usize + 9000, 5);
    // Frames of other sizes than our encoder's: 5 leaves less than the blob, then the rest.
    let cut = (2 * UNIT_BYTES + 8192) as usize;
    let blob = super::hostile::archive_of(&[&content[..cut], &content[cut..]], DeliveryType::Type1);
    let layout = layout_of(&blob, DeliveryType::Type1, &content);
    assert_eq!((0..4).map(|unit| layout.pieces_of(unit)).collect::<Vec<_>>(), [0..1, 1..1, 1..2, 2..2]);
    assert!(layout.unit_range(1).is_empty());
    let inside_first = ByteRange::new(UNIT_BYTES, UNIT_BYTES + 1);
    assert_eq!(layout.pieces_of_content(inside_first), 0..1, "by the seek table, not by window number");
    assert_eq!(layout.content_range_to_encoded(inside_first), layout.piece_range(0));
    assert_eq!(layout.units_of(ByteRange::whole(blob.len() as u64)), 0..3);
    check_tiling(&layout, &blob, &content);
}

#[test]
fn unit_h_is_known_from_its_first_bytes() {
    let content = text(100_000, 1);
    let blob = encode(&content, DeliveryType::Type1, Some(1)).unwrap();
    for (short, bytes) in [(0, 28), (3, 28), (27, 28), (28, 60), (59, 60)] {
        assert_eq!(Layout::unit_h_bytes(&blob[..short]), Err(StrictError::NeedMore { bytes }), "{short}");
    }
    assert_eq!(Layout::unit_h_bytes(&blob[..60]), Ok(60 + 4 * 32));
    let leaves = leaves_of(&content);
    let short = Layout::from_unit_h(DeliveryType::Type1, leaves.clone(), &blob[..187]);
    assert_eq!(short.unwrap_err(), StrictError::NeedMore { bytes: 188 });
    assert!(Layout::from_unit_h(DeliveryType::Type1, leaves, &blob[..188]).is_ok());
    let plain = encode(&[1], DeliveryType::Type1, None).unwrap();
    assert_eq!(Layout::unit_h_bytes(&plain[..28]), Ok(28));
}

#[test]
fn the_empty_blob_is_proven_empty_in_every_form() {
    let leaves = leaves_of(&[]);
    let zero_frames = super::hostile::archive_of(&[], DeliveryType::Type1);
    let forms = [
        Layout::raw(leaves.clone(), ClaimedLength(0)).unwrap(),
        layout_of(&encode(&[], DeliveryType::Type1, None).unwrap(), DeliveryType::Type1, &[]),
        layout_of(&zero_frames, DeliveryType::Type1, &[]),
    ];
    for layout in forms {
        assert_eq!((layout.unit_count(), layout.piece_count(), layout.pieces_of(0)), (1, 1, 0..1));
        assert!(layout.unit_range(0).is_empty());
        assert_eq!(layout.verify(0, Bytes::new()).unwrap().length().unwrap().bytes(), 0);
    }
    assert_eq!(decode(&zero_frames).unwrap(), b"");
    let other = Layout::from_unit_h(DeliveryType::Type1, leaves_of(&[1]), &zero_frames).unwrap_err();
    assert!(matches!(other, StrictError::NoContent(_)));
}
