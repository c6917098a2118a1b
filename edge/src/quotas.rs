//! [`Quotas`]: how much those may have whose tokens say so: requests and bytes a second, by key and `id` of the token. All tokens
//! of one key and one `id` share what the token that is shown says.
//!
//! A rate is held over time: a burst may have one second's worth, of bytes one answer besides, which is charged when it begins;
//! what a client did not take of it is given back.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use colibri_transport::Response;

use crate::limits::QUOTA_SUBJECTS_MAX;

const SECOND_NS: u64 = 1_000_000_000;

/// Whom a rate is held against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    /// Name of the key.
    pub key: String,
    /// The token's `id`.
    pub id: String,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub subject: Subject,
    pub requests_per_s: Option<NonZeroU64>,
    pub bytes_per_s: Option<NonZeroU64>,
}

/// What was taken, by subject. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Quotas {
    start: Instant,
    taken: Arc<Mutex<HashMap<Subject, Taken>>>,
}

/// When what was taken is paid off, in nanoseconds since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    requests_ns: u64,
    bytes_ns: u64,
}

/// A request that was let in.
#[derive(Debug)]
pub(crate) struct Entered {
    quotas: Quotas,
    subject: Subject,
    bytes_per_s: NonZeroU64,
}

impl Quotas {
    pub fn new() -> Self {
        Self { start: Instant::now(), taken: Arc::default() }
    }

    /// One more request, or when to ask again. Gives what the answer's bytes are to be held against, if they are.
    pub fn enter(&self, allowance: Allowance) -> Result<Option<Entered>, Duration> {
        self.enter_at(allowance, self.now_ns())
    }

    fn enter_at(&self, allowance: Allowance, now_ns: u64) -> Result<Option<Entered>, Duration> {
        let Allowance { subject, requests_per_s, bytes_per_s } = allowance;
        let mut all = self.lock();
        if !all.contains_key(&subject) && all.len() >= QUOTA_SUBJECTS_MAX {
            all.retain(|_, taken| taken.requests_ns > now_ns || taken.bytes_ns > now_ns);
            if all.len() >= QUOTA_SUBJECTS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let taken = all.entry(subject.clone()).or_default();
        let debt_ns = taken.bytes_ns.saturating_sub(now_ns);
        if bytes_per_s.is_some() && debt_ns > SECOND_NS {
            return Err(Duration::from_nanos(debt_ns - SECOND_NS));
        }
        if let Some(per_s) = requests_per_s {
            let cost_ns = cost_ns(1, per_s);
            let next_ns = taken.requests_ns.max(now_ns) + cost_ns;
            // A second's worth, but at least one.
            let burst_ns = SECOND_NS.max(cost_ns);
            if next_ns - now_ns > burst_ns {
                return Err(Duration::from_nanos(next_ns - now_ns - burst_ns));
            }
            taken.requests_ns = next_ns;
        }
        Ok(bytes_per_s.map(|bytes_per_s| Entered { quotas: self.clone(), subject, bytes_per_s }))
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost_ns(amount: u64, per_s: NonZeroU64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(SECOND_NS) / u128::from(per_s.get())).unwrap_or(u64::MAX / 2)
}

impl Entered {
    /// The same response, whose body is charged.
    pub fn charged(self, response: Response) -> Response {
        response.map(|body| {
            let charged = body.exact_length().unwrap_or(0);
            self.charge(charged, 0);
            body.watched(move |bytes, _| self.charge(bytes, charged))
        })
    }

    /// Charges for `bytes`, of which so many were charged before.
    fn charge(&self, bytes: u64, before: u64) {
        let now_ns = self.quotas.now_ns();
        let mut all = self.quotas.lock();
        let taken = all.entry(self.subject.clone()).or_default();
        let cost_ns = |bytes| cost_ns(bytes, self.bytes_per_s);
        taken.bytes_ns = if bytes >= before {
            taken.bytes_ns.max(now_ns).saturating_add(cost_ns(bytes - before))
        } else {
            taken.bytes_ns.saturating_sub(cost_ns(before - bytes))
        };
    }
}

#[cfg(test)]
mod tests {
    use colibri_transport::Body;

    use super::*;

    fn allowance(id: &str, requests_per_s: u64, bytes_per_s: u64) -> Allowance {
        Allowance {
            subject: Subject { key: "ops".to_owned(), id: id.to_owned() },
            requests_per_s: NonZeroU64::new(requests_per_s),
            bytes_per_s: NonZeroU64::new(bytes_per_s),
        }
    }

    #[test]
    fn requests_are_counted_by_subject_and_let_in_again_when_it_was_said() {
        let quotas = Quotas::new();
        let enter = |id: &str, at: u64| quotas.enter_at(allowance(id, 4, 0), at).map(drop);
        assert_eq!((0..9).filter(|_| enter("a", 0).is_ok()).count(), 4);
        let wait = enter("a", 0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(250));
        assert!(enter("b", 0).is_ok(), "another");
        assert!(enter("a", 249_999_999).is_err() && enter("a", 250_000_000).is_ok());
        // What another token of the same subject says holds for it, over what was taken before.
        assert!(quotas.enter_at(allowance("a", 1, 0), 250_000_000).is_err());
        assert!(quotas.enter_at(allowance("a", 1000, 0), 251_000_000).is_ok());
        let year = 365 * 24 * 3600 * SECOND_NS;
        assert_eq!((0..9).filter(|_| enter("a", year).is_ok()).count(), 4, "nothing is saved up");
    }

    #[tokio::test]
    async fn bytes_are_charged_and_what_was_not_taken_is_given_back() {
        let quotas = Quotas::new();
        let enter = || quotas.enter(allowance("a", 0, 1000));
        let answer = |bytes: usize| Response::new(Body::full(vec![7; bytes]));
        let first = enter().unwrap().unwrap().charged(answer(1_000_000));
        let wait = enter().unwrap_err();
        assert!(wait > Duration::from_secs(900) && wait < Duration::from_secs(1000), "{wait:?}");
        drop(first);
        let second = enter().unwrap().unwrap().charged(answer(50_000));
        assert_eq!(second.into_body().read_all(u64::MAX).await.unwrap().len(), 50_000);
        let wait = enter().unwrap_err();
        assert!(wait > Duration::from_secs(40) && wait < Duration::from_secs(50), "{wait:?}");
        assert!(quotas.enter(allowance("b", 0, 1000)).is_ok(), "another");
        assert!(quotas.enter(allowance("a", 1, 0)).unwrap().is_none(), "a token that says nothing about bytes");
    }

    #[test]
    fn subjects_do_not_pile_up() {
        let quotas = Quotas::new();
        let fill =
            |at: u64| (0..QUOTA_SUBJECTS_MAX).all(|id| quotas.enter_at(allowance(&id.to_string(), 1, 0), at).is_ok());
        assert!(fill(0));
        assert_eq!(quotas.enter_at(allowance("more", 1, 0), 1).map(drop), Err(Duration::from_secs(1)));
        assert!(quotas.enter_at(allowance("7", 2, 0), SECOND_NS).is_ok(), "who is known is not turned away");
        assert!(quotas.enter_at(allowance("more", 1, 0), 3 * SECOND_NS).is_ok());
        assert_eq!(quotas.lock().len(), 1, "who has paid is forgotten");
    }
}
