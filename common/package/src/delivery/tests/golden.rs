//! The blob vectors, and the numbers of the format.

use super::super::header::HEADER_BYTES;
use super::super::*;
use super::*;

#[test]
fn uncompressed_vectors_are_byte_exact() {
    let cases: [(&str, DeliveryType, &[u8]); 3] = [
        ("type1-empty.blob", DeliveryType::Type1, &[]),
        ("type1-01020304-uncompressed.blob", DeliveryType::Type1, &[1, 2, 3, 4]),
        ("type2-01020304-uncompressed.blob", DeliveryType::Type2, &[1, 2, 3, 4]),
    ];
    for (name, ty, content) in cases {
        let blob = vector(name);
        assert_eq!(encode(content, ty, None).unwrap(), blob, "{name}");
        assert_eq!(decode(&blob).unwrap(), content, "{name}");
        let layout = layout_of(&blob, ty, content);
        assert_eq!(layout.unit_h().len() as u64, HEADER_BYTES);
        let pieces = layout.verify(0, bytes_of(&layout, &blob, 0..1)).unwrap();
        assert_eq!(pieces.length().unwrap().bytes(), content.len() as u64);
    }
}

#[test]
fn compressed_vectors_decode_and_verify_piece_by_piece() {
    let raw = vector("lcg100000.raw");
    let ff = vec![0xff; 8192];
    let cases: [(&str, DeliveryType, &[u8], u32); 3] = [
        ("type1-ff8192-zstd14.blob", DeliveryType::Type1, &ff, 1),
        ("type1-lcg100000-zstd14.blob", DeliveryType::Type1, &raw, 4),
        ("type2-lcg100000-zstd21.blob", DeliveryType::Type2, &raw, 1),
    ];
    for (name, ty, content, frames) in cases {
        let blob = vector(name);
        assert_eq!(decode(&blob).unwrap(), content, "{name}");
        let id = build(content).id;
        assert_eq!(decode_verified(id, &blob).unwrap(), content);
        assert_eq!(content_tree(&blob).unwrap().id, id);
        let layout = layout_of(&blob, ty, content);
        assert_eq!((layout.piece_count(), layout.unit_count()), (frames, 1), "{name}");
        assert_eq!(layout.encoded_length().0, blob.len() as u64);
        assert_eq!(layout.identity().unwrap(), Identity::of_unit_h(&blob[..60 + 32 * frames as usize]));
        let mut decoded = Vec::new();
        for piece in 0..frames {
            let run = layout.verify(piece, bytes_of(&layout, &blob, piece..piece + 1)).unwrap();
            assert_eq!((run.first_piece(), run.piece_count()), (piece, 1));
            assert_eq!(run.length().is_some(), piece + 1 == frames);
            decoded.extend_from_slice(run.content()[0].bytes());
        }
        assert_eq!(decoded, content, "{name}");
    }
}

#[test]
fn own_compressed_form_keeps_the_type_and_its_chunks() {
    let raw = vector("lcg100000.raw");
    for (ty, frames) in [(DeliveryType::Type1, 4), (DeliveryType::Type2, 1)] {
        let blob = encode(&raw, ty, None).unwrap();
        assert!(blob.len() < raw.len());
        assert_eq!(layout_of(&blob, ty, &raw).piece_count(), frames);
        assert_eq!(decode(&blob).unwrap(), raw);
    }
}

#[test]
fn incompressible_and_tiny_content_stays_uncompressed() {
    let noise: Vec<u8> = (0..4000u64).flat_map(|n| sha256(&n.to_le_bytes())).collect();
    for content in [&noise[..], &[7; 64], &[7; 1], &[]] {
        let blob = encode(content, DeliveryType::Type1, Some(3)).unwrap();
        assert_eq!(blob.len(), 28 + content.len());
        assert_eq!(&blob[28..], content);
        assert_eq!(decode(&blob).unwrap(), content);
    }
}

#[test]
fn chunk_sizes_follow_the_format() {
    use super::super::archive::chunk_bytes;
    let (kib, t1, t2) = (1 << 10, DeliveryType::Type1, DeliveryType::Type2);
    assert_eq!(chunk_bytes(t1, 1), 32 * kib);
    assert_eq!(chunk_bytes(t1, 1023 * 32 * kib), 32 * kib);
    assert_eq!(chunk_bytes(t1, 1023 * 32 * kib + 1), 40 * kib);
    assert_eq!(chunk_bytes(t2, 1023 * 128 * kib), 128 * kib);
    assert_eq!(chunk_bytes(t2, 1023 * 128 * kib + 1), 136 * kib);
}

#[test]
fn type_3_is_refused_by_name() {
    let mut blob = vector("type1-01020304-uncompressed.blob");
    blob[4] = 3;
    let error = decode(&blob).unwrap_err();
    assert_eq!(error, DeliveryError::UnsupportedType { name: "Type3 (LZ4)" });
    assert!(error.to_string().contains("Type3 (LZ4)"));
    assert_eq!(DeliveryType::try_from(0), Err(DeliveryError::UnknownType(0)));
    assert_eq!(DeliveryType::try_from(2), Ok(DeliveryType::Type2));
}

#[test]
fn names_of_encodings_and_identities() {
    let shown = [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];
    assert_eq!(shown.map(|encoding| encoding.to_string()), ["raw", "1", "2"]);
    let identity = Identity::of_unit_h(b"abc");
    assert_eq!(identity.etag_hex(), "ba7816bf8f01cfea");
    assert_eq!(UNIT_H_PROBE_BYTES, 32_796);
}
