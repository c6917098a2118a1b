//! Hears upstream's `/REPO/auto`, if it has one: an event means that there may be something new. Nothing else is taken from
//! it; who lies there causes a refresh, and no more of them than the pause between two allows.

use std::sync::Arc;
use std::time::Duration;

use colibri_fetch::Source;
use colibri_transport::{Backoff, Body};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::Followed;
use crate::limits::{AUTO_ABSENT_MS, AUTO_BACKOFF_MS_MAX, AUTO_SILENCE_MS_MAX};

const EVENT_STREAM: &str = "text/event-stream";

/// How listening to one source ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// It has no events for this repository.
    Absent,
    /// It could not be reached, or is busy.
    Away,
    /// It spoke for a while.
    Ended,
}

impl Followed {
    /// Listens until `stop`, to the first upstream that has events.
    pub(super) async fn listen(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = self.listen_once() => heard,
            };
            failures = if heard == Heard::Ended { 0 } else { failures + 1 };
            let ceiling = Duration::from_millis(AUTO_BACKOFF_MS_MAX);
            let pause = match heard {
                Heard::Absent => Duration::from_millis(AUTO_ABSENT_MS).mul_f64(0.5 + fastrand::f64() / 2.0),
                Heard::Away | Heard::Ended => {
                    Backoff { ceiling, ..Backoff::default() }.delay(failures, fastrand::f64())
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn listen_once(&self) -> Heard {
        let mut heard = Heard::Absent;
        let sources = self.fetcher.sources();
        for source in sources.candidates(None, 0) {
            match self.listen_to(source).await {
                Heard::Ended => return Heard::Ended,
                Heard::Away => heard = Heard::Away,
                Heard::Absent => {}
            }
        }
        heard
    }

    async fn listen_to(&self, source: &Source) -> Heard {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        let Ok(url) = source.url.join(&format!("{}/auto", self.place)).parse() else { return Heard::Absent };
        *request.uri_mut() = url;
        *request.headers_mut() = self.fetcher.headers().clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        if let Ok(agent) = HeaderValue::from_str(&self.agent) {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        let Ok(response) = self.fetcher.client().send(request).await else { return Heard::Away };
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
        match response.status() {
            StatusCode::OK if is_stream => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => return Heard::Away,
            _ => return Heard::Absent,
        }
        tracing::debug!(repository = %self.name, source = %source.url, "listening for new metadata");
        let mut body = response.into_body();
        let mut lines = Lines::default();
        let silence = Duration::from_millis(AUTO_SILENCE_MS_MAX);
        while let Ok(Some(Ok(chunk))) = tokio::time::timeout(silence, body.next()).await {
            if lines.say_something(&chunk) {
                self.metrics.auto_heard.inc();
                self.news.notify_one();
            }
            if !self.fetcher.sources().list().iter().any(|known| std::ptr::eq(&**known, source)) {
                // It is no upstream any more: others are to be heard.
                break;
            }
        }
        Heard::Ended
    }
}

/// Finds out whether lines say something: comments and empty lines do not. Nothing is kept, however long lines are.
#[derive(Debug, Default)]
struct Lines {
    inside: bool,
}

impl Lines {
    fn say_something(&mut self, chunk: &[u8]) -> bool {
        let mut something = false;
        for byte in chunk {
            something |= !self.inside && !matches!(byte, b':' | b'\n' | b'\r');
            self.inside = !matches!(byte, b'\n' | b'\r');
        }
        something
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_empty_lines_say_nothing_wherever_they_are_cut() {
        let quiet = b": still here\n\n:\r\n\r\n: data: 7\n\n";
        let loud = b": still here\n\nevent: timestamp.json\ndata: 7\n\n";
        for cut in 0..quiet.len() {
            let mut lines = Lines::default();
            assert!(!lines.say_something(&quiet[..cut]) && !lines.say_something(&quiet[cut..]), "{cut}");
        }
        for cut in 0..loud.len() {
            let mut lines = Lines::default();
            assert!(lines.say_something(&loud[..cut]) | lines.say_something(&loud[cut..]), "{cut}");
        }
    }
}
