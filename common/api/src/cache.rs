//! `Cache-Control` of each kind of answer (architecture §5); nothing else writes that field.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};

use crate::path::Route;

/// Content that is named by its own hash or version.
pub const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Answers built from the request itself.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// How long a cache may go on serving the last timestamp when its upstream is down: clients still judge its expiry.
pub const TIMESTAMP_STALE_IF_ERROR_S: u64 = 24 * 3600;

/// Content that is replaced in place: good for `seconds`.
pub fn max_age(seconds: u64) -> HeaderValue {
    HeaderValue::try_from(format!("public, max-age={seconds}")).expect("digits")
}

/// The TUF timestamp: good for `seconds`, and a day longer while upstream is down.
pub fn timestamp(seconds: u64) -> HeaderValue {
    let value = format!("public, max-age={seconds}, stale-if-error={TIMESTAMP_STALE_IF_ERROR_S}");
    HeaderValue::try_from(value).expect("digits")
}

/// The field for a 200 to `route`, given the life of the repository's timestamp in seconds.
pub fn for_route(route: &Route, timestamp_max_age_s: u64) -> HeaderValue {
    match route {
        Route::Blob { .. } => IMMUTABLE,
        Route::Metadata { file, .. } if file.is_numbered() => IMMUTABLE,
        Route::Metadata { file, .. } if file.role() == "timestamp" => timestamp(timestamp_max_age_s),
        Route::Target { name, .. } if has_hash_prefix(name) => IMMUTABLE,
        Route::RepoConfig { .. } | Route::Auto { .. } | Route::PmConfig => NO_STORE,
        Route::Metadata { .. } | Route::Target { .. } | Route::RepositoryIndex { .. } | Route::Index => {
            max_age(timestamp_max_age_s)
        }
    }
}

/// Turns `public` into `private` in the answer to who had to show that he may have it: what he got is not for others to hand out.
pub fn keep_private(headers: &mut HeaderMap) {
    let field = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let Some(rest) = field.and_then(|text| text.strip_prefix("public")) else { return };
    if let Ok(value) = HeaderValue::try_from(format!("private{rest}")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// The field for an error: never longer than the timestamp's life, since the next release may create what is missing now.
/// Errors of the server itself (5xx) and shedding are not stored at all.
pub fn for_error(status: http::StatusCode, timestamp_max_age_s: u64) -> HeaderValue {
    match status.as_u16() {
        404 | 410 => max_age(timestamp_max_age_s),
        _ => NO_STORE,
    }
}

/// True if the last segment of a target's name is `HEX.rest` with a SHA-256 or SHA-512 in hex, as consistent snapshots have it.
fn has_hash_prefix(name: &str) -> bool {
    let file = name.rsplit_once('/').map_or(name, |(_, file)| file);
    let digits = file.split_once('.').map_or("", |(digits, _)| digits);
    matches!(digits.len(), 64 | 128) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
