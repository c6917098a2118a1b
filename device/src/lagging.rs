//! Which mirrors lag behind, over restarts: for people, who may ask with another process than the one that found out. Nothing
//! rests on it, so what cannot be read is forgotten. Deliberately absent: any use of it in the order of mirrors (their health).

use colibri_common::UnixSeconds;
use colibri_fetch::{Lagging, Source};
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use crate::limits::LAGGING_BYTES_MAX;
use crate::repositories::Repository;

const FORMAT: u64 = 1;

/// While a mirror goes on lagging behind, when it was last found so is written down this often, seconds.
const LAST_EVERY_S: u64 = 3600;

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaggingMirrors {
    format: u64,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    repository: String,
    mirror: String,
    since: UnixSeconds,
    last: UnixSeconds,
    what: String,
}

impl LaggingMirrors {
    /// What was written down last.
    pub fn load(documents: &Documents) -> Self {
        let read = documents.get(&document_name(), LAGGING_BYTES_MAX).map_err(|error| error.to_string());
        let parsed = read.and_then(|json| match json {
            None => Ok(Self::default()),
            Some(json) => serde_json::from_slice::<Self>(&json).map_err(|error| error.to_string()),
        });
        match parsed {
            Ok(known) if known.format <= FORMAT => known,
            Ok(_) => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "which mirrors lagged behind is forgotten");
                Self::default()
            }
        }
    }

    /// Tells the mirrors of a repository what is known of them.
    pub fn tell(&self, host: &str, sources: &[std::sync::Arc<Source>]) {
        for mirror in self.mirrors.iter().filter(|mirror| mirror.repository == host) {
            let Mirror { since, last, what, .. } = mirror.clone();
            let same = sources.iter().filter(|source| source.url.as_str() == mirror.mirror);
            same.for_each(|source| source.was_lagging(Lagging { since, last, what: what.clone() }));
        }
    }

    /// What is known now.
    pub fn of<'a>(repositories: impl Iterator<Item = &'a Repository>) -> Self {
        let mirrors = repositories.flat_map(|repository| {
            let sources = repository.sources().list().iter();
            sources.filter_map(|source| {
                let Lagging { since, last, what } = source.lagging()?;
                let (repository, mirror) = (repository.config().host().to_owned(), source.url.as_str().to_owned());
                Some(Mirror { repository, mirror, since, last, what })
            })
        });
        Self { format: FORMAT, mirrors: mirrors.collect() }
    }

    /// Whether it says the same, as far as that is worth a write.
    pub fn is_like(&self, other: &Self) -> bool {
        let same = |(one, two): (&Mirror, &Mirror)| {
            (&one.repository, &one.mirror, one.since) == (&two.repository, &two.mirror, two.since)
                && two.last.0.abs_diff(one.last.0) < LAST_EVERY_S
        };
        self.mirrors.len() == other.mirrors.len() && self.mirrors.iter().zip(&other.mirrors).all(same)
    }

    /// Writes it down. Failing is told in the log only.
    pub fn save(&self, documents: &Documents) {
        let json = serde_json::to_vec(self).unwrap_or_default();
        if json.len() as u64 <= LAGGING_BYTES_MAX
            && let Err(error) = documents.put(&document_name(), &json)
        {
            tracing::warn!(%error, "which mirrors lag behind could not be written down");
        }
    }
}

fn document_name() -> DocumentName {
    "lagging.json".parse().expect("a good name")
}
