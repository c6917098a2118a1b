//! Budgets and classes: what is asked of a source stays within them, and who is asked when a place cannot be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_common::BlobId;
use colibri_fetch::{
    BlobFetcher, Budget, BudgetLimits, Class, FetchError, Nearby, Part, Source, SourceOrder, Sources, Urgency,
};
use colibri_package::delivery::Encoding;
use colibri_transport::{Body, Response};

use crate::site::{self, Lie, Node, Site, Stage, TYPE, status};
use crate::{client, fetch, fetch_units, fetcher, hasty};

const LENGTH: usize = (4 << 20) + 5;

fn limits(in_flight_max: u32, requests_per_s: u64, bytes_per_s: u64) -> Arc<Budget> {
    Budget::new(BudgetLimits { in_flight_max, requests_per_s, bytes_per_s })
}

/// One place is enough for everything a fetch does, finding out what form a source has included.
#[tokio::test(flavor = "multi_thread")]
async fn one_place_is_enough() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    let honest = Node::honest(Site::with(&content, 1));
    let other = Node::honest(Site::with(&content, 9).without_etags());
    let layout = fetcher(vec![honest.source()]).open("", id, Encoding::Delivery(TYPE)).await.unwrap().layout;
    let list = [&other, &honest].map(|node| node.source().with_budget(limits(1, 0, 0)));
    let fetcher = fetcher(list.into());
    fetch_units(&fetcher, layout).await.unwrap();
    fetch(&fetcher, id, Encoding::Raw).await.unwrap();
    assert!(fetcher.sources().list().iter().all(|source| source.budget().in_flight() == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_byte_rate_is_held_and_a_shared_budget_is_one() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    let node = Node::honest(Site::with(&content, 1));
    let budget = limits(8, 0, 4 << 20);
    let fetch_once = async || {
        let source = node.source().with_budget(budget.clone());
        fetch(&fetcher(vec![source]), id, Encoding::Raw).await.unwrap();
    };
    let began = Instant::now();
    fetch_once().await;
    fetch_once().await;
    // 8 MiB at 4 MiB/s, of which one second's worth and the last unit come at once.
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    let (waits, waited) = budget.waited();
    assert!(waits >= 1 && waited >= Duration::from_millis(400), "{waits} {waited:?}");
}

/// A full source is not a failing one: another is asked, and nobody is demoted.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_place_left_is_passed_by_without_reproach() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    let stuck: Lie = Arc::new(|site, asked, request| {
        (asked.stage == Stage::Pieces).then(|| {
            let (head, body) = site.honest(request).into_parts();
            let (sender, silent) = Body::channel(body.exact_length());
            tokio::spawn(async move {
                let _sender = sender;
                std::future::pending::<()>().await;
            });
            Response::from_parts(head, silent)
        })
    });
    let (full, other) = (Node::lying(Site::with(&content, 1), stuck), Node::honest(Site::with(&content, 1)));
    let sources = vec![full.source().with_budget(limits(1, 0, 0)), other.source()];
    let fetcher = fetcher(sources).with_patience(hasty());
    let layout = fetcher.open("", id, Encoding::Raw).await.unwrap().layout;
    let patient = fetcher.clone().with_patience(colibri_fetch::Patience::default());
    let holds = tokio::spawn({
        let layout = layout.clone();
        async move { patient.pieces("", &layout, 0, layout.pieces_of(0), &mut |_| ()).await }
    });
    while fetcher.sources().list()[0].budget().in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(fetch_units(&fetcher, layout).await.unwrap().encoded == content);
    holds.abort();
    let counts = fetcher.sources().list()[0].counts();
    assert_eq!((counts.failures, counts.standing), (0, colibri_fetch::Standing::Good), "{counts:?}");
    assert!(counts.waits >= 1);
}

/// Of four places, warming may not take the last; what it waits for it gets as soon as somebody else waits for it, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_demand_while_it_waits_goes_before_others() {
    let content = site::content(LENGTH, 1);
    let node = Node::honest(Site::with(&content, 1));
    let budget = limits(4, 0, 0);
    let all = fetcher(vec![node.source().with_budget(budget.clone())]);
    let layout = all.open("", site::id(&content), Encoding::Raw).await.unwrap().layout;
    let held = Arc::new(tokio::sync::Semaphore::new(0));
    let stuck: Lie = Arc::new({
        let held = held.clone();
        move |site, asked, request| {
            (asked.stage == Stage::Pieces).then(|| {
                let (head, body) = site.honest(request).into_parts();
                let (mut sender, late) = Body::channel(body.exact_length());
                let held = held.clone();
                tokio::spawn(async move {
                    held.acquire().await.unwrap().forget();
                    if sender.send(body.read_all(1 << 30).await.unwrap()).await.is_ok() {
                        sender.finish();
                    }
                });
                Response::from_parts(head, late)
            })
        }
    });
    let slow = Node::lying(Site::with(&content, 1), stuck);
    let holding = fetcher(vec![slow.source().with_budget(budget.clone())]);
    let fetch = |fetcher: BlobFetcher| {
        let layout = layout.clone();
        tokio::spawn(async move { fetcher.pieces("", &layout, 0, layout.pieces_of(0), &mut |_| ()).await })
    };
    let holders: Vec<_> = (0..3).map(|_| fetch(holding.clone())).collect();
    let until = async |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    until(&|| budget.in_flight() == 3).await;
    let urgency = Urgency::new(Class::Warm);
    let asked = node.asked().len();
    let warming = fetch(all.clone().with_urgency(urgency.clone()));
    until(&|| budget.waited().0 == 1).await;
    assert_eq!(node.asked().len(), asked);
    urgency.raise(Class::Demand);
    warming.await.unwrap().unwrap();
    assert_eq!((node.asked().len(), budget.in_flight()), (asked + 1, 3));
    held.add_permits(3);
    for holder in holders {
        holder.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_less_urgent_gives_up_sooner() {
    for (class, asked) in [(Class::Demand, 3), (Class::Warm, 2), (Class::Background, 1)] {
        let failing = Node::lying(Site::default(), Arc::new(|_, _, _| Some(status(500))));
        let fetcher = fetcher(vec![failing.source()]).with_class(class);
        let error = fetcher.leaves("", site::id(b"x"), Encoding::Raw).await.map(drop).unwrap_err();
        assert!(matches!(error, FetchError::AllFailed { .. }), "{error}");
        assert_eq!(failing.asked().len(), asked, "{class:?}");
    }
}

#[derive(Debug)]
struct Always(Arc<Source>);

impl Nearby for Always {
    fn first(&self, _: &BlobId, part: Part) -> Option<Arc<Source>> {
        // The second unit is nobody's.
        (!matches!(part, Part::Unit { unit: 1, .. })).then(|| self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nearby_is_asked_first_and_replaced_like_any_other() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    let cut: Lie = Arc::new(|site, asked, request| {
        let range = asked.range.filter(|range| asked.stage == Stage::Pieces && range.start() == 0)?;
        let (head, _) = site.honest(request).into_parts();
        let (mut sender, body) = Body::channel(Some(range.len()));
        let part = site.files[&asked.path].0.slice(..100_000);
        tokio::spawn(async move { sender.send(part).await });
        Some(Response::from_parts(head, body))
    });
    let (near, listed) = (Node::lying(Site::with(&content, 1), cut), Node::honest(Site::with(&content, 1)));
    let nearby = Arc::new(Always(Arc::new(near.source())));
    let sources = Arc::new(Sources::new(vec![listed.source()], SourceOrder::Listed));
    let fetcher = BlobFetcher::new(client(), sources, "test").with_nearby(Some(nearby.clone()));
    assert!(fetch(&fetcher, id, Encoding::Raw).await.unwrap().encoded == content);
    let asked: Vec<_> = listed.asked().iter().map(|asked| asked.range.unwrap()).collect();
    // The rest of the first unit, and the second.
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].start() > 0 && asked[0].start() <= 100_000 && asked[0].end() == 2 << 20, "{asked:?}");
    assert_eq!((nearby.0.counts().failures, nearby.0.blames()), (1, 0));
}
