//! [`Reader`]: one reader of a range of an encoded form, unit by unit, at its own pace.
//!
//! It holds one unit, as firmly as there is room, and a few segments in its body, or a leaf if others hold much already. The next unit is asked for once the reader
//! has shown that it reads.

use std::sync::Arc;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_fetch::{BlobFetcher, FetchError};
use colibri_transport::BodySender;

use crate::cache::{Cache, Found, Keep, UnitAccess};
use crate::freshness::Freshness;
use crate::ledger::Ledger;
use crate::limits::{READ_AHEAD_AFTER_BYTES, WHOLE_ANSWER_BYTES_MAX};
use crate::shapes::Opened;
use crate::unit::{Slice, slice_at};

/// A reader before or while it reads.
#[derive(Debug)]
pub(crate) struct Reader {
    cache: Arc<Cache>,
    fetcher: BlobFetcher,
    place: String,
    opened: Arc<Opened>,
    range: ByteRange,
    /// The next unit to ask for, and the end.
    next_unit: u32,
    end_unit: u32,
    current: Option<(u32, UnitAccess)>,
    ahead: Option<(u32, UnitAccess)>,
    /// The first bytes behind unit H, waited for before anything is announced.
    first: Option<Slice>,
    freshness: Option<Freshness>,
}

impl Reader {
    pub fn new(cache: Arc<Cache>, fetcher: &BlobFetcher, place: &str, opened: Arc<Opened>, range: ByteRange) -> Self {
        let units = opened.layout.units_of(range);
        let mut reader = Self {
            cache,
            fetcher: fetcher.clone(),
            place: place.to_owned(),
            opened,
            range,
            next_unit: units.start,
            end_unit: units.end,
            current: None,
            ahead: None,
            first: None,
            freshness: None,
        };
        reader.advance();
        reader
    }

    /// Where the first unit of the answer comes from, once it was waited for; nothing if it needs none.
    pub const fn freshness(&self) -> Option<Freshness> {
        self.freshness
    }

    /// Waits for the first bytes of the first unit: whoever answers can still say that there are none.
    pub async fn wait(&mut self) -> Result<(), FetchError> {
        if let Some((unit, _)) = self.current {
            let from = self.range.start().max(self.opened.layout.unit_range(unit).start());
            self.first = Some(self.read(from, self.wanted(unit)).await?);
            self.freshness = self.current.as_ref().map(|(_, access)| access.freshness());
        }
        Ok(())
    }

    /// The whole answer, if it is small and here.
    pub fn whole(&self) -> Option<Vec<Bytes>> {
        let mut segments: Vec<_> = Some(self.head_part()).into_iter().filter(|part| !part.is_empty()).collect();
        if let Some((_, access)) = &self.current {
            let UnitAccess::Ready(held) = access else { return None };
            if self.range.len() > WHOLE_ANSWER_BYTES_MAX || self.next_unit < self.end_unit {
                return None;
            }
            let unit = held.get()?;
            let mut at = self.range.start().max(self.opened.layout.unit_h().len() as u64);
            while at < self.range.end() {
                let bytes = Ledger::try_lend(&slice_at(unit.segments(), at, self.range)?)?;
                at += bytes.len() as u64;
                segments.push(bytes);
            }
        }
        segments.iter().for_each(|segment| self.cache.served(segment.len()));
        Some(segments)
    }

    /// Sends the answer piece by piece.
    pub async fn stream(mut self, mut sender: BodySender) {
        let head = self.head_part();
        let mut at = self.range.start() + head.len() as u64;
        if !head.is_empty() {
            self.cache.served(head.len());
            if sender.send(head).await.is_err() {
                return;
            }
        }
        while let Some((unit, _)) = self.current {
            let wanted = self.wanted(unit);
            let begin = at;
            while at < wanted.end() {
                let bytes = match self.next(at, wanted, &sender).await {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => return,
                    Err(error) => return sender.abort(error),
                };
                at += bytes.len() as u64;
                self.cache.served(bytes.len());
                if sender.send(bytes).await.is_err() {
                    return;
                }
                if at - begin >= READ_AHEAD_AFTER_BYTES {
                    self.look_ahead();
                }
            }
            self.advance();
        }
        sender.finish();
    }

    /// The next bytes for the body: lent, or, when much is lent already, a small copy once all before was taken. So no number of
    /// readers that do not read keeps more alive than a leaf each. Nothing if the body is gone.
    async fn next(&mut self, at: u64, wanted: ByteRange, sender: &BodySender) -> Result<Option<Bytes>, FetchError> {
        let slice = match self.first.take() {
            Some(slice) => slice,
            None => self.read(at, wanted).await?,
        };
        if let Some(bytes) = Ledger::try_lend(&slice) {
            return Ok(Some(bytes));
        }
        // Whoever waits for a slow client holds nothing meanwhile.
        drop(slice);
        match sender.drained().await {
            Ok(()) => Ok(Some(Ledger::copy(&self.read(at, wanted).await?))),
            Err(_) => Ok(None),
        }
    }

    fn wanted(&self, unit: u32) -> ByteRange {
        self.opened.layout.unit_range(unit).intersect(self.range)
    }

    /// The next bytes of the current unit. If it was let go meanwhile, it is asked for again, and read before it can go.
    async fn read(&mut self, from: u64, wanted: ByteRange) -> Result<Slice, FetchError> {
        let Some((unit, access)) = &self.current else {
            return Err(FetchError::Local("there is nothing left to read".to_owned()));
        };
        if let Some(read) = access.read(from, wanted).await {
            return read;
        }
        let unit = *unit;
        self.cache.lapsed();
        let found = self.ask(unit);
        self.current = Some((unit, self.hold(&found, unit)));
        found.read(from, wanted).await
    }

    fn ask(&self, unit: u32) -> Found {
        self.cache.unit(&self.fetcher, &self.place, &self.opened, unit, Keep::AsConfigured)
    }

    fn hold(&self, found: &Found, unit: u32) -> UnitAccess {
        self.cache.hold(found, self.opened.layout.unit_range(unit).len())
    }

    /// Goes on to the next unit of the range that has bytes.
    fn advance(&mut self) {
        self.current = None;
        if self.ahead.is_none() {
            self.look_ahead();
        }
        self.current = self.ahead.take();
    }

    /// Asks for the next unit, once.
    fn look_ahead(&mut self) {
        if self.ahead.is_none()
            && let Some(unit) = self.next_with_bytes()
        {
            let found = self.ask(unit);
            self.ahead = Some((unit, self.hold(&found, unit)));
        }
    }

    fn next_with_bytes(&mut self) -> Option<u32> {
        while self.next_unit < self.end_unit {
            let unit = self.next_unit;
            self.next_unit += 1;
            if !self.opened.layout.unit_range(unit).is_empty() {
                return Some(unit);
            }
        }
        None
    }

    fn head_part(&self) -> Bytes {
        let unit_h = self.opened.layout.unit_h();
        let part = self.range.intersect(ByteRange::whole(unit_h.len() as u64));
        if part.is_empty() { Bytes::new() } else { unit_h.slice(part.within(0)) }
    }
}
