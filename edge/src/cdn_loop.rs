//! `CDN-Loop` (RFC 8586): edges whose upstreams form a circle notice it at the first round.
//!
//! An edge is known to others by its name and a number made at its start, so that several edges may share a name. Only a
//! request that carries this edge's own hop is refused. The cap on hops bounds what is passed on and refuses nothing: a hop
//! cannot be told from one that a client made up, many readers wait for one request upstream, and a refusal there would fail
//! them all. So the hops furthest away are left out. A circle shows itself after one round, wherever it is entered, as long
//! as it has no more edges than the cap; longer ones do not exist.

use std::hash::{BuildHasher, Hasher, RandomState};

use colibri_api::ApiError;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::{LOOP_BYTES_MAX, LOOP_HOPS_MAX};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// What one edge adds to the field.
#[derive(Debug)]
pub(crate) struct OwnHop(String);

/// The field's value for requests upstream on behalf of one request.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    value: HeaderValue,
    /// The request came from another edge, or says so.
    from_an_edge: bool,
}

/// The request has been here before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Circle;

impl OwnHop {
    pub fn new(name: &str) -> Self {
        let token: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' }).collect();
        // Keyed by the system's randomness: others must not be able to guess it.
        let number = RandomState::new().build_hasher().finish();
        Self(format!("{token};i={number:016x}"))
    }

    /// What to send upstream for what the edge wants itself.
    pub fn via(&self) -> Via {
        Via { value: HeaderValue::try_from(&self.0).expect("visible ASCII"), from_an_edge: false }
    }

    /// Looks for this edge among the hops of a request; if it is not there, what to send upstream.
    pub fn check(&self, headers: &HeaderMap) -> Result<Via, Circle> {
        let values = headers.get_all(&CDN_LOOP).iter().filter_map(|value| value.to_str().ok());
        let mut hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        hops.retain(|hop| !hop.is_empty());
        if hops.iter().any(|hop| hop.split_ascii_whitespace().collect::<String>() == self.0) {
            return Err(Circle);
        }
        hops.push(&self.0);
        let mut bytes = 0;
        let kept = hops.iter().rev().take(LOOP_HOPS_MAX).take_while(|hop| {
            bytes += hop.len() + 2;
            bytes <= LOOP_BYTES_MAX
        });
        let first = hops.len() - kept.count();
        let value = hops[first..].join(", ");
        let value = HeaderValue::try_from(value).expect("visible ASCII joined by commas");
        Ok(Via { value, from_an_edge: hops.len() > 1 })
    }
}

impl Via {
    pub fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([(CDN_LOOP, self.value.clone())])
    }

    /// Whether the request came from another edge, or says so.
    pub const fn is_from_an_edge(&self) -> bool {
        self.from_an_edge
    }
}

/// The answer to a request that has been here before, or waits for itself.
pub(crate) fn refusal(name: &str) -> ApiError {
    ApiError::Circle(format!("this request has passed `{name}` before: the upstreams of some edges form a circle"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (CDN_LOOP, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn own_hop_is_found_wherever_it_stands_and_others_of_the_name_are_not() {
        let (own, other) = (OwnHop::new("edge"), OwnHop::new("edge"));
        let first = own.check(&HeaderMap::new()).unwrap();
        assert_eq!(first.value, own.0.as_str());
        assert_eq!(own.check(&first.headers()).unwrap_err(), Circle);
        let second = other.check(&first.headers()).unwrap();
        assert_eq!(second.value, format!("{}, {}", own.0, other.0).as_str());
        assert_eq!(own.check(&second.headers()).unwrap_err(), Circle);
        let (name, number) = own.0.split_once(';').unwrap();
        let spaced = format!("{name} ; {number}");
        assert_eq!(own.check(&headers(&["a,, b", &spaced])).unwrap_err(), Circle);
        assert!(own.check(&headers(&["edge", "edge;i=0"])).is_ok());
    }

    #[test]
    fn made_up_hops_are_pushed_out_and_never_refused() {
        let own = OwnHop::new("odd name, or \"two\"");
        let junk = vec!["x;y=1"; 5_000].join(",");
        let via = own.check(&headers(&[&junk, &junk])).unwrap();
        assert!(via.value.len() <= LOOP_BYTES_MAX && via.value.to_str().unwrap().ends_with(&own.0));
        assert_eq!(via.value.to_str().unwrap().split(',').count(), LOOP_HOPS_MAX);
        let huge = "x".repeat(LOOP_BYTES_MAX);
        assert_eq!(own.check(&headers(&[&huge])).unwrap().value, own.0.as_str());
        assert_eq!(own.check(&via.headers()).unwrap_err(), Circle);
    }
}
