//! [`Round`]: walks the sources for one thing, in order of health, a few passes with growing pauses, and remembers why each
//! failed. The one place where an attempt's error becomes health, blame and, in the end, a [`FetchError`].

use std::collections::VecDeque;
use std::time::Duration;

use colibri_common::BlobId;
use colibri_metadata::MetadataError;
use colibri_package::delivery::Encoding;
use colibri_transport::Backoff;
use tokio::time::{Instant, sleep};

use crate::class::Class;
use crate::error::{AttemptError, Blame, FetchError};
use crate::health::Standing;
use crate::patience::{Pace, Patience};
use crate::persistence::Persistence;
use crate::source::{Source, Sources};
use crate::urgency::Urgency;
use crate::witness::Witness;

/// What is being fetched: for messages, blame and the spread over sources.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub what: String,
    pub blob: Option<BlobId>,
    pub encoding: Option<Encoding>,
    pub unit: u32,
}

#[derive(Debug)]
struct Failure<'a> {
    source: &'a Source,
    cause: String,
    not_found: bool,
    bad_bytes: bool,
    other_form: bool,
    circle: bool,
    rate_limited: bool,
    final_here: bool,
}

/// The walk over the sources.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    sources: &'a Sources,
    subject: Subject,
    urgency: Urgency,
    witness: Option<&'a dyn Witness>,
    /// Asked before the others, in the first pass only.
    nearby: Option<&'a Source>,
    nearby_asked: bool,
    /// How long ago upstream may have said to whoever is nearby that it has not got the thing, ms.
    absence_age_ms_max: u64,
    /// Nobody else need be asked.
    is_settled: bool,
    queue: VecDeque<&'a Source>,
    failures: Vec<Failure<'a>>,
    passes: u32,
    attempts: u32,
    persistence: Persistence,
    /// When something came of it last.
    progress_at: Instant,
}

impl<'a> Round<'a> {
    pub fn new(sources: &'a Sources, subject: Subject) -> Self {
        Self {
            sources,
            subject,
            urgency: Urgency::default(),
            witness: None,
            nearby: None,
            nearby_asked: false,
            absence_age_ms_max: 0,
            is_settled: false,
            queue: VecDeque::new(),
            failures: Vec::new(),
            passes: 0,
            attempts: 0,
            persistence: Persistence::default(),
            progress_at: Instant::now(),
        }
    }

    /// The same walk for a fetch that is as urgent as this.
    pub fn with_urgency(mut self, urgency: &Urgency) -> Self {
        self.urgency = urgency.clone();
        self
    }

    /// The same walk, which ends after so much.
    pub const fn with_persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// The same walk, of which this witness hears who is to blame.
    pub const fn seen_by(mut self, witness: Option<&'a dyn Witness>) -> Self {
        self.witness = witness;
        self
    }

    /// The same walk with a source that is asked once before the others.
    pub const fn nearby_first(mut self, nearby: Option<&'a Source>) -> Self {
        self.nearby = nearby;
        self
    }

    /// The same walk that believes whoever is nearby if upstream told it so lately that there is no such thing.
    pub const fn believing_absence(mut self, age_ms_max: u64) -> Self {
        self.absence_age_ms_max = age_ms_max;
        self
    }

    /// The next source to try; between passes this waits, and for sources that asked for it.
    pub async fn next(&mut self) -> Option<&'a Source> {
        loop {
            if self.is_settled || self.attempts >= self.persistence.attempts_max {
                return None;
            }
            if self.queue.is_empty() {
                self.queue = self.next_pass().await?;
            }
            let source = self.queue.pop_front()?;
            let rest = source.rest(self.urgency.class());
            if rest > Duration::ZERO && self.queue.iter().any(|other| self.is_ready(other)) {
                // It is its turn when the others have had theirs.
                self.queue.push_back(source);
            } else if rest > self.persistence.pause_max || !self.has_time(rest) {
                self.let_alone(source, rest);
            } else {
                sleep(rest).await;
                self.attempts += 1;
                return Some(source);
            }
        }
    }

    /// The sources of another pass, after a pause.
    async fn next_pass(&mut self) -> Option<VecDeque<&'a Source>> {
        let settled = |source: &Source| {
            self.failures.iter().any(|failure| failure.final_here && std::ptr::eq(failure.source, source))
        };
        let candidates = self.sources.candidates(self.subject.blob.as_ref(), self.subject.unit);
        let mut candidates: VecDeque<_> = candidates.into_iter().filter(|source| !settled(source)).collect();
        if let Some(nearby) = self.nearby.filter(|_| !self.nearby_asked) {
            candidates.push_front(nearby);
            self.nearby_asked = true;
        }
        let passes_max = match self.urgency.class() {
            Class::Demand => self.persistence.passes_max,
            Class::Warm => self.persistence.passes_max.saturating_sub(1),
            Class::Background => Class::Background.passes_max(),
        };
        if self.passes >= passes_max.max(1) || candidates.is_empty() {
            return None;
        }
        if self.passes > 0 {
            let pause = Backoff::default().delay(self.passes - 1, fastrand::f64());
            if !self.has_time(pause) {
                return None;
            }
            sleep(pause).await;
        }
        self.failures.retain(|failure| failure.final_here);
        self.passes += 1;
        Some(candidates)
    }

    fn is_ready(&self, source: &Source) -> bool {
        source.rest(self.urgency.class()) == Duration::ZERO
    }

    fn has_time(&self, pause: Duration) -> bool {
        self.progress_at.elapsed() + pause <= self.persistence.time_max
    }

    /// Does not ask a source that asked to be left alone, not even in another pass.
    fn let_alone(&mut self, source: &'a Source, rest: Duration) {
        let cause = format!("asked to be left alone for another {} s", rest.as_secs().max(1));
        let failure = Failure {
            source,
            cause,
            not_found: false,
            bad_bytes: false,
            other_form: false,
            circle: false,
            rate_limited: true,
            final_here: true,
        };
        let known = self.failures.iter().any(|failure| failure.final_here && std::ptr::eq(failure.source, source));
        if !known {
            self.failures.push(failure);
        }
    }

    /// How slow the source that came last may be: less so while there are others in reserve.
    pub fn pace(&self, patience: &Patience) -> Pace {
        let rivals = self.queue.iter().any(|source| source.standing() != Standing::Blamed);
        if rivals { patience.with_rivals } else { patience.alone }
    }

    /// Whether this is the source that is asked before the others.
    pub fn is_nearby(&self, source: &Source) -> bool {
        self.nearby.is_some_and(|nearby| std::ptr::eq(nearby, source))
    }

    /// A source of good standing that can be asked besides `slow`, which came last; it is taken out of this pass.
    pub fn rival(&mut self, slow: &Source) -> Option<&'a Source> {
        let is_good = |source: &Source| source.standing() == Standing::Good && source.may_rival(slow);
        let is_good = self.queue.front().is_some_and(|source| is_good(source) && self.is_ready(source));
        if is_good { self.queue.pop_front() } else { None }
    }

    /// Puts a source back that came last or as a rival, and did not fail.
    pub fn put_back(&mut self, source: &'a Source) {
        self.queue.push_front(source);
    }

    /// Records that some of the thing was verified: giving up is counted from here. Things are finite.
    pub fn progressed(&mut self) {
        self.passes = self.passes.min(1);
        self.progress_at = Instant::now();
    }

    /// Records how an attempt ended badly.
    pub fn failed(&mut self, source: &'a Source, error: &AttemptError) {
        let authority = source.url.authority().to_owned();
        tracing::debug!(source = %authority, what = %self.subject.what, %error, "an attempt failed");
        let bad_bytes = error.is_bad_bytes();
        let not_found = matches!(error, AttemptError::NotFound { .. });
        // It stands in for all of us before the same upstream, and has asked.
        let above_ms =
            if let AttemptError::NotFound { above_ms: Some(above_ms) } = error { Some(*above_ms) } else { None };
        self.is_settled |= self.is_nearby(source) && above_ms.is_some_and(|age_ms| age_ms <= self.absence_age_ms_max);
        if let (true, Some(blob)) = (bad_bytes, self.subject.blob) {
            let (encoding, detail) = (self.subject.encoding, error.to_string());
            let piece = error.piece().cloned().map(Box::new);
            self.blame(source, Blame { source: authority, blob: Some(blob), encoding, detail, piece }, true);
        }
        match error {
            AttemptError::NotFound { .. } | AttemptError::OtherIdentity | AttemptError::OverBudget { .. } => {}
            AttemptError::IgnoresRanges => source.found_to_ignore_ranges(),
            _ => source.failed(),
        }
        let mut over_patience = false;
        if let AttemptError::Busy { retry_after: Some(pause), .. } = error {
            source.rests(self.urgency.class(), *pause);
            over_patience = *pause > self.persistence.pause_max;
        }
        let other_form = matches!(error, AttemptError::OtherIdentity);
        let circle = matches!(error, AttemptError::Loop);
        let final_here = not_found || other_form || circle || over_patience;
        let cause = error.to_string();
        let rate_limited = matches!(error, AttemptError::Busy { status: 429, .. });
        let failure = Failure { source, cause, not_found, bad_bytes, other_form, circle, rate_limited, final_here };
        self.failures.push(failure);
    }

    /// Records that metadata cannot be believed: asking that source again now is pointless. One that only lags behind is
    /// blamed, but keeps its place for all else; one that has not got it is not even blamed.
    pub fn refused_metadata(&mut self, source: &'a Source, error: &MetadataError) {
        match error.is_missing() {
            true => self.failed_for_good(source, error.to_string()),
            false => self.refused(source, error.to_string(), !error.is_lagging()),
        }
    }

    /// Records metadata that is refused for this reason.
    pub fn refused(&mut self, source: &'a Source, detail: String, demote: bool) {
        let authority = source.url.authority().to_owned();
        let blame = Blame { source: authority, blob: None, encoding: None, detail: detail.clone(), piece: None };
        self.blame(source, blame, demote);
        self.failed_for_good(source, detail);
    }

    fn failed_for_good(&mut self, source: &'a Source, detail: String) {
        self.failed(source, &AttemptError::Unexpected(detail));
        if let Some(failure) = self.failures.last_mut() {
            failure.final_here = true;
        }
    }

    fn blame(&self, source: &Source, blame: Blame, demote: bool) {
        if let Some(witness) = self.witness {
            witness.blamed(&blame);
        }
        self.sources.blame(source, blame, demote);
    }

    /// The error when nobody is left.
    pub fn give_up(self) -> FetchError {
        let what = self.subject.what;
        if self.failures.is_empty() {
            return FetchError::NoSource(what);
        }
        if self.failures.iter().all(|failure| failure.not_found) {
            return FetchError::NotFound { what, asked: self.sources.names() };
        }
        if self.failures.iter().all(|failure| failure.circle) {
            return FetchError::Circle { what, asked: self.sources.names() };
        }
        let causes: Vec<_> = self
            .failures
            .iter()
            .map(|failure| format!("{}: {}", failure.source.url.authority(), failure.cause))
            .collect();
        let any = |is: fn(&Failure<'_>) -> bool| self.failures.iter().any(is);
        FetchError::AllFailed {
            what,
            causes: causes.join("; "),
            bad_bytes: any(|failure| failure.bad_bytes),
            absent_somewhere: any(|failure| failure.not_found),
            other_form: any(|failure| failure.other_form),
            rate_limited: self.failures.iter().all(|failure| failure.rate_limited || failure.not_found),
        }
    }
}
