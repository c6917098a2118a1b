//! [`FrameWatch`]: follows the framing of one received HTTP/3 stream (RFC 9114 §7.1) without keeping any of it.
//!
//! `h3` waits for a whole HEADERS or unknown frame before it looks at it, and takes an end inside a DATA frame for the end
//! of the body. So the sizes and the end are watched here, one layer below.

use std::fmt;

const DATA: u64 = 0x0;
const GOAWAY: u64 = 0x7;

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
    data_bytes: u64,
    saw_goaway: bool,
}

impl FrameWatch {
    /// Frames other than DATA may have at most `frame_bytes_max` bytes of payload.
    pub(crate) fn new(frame_bytes_max: u64) -> Self {
        Self { state: State::Type, number: VarIntReader::default(), frame_bytes_max, data_bytes: 0, saw_goaway: false }
    }

    /// Follows the next received bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), FrameFault> {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Type => {
                    if let Some(kind) = self.number.push(first) {
                        self.state = State::Length { kind };
                    }
                    bytes = &bytes[1..];
                }
                State::Length { kind } => {
                    if let Some(length) = self.number.push(first) {
                        self.start(kind, length)?;
                    }
                    bytes = &bytes[1..];
                }
                State::Payload { kind, left } => {
                    let here = left.min(bytes.len() as u64);
                    bytes = &bytes[here as usize..];
                    if kind == DATA {
                        self.data_bytes += here;
                    }
                    self.state = if here == left { State::Type } else { State::Payload { kind, left: left - here } };
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, kind: u64, length: u64) -> Result<(), FrameFault> {
        if kind != DATA && length > self.frame_bytes_max {
            return Err(FrameFault::FrameTooLarge { announced_bytes: length, bytes_max: self.frame_bytes_max });
        }
        self.saw_goaway |= kind == GOAWAY;
        self.state = if length == 0 { State::Type } else { State::Payload { kind, left: length } };
        Ok(())
    }

    /// The stream has ended: was that between two frames?
    pub(crate) fn end(&self) -> Result<(), FrameFault> {
        if self.state == State::Type && self.number.is_empty() { Ok(()) } else { Err(FrameFault::EndInsideFrame) }
    }

    /// Payload bytes of DATA frames so far.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
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

    #[test]
    fn follows_frames_however_they_are_cut() {
        for step in 1..=STREAM.len() {
            let mut watch = FrameWatch::new(100);
            for piece in STREAM.chunks(step) {
                watch.push(piece).unwrap();
            }
            assert_eq!((watch.data_bytes(), watch.saw_goaway(), watch.end()), (5, true, Ok(())), "step {step}");
        }
    }

    #[test]
    fn an_end_is_clean_only_between_frames() {
        let boundaries = [0, 5, 13, 15, 18];
        for end in 0..=STREAM.len() {
            let mut watch = FrameWatch::new(100);
            watch.push(&STREAM[..end]).unwrap();
            let expected = if boundaries.contains(&end) { Ok(()) } else { Err(FrameFault::EndInsideFrame) };
            assert_eq!(watch.end(), expected, "cut at {end}");
        }
    }

    #[test]
    fn a_large_frame_is_refused_when_announced_but_data_is_not() {
        let mut watch = FrameWatch::new(100);
        let announced = FrameFault::FrameTooLarge { announced_bytes: 101, bytes_max: 100 };
        assert_eq!(watch.push(&[1, 0x40, 101]), Err(announced));
        let mut watch = FrameWatch::new(100);
        watch.push(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
        watch.push(&[0; 1000]).unwrap();
        assert_eq!(watch.data_bytes(), 1000);
    }
}
