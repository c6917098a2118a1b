//! One attempt at one source: the request as the read API wants it, the answer's head checked against what was asked, the
//! body read at a bearable pace and within bounds.
//!
//! No bytes are verified here; they leave as an unverified [`Answer`] for the rest of the package.

use bytes::Bytes;
use colibri_api::range::ContentRange;
use colibri_api::{Coding, UnknownCoding};
use colibri_common::{ByteRange, UnixSeconds};
use colibri_transport::priority::PRIORITY;
use colibri_transport::{Body, Client, CodingError, coding};
use http::header::{
    ACCEPT_ENCODING, AGE, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_NONE_MATCH, RANGE, USER_AGENT,
};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use crate::bandwidth::Bandwidth;
use crate::budget::Permit;
use crate::error::AttemptError;
use crate::limits::{CODED_EXTRA_BYTES_MAX, SKIPPED_BYTES_MAX};
use crate::nearby::{ABSENT_ABOVE, LEAVING};
use crate::patience::Pace;
use crate::retry_after::retry_after;
use crate::signed_size::SignedSize;
use crate::source::Source;
use crate::urgency::Urgency;
use crate::witness::Witness;

/// Permits of the memory for unverified bytes are handed out in this size.
pub const MEMORY_PERMIT_BYTES: u64 = 64 << 10;

/// Bodies of fewer bytes are not measured.
const MEASURED_BYTES_MIN: u64 = 128 << 10;

/// What every request of one attempt has in common.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The connection pool.
    pub client: &'a Client,
    /// `User-Agent`.
    pub agent: &'a HeaderValue,
    /// Fields of every request.
    pub headers: &'a HeaderMap,
    /// Who is asked.
    pub source: &'a Source,
    /// How slow it may be.
    pub pace: Pace,
    /// How urgent it is.
    pub urgency: &'a Urgency,
    /// Room for large bodies that are held until they are verified, in permits of [`MEMORY_PERMIT_BYTES`].
    pub memory: &'a Semaphore,
    /// Who is told of answers.
    pub witness: Option<&'a dyn Witness>,
    /// How fast bodies are read.
    pub bandwidth: Option<&'a Bandwidth>,
    /// What is signed about the size of the blob that is asked for.
    pub signed: Option<SignedSize>,
    /// The time when it began, for answers that name one.
    pub now: Option<UnixSeconds>,
}

/// What a source answered, head checked, body still unverified.
#[derive(Debug)]
pub struct Answer {
    /// Bytes of the body before the first that was asked for: of a source that ignores ranges.
    pub skip: u64,
    /// Claimed length of the whole representation, if it was said.
    pub total_claimed: Option<u64>,
    /// Bytes from the first that was asked for to the end of the body, if it was said.
    pub promised: Option<u64>,
    /// The source said 304 to a conditional request.
    pub not_modified: bool,
    /// `ETag`, if it was sent.
    pub etag: Option<String>,
    /// `Age`, in seconds; zero if it was not sent.
    pub age_s: u64,
    /// How the body is coded: not at all, unless the request accepted it.
    pub coding: Coding,
    /// The body.
    pub body: Body,
    /// Its place in the source's budget.
    permit: Permit,
    /// When its head came.
    head_at: Instant,
}

/// A small body, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// What it says.
    pub bytes: Bytes,
    /// How it came, if it came coded.
    pub coded: Option<(Coding, Bytes)>,
}

impl<'a> Attempt<'a> {
    /// Sends a GET for `url`, for the bytes in `range` only if given, with `extra` fields.
    ///
    /// A source that ignores ranges is accepted when the range starts at zero, because the caller stops reading where it
    /// wants, and else only once it is known as one, because then everybody better has been asked before.
    pub async fn get(&self, url: &str, range: Option<ByteRange>, extra: HeaderMap) -> Result<Answer, AttemptError> {
        let permit = self.admitted(range.map_or(0, ByteRange::len)).await?;
        self.get_as(permit, url, range, extra).await
    }

    /// Waits for a place in the source's budget; who becomes more urgent while it waits goes before those who are less.
    pub async fn admitted(&self, bytes: u64) -> Result<Permit, AttemptError> {
        let (budget, began) = (self.source.budget(), Instant::now());
        let mut class = self.urgency.class();
        if let Some(permit) = budget.try_acquire(class, bytes) {
            return Ok(permit);
        }
        loop {
            let within = self.pace.head / class.wait_divisor();
            tokio::select! {
                permit = timeout_at(began + within, budget.acquire(class, bytes)) => {
                    return permit.map_err(|_| AttemptError::OverBudget { within });
                }
                risen = self.urgency.above(class) => class = risen,
            }
        }
    }

    /// [`Self::get`] in a place that was taken before.
    pub async fn get_as(
        &self,
        permit: Permit,
        url: &str,
        range: Option<ByteRange>,
        extra: HeaderMap,
    ) -> Result<Answer, AttemptError> {
        let request = self.request(url, range, &extra)?;
        let (conditional, decodes) = (extra.contains_key(IF_NONE_MATCH), extra.contains_key(ACCEPT_ENCODING));
        self.source.count_request();
        let sent_at = Instant::now();
        let client = self.source.client().unwrap_or(self.client);
        let sent = timeout(self.pace.head, client.send(request)).await;
        let response = sent.map_err(|_| AttemptError::Slow { bytes: 0, within: self.pace.head })??;
        let head_at = Instant::now();
        self.source.head_came(head_at - sent_at);
        let (head, body) = response.into_parts();
        if head.headers.contains_key(LEAVING) {
            self.source.found_leaving();
        }
        let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let coding = if head.status.is_success() { coding_of(&head.headers, decodes)? } else { Coding::Identity };
        let (skip, total_claimed, promised, not_modified) = (0, None, None, false);
        let age_s = head.headers.get(AGE).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        let mut answer =
            Answer { skip, total_claimed, promised, not_modified, etag, age_s, coding, body, permit, head_at };
        match head.status {
            StatusCode::OK => self.whole(&mut answer, &head.headers, range)?,
            StatusCode::PARTIAL_CONTENT => partial(&mut answer, &head.headers, range)?,
            StatusCode::NOT_MODIFIED if conditional => answer.not_modified = true,
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let above = head.headers.get(ABSENT_ABOVE).and_then(|value| value.to_str().ok()?.parse().ok());
                return Err(AttemptError::NotFound { above_ms: above });
            }
            // A loop of caches does not end by asking again.
            StatusCode::LOOP_DETECTED => return Err(AttemptError::Loop),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                return Err(AttemptError::Busy {
                    status: status.as_u16(),
                    retry_after: retry_after(&head.headers, self.now),
                });
            }
            status => return Err(AttemptError::Unexpected(format!("answered {status}"))),
        }
        if let Some(witness) = self.witness {
            witness.answers(&head.headers);
        }
        Ok(answer)
    }

    fn request(
        &self,
        url: &str,
        range: Option<ByteRange>,
        extra: &HeaderMap,
    ) -> Result<http::Request<Body>, AttemptError> {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.parse().map_err(|error| AttemptError::Unexpected(format!("`{url}`: {error}")))?;
        let headers = request.headers_mut();
        for fields in [extra, self.headers, self.source.headers()] {
            headers.extend(fields.clone());
        }
        headers.insert(USER_AGENT, self.agent.clone());
        if let Some(class) = self.urgency.class().over_the_wire() {
            headers.insert(PRIORITY, class.header());
        }
        if let Some(range) = range {
            let value = format!("bytes={}-{}", range.start(), range.end() - 1);
            headers.insert(RANGE, HeaderValue::from_str(&value).expect("digits"));
        }
        Ok(request)
    }

    fn whole(&self, answer: &mut Answer, headers: &HeaderMap, range: Option<ByteRange>) -> Result<(), AttemptError> {
        answer.total_claimed = content_length(headers);
        answer.skip = range.map_or(0, ByteRange::start);
        if answer.skip > 0 && !(self.source.ignores_ranges() && answer.skip <= SKIPPED_BYTES_MAX) {
            return Err(AttemptError::IgnoresRanges);
        }
        answer.promised = answer.total_claimed.map(|total| total.saturating_sub(answer.skip));
        Ok(())
    }

    /// Begins to read the body from the first byte that was asked for.
    pub fn read(&self, answer: Answer) -> Reading<'a> {
        let Answer { skip, body, permit, head_at, .. } = answer;
        let window_ends = Instant::now() + self.pace.window;
        Reading { attempt: *self, body, permit, head_at, skip, bytes: 0, window_ends, window_bytes: 0 }
    }

    /// Reads all of a body, which must not be longer than `bytes_max`, into memory of its own.
    pub async fn read_all(&self, answer: Answer, bytes_max: u64) -> Result<Bytes, AttemptError> {
        let promised = answer.promised;
        let too_long = || AttemptError::TooLong { bytes_max };
        if promised.is_some_and(|promised| promised > bytes_max) {
            return Err(too_long());
        }
        let _room = self.room(promised.unwrap_or(bytes_max)).await?;
        let mut bytes = Vec::new();
        let mut reading = self.read(answer);
        while let Some(chunk) = reading.next().await? {
            if (bytes.len() + chunk.len()) as u64 > bytes_max {
                return Err(too_long());
            }
            bytes.extend_from_slice(&chunk);
        }
        if promised.is_some_and(|promised| promised != bytes.len() as u64) {
            return Err(ended_early(bytes.len() as u64, promised));
        }
        // Neither spare capacity nor the connection's buffer is kept.
        Ok(bytes.into_boxed_slice().into())
    }

    /// Reads all of a body, which must not be longer than `bytes_max` when decoded.
    pub async fn read_whole(&self, mut answer: Answer, bytes_max: u64) -> Result<Whole, AttemptError> {
        let coding = std::mem::replace(&mut answer.coding, Coding::Identity);
        if coding == Coding::Identity {
            return Ok(Whole { bytes: self.read_all(answer, bytes_max).await?, coded: None });
        }
        // A form that is longer than its content is possible, but not by much.
        let coded = self.read_all(answer, bytes_max.saturating_add(bytes_max / 256 + CODED_EXTRA_BYTES_MAX)).await?;
        let bytes = self.decode(coding, &coded, bytes_max).await?;
        Ok(Whole { bytes, coded: Some((coding, coded)) })
    }

    /// Room is taken for what a document is likely to decode to, and only then for all that it may.
    async fn decode(&self, coding: Coding, coded: &Bytes, bytes_max: u64) -> Result<Bytes, AttemptError> {
        let likely = bytes_max.min((coded.len() as u64).saturating_mul(16));
        for cap in [likely, bytes_max] {
            let _room = self.room(cap).await?;
            let form = coded.clone();
            let decode = move || match coding {
                Coding::Identity => Ok(form),
                Coding::Gzip => coding::gunzip(&form, cap),
                Coding::Zstd => coding::unzstd(&form, cap),
            };
            // Large ones are not decoded where others wait.
            let decoded = match cap {
                ..=MEMORY_PERMIT_BYTES => decode(),
                _ => tokio::task::spawn_blocking(decode)
                    .await
                    .map_err(|_| AttemptError::Unexpected("the fetcher was stopped".to_owned()))?,
            };
            match decoded {
                Err(CodingError::TooLong { .. }) if cap < bytes_max => {}
                decoded => return Ok(decoded?),
            }
        }
        Err(CodingError::TooLong { coding: coding.name(), bytes_max }.into())
    }

    /// Reads the first `length` bytes, which must be there.
    pub async fn read_exactly(&self, answer: Answer, length: u64) -> Result<Bytes, AttemptError> {
        let read = self.read_prefix(answer, length).await?;
        if read.len() as u64 == length { Ok(read) } else { Err(ended_early(read.len() as u64, Some(length))) }
    }

    /// Reads the first bytes, at most `bytes_max`; fewer only if the body says that it has no more.
    pub async fn read_prefix(&self, answer: Answer, bytes_max: u64) -> Result<Bytes, AttemptError> {
        let promised = answer.promised;
        let limit = usize::try_from(bytes_max).map_err(|_| AttemptError::Unexpected("a huge part".to_owned()))?;
        let mut bytes = Vec::new();
        let mut reading = self.read(answer);
        while bytes.len() < limit {
            let Some(chunk) = reading.next().await? else { break };
            bytes.extend_from_slice(&chunk[..chunk.len().min(limit - bytes.len())]);
        }
        let whole = bytes.len() == limit || promised.is_some_and(|promised| promised == bytes.len() as u64);
        if whole { Ok(bytes.into_boxed_slice().into()) } else { Err(ended_early(bytes.len() as u64, promised)) }
    }

    /// Waits until there is room for that many unverified bytes; small bodies need none.
    async fn room(&self, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, AttemptError> {
        if bytes <= MEMORY_PERMIT_BYTES {
            return Ok(None);
        }
        let permits = u32::try_from(bytes.div_ceil(MEMORY_PERMIT_BYTES)).unwrap_or(u32::MAX);
        let room = self.memory.acquire_many(permits).await;
        room.map(Some).map_err(|_| AttemptError::Unexpected("the fetcher was stopped".to_owned()))
    }
}

/// A body being read.
#[derive(Debug)]
pub struct Reading<'a> {
    attempt: Attempt<'a>,
    body: Body,
    permit: Permit,
    head_at: Instant,
    skip: u64,
    bytes: u64,
    window_ends: Instant,
    window_bytes: u64,
}

impl Reading<'_> {
    /// The next bytes; nothing at the end. Counts them for the source and fails a source that is too slow.
    pub async fn next(&mut self) -> Result<Option<Bytes>, AttemptError> {
        loop {
            let pace = self.attempt.pace;
            let Ok(next) = timeout_at(self.window_ends, self.body.next()).await else {
                if self.window_bytes < pace.window_bytes_min {
                    return Err(AttemptError::Slow { bytes: self.window_bytes, within: pace.window });
                }
                self.window_ends = Instant::now() + pace.window;
                self.window_bytes = 0;
                continue;
            };
            let Some(mut chunk) = next.transpose()? else { return Ok(None) };
            self.window_bytes += chunk.len() as u64;
            self.bytes += chunk.len() as u64;
            self.attempt.source.count_body_bytes(chunk.len());
            self.permit.received(chunk.len());
            if let Some(bandwidth) = self.attempt.bandwidth {
                let held_at = Instant::now();
                bandwidth.pass(self.attempt.urgency.class(), chunk.len()).await;
                // We were slow, not the source.
                self.window_ends += held_at.elapsed();
            }
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            self.skip -= skipped as u64;
            let wanted = chunk.split_off(skipped);
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // Small bodies come with their heads and say nothing about the way.
        if self.bytes >= MEASURED_BYTES_MIN {
            self.attempt.source.body_came(self.bytes, self.head_at.elapsed());
        }
    }
}

/// A body that ended before its time. No proof of malice: connections break.
pub fn ended_early(received: u64, expected: Option<u64>) -> AttemptError {
    AttemptError::Unexpected(match expected {
        Some(expected) => format!("ended after {received} of {expected} bytes"),
        None => format!("ended after {received} bytes"),
    })
}

/// How a body is coded; refused if nobody asked for it.
fn coding_of(headers: &HeaderMap, decodes: bool) -> Result<Coding, AttemptError> {
    match Coding::of(headers) {
        Ok(coding) if decodes || coding == Coding::Identity => Ok(coding),
        Ok(coding) => Err(UnknownCoding(coding.name().to_owned())),
        Err(error) => Err(error),
    }
    .map_err(|error| AttemptError::Unexpected(error.to_string()))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A 206 must answer the range that was asked: same start, and short only where the representation ends.
fn partial(answer: &mut Answer, headers: &HeaderMap, asked: Option<ByteRange>) -> Result<(), AttemptError> {
    let unfit = |why: &str| AttemptError::Unexpected(format!("answered 206 {why}"));
    let asked = asked.ok_or_else(|| unfit("to a request without a range"))?;
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| unfit("without a Content-Range"))?;
    let answered =
        value.parse::<ContentRange>().map_err(|error| unfit(&format!("with Content-Range `{value}`: {error}")))?;
    let total = answered.complete();
    let range = answered.range().ok_or_else(|| unfit("with an unsatisfied Content-Range"))?;
    let end = total.map_or(asked.end(), |total| asked.end().min(total));
    if range.start() != asked.start() || range.end() != end {
        return Err(unfit(&format!("with {range} when asked for {asked}")));
    }
    answer.total_claimed = total;
    answer.promised = Some(range.len());
    Ok(())
}
