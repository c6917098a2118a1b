//! [`SingleFlight`]: many ask for one thing, one task gets it. The task is detached: whoever asked first may leave. Tasks for
//! different things are bounded in number; more wait.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_fetch::{FetchError, Urgency};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::limits::FLIGHTS_MAX;

type Answer<V> = Result<V, FetchError>;
type Waiting<V> = Shared<BoxFuture<'static, Answer<V>>>;
type UnderWay<K, V> = HashMap<K, (Waiting<V>, Urgency)>;

/// Work under way, by key.
pub(crate) struct SingleFlight<K, V> {
    waiting: Arc<Mutex<UnderWay<K, V>>>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleFlight")
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + fmt::Debug + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub fn new(tasks: TaskTracker) -> Self {
        Self { waiting: Arc::default(), places: Arc::new(Semaphore::new(FLIGHTS_MAX as usize)), tasks }
    }

    /// Joins the work for `key` or starts `work`; true if it was joined. `work` must itself look whether the thing has
    /// arrived since the caller looked, or be cheap to repeat.
    pub async fn join(&self, key: K, work: impl Future<Output = Answer<V>> + Send + 'static) -> (Answer<V>, bool) {
        self.join_as(&Urgency::default(), key, |_| work).await
    }

    /// [`Self::join`] for work that is told how urgent it is: as urgent as the most urgent of those who wait for it, of whom
    /// `own` is the one who asks now.
    pub async fn join_as<W: Future<Output = Answer<V>> + Send + 'static>(
        &self,
        own: &Urgency,
        key: K,
        work: impl FnOnce(Urgency) -> W,
    ) -> (Answer<V>, bool) {
        let mut class = own.class();
        let (mut waiting, urgency, joined) = {
            let mut map = lock(&self.waiting);
            match map.get(&key) {
                Some((waiting, urgency)) => (waiting.clone(), urgency.clone(), true),
                None => {
                    let urgency = Urgency::new(class);
                    let waiting = self.start(key.clone(), work(urgency.clone()));
                    map.insert(key, (waiting.clone(), urgency.clone()));
                    (waiting, urgency, false)
                }
            }
        };
        loop {
            urgency.raise(class);
            tokio::select! {
                answer = &mut waiting => return (answer, joined),
                risen = own.above(class) => class = risen,
            }
        }
    }

    fn start(&self, key: K, work: impl Future<Output = Answer<V>> + Send + 'static) -> Waiting<V> {
        let map = self.waiting.clone();
        let what = format!("{key:?}");
        // The entry goes when the work ends, panics included: nobody can be stranded on a dead flight.
        let entry = Entry { map, key: Some(key) };
        let places = self.places.clone();
        let task = self.tasks.spawn(async move {
            let _entry = entry;
            let _place = places.acquire().await;
            work.await
        });
        let failed =
            move |error: tokio::task::JoinError| FetchError::Local(format!("fetching {what} stopped: {error}"));
        task.map(move |joined| joined.unwrap_or_else(|error| Err(failed(error)))).boxed().shared()
    }
}

struct Entry<K: Eq + Hash, V> {
    map: Arc<Mutex<UnderWay<K, V>>>,
    key: Option<K>,
}

impl<K: Eq + Hash, V> Drop for Entry<K, V> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.map).remove(&key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use colibri_fetch::Class;

    use super::*;

    #[tokio::test]
    async fn a_herd_causes_one_piece_of_work_and_a_leaving_leader_kills_nothing() {
        let flights = SingleFlight::<u8, u32>::new(TaskTracker::new());
        let runs = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let work = || {
            let (runs, gate) = (runs.clone(), gate.clone());
            async move {
                drop(gate.acquire().await);
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            }
        };
        let mut leader = Box::pin(flights.join(1, work()));
        assert!(futures_util::future::poll_immediate(&mut leader).await.is_none());
        drop(leader);
        let herd: Vec<_> = (0..100).map(|_| flights.join(1, work())).collect();
        gate.add_permits(1);
        for (answer, joined) in futures_util::future::join_all(herd).await {
            assert_eq!((answer.unwrap(), joined), (0, true));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn work_is_as_urgent_as_the_most_urgent_of_those_who_wait() {
        let flights = SingleFlight::<u8, Class>::new(TaskTracker::new());
        let work = |urgency: Urgency| async move { Ok(urgency.above(Class::Warm).await) };
        let background = Urgency::new(Class::Background);
        let mut first = Box::pin(flights.join_as(&background, 1, work));
        assert!(futures_util::future::poll_immediate(&mut first).await.is_none());
        let warm = Urgency::new(Class::Warm);
        let mut second = Box::pin(flights.join_as(&warm, 1, work));
        assert!(futures_util::future::poll_immediate(&mut second).await.is_none());
        // Somebody joins who has joined.
        warm.raise(Class::Demand);
        assert_eq!((second.await.0.unwrap(), first.await.0.unwrap()), (Class::Demand, Class::Demand));
        assert_eq!(background.class(), Class::Background, "it has other work, too");
    }

    #[tokio::test]
    async fn a_panic_fails_its_waiters_and_the_next_asker_starts_afresh() {
        let flights = SingleFlight::<u8, u32>::new(TaskTracker::new());
        let (answer, _) = flights.join(1, async { panic!("on purpose") }).await;
        assert!(answer.is_err());
        let (answer, joined) = flights.join(1, async { Ok(7) }).await;
        assert_eq!((answer.unwrap(), joined), (7, false));
    }
}
