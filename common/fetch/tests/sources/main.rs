//! Invariants 1 and 4 at the fetcher: a liar beside an honest source costs time, never a byte. One row for each thing that a
//! source can do wrong: the fetch ends with the right bytes, each piece is handed on once, and the right one is blamed, or
//! nobody where there is no proof of malice.

mod budgets;
mod documents;
mod forge;
mod hedges;
mod lies;
mod metadata;
mod only_source;
mod signed;
mod site;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use colibri_common::BlobId;
use colibri_fetch::limits::BAD_PIECE_BYTES_MAX;
use colibri_fetch::{Blame, BlobFetcher, FetchError, Given, Pace, Patience, Source, SourceOrder, Sources, Witness};
use colibri_package::delivery::{Encoding, Layout};
use colibri_transport::{Client, ClientConfig};
use lies::Row;
use site::{Node, Site, Stage, TYPE};

/// Two units and a bit.
const LENGTH: usize = (4 << 20) + 12_345;

/// A client that gives up soon, so that tests of silence do not take long.
pub fn client() -> Client {
    Client::new(ClientConfig { connect_timeout: Duration::from_secs(5), ..ClientConfig::default() }).unwrap()
}

/// A fetcher that asks these in this order.
pub fn fetcher(sources: Vec<Source>) -> BlobFetcher {
    BlobFetcher::new(client(), Arc::new(Sources::new(sources, SourceOrder::Listed)), "test")
}

/// Patience for tests of sources that are silent or slow.
pub fn hasty() -> Patience {
    let span = Duration::from_millis(500);
    Patience { with_rivals: Pace { head: span, window: span, window_bytes_min: 1024 }, ..Patience::default() }
}

/// What a reader got.
pub struct Fetched {
    /// Shape of the form that was fetched.
    pub layout: Layout,
    /// Header and seek table, then all pieces.
    pub encoded: Vec<u8>,
    /// First piece and number of pieces of each run of the units, in the order they came.
    pub runs: Vec<(u32, u32)>,
}

/// Opens a blob and fetches all its units. When the form that was opened cannot be had to its end, because the source that
/// showed it is bad and the others have another, it is opened anew: the bad source is blamed by then.
pub async fn fetch(fetcher: &BlobFetcher, id: BlobId, encoding: Encoding) -> Result<Fetched, FetchError> {
    let opened = fetcher.open("", id, encoding).await?;
    match fetch_units(fetcher, opened.layout).await {
        Err(FetchError::AllFailed { other_form: true, .. }) => {
            fetch_units(fetcher, fetcher.open("", id, encoding).await?.layout).await
        }
        fetched => fetched,
    }
}

/// Fetches all units of an opened blob.
pub async fn fetch_units(fetcher: &BlobFetcher, layout: Layout) -> Result<Fetched, FetchError> {
    let (mut encoded, mut runs) = (layout.unit_h().to_vec(), Vec::new());
    for unit in 0..layout.unit_count() {
        let mut sink = |run: colibri_package::delivery::VerifiedPieces| {
            assert_eq!(run.encoded_offset(), encoded.len() as u64, "pieces come in order and once");
            encoded.extend_from_slice(run.encoded());
            runs.push((run.first_piece(), run.piece_count()));
        };
        fetcher.pieces("", &layout, unit, layout.pieces_of(unit), &mut sink).await?;
    }
    Ok(Fetched { layout, encoded, runs })
}

/// Keeps what it hears of the blamed.
#[derive(Debug, Default)]
struct Accused(Mutex<Vec<Blame>>);

impl Witness for Accused {
    fn gave(&self, _authority: &str, _given: Given) {}

    fn blamed(&self, blame: &Blame) {
        self.0.lock().unwrap().push(blame.clone());
    }
}

async fn check(row: Row) {
    let name = format!("{} ({})", row.name, row.encoding);
    let content = site::content(row.length, 7);
    let site = Site::with(&content, 1);
    let id = site::id(&content);
    let right = match row.encoding {
        Encoding::Raw => content.clone(),
        Encoding::Delivery(_) => site.files[&format!("/blobs/1/{id}")].0.to_vec(),
    };
    let honest = Node::honest(if row.honest_has_leaves { site.clone() } else { site.clone().without_leaves() });
    let liar = Node::lying(row.site.unwrap_or(site), row.lie);
    let accused = Arc::new(Accused::default());
    let mut fetcher = fetcher(vec![liar.source(), honest.source()]).with_witness(Some(accused.clone()));
    if row.hasty {
        fetcher = fetcher.with_patience(hasty());
    }
    let fetched = fetch(&fetcher, id, row.encoding).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(fetched.encoded == right, "{name}: wrong bytes");
    let sources = fetcher.sources();
    let liar_name = liar.source.url.authority();
    let blamed: Vec<_> = sources.blames().iter().map(|blame| blame.source.clone()).collect();
    assert!(blamed.iter().all(|source| source == liar_name), "{name}: {blamed:?}");
    assert_eq!(!blamed.is_empty(), row.expect.blame, "{name}: {blamed:?}");
    assert_eq!(sources.list()[0].blames(), blamed.len() as u64, "{name}");
    assert!(sources.blames().iter().all(|blame| blame.blob == Some(id) && !blame.detail.is_empty()), "{name}");
    let accused = accused.0.lock().unwrap();
    assert_eq!(accused.len(), blamed.len(), "{name}");
    for blame in accused.iter() {
        let piece = blame.piece.as_ref().unwrap_or_else(|| panic!("{name}: {blame} shows nothing"));
        assert!(piece.bytes.len() <= BAD_PIECE_BYTES_MAX && piece.bytes.len() as u64 <= piece.length_bytes, "{name}");
        assert!(piece.bytes.len() as u64 == piece.length_bytes || piece.bytes.len() == BAD_PIECE_BYTES_MAX, "{name}");
        assert!(piece.expected.is_none() || piece.expected != piece.found, "{name}");
    }
    assert!(!liar.asked().is_empty(), "{name}: the liar was not even asked");
    let first_unit_end = fetched.layout.unit_range(0).end();
    let taken_over = honest.asked().iter().find_map(|asked| {
        let start = asked.range.filter(|_| asked.stage == Stage::Pieces)?.start();
        (start < first_unit_end).then_some(start)
    });
    match row.expect.taken_over {
        Some(true) => {
            let start = taken_over.unwrap_or_else(|| panic!("{name}: {:?}", honest.asked()));
            let pieces = 0..fetched.layout.piece_count();
            let borders: Vec<_> = pieces.map(|piece| fetched.layout.piece_range(piece).start()).collect();
            assert!(start > borders[0] && borders.contains(&start), "{name}: what was verified is not fetched again");
        }
        Some(false) => assert_eq!(taken_over, None, "{name}: the first source was good enough"),
        None => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_and_4_a_liar_beside_an_honest_source_costs_no_byte() {
    for row in lies::rows(LENGTH) {
        check(row).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_all_sizes_in_both_forms_from_honest_sources() {
    for length in [0, 1, 8191, 8192, 8193, 100_000, 2 << 20, (2 << 20) + 1] {
        let content = site::content(length, 3);
        let site = Site::with(&content, 1);
        for has_leaves in [true, false] {
            let site = if has_leaves { site.clone() } else { site.clone().without_leaves() };
            for encoding in [Encoding::Raw, Encoding::Delivery(TYPE)] {
                let node = Node::honest(site.clone());
                let fetcher = fetcher(vec![node.source()]);
                let opened = fetcher.open("", site::id(&content), encoding).await.unwrap();
                assert_eq!(opened.length.bytes(), length as u64);
                let largest = opened.early.iter().map(|run| run.encoded().len()).max().unwrap();
                assert!(largest <= 64 << 10, "{length} {encoding}: {largest}");
                let fetched = fetch_units(&fetcher, opened.layout).await.unwrap();
                let form = if encoding == Encoding::Raw { "" } else { "1/" };
                let right = &site.files[&format!("/blobs/{form}{}", site::id(&content))].0;
                assert!(fetched.encoded == *right, "{length} {encoding}");
                assert_eq!(fetcher.sources().blames(), []);
            }
        }
    }
}
