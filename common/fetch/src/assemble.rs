//! [`Assembler`]: encoded bytes in, in pieces of any size; verified runs out.
//!
//! Runs are at most a segment (or one frame, if that is larger) and lie in memory of just their own size: a cache that keeps
//! one keeps nothing else alive with it.

use std::io::{self, Read};
use std::ops::Range;

use bytes::BytesMut;
use colibri_package::delivery::{Layout, VerifiedPieces};

use crate::evidence::Refused;
use crate::limits::SEGMENT_BYTES_MAX;

/// Takes what runs were verified.
pub type Sink<'a> = dyn FnMut(VerifiedPieces) + Send + 'a;

/// Bytes that are read at a time of what is at hand.
const READ_BYTES: u64 = 64 << 10;

/// Verifies one unit of a form that is at hand, in a bundle for one; `source` stands at its first byte, and then behind it.
///
/// # Errors
/// The source fails or ends early, or what it holds is something else (`InvalidData`).
pub fn read_unit(layout: &Layout, unit: u32, source: &mut impl Read, sink: &mut Sink<'_>) -> io::Result<()> {
    let mut assembler = Assembler::new(layout, layout.pieces_of(unit));
    let mut chunk = vec![0; READ_BYTES as usize];
    let mut left = layout.unit_range(unit).len();
    loop {
        let bytes = &mut chunk[..left.min(READ_BYTES) as usize];
        source.read_exact(bytes)?;
        // The unit of an empty blob has one piece of no bytes.
        assembler.push(bytes, sink).map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
        left -= bytes.len() as u64;
        if left == 0 {
            return Ok(());
        }
    }
}

/// Verifies a run of consecutive pieces of one encoded form as its bytes come in.
#[derive(Debug)]
pub struct Assembler {
    layout: Layout,
    next: u32,
    end: u32,
    pending: BytesMut,
    /// Bytes that `pending` still takes: it is made for whole pieces.
    room: usize,
}

impl Assembler {
    /// Begins with the first byte of the first of `pieces`.
    pub fn new(layout: &Layout, pieces: Range<u32>) -> Self {
        Self { layout: layout.clone(), next: pieces.start, end: pieces.end, pending: BytesMut::new(), room: 0 }
    }

    /// The first piece not yet verified.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// True if all pieces have been verified.
    pub const fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Takes the next bytes and hands what they complete to `sink`; bytes after the last piece are left alone. Gives the
    /// number of bytes taken. After an error the assembler is of no more use.
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<usize, Refused> {
        let given = bytes.len();
        while !self.is_done() {
            if self.room == 0 {
                self.room = whole_pieces(&self.layout, self.next..self.end, SEGMENT_BYTES_MAX, true).1;
                self.pending = BytesMut::with_capacity(self.room);
            }
            let (head, rest) = bytes.split_at(bytes.len().min(self.room));
            self.pending.extend_from_slice(head);
            (bytes, self.room) = (rest, self.room - head.len());
            let (count, length) = whole_pieces(&self.layout, self.next..self.end, self.pending.len(), false);
            if count == 0 {
                break;
            }
            let run = self.pending.split_to(length).freeze();
            let verified = self.layout.verify(self.next, run.clone());
            sink(verified.map_err(|error| Refused::of_run(&self.layout, self.next, &run, error))?);
            self.next += count;
        }
        Ok(given - bytes.len())
    }
}

/// How many of `pieces` fit into `bytes` from their beginning on, and their size; with `at_least_one` the first counts in
/// any case.
fn whole_pieces(layout: &Layout, pieces: Range<u32>, bytes: usize, at_least_one: bool) -> (u32, usize) {
    let base = layout.piece_range(pieces.start).start();
    let mut whole = (0, 0);
    for piece in pieces.clone() {
        let length = usize::try_from(layout.piece_range(piece).end() - base).expect("a unit fits memory");
        if length > bytes && !(at_least_one && whole.0 == 0) {
            break;
        }
        whole = (piece - pieces.start + 1, length);
        if length >= bytes {
            break;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use colibri_common::merkle;
    use colibri_package::delivery::{DeliveryType, encode};

    use super::*;

    fn forms(content: &[u8]) -> Vec<(Layout, Vec<u8>)> {
        let tree = merkle::build(content);
        let encoded = encode(content, DeliveryType::Type1, Some(1)).unwrap();
        let delivery = Layout::from_unit_h(DeliveryType::Type1, tree.leaves.clone(), &encoded).unwrap();
        let head = delivery.unit_h().len();
        vec![
            (Layout::raw(tree.leaves, tree.length.into()).unwrap(), content.to_vec()),
            (delivery, encoded[head..].to_vec()),
        ]
    }

    #[test]
    fn any_cut_gives_the_same_bytes_in_runs_of_bounded_size() {
        let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
        println!("seed {}", random.get_seed());
        for length in [0, 1, 8191, 8192, 8193, 65_536, 300_001] {
            let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            for (layout, payload) in forms(&content) {
                let mut runs = Vec::new();
                let mut assembler = Assembler::new(&layout, 0..layout.piece_count());
                let mut rest = &payload[..];
                while !assembler.is_done() {
                    let (chunk, after) = rest.split_at(random.usize(..=rest.len().min(100_000)));
                    rest = after;
                    assert_eq!(assembler.push(chunk, &mut |run| runs.push(run)).unwrap(), chunk.len());
                    assert!(assembler.is_done() || !rest.is_empty(), "{length} bytes, {}", layout.encoding());
                }
                let joined: Vec<u8> = runs.iter().flat_map(|run| run.encoded().to_vec()).collect();
                assert!(joined == payload, "{length} bytes, {}", layout.encoding());
                let largest = runs.iter().map(|run| run.encoded().len()).max().unwrap();
                assert!(largest <= SEGMENT_BYTES_MAX, "{largest}");
                assert_eq!(runs.last().unwrap().length().unwrap().bytes(), length as u64);
            }
        }
    }

    #[test]
    fn bytes_after_the_last_piece_are_not_taken_and_bad_ones_are_refused() {
        let content = vec![7; 20_000];
        for (layout, mut payload) in forms(&content) {
            let whole = payload.len();
            payload.extend_from_slice(b"more");
            let mut assembler = Assembler::new(&layout, 0..layout.piece_count());
            assert_eq!(assembler.push(&payload, &mut |_| ()).unwrap(), whole);
            payload[whole / 2] ^= 1;
            let mut assembler = Assembler::new(&layout, 0..layout.piece_count());
            assert!(assembler.push(&payload, &mut |_| ()).is_err());
        }
    }
}
