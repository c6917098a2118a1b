//! `Accept`: whether a page is wanted as HTML for people or as JSON for programs. Codings are in `coding`.

use http::{HeaderMap, header};

/// True if JSON is preferred to HTML by quality and, at equal quality, by being named more exactly or first. A request without
/// `Accept` gets HTML.
pub fn prefers_json(headers: &HeaderMap) -> bool {
    let fields: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = fields.join(",");
    let json = weight(&list, "application/json", "application/*");
    let html = weight(&list, "text/html", "text/*");
    json.is_some_and(|json| html.is_none_or(|html| json > html))
}

/// Quality in thousandths, exactness, and earliness of the best match for a media type; nothing if it is not acceptable.
fn weight(list: &str, exact: &str, family: &str) -> Option<(u16, u8, std::cmp::Reverse<usize>)> {
    let matches = list.split(',').enumerate().filter_map(|(index, element)| {
        let mut parts = element.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let exactness = match &*media {
            media if media == exact => 2,
            media if media == family => 1,
            "*/*" => 0,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let thousandths = quality.map_or(Some(1000), parse_quality)?;
        Some((exactness, thousandths, index))
    });
    let (exactness, thousandths, index) = matches.max_by_key(|(exactness, ..)| *exactness)?;
    (thousandths > 0).then_some((thousandths, exactness, std::cmp::Reverse(index)))
}

/// `0.8` as 800; RFC 9110 §12.4.2 allows at most three decimals and at most 1.
pub(crate) fn parse_quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{decimals:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", fraction) => Some(fraction),
        ("1", 0) => Some(1000),
        _ => None,
    }
}
