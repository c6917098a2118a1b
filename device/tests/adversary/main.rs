//! A mirror that lies, or fails, beside one honest edge: the device ends up with every byte right, blames who is to blame and
//! nobody else, and fetches nothing twice that it has verified. One test for each row of the table in
//! `docs/operating-a-device.md`, "Lying servers". The same for the fetcher alone, with more rows, is in `common/fetch/tests`.

mod forms;
mod liar;
mod lies;
#[path = "../scene/mod.rs"]
mod scene;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use colibri_cluster::Cluster;
use colibri_common::merkle::{self, LEAF_BYTES};
use colibri_device::{Device, DeviceConfig, Event, Preference};
use colibri_fetch::{Blame, Pace, Patience, Source};
use colibri_package::delivery::{DeliveryType, Encoding, encode};
use colibri_store::Store;
use liar::{Kind, Liar, Lie, Truth};
use lies::{about, about_blobs, about_units, always};
use scene::{HOST, Scene, nobody, scrub, url};

/// What must come of a lie, besides the right bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No proof of malice: nobody is blamed.
    Innocent,
    /// Blamed for bytes of a blob.
    Blamed,
    /// Blamed for metadata.
    BlamedForMetadata,
}
use Verdict::{Blamed, BlamedForMetadata, Innocent};

/// The forms of a blob in which a row is played.
const RAW: &[Preference] = &[Preference::Raw];
const DELIVERY: &[Preference] = &[Preference::Delivery(DeliveryType::Type1)];
const BOTH: &[Preference] = &[RAW[0], DELIVERY[0]];

/// Three units and a bit: the first and the third are asked of the liar, the others of the honest edge.
const LARGE_BYTES: usize = (6 << 20) + 12_345;

/// The package that is resolved. The head of each of its blobs is asked of the liar first.
struct Package {
    large: Vec<u8>,
    middle: Vec<u8>,
    small: Vec<u8>,
}

impl Package {
    fn new() -> Self {
        Self { large: content(LARGE_BYTES), middle: content(50_000), small: content(5_000) }
    }

    fn files(&self) -> [(&str, &[u8]); 3] {
        [("large", &self.large), ("middle", &self.middle), ("small", &self.small)]
    }

    fn form(&self, level: i32) -> Vec<u8> {
        encode(&self.large, DeliveryType::Type1, Some(level)).unwrap()
    }
}

/// Content that compresses, but not to nothing, with an id whose first request goes to the first of two sources.
fn content(bytes: usize) -> Vec<u8> {
    let of = |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut content = Vec::with_capacity(bytes + 16);
        while content.len() < bytes {
            content.extend_from_slice(&random.u16(..).to_le_bytes());
            content.extend_from_slice(b"hummingbird");
        }
        content.truncate(bytes);
        content
    };
    (1..).map(of).find(|content| merkle::build(content).id.as_bytes()[0].is_multiple_of(2)).unwrap()
}

/// A device that loses patience soon, where another can be asked, if so wished: never with a machine that is busy.
fn config(preference: Preference, is_hasty: bool) -> DeviceConfig {
    let span = Duration::from_millis(if is_hasty { 500 } else { 60_000 });
    let with_rivals = Pace { head: span, window: span, window_bytes_min: 1024 };
    DeviceConfig { preference, patience: Patience { with_rivals, ..Patience::default() }, ..DeviceConfig::default() }
}

/// An honest edge, a liar before it in the list of mirrors, and a device.
struct Play {
    scene: Scene,
    cluster: Cluster,
    liar: Liar,
    device: Device,
    store: Arc<Store>,
}

impl Play {
    fn new(preference: Preference, files: &[(&str, &[u8])], lie: Lie) -> Self {
        Self::with(config(preference, false), files, lie)
    }

    fn with(config: DeviceConfig, files: &[(&str, &[u8])], lie: Lie) -> Self {
        let scene = Scene::new();
        scene.release("app", files);
        let cluster = scene.serve(1);
        let liar = Liar::start(&cluster.edges[0].node.url(), lie);
        let mut repository = scene.config(&cluster, HOST);
        let mut mirror = repository.mirrors[0].clone();
        mirror.mirror_url = format!("http://{}/{HOST}", liar.authority);
        repository.mirrors.insert(0, mirror);
        let (device, store) = scene.device("device", config, repository);
        Self { scene, cluster, liar, device, store }
    }

    /// Has the device know the liar only.
    fn alone(&self) {
        let mut alone = self.device.repositories().get(HOST).unwrap().config().clone();
        alone.mirrors.truncate(1);
        self.device.repositories().add(alone).unwrap();
    }

    fn sources(&self) -> Vec<Arc<Source>> {
        self.device.repositories().get(HOST).unwrap().sources().list().to_vec()
    }

    fn blames(&self) -> Vec<Blame> {
        self.device.repositories().get(HOST).unwrap().sources().blames()
    }

    /// Resolves the package, of which so many blobs are missing; content bytes that were verified more than once.
    async fn resolve(&self, missing: usize) -> u64 {
        let verified = Arc::new(AtomicU64::new(0));
        let heard = verified.clone();
        let observer = Arc::new(move |event| {
            if let Event::Verified { content_bytes, .. } = event {
                heard.fetch_add(content_bytes, Ordering::SeqCst);
            }
        });
        let report = self.device.resolve(&url("app"), observer).await.unwrap().report;
        assert_eq!(report.fetched, missing, "all of it is here");
        assert!(scrub(&self.store) >= missing, "and every byte is right");
        let verified = verified.load(Ordering::SeqCst);
        assert!(verified >= report.content_bytes, "{verified} of {}", report.content_bytes);
        verified - report.content_bytes
    }

    fn check(&self, verdict: Verdict) {
        assert!(self.liar.told() > 0, "it was asked, and lied");
        let blames = self.blames();
        for blame in &blames {
            assert_eq!(blame.source, self.liar.authority, "nobody is blamed falsely: {blame}");
            assert!(!blame.detail.is_empty());
        }
        let (of_blobs, of_metadata): (Vec<_>, Vec<_>) = blames.iter().partition(|blame| blame.blob.is_some());
        assert_eq!(!of_blobs.is_empty(), verdict == Blamed, "{blames:?}");
        assert_eq!(!of_metadata.is_empty(), verdict == BlamedForMetadata, "{blames:?}");
        assert!(of_blobs.iter().all(|blame| blame.piece.is_some()), "where it was is said: {blames:?}");
        assert_eq!(self.sources()[1].blames(), 0);
    }
}

/// Plays a row in these forms. What was verified may be fetched again only as far as `again_bytes`.
async fn play(
    forms: &[Preference],
    lie: impl Fn(&Package) -> Lie,
    verdict: Verdict,
    (again_bytes, is_hasty): (u64, bool),
) {
    let package = Package::new();
    for preference in forms {
        let play = Play::with(config(*preference, is_hasty), &package.files(), lie(&package));
        let again = play.resolve(4).await;
        play.check(verdict);
        assert!(again <= again_bytes, "{preference:?}: {again} verified bytes were fetched again");
        play.cluster.stop().await;
    }
}

/// One test for each lie: in which forms of a blob it is told, what it is, and what comes of it.
macro_rules! rows {
    ($($name:ident: $forms:expr, $lie:expr, $verdict:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let wins_time = ["stalls", "drips", "drips_leaves"].contains(&stringify!($name));
                play($forms, $lie, $verdict, (0, wins_time)).await;
            }
        )*
    };
}

rows! {
    truncates: BOTH, |_| about_units(lies::truncates), Innocent;
    truncates_leaves: BOTH, |_| about(Kind::Leaves, lies::truncates), Innocent;
    truncates_metadata: RAW, |_| about(Kind::Metadata, lies::truncates), Innocent;
    resets: BOTH, |_| about_units(lies::resets), Innocent;
    resets_everything: BOTH, |_| always(lies::resets), Innocent;
    stalls: BOTH, |_| about_units(lies::stalls), Innocent;
    drips: BOTH, |_| about_units(lies::drips), Innocent;
    drips_leaves: BOTH, |_| about(Kind::Leaves, lies::drips), Innocent;
    never_ends: BOTH, |_| about_units(lies::never_ends), Innocent;
    never_ends_small_blobs: RAW, |_| about_blobs(lies::never_ends), Blamed;
    never_ends_metadata: RAW, |_| about(Kind::Metadata, lies::never_ends), BlamedForMetadata;
    says_longer: BOTH, |_| about_units(lies::says_longer), Blamed;
    says_shorter: BOTH, |_| about_units(lies::says_shorter), Blamed;
    answers_another_range: BOTH, |_| about_units(lies::answers_another_range), Innocent;
    shifts: BOTH, |_| about_units(lies::shifts), Blamed;
    says_compressed: BOTH, |_| about_blobs(lies::says_compressed), Innocent;
    flips: BOTH, |_| about_units(lies::flips), Blamed;
    flips_leaves: BOTH, |_| about(Kind::Leaves, lies::flips), Blamed;
    flips_small_blobs: BOTH, |_| about_blobs(lies::flips), Blamed;
    welcomes_to_a_hotel: BOTH, |_| about_blobs(lies::welcomes), Blamed;
    welcomes_with_metadata: RAW, |_| about(Kind::Metadata, lies::welcomes), BlamedForMetadata;
    splices: BOTH, another_blob, Blamed;
    mixes_encodings: DELIVERY, |package| lies::mixes(merkle::build(&package.large).id, package.form(9)), Blamed;
    serves_raw_bytes_as_a_delivery_blob:
        DELIVERY,
        |package| lies::serves(merkle::build(&package.large).id, package.large.clone(), true),
        Blamed;
    has_a_gap:
        DELIVERY,
        |package| lies::serves(merkle::build(&package.large).id, forms::with_holes(&package.form(1), 8, 0), false),
        Blamed;
    has_a_tail:
        DELIVERY,
        |package| lies::serves(merkle::build(&package.large).id, forms::with_holes(&package.form(1), 0, 8), false),
        Blamed;
    redirects: BOTH, |_| always(|_, _| lies::redirects()), Innocent;
    has_nothing: BOTH, |_| always(|_, _| lies::status(404, None)), Innocent;
    has_no_units: BOTH, |_| about_units(|_, _| lies::status(404, None)), Innocent;
    sheds_load: BOTH, |_| always(|_, _| lies::status(429, None)), Innocent;
    sheds_load_for_an_hour: BOTH, |_| about_units(|_, _| lies::status(429, Some("3600"))), Innocent;
    fails: BOTH, |_| always(|_, _| lies::status(500, None)), Innocent;
    is_away: BOTH, |_| about_units(|_, _| lies::status(503, Some("1"))), Innocent;
}

/// The large blob's parts come from another blob of the same length.
fn another_blob(package: &Package) -> Lie {
    let id = merkle::build(&package.large).id;
    let mut other = package.large.clone();
    other.iter_mut().for_each(|byte| *byte ^= 0x55);
    let form = encode(&other, DeliveryType::Type1, Some(1)).unwrap();
    Arc::new(move |asked, truth: &Truth| {
        let whole = if asked.kind == Kind::Raw { &other } else { &form };
        let is_blob = matches!(asked.kind, Kind::Raw | Kind::Delivery) && asked.id == Some(id);
        let fits = asked.range.is_none_or(|range| range.start() < whole.len() as u64);
        (is_blob && fits && truth.status.is_success()).then(|| {
            let spliced = lies::part_of(whole, asked, truth);
            match spliced.body().exact_length() == Some(truth.body.len() as u64) {
                true => truth.told().map(|_| spliced.into_body()),
                false => spliced,
            }
        })
    })
}

/// Another form of a blob is a form of it: who has that is passed over for its units, and not to blame.
#[tokio::test(flavor = "multi_thread")]
async fn another_form_is_no_lie() {
    let lie = |package: &Package| lies::serves(merkle::build(&package.large).id, package.form(9), false);
    // What was opened in one form is gone on with in another: its last piece is fetched in both.
    play(DELIVERY, lie, Innocent, (128 << 10, false)).await;
}

/// Blame says who, which blob, where, which hash was expected and which was found.
#[tokio::test(flavor = "multi_thread")]
async fn blame_names_blob_offset_and_hashes() {
    let package = Package::new();
    let play = Play::new(Preference::Raw, &package.files(), about_units(lies::flips));
    play.resolve(4).await;
    play.check(Blamed);
    let tree = merkle::build(&package.large);
    for blame in play.blames() {
        let piece = blame.piece.clone().expect("bytes were bad");
        assert_eq!((blame.blob, blame.encoding), (Some(tree.id), Some(Encoding::Raw)));
        assert_eq!((piece.offset % LEAF_BYTES, piece.bytes.len()), (0, 0), "the bytes are for those who hear at once");
        let list = tree.leaves.wire();
        let leaf = (piece.offset / LEAF_BYTES) as usize * 32;
        assert_eq!(piece.expected.unwrap().as_slice(), &list[leaf..leaf + 32]);
        let mut spoiled = package.large[piece.offset as usize..][..LEAF_BYTES as usize].to_vec();
        let found = |spoiled: &[u8]| merkle::build(&[&package.large[..piece.offset as usize], spoiled].concat());
        let right = (0..LEAF_BYTES as usize).find(|at| {
            spoiled[*at] ^= 1;
            let is_it = found(&spoiled).leaves.wire()[leaf..leaf + 32] == piece.found.unwrap()[..];
            spoiled[*at] ^= 1;
            is_it
        });
        assert!(right.is_some(), "the hash is that of what was sent");
        for said in [piece.offset.to_string(), tree.id.to_string(), play.liar.authority.clone()] {
            assert!(blame.to_string().contains(&said), "{blame}");
        }
    }
    play.cluster.stop().await;
}

/// What the liar got right before it went wrong is not asked of the honest edge.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_edge_goes_on_at_the_piece_at_fault() {
    let package = Package::new();
    for lie in [lies::resets, lies::flips] {
        let play = Play::new(Preference::Raw, &package.files(), about_units(lie));
        assert_eq!(play.resolve(4).await, 0);
        let given = play.sources().iter().map(|source| source.body_bytes()).collect::<Vec<_>>();
        // At least one unit of the large blob is asked of the liar, and the first half of it is good.
        let rest = (LARGE_BYTES - (1 << 20)) as u64;
        assert!(given[1] < rest + 200_000, "{given:?}");
        play.cluster.stop().await;
    }
}

/// A mirror that is behind is told from one that is not, by a device that has seen the newer.
#[tokio::test(flavor = "multi_thread")]
async fn answers_old_metadata() {
    let package = Package::new();
    let old: Arc<Mutex<Option<Truth>>> = Arc::default();
    let (seen, keeps) = (old.clone(), Arc::new(AtomicU64::new(0)));
    let lie: Lie = Arc::new(move |asked, truth| {
        let is_timestamp = asked.kind == Kind::Metadata && asked.path.ends_with("/timestamp.json");
        let mut old = seen.lock().unwrap();
        if is_timestamp && old.is_none() {
            *old = Some(truth.clone());
            keeps.fetch_add(1, Ordering::SeqCst);
        }
        old.as_ref().filter(|_| is_timestamp).map(Truth::told)
    });
    let play = Play::new(Preference::Raw, &package.files(), lie);
    play.device.refresh(HOST, true).await.unwrap();
    assert!(old.lock().unwrap().is_some());
    // It keeps up once, so that the device knows better.
    play.scene.release("newer", &[("a", b"newer")]);
    play.liar.lies(false);
    play.device.refresh(HOST, true).await.unwrap();
    assert!(play.blames().is_empty());
    play.liar.lies(true);
    play.device.refresh(HOST, true).await.unwrap();
    play.device.resolve(&url("newer"), nobody()).await.unwrap();
    assert_eq!(play.resolve(4).await, 0);
    play.check(BlamedForMetadata);
    assert!(play.blames()[0].detail.contains("would roll"), "{:?}", play.blames());
    // It is told as one that lags behind, since it was first found so, until it keeps up.
    let lagging = play.sources()[0].lagging().expect("it lags behind");
    assert!(lagging.what.contains("would roll") && lagging.since <= lagging.last, "{lagging:?}");
    assert_eq!(play.sources()[1].lagging(), None);
    // Another process knows, too.
    let Play { scene, cluster, liar, device, store } = play;
    let repository = device.repositories().get(HOST).unwrap().config().clone();
    drop((device, store));
    let (device, store) = loop {
        let clock = Arc::new(colibri_common::SystemClock);
        match Device::open(&scene.path("device"), config(Preference::Raw, false), clock) {
            Err(colibri_device::DeviceError::Store(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let again = device.repositories().get(HOST).unwrap().sources().list()[0].lagging();
    assert_eq!(again.map(|again| (again.since, again.what)), Some((lagging.since, lagging.what)));
    assert_eq!(repository, *device.repositories().get(HOST).unwrap().config());
    let play = Play { scene, cluster, liar, device, store };
    play.liar.lies(false);
    play.alone();
    play.device.refresh(HOST, true).await.unwrap();
    assert_eq!(play.sources()[0].lagging(), None);
    let written = std::fs::read_to_string(play.scene.path("device/state/lagging.json")).unwrap();
    assert!(written.contains("\"mirrors\":[]"), "{written}");
    play.cluster.stop().await;
}

/// What the repository's signed metadata says of the length of a meta.far is held against whoever sends more.
#[tokio::test(flavor = "multi_thread")]
async fn sends_more_of_a_meta_far_than_is_listed() {
    let package = Package::new();
    for preference in BOTH {
        let play = Play::new(*preference, &package.files(), about(Kind::Leaves, lies::many_leaves));
        let hash = play.device.get_hash(&url("app")).await.unwrap();
        // Which mirror is asked first for a blob is its hash's choice.
        play.alone();
        let refused = play.device.resolve(&url("app"), nobody()).await.unwrap_err();
        assert!(refused.to_string().contains("that were signed"), "{refused}");
        let blames = play.blames();
        assert!(!blames.is_empty() && blames.iter().all(|blame| blame.blob == Some(hash)), "{blames:?}");
        assert!(blames.iter().all(|blame| blame.detail.contains("that were signed")), "{blames:?}");
        assert_eq!(scrub(&play.store), 0);
        play.liar.lies(false);
        play.resolve(4).await;
        play.cluster.stop().await;
    }
}

/// A date is as good as seconds: of the mirror's own clock, if it tells that.
#[tokio::test(flavor = "multi_thread")]
async fn asks_to_be_left_alone_until_a_date() {
    let package = Package::new();
    let lie = about(Kind::Leaves, |_, _| {
        let mut response = lies::status(429, Some("Sun, 06 Nov 1994 09:49:37 GMT"));
        response
            .headers_mut()
            .insert(http::header::DATE, http::HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        response
    });
    let play = Play::new(Preference::Raw, &package.files(), lie);
    play.resolve(4).await;
    play.check(Innocent);
    // Who was asked at the same time could not know; whoever comes later does, for an hour.
    let told = play.liar.told();
    play.scene.release("more", &[("a", &content(20_000)), ("b", &content(30_000)), ("c", &content(40_000))]);
    play.device.refresh(HOST, true).await.unwrap();
    play.device.resolve(&url("more"), nobody()).await.unwrap();
    assert_eq!(play.liar.told(), told);
    play.cluster.stop().await;
}

/// Alone, who asks for a moment gets it, and is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_mirror_asks_for_a_second() {
    let package = Package::new();
    let since: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (busy, too_soon) = (since.clone(), Arc::new(AtomicU64::new(0)));
    let early = too_soon.clone();
    let lie = about(Kind::Leaves, move |_, truth| {
        let began = *busy.lock().unwrap().get_or_insert_with(Instant::now);
        match began.elapsed().as_millis() {
            // Who was asked at the same time could not know.
            ..300 => lies::status(429, Some("1")),
            300..900 => {
                early.fetch_add(1, Ordering::SeqCst);
                lies::status(429, Some("1"))
            }
            _ => truth.told(),
        }
    });
    let play = Play::new(Preference::Raw, &package.files(), lie);
    play.alone();
    assert_eq!(play.resolve(4).await, 0);
    assert!(since.lock().unwrap().unwrap().elapsed() >= Duration::from_secs(1), "it was left alone");
    assert_eq!(too_soon.load(Ordering::SeqCst), 0, "for as long as it asked for");
    assert_eq!(play.blames(), []);
    play.cluster.stop().await;
}

/// A plain file server over HTTP/1.1, as a real Fuchsia repository has: no leaves. Blobs are verified whole before any of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn without_leaves_blobs_are_verified_whole() {
    let package = Package::new();
    for preference in BOTH {
        let plain = |spoils: bool| -> Lie {
            Arc::new(move |asked, truth| match asked.kind {
                Kind::Leaves => Some(lies::status(404, None)),
                Kind::Raw | Kind::Delivery if spoils && truth.body.len() > 200_000 => Some(lies::flips(asked, truth)),
                _ => None,
            })
        };
        let play = Play::new(*preference, &package.files(), plain(false));
        play.alone();
        assert_eq!(play.resolve(4).await, 0);
        assert_eq!((play.blames(), play.device.client().counts().h3_requests), (vec![], 0));
        play.cluster.stop().await;

        let play = Play::new(*preference, &package.files(), plain(true));
        play.alone();
        let refused = play.device.resolve(&url("app"), nobody()).await.unwrap_err().to_string();
        let id = merkle::build(&package.large).id;
        assert!(refused.contains("bad bytes") && refused.contains(&id.to_string()), "{refused}");
        assert!(play.blames().iter().all(|blame| blame.blob == Some(id)) && !play.blames().is_empty());
        assert!(!play.store.ids().unwrap().contains(&id));
        scrub(&play.store);
        play.cluster.stop().await;
    }
}
