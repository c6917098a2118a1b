//! Delivery blobs that are not in strict form, made of ones that are; their checksums are right.

/// Bytes of the header of a delivery blob.
const HEADER_BYTES: usize = 28;
/// Where its archive's header has the number of frames.
const FRAMES_AT: usize = HEADER_BYTES + 12;
/// Bytes of the archive's header, and of each entry of the table behind it.
const ENTRY_BYTES: usize = 32;

/// A compressed delivery blob with `gap` bytes before its first frame and `tail` after its last.
pub fn with_holes(blob: &[u8], gap: u64, tail: u64) -> Vec<u8> {
    let frames = u32::from_le_bytes(blob[FRAMES_AT..FRAMES_AT + 4].try_into().unwrap()) as usize;
    let table_end = HEADER_BYTES + ENTRY_BYTES * (1 + frames);
    let mut header = blob[..HEADER_BYTES].to_vec();
    let mut archive = blob[HEADER_BYTES..table_end].to_vec();
    for frame in 1..=frames {
        let at = frame * ENTRY_BYTES + 16;
        let offset = u64::from_le_bytes(archive[at..at + 8].try_into().unwrap()) + gap;
        archive[at..at + 8].copy_from_slice(&offset.to_le_bytes());
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&archive[..16]);
    crc.update(&archive[20..]);
    archive[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
    let payload = u64::from_le_bytes(header[12..20].try_into().unwrap()) + gap + tail;
    header[12..20].copy_from_slice(&payload.to_le_bytes());
    header[20..24].fill(0);
    let crc = crc32fast::hash(&header);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
    [header, archive, vec![0; gap as usize], blob[table_end..].to_vec(), vec![0; tail as usize]].concat()
}
