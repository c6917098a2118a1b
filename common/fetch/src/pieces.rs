//! Pieces of an opened blob: each verified run is handed on as soon as it is proven; a source that fails is replaced at the
//! first piece not yet verified, and one that is silent for unusually long gets a rival.
//!
//! A hedge is an attempt inside a fetch: whoever sends the first byte goes on, the other is cancelled, so that only one
//! source's bytes reach the sink.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_package::delivery::{Layout, VerifiedPieces};
use http::HeaderMap;
use tokio::time::{Instant, sleep_until};

use crate::assemble::{Assembler, Sink};
use crate::attempt::{Attempt, Reading, ended_early};
use crate::blob::BlobFetcher;
use crate::budget::Permit;
use crate::class::Class;
use crate::error::{AttemptError, FetchError};
use crate::nearby::Part;
use crate::open::Form;
use crate::round::{Round, Subject};
use crate::source::Source;
use crate::witness::Given;

/// What is left to be fetched.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    place: &'a str,
    layout: &'a Layout,
    range: ByteRange,
}

/// An answer whose first bytes have come.
struct Started<'a> {
    attempt: Attempt<'a>,
    url: String,
    form: Form,
    reading: Reading<'a>,
    first: Bytes,
}

impl BlobFetcher {
    /// Fetches the pieces `pieces` of an opened blob (usually one unit's) and hands each verified run to `sink` as soon as
    /// it is proven. A source that fails is replaced at the first piece not yet verified.
    pub async fn pieces(
        &self,
        place: &str,
        layout: &Layout,
        unit: u32,
        pieces: Range<u32>,
        sink: &mut (dyn FnMut(VerifiedPieces) + Send),
    ) -> Result<(), FetchError> {
        let (id, encoding) = (layout.id(), layout.encoding());
        let what = format!("blob {id} ({encoding}) unit {unit}");
        let subject = Subject { what, blob: Some(id), encoding: Some(encoding), unit };
        let nearby = self.first(&id, Part::Unit { unit, of: layout.unit_count() });
        let sources = self.sources();
        let mut round = self.round(&sources, subject, nearby.as_deref());
        let mut assembler = Assembler::new(layout, pieces.clone());
        if layout.pieces_range(pieces.clone()).is_empty() {
            let verified = assembler.push(&[], sink);
            return verified.map(drop).map_err(|error| FetchError::Local(format!("blob {id}: {error}")));
        }
        while let Some(first) = round.next().await {
            let begin = assembler.next();
            let range = layout.pieces_range(begin..pieces.end);
            let (source, started) = self.start(&mut round, first, Wanted { place, layout, range }).await;
            let ended = match started {
                Ok(started) => started.feed(layout, range.len(), &mut assembler, sink).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => {
                    self.succeeded(source, Given::Unit { blob: id, encoding, unit });
                    return Ok(());
                }
                Err(error) => round.failed(source, &error),
            }
            if assembler.next() > begin {
                round.progressed();
            }
            // A piece is never continued from another source but fetched again from its first byte.
            assembler = Assembler::new(layout, assembler.next()..pieces.end);
        }
        Err(round.give_up())
    }

    /// Asks `first`, and when it is silent for longer than it nearly ever is, the next source as well. Gives the one that is
    /// left and what became of it; a failure of the other is recorded.
    async fn start<'a>(
        &'a self,
        round: &mut Round<'a>,
        first: &'a Source,
        wanted: Wanted<'_>,
    ) -> (&'a Source, Result<Started<'a>, AttemptError>) {
        let attempt = self.attempt(round, first);
        let permit = match attempt.admitted(wanted.range.len()).await {
            Ok(permit) => permit,
            Err(error) => return (first, Err(error)),
        };
        let asked_at = Instant::now();
        let mut asked = pin!(attempt.start(permit, wanted));
        // Who is nearby is slow when it is being filled itself: asking its upstream as well would gain nothing.
        let may_hedge = !round.is_nearby(first);
        tokio::select! {
            biased;
            started = asked.as_mut() => return (first, started),
            () = self.hedge_is_due(first, asked_at), if may_hedge => {}
        }
        let Some((rival, permit)) = self.rival(round, first, wanted.range.len()) else { return (first, asked.await) };
        let hedged_at = Instant::now();
        let mut hedge = pin!(self.attempt(round, rival).start(permit, wanted));
        tokio::select! {
            biased;
            started = asked.as_mut() => match started {
                Ok(started) => {
                    rival.outrun(hedged_at.elapsed());
                    round.put_back(rival);
                    (first, Ok(started))
                }
                Err(error) => {
                    round.failed(first, &error);
                    (rival, hedge.await)
                }
            },
            started = hedge.as_mut() => match started {
                Ok(started) => {
                    first.outrun(asked_at.elapsed());
                    rival.hedge_won();
                    round.put_back(first);
                    (rival, Ok(started))
                }
                Err(error) => {
                    round.failed(rival, &error);
                    (first, asked.await)
                }
            },
        }
    }

    /// Waits until somebody waits and `slow` has been silent for longer than it nearly ever is; for ever if it is not to be
    /// hedged.
    async fn hedge_is_due(&self, slow: &Source, asked_at: Instant) {
        if self.urgency().class() != Class::Demand {
            self.urgency().above(Class::Warm).await;
        }
        match self.sources().hedge_after(slow) {
            Some(delay) => sleep_until(asked_at + delay).await,
            None => std::future::pending().await,
        }
    }

    /// Another source to be asked at once, with a place in its budget: a hedge does not wait for one.
    fn rival<'a>(&self, round: &mut Round<'a>, slow: &Source, bytes: u64) -> Option<(&'a Source, Permit)> {
        let rival = round.rival(slow)?;
        let permit = rival.budget().try_acquire(Class::Demand, bytes).filter(|_| self.sources().may_hedge());
        let Some(permit) = permit else {
            round.put_back(rival);
            return None;
        };
        rival.count_hedge();
        Some((rival, permit))
    }
}

impl<'a> Attempt<'a> {
    /// Asks for what is wanted and waits for the first bytes of it.
    async fn start(self, permit: Permit, wanted: Wanted<'_>) -> Result<Started<'a>, AttemptError> {
        let Wanted { place, layout, range } = wanted;
        let url = self.url(place, layout.id(), layout.encoding());
        let sent_at = Instant::now();
        let answer = self.get_as(permit, &url, Some(range), HeaderMap::new()).await?;
        let form = Form::of(layout, &answer)?;
        let mut reading = self.read(answer);
        let first = reading.next().await?.ok_or_else(|| ended_early(0, Some(range.len())))?;
        self.source.first_byte_came(sent_at.elapsed());
        Ok(Started { attempt: self, url, form, reading, first })
    }
}

impl Started<'_> {
    /// Feeds `assembler` up to its last piece; `wanted_bytes` were asked for.
    async fn feed(
        self,
        layout: &Layout,
        wanted_bytes: u64,
        assembler: &mut Assembler,
        sink: &mut Sink<'_>,
    ) -> Result<(), AttemptError> {
        let Self { attempt, url, form, mut reading, first } = self;
        let (mut received, mut chunk) = (0, first);
        loop {
            received += chunk.len() as u64;
            if let Err(error) = assembler.push(&chunk, sink) {
                // Its place in the budget is needed to ask what form the source has.
                drop(reading);
                return Err(attempt.judge(&url, layout, form, error).await);
            }
            if assembler.is_done() {
                return Ok(());
            }
            chunk = reading.next().await?.ok_or_else(|| ended_early(received, Some(wanted_bytes)))?;
        }
    }
}
