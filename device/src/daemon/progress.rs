//! [`Watch`]: how far a fetch is, how fast, and from where, put together from what happens and from what mirrors count.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use colibri_fetch::Sources;

use super::wire::{Blamed, EdgeProgress, FetchProgress};
use crate::fetch::FetchCounts;
use crate::limits::{DAEMON_PROGRESS_MS, DAEMON_RATE_SAMPLES};

/// One fetch as somebody watches it.
pub(super) struct Watch {
    pub counts: Arc<FetchCounts>,
    sources: Vec<Arc<Sources>>,
    /// Body bytes and blames of each source when it began.
    before: Vec<(u64, u64)>,
    samples: VecDeque<(Instant, u64)>,
}

impl Watch {
    /// Begins to watch a fetch from these mirrors.
    pub fn of(sources: Vec<Arc<Sources>>) -> Self {
        let before = list(&sources).map(|source| (source.body_bytes(), source.blames())).collect();
        Self { counts: Arc::default(), sources, before, samples: VecDeque::new() }
    }

    /// How far it is now.
    pub fn progress(&mut self) -> FetchProgress {
        let content_bytes = self.counts.content_bytes();
        self.samples.push_back((Instant::now(), content_bytes));
        if self.samples.len() > DAEMON_RATE_SAMPLES {
            self.samples.pop_front();
        }
        let edges = list(&self.sources).zip(&self.before);
        let edges = edges.map(|(source, (bytes, _))| EdgeProgress {
            source: source.url.authority().to_owned(),
            body_bytes: source.body_bytes() - bytes,
        });
        FetchProgress {
            blobs: self.counts.known(),
            blobs_done: self.counts.done(),
            content_bytes,
            bytes_per_s: rate(&self.samples),
            edges: edges.filter(|edge| edge.body_bytes > 0).collect(),
        }
    }

    /// Mirrors that served wrong bytes since it began, each once.
    pub fn blamed(&self) -> Vec<Blamed> {
        let mut blamed: Vec<Blamed> = Vec::new();
        let guilty = list(&self.sources).zip(&self.before).filter(|(source, (_, blames))| source.blames() > *blames);
        for (source, _) in guilty {
            let name = source.url.authority();
            let blames = self.sources.iter().flat_map(|sources| sources.blames()).filter(|blame| blame.source == name);
            // The last one is of this fetch, or of one beside it.
            if let Some(blame) = blames.last().filter(|_| blamed.iter().all(|known| known.source != name)) {
                blamed.push(Blamed { source: name.to_owned(), reason: blame.to_string() });
            }
        }
        blamed
    }
}

fn list(sources: &[Arc<Sources>]) -> impl Iterator<Item = &Arc<colibri_fetch::Source>> {
    sources.iter().flat_map(|sources| sources.list())
}

/// Bytes per second over the samples.
fn rate(samples: &VecDeque<(Instant, u64)>) -> u64 {
    let (Some((since, from)), Some((until, to))) = (samples.front(), samples.back()) else { return 0 };
    let ms = until.duration_since(*since).as_millis().max(u128::from(DAEMON_PROGRESS_MS));
    u64::try_from(u128::from(to.saturating_sub(*from)) * 1000 / ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_samples() {
        let start = Instant::now();
        let samples = |list: &[(u64, u64)]| -> VecDeque<_> {
            list.iter().map(|(ms, bytes)| (start + Duration::from_millis(*ms), *bytes)).collect()
        };
        assert_eq!(rate(&samples(&[])), 0);
        assert_eq!(rate(&samples(&[(0, 7)])), 0);
        assert_eq!(rate(&samples(&[(0, 1000), (500, 3000), (2000, 5000)])), 2000);
    }
}
