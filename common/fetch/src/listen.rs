//! [`Listening`]: hears `/REPO/auto` of a source, if it has one: an event means that there may be something new. Nothing else
//! is taken from it, and nothing of it is kept: who lies there causes a refresh. How many of those are made, and when to
//! listen again, is the caller's; [`Pauses`] says how long to wait.

use std::time::Duration;

use colibri_transport::{Backoff, Body, Client};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};

use crate::source::Source;

const EVENT_STREAM: &str = "text/event-stream";

/// How listening to one source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It has no events for this repository.
    Absent,
    /// It could not be reached, or is busy.
    Away,
    /// It spoke for a while.
    Ended,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct Listening<'a> {
    /// Connections.
    pub client: &'a Client,
    /// The repository's place below the source: empty if the source's URL is the repository's.
    pub place: &'a str,
    /// Value of `User-Agent`.
    pub agent: &'a str,
    /// Fields of the request.
    pub headers: HeaderMap,
    /// A stream that is silent for this long is given up.
    pub silence: Duration,
}

impl Listening<'_> {
    /// Listens to a source until its stream ends, is silent for too long, or `still` says no; `event` is called for each
    /// piece of the stream that says something.
    pub async fn listen_to(&self, source: &Source, mut event: impl FnMut(), still: impl Fn() -> bool) -> Heard {
        let mut request = http::Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        let Ok(url) = source.url.join(&format!("{}/auto", self.place)).parse() else { return Heard::Absent };
        *request.uri_mut() = url;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        if let Ok(agent) = HeaderValue::from_str(self.agent) {
            request.headers_mut().insert(USER_AGENT, agent);
        }
        let Ok(response) = self.client.send(request).await else { return Heard::Away };
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM.as_bytes()));
        match response.status() {
            StatusCode::OK if is_stream => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => return Heard::Away,
            _ => return Heard::Absent,
        }
        tracing::debug!(place = self.place, source = %source.url, "listening for new metadata");
        let mut body = response.into_body();
        let mut lines = Lines::default();
        while let Ok(Some(Ok(chunk))) = tokio::time::timeout(self.silence, body.next()).await {
            if lines.say_something(&chunk) {
                event();
            }
            if !still() {
                break;
            }
        }
        Heard::Ended
    }
}

/// How long to wait before listening again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// At most, to a source that is away or has ended its stream.
    pub away_max: Duration,
    /// At most, where no source has events.
    pub absent_max: Duration,
}

impl Pauses {
    /// The next pause, after so many attempts in a row that heard nothing: at random, so that not all who lost the same
    /// source come back at once.
    pub fn after(&self, heard: Heard, failures: u32) -> Duration {
        match heard {
            Heard::Absent => self.absent_max.mul_f64(0.5 + fastrand::f64() / 2.0),
            Heard::Away | Heard::Ended => {
                Backoff { ceiling: self.away_max, ..Backoff::default() }.delay(failures, fastrand::f64())
            }
        }
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

    #[test]
    fn pauses_grow_up_to_their_bound_and_are_never_the_same_for_all() {
        let (away_max, absent_max) = (Duration::from_secs(60), Duration::from_secs(300));
        let pauses = Pauses { away_max, absent_max };
        for (heard, failures, max) in
            [(Heard::Ended, 0, 100), (Heard::Away, 3, 800), (Heard::Away, 40, 60_000), (Heard::Absent, 1, 300_000)]
        {
            let max = Duration::from_millis(max);
            let several: Vec<_> = (0..20).map(|_| pauses.after(heard, failures)).collect();
            assert!(several.iter().all(|pause| *pause >= max / 2 && *pause <= max), "{heard:?}: {several:?}");
            assert!(several.iter().any(|pause| pause != &several[0]), "{heard:?}: {several:?}");
        }
    }
}
