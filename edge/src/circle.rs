//! Finds out that edges wait for each other. `CDN-Loop` stops a question that comes back to where it has been; but where each of
//! two edges has a reader of the same thing, each asks the other, and both questions join the fills that wait for them: nobody's
//! question comes back, and all would wait until their patience ends.
//!
//! So an answer for another edge that is silent for a while sends one more question upstream, with the hops of the one who waits:
//! a HEAD, which no cache answers for another. If it ends where it has been, somebody says 508, and so it is known here.
//! Deliberately absent: knowing which upstream the fill waits for; all are asked.

use std::pin::pin;
use std::time::Duration;

use colibri_fetch::{BlobFetcher, Source};
use colibri_transport::Body;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::cdn_loop::Circle;
use crate::limits::{CIRCLE_PROBE_MS, CIRCLE_PROBE_MS_MAX, CIRCLE_PROBES_MAX};

/// Room for such questions: who makes up hops must not make many of them.
#[derive(Debug)]
pub(crate) struct Probes(Semaphore);

impl Probes {
    pub const fn new() -> Self {
        Self(Semaphore::const_new(CIRCLE_PROBES_MAX))
    }

    /// The answer, unless it waits for whoever asked. `fetcher` carries the hops of the request.
    pub async fn unless_circle<T>(
        &self,
        answer: impl Future<Output = T>,
        fetcher: &BlobFetcher,
        path: &str,
    ) -> Result<T, Circle> {
        let mut answer = pin!(answer);
        let mut silence = Duration::from_millis(CIRCLE_PROBE_MS);
        loop {
            let probe = async {
                sleep(silence).await;
                self.leads_back(fetcher, path).await
            };
            tokio::select! {
                biased;
                answer = answer.as_mut() => return Ok(answer),
                leads_back = probe => if leads_back {
                    return Err(Circle);
                },
            }
            silence *= 2;
        }
    }

    /// Whether some upstream says that this question has been there before.
    async fn leads_back(&self, fetcher: &BlobFetcher, path: &str) -> bool {
        let Ok(_place) = self.0.try_acquire() else { return false };
        let sources = fetcher.sources();
        let asked = sources.list().iter().map(|source| says_508(fetcher, source, path));
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(says_508) = answers.next().await {
            if says_508 {
                return true;
            }
        }
        false
    }
}

async fn says_508(fetcher: &BlobFetcher, source: &Source, path: &str) -> bool {
    let mut request = http::Request::new(Body::empty());
    let Ok(url) = source.url.join(path).parse() else { return false };
    *request.uri_mut() = url;
    *request.method_mut() = Method::HEAD;
    *request.headers_mut() = fetcher.headers().clone();
    let within = Duration::from_millis(CIRCLE_PROBE_MS_MAX);
    let answer = timeout(within, fetcher.client().send(request)).await;
    matches!(answer, Ok(Ok(response)) if response.status() == StatusCode::LOOP_DETECTED)
}
