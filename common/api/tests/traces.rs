//! `traceparent`: continued where it is well formed, begun anew where it is not.

use colibri_api::trace::{TRACEPARENT, TRACESTATE, Trace};
use http::{HeaderMap, HeaderName, HeaderValue};

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn a_trace_goes_on_with_a_span_of_our_own() {
    let given = format!("00-{ID}-00f067aa0ba902b7-01");
    let trace = Trace::continued(&headers(&[(TRACEPARENT, &given), (TRACESTATE, "a=1,b=2")]), 7, 0xabc);
    assert_eq!(trace.to_string(), format!("00-{ID}-0000000000000abc-01"));
    let mut onward = HeaderMap::new();
    trace.add_to(&mut onward);
    assert_eq!(onward, headers(&[(TRACEPARENT, &trace.to_string()), (TRACESTATE, "a=1,b=2")]));
    // A later version, as far as it is known.
    let later = format!("cc-{ID}-00f067aa0ba902b7-03-what-the-future-will-be-like");
    let trace = Trace::continued(&headers(&[(TRACEPARENT, &later)]), 7, 0);
    assert_eq!(trace.to_string(), format!("00-{ID}-0000000000000001-01"));
    let long = "x=".to_owned() + &"y".repeat(600);
    let trace = Trace::continued(&headers(&[(TRACEPARENT, &given), (TRACESTATE, &long)]), 7, 9);
    let mut onward = HeaderMap::new();
    trace.add_to(&mut onward);
    assert!(!onward.contains_key(TRACESTATE));
}

#[test]
fn what_is_malformed_begins_a_trace() {
    let zero = "0".repeat(32);
    for bad in [
        String::new(),
        "00".to_owned(),
        format!("00-{ID}-00f067aa0ba902b7"),
        format!("00-{ID}-00f067aa0ba902b7-1"),
        format!("00-{ID}-00f067aa0ba902b7-01-more"),
        format!("ff-{ID}-00f067aa0ba902b7-01"),
        format!("cc-{ID}-00f067aa0ba902b7-01.more"),
        format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
        format!("00-{zero}-00f067aa0ba902b7-01"),
        format!("00-{ID}-0000000000000000-01"),
        format!("00_{ID}-00f067aa0ba902b7-01"),
        format!("00-{ID}-00f067aa0ba902b7-0é"),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(TRACEPARENT, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
        fields.insert(TRACESTATE, HeaderValue::from_static("a=1"));
        let trace = Trace::continued(&fields, 7, 9);
        assert_eq!(trace.to_string(), format!("00-{:032x}-{:016x}-00", 7, 9), "{bad}");
        let mut onward = HeaderMap::new();
        trace.add_to(&mut onward);
        assert!(!onward.contains_key(TRACESTATE), "state without a trace");
    }
    let given = format!("00-{ID}-00f067aa0ba902b7-01");
    let twice = headers(&[(TRACEPARENT, &given), (TRACEPARENT, &given)]);
    assert!(Trace::continued(&twice, 7, 9).to_string().contains("-00000000000000000000000000000007-"));
}
