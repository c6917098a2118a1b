//! Hedges: a silent first source gets a rival, within a share; one of them goes on, the other is cancelled and not blamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use colibri_fetch::{BlobFetcher, Class, Hedging, SourceCounts, SourceOrder, Sources, Standing, Urgency};
use colibri_package::delivery::{Encoding, Layout};
use colibri_transport::{Body, Response};
use tokio::sync::Notify;

use crate::site::{self, Lie, Node, Site, Stage, status};
use crate::{client, fetch_units};

const LENGTH: usize = (2 << 20) + 70_000;

/// As quick as can be, so that no test waits; any number may be hedged.
const EAGER: Hedging = Hedging { share_percent: 100, quantile_percent: 95, delay_min: Duration::from_millis(1) };

/// Two sources of the same content of which tests decide what they do with units from a certain moment on.
struct Pair {
    content: Vec<u8>,
    layout: Layout,
    first: Node,
    second: Node,
    fetcher: BlobFetcher,
    switch: Arc<AtomicBool>,
}

/// `lie` of a unit's bytes, once the switch is on.
fn switched(switch: &Arc<AtomicBool>, lie: impl Fn(Body) -> Body + Send + Sync + 'static) -> Lie {
    let switch = switch.clone();
    Arc::new(move |site, asked, request| {
        let on = asked.stage == Stage::Pieces && switch.load(Ordering::SeqCst);
        on.then(|| {
            let (head, body) = site.honest(request).into_parts();
            Response::from_parts(head, lie(body))
        })
    })
}

/// The head of an answer and nothing of its body until `then`.
fn held_until(then: &Arc<Notify>) -> impl Fn(Body) -> Body + Send + Sync + 'static {
    let then = then.clone();
    move |body| {
        let then = then.clone();
        let length = body.exact_length();
        let (mut sender, held) = Body::channel(length);
        tokio::spawn(async move {
            then.notified().await;
            if sender.send(body.read_all(1 << 30).await.unwrap()).await.is_ok() {
                sender.finish();
            }
        });
        held
    }
}

impl Pair {
    async fn new(first: impl Fn(&Arc<AtomicBool>) -> Lie, second: impl Fn(&Arc<AtomicBool>) -> Lie) -> Self {
        Self::hedged(EAGER, false, first, second).await
    }

    async fn hedged(
        hedging: Hedging,
        spared: bool,
        first: impl Fn(&Arc<AtomicBool>) -> Lie,
        second: impl Fn(&Arc<AtomicBool>) -> Lie,
    ) -> Self {
        let content = site::content(LENGTH, 1);
        let (site, switch) = (Site::with(&content, 1), Arc::new(AtomicBool::new(false)));
        let (first, second) = (Node::lying(site.clone(), first(&switch)), Node::lying(site, second(&switch)));
        let last = if spared { second.source().spared() } else { second.source() };
        let sources = Sources::new(vec![first.source(), last], SourceOrder::Listed).with_hedging(hedging);
        let fetcher = BlobFetcher::new(client(), Arc::new(sources), "test");
        let layout = fetcher.open("", site::id(&content), Encoding::Raw).await.unwrap().layout;
        // How long it usually takes must be known before anything is unusual.
        let calm = fetcher.clone().with_class(Class::Warm);
        while fetcher.sources().list()[0].requests() < 40 {
            fetch_units(&calm, layout.clone()).await.unwrap();
        }
        switch.store(true, Ordering::SeqCst);
        Self { content, layout, first, second, fetcher, switch }
    }

    /// Fetches everything once more; what each source was counted meanwhile.
    async fn fetch(&self) -> [SourceCounts; 2] {
        let fetched = fetch_units(&self.fetcher, self.layout.clone()).await.unwrap();
        assert!(fetched.encoded == self.content);
        assert_eq!(self.fetcher.sources().blames(), []);
        let sources = self.fetcher.sources();
        [sources.list()[0].counts(), sources.list()[1].counts()]
    }
}

fn honest(_: &Arc<AtomicBool>) -> Lie {
    Arc::new(|_, _, _| None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_source_is_overtaken_and_not_blamed() {
    let never = Arc::new(Notify::new());
    let pair = Pair::new(|switch| switched(switch, held_until(&never)), honest).await;
    let [first, second] = pair.fetch().await;
    let units = u64::from(pair.layout.unit_count());
    assert_eq!((first.cancelled, second.hedges, second.hedges_won), (units, units, units), "{first:?} {second:?}");
    assert_eq!((first.failures, first.standing), (0, Standing::Good), "slow is not broken");
    assert_eq!((first.in_flight, second.in_flight), (0, 0));
    assert_eq!(second.body_bytes, LENGTH as u64);
    assert!(!pair.second.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_hedge_is_the_rival_when_the_first_speaks_first() {
    let speaks = Arc::new(Notify::new());
    let never = Arc::new(Notify::new());
    let asked = speaks.clone();
    let pair = Pair::new(
        |switch| switched(switch, held_until(&speaks)),
        move |switch| {
            let (asked, silent) = (asked.clone(), held_until(&never));
            switched(switch, move |body| {
                asked.notify_one();
                silent(body)
            })
        },
    )
    .await;
    let [first, second] = pair.fetch().await;
    let units = u64::from(pair.layout.unit_count());
    assert_eq!((second.hedges, second.hedges_won, second.cancelled), (units, 0, units), "{first:?} {second:?}");
    assert_eq!((first.cancelled, second.body_bytes, second.standing), (0, 0, Standing::Good));
}

/// Whichever of the two fails, the other goes on as if it had been asked alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_rival_is_passed_by_and_a_failing_first_replaced() {
    let speaks = Arc::new(Notify::new());
    let asked = speaks.clone();
    let pair = Pair::new(
        |switch| switched(switch, held_until(&speaks)),
        move |switch| {
            let (asked, switch) = (asked.clone(), switch.clone());
            Arc::new(move |_, one, _| {
                let on = one.stage == Stage::Pieces && switch.load(Ordering::SeqCst);
                on.then(|| {
                    asked.notify_one();
                    status(500)
                })
            })
        },
    )
    .await;
    // The failure of the rival may come after the first byte of the first, which then counts as cancelled. Once it is known
    // to fail, it is no rival any more: the first is waited for.
    keep_letting_it_speak(&pair, &speaks);
    let [first, second] = pair.fetch().await;
    assert_eq!((first.failures, first.cancelled, second.hedges_won), (0, 0, 0), "{first:?} {second:?}");
    assert!(second.hedges >= 1 && second.failures + second.cancelled >= 1, "{second:?}");

    let pair = Pair::new(
        |switch| {
            switched(switch, |body| {
                let (sender, broken) = Body::channel(body.exact_length());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    drop(sender);
                });
                broken
            })
        },
        honest,
    )
    .await;
    let [first, second] = pair.fetch().await;
    assert!(second.body_bytes == LENGTH as u64 && first.blames == 0, "{first:?} {second:?}");
}

/// Lets the first source speak again and again: a rival that is in bad standing is not asked and cannot let it.
fn keep_letting_it_speak(pair: &Pair, speaks: &Arc<Notify>) {
    let (speaks, switch) = (speaks.clone(), pair.switch.clone());
    tokio::spawn(async move {
        while switch.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            speaks.notify_one();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hedging_before_an_origin_and_for_what_nobody_waits_for_a_slow_source_is_waited_for() {
    for (hedging, spared, class) in [
        (Hedging::OFF, false, Class::Demand),
        (EAGER, true, Class::Demand),
        (EAGER, false, Class::Warm),
        (EAGER, false, Class::Background),
    ] {
        let speaks = Arc::new(Notify::new());
        let mut pair = Pair::hedged(hedging, spared, |switch| switched(switch, held_until(&speaks)), honest).await;
        pair.fetcher = pair.fetcher.with_class(class);
        keep_letting_it_speak(&pair, &speaks);
        let [first, second] = pair.fetch().await;
        pair.switch.store(false, Ordering::SeqCst);
        assert_eq!((first.cancelled, second.requests), (0, 0), "{hedging:?} {spared} {class:?}");
        assert!(pair.first.asked().len() > 40);
    }
}

/// Warming began it, and then somebody comes to wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_demand_under_way_is_hedged_from_then_on() {
    let never = Arc::new(Notify::new());
    let mut pair = Pair::new(|switch| switched(switch, held_until(&never)), honest).await;
    let urgency = Urgency::new(Class::Warm);
    pair.fetcher = pair.fetcher.with_urgency(urgency.clone());
    let before = pair.fetcher.sources().list()[0].requests();
    let raised = async {
        while pair.fetcher.sources().list()[0].requests() == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(pair.fetcher.sources().list()[1].counts().hedges, 0);
        urgency.raise(Class::Demand);
    };
    let ([first, second], ()) = tokio::join!(pair.fetch(), raised);
    let units = u64::from(pair.layout.unit_count());
    assert_eq!((first.cancelled, second.hedges_won), (units, units), "{first:?} {second:?}");
}
