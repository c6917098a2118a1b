//! [`FrameWatch`]: follows the framing of one received HTTP/3 stream (RFC 9114 §7.1) without keeping any of it.
//!
//! `h3` waits for a whole HEADERS or unknown frame before it looks at it, reads one chunk more than it uses at every turn,
//! and takes an end inside a DATA frame for the end of the body. So sizes and the end are watched one layer below, and
//! bytes are handed up in the portions that `h3` uses: it then holds next to nothing.

use std::fmt;

use crate::limits::PRIORITY_UPDATE_BYTES_MAX;
use crate::priority::Priority;

const DATA: u64 = 0x0;
const GOAWAY: u64 = 0x7;
/// PRIORITY_UPDATE for a request (RFC 9218 §7.2).
const PRIORITY_UPDATE: u64 = 0xf0700;

/// Why a stream's framing is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// A frame that must be held in memory announces too much.
    FrameTooLarge { announced_bytes: u64, bytes_max: u64 },
    /// The stream ended inside a frame.
    EndInsideFrame,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameTooLarge { announced_bytes, bytes_max } => {
                write!(f, "peer announced a frame of {announced_bytes} bytes, allowed are {bytes_max}")
            }
            Self::EndInsideFrame => f.write_str("stream ended inside a frame"),
        }
    }
}

impl std::error::Error for FrameFault {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Type,
    Length { kind: u64 },
    Payload { kind: u64, left: u64 },
}

/// A variable-length integer (RFC 9000 §16) that may arrive in pieces.
#[derive(Debug, Default)]
pub(crate) struct VarIntReader {
    value: u64,
    missing: u8,
    started: bool,
}

impl VarIntReader {
    /// Takes one byte; the integer when it is complete.
    pub(crate) fn push(&mut self, byte: u8) -> Option<u64> {
        if self.started {
            self.value = self.value << 8 | u64::from(byte);
            self.missing -= 1;
        } else {
            self.started = true;
            self.value = u64::from(byte & 0x3f);
            self.missing = (1 << (byte >> 6)) - 1;
        }
        (self.missing == 0).then(|| {
            self.started = false;
            self.value
        })
    }

    fn is_empty(&self) -> bool {
        !self.started
    }
}

/// The framing of one stream so far.
#[derive(Debug)]
pub(crate) struct FrameWatch {
    state: State,
    number: VarIntReader,
    frame_bytes_max: u64,
    saw_goaway: bool,
    /// The payload of a PRIORITY_UPDATE frame, as far as it is here.
    update: Vec<u8>,
}

impl FrameWatch {
    /// Frames other than DATA may have at most `frame_bytes_max` bytes of payload.
    pub(crate) fn new(frame_bytes_max: u64) -> Self {
        Self {
            state: State::Type,
            number: VarIntReader::default(),
            frame_bytes_max,
            saw_goaway: false,
            update: Vec::new(),
        }
    }

    /// Follows the next received bytes up to the end of an element, and says how many those are: the header of a DATA frame,
    /// what is here of its payload, any other frame, or all bytes if they end inside one.
    pub(crate) fn element(&mut self, bytes: &[u8]) -> Result<usize, FrameFault> {
        let mut taken = 0;
        while let Some(&next) = bytes.get(taken) {
            match self.state {
                State::Type => {
                    taken += 1;
                    if let Some(kind) = self.number.push(next) {
                        self.state = State::Length { kind };
                    }
                }
                State::Length { kind } => {
                    taken += 1;
                    if let Some(length) = self.number.push(next) {
                        self.start(kind, length)?;
                        if kind == DATA || length == 0 {
                            break;
                        }
                    }
                }
                State::Payload { kind, left } => {
                    let here = left.min((bytes.len() - taken) as u64);
                    if kind == PRIORITY_UPDATE {
                        let room = PRIORITY_UPDATE_BYTES_MAX.saturating_sub(self.update.len());
                        self.update.extend(bytes[taken..].iter().take(room.min(here as usize)));
                    }
                    taken += here as usize;
                    self.state = if here == left { State::Type } else { State::Payload { kind, left: left - here } };
                    break;
                }
            }
        }
        Ok(taken)
    }

    fn start(&mut self, kind: u64, length: u64) -> Result<(), FrameFault> {
        if kind != DATA && length > self.frame_bytes_max {
            return Err(FrameFault::FrameTooLarge { announced_bytes: length, bytes_max: self.frame_bytes_max });
        }
        self.saw_goaway |= kind == GOAWAY;
        self.update.clear();
        self.state = if length == 0 { State::Type } else { State::Payload { kind, left: length } };
        Ok(())
    }

    /// The request stream and the urgency that a PRIORITY_UPDATE frame named; once, when it has arrived whole.
    pub(crate) fn priority_update(&mut self) -> Option<(u64, u8)> {
        if self.state != State::Type || self.update.is_empty() {
            return None;
        }
        let update = std::mem::take(&mut self.update);
        let mut number = VarIntReader::default();
        let mut bytes = update.iter();
        let stream = bytes.by_ref().find_map(|byte| number.push(*byte))?;
        let priority = Priority::parse(std::str::from_utf8(bytes.as_slice()).ok()?);
        Some((stream, priority.urgency))
    }

    /// The stream has ended: was that between two frames?
    pub(crate) fn end(&self) -> Result<(), FrameFault> {
        if self.state == State::Type && self.number.is_empty() { Ok(()) } else { Err(FrameFault::EndInsideFrame) }
    }

    /// Whether a GOAWAY frame has begun.
    pub(crate) fn saw_goaway(&self) -> bool {
        self.saw_goaway
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HEADERS of 3 bytes, DATA of 5 in a two-byte length, an empty unknown frame, GOAWAY.
    const STREAM: &[u8] = &[1, 3, 9, 9, 9, 0, 0x40, 5, 1, 2, 3, 4, 5, 0x21, 0, 7, 1, 0];

    fn elements(watch: &mut FrameWatch, mut bytes: &[u8]) -> Result<Vec<usize>, FrameFault> {
        let mut elements = Vec::new();
        while !bytes.is_empty() {
            let taken = watch.element(bytes)?;
            elements.push(taken);
            bytes = &bytes[taken..];
        }
        Ok(elements)
    }

    #[test]
    fn elements_end_where_h3_looks() {
        let mut watch = FrameWatch::new(100);
        // HEADERS whole, the header of DATA, its payload, the unknown frame, GOAWAY.
        assert_eq!(elements(&mut watch, STREAM), Ok(vec![5, 3, 5, 2, 3]));
        assert!(watch.saw_goaway());
    }

    #[test]
    fn follows_frames_however_they_are_cut() {
        for step in 1..=STREAM.len() {
            let mut watch = FrameWatch::new(100);
            for piece in STREAM.chunks(step) {
                let all: usize = elements(&mut watch, piece).unwrap().into_iter().sum();
                assert_eq!(all, piece.len());
            }
            assert_eq!((watch.saw_goaway(), watch.end()), (true, Ok(())), "step {step}");
        }
    }

    #[test]
    fn priority_updates_are_read_however_they_are_cut() {
        // Type 0xf0700 in four bytes, eight bytes of payload: stream 256 in two bytes, `u=1, i`.
        let frame: Vec<u8> = [&[0x80, 0x0f, 0x07, 0, 8, 0x41, 0][..], b"u=1, i"].concat();
        let stream = [&frame[..], &[4, 0], &frame].concat();
        for step in 1..=stream.len() {
            let mut watch = FrameWatch::new(100);
            let mut seen = Vec::new();
            for mut piece in stream.chunks(step) {
                while !piece.is_empty() {
                    let taken = watch.element(piece).unwrap();
                    seen.extend(watch.priority_update());
                    piece = &piece[taken..];
                }
            }
            assert_eq!(seen, [(256, 1), (256, 1)], "step {step}");
        }
    }

    #[test]
    fn an_end_is_clean_only_between_frames() {
        let boundaries = [0, 5, 13, 15, 18];
        for end in 0..=STREAM.len() {
            let mut watch = FrameWatch::new(100);
            elements(&mut watch, &STREAM[..end]).unwrap();
            let expected = if boundaries.contains(&end) { Ok(()) } else { Err(FrameFault::EndInsideFrame) };
            assert_eq!(watch.end(), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_large_frame_is_refused_when_announced_but_data_is_not() {
        let mut watch = FrameWatch::new(100);
        let announced = FrameFault::FrameTooLarge { announced_bytes: 101, bytes_max: 100 };
        assert_eq!(watch.element(&[1, 0x40, 101]), Err(announced));
        let mut watch = FrameWatch::new(100);
        assert_eq!(watch.element(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Ok(9));
        assert_eq!(watch.element(&[0; 1000]), Ok(1000));
    }
}
