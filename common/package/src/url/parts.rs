//! The one parser: text to scheme, host, path, hash and resource, with all checks that every kind of URL shares, in
//! Fuchsia's order (scheme, port, user name, password, host, path, query, fragment).

use colibri_common::{BlobId, BlobIdError};

use super::{UrlError, check_host};
use crate::limits::URL_BYTES_MAX;
use crate::name::{PackageName, PackageVariant, check_segment};
use crate::resource_path::ResourcePath;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Package,
    Boot,
}

/// A URL taken apart; each part is valid by itself.
#[derive(Debug)]
pub(super) struct Parts {
    pub scheme: Option<Scheme>,
    pub host: Option<String>,
    /// The path as it was written.
    pub raw_path: String,
    /// Its segments after dot segments were resolved; each obeys the grammar of names.
    pub segments: Vec<String>,
    pub hash: Option<BlobId>,
    pub resource: Option<ResourcePath>,
}

impl Parts {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() as u64 > URL_BYTES_MAX {
            return Err(UrlError::UrlParseError("it is too long"));
        }
        if text.contains(['\t', '\n', '\r']) || text.trim_matches(|c: char| c <= ' ') != text {
            return Err(UrlError::UrlParseError("it has tabs, line ends or surrounding spaces"));
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, fragment) = split_at(rest, '#');
        let (rest, query) = split_at(rest, '?');
        let (authority, raw_path) = match rest.strip_prefix("//") {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let host = parse_authority(authority)?;
        let segments = parse_path(raw_path)?;
        let hash = query.map_or(Ok(None), parse_query)?;
        let resource = fragment.map_or(Ok(None), parse_fragment)?;
        Ok(Self { scheme, host, raw_path: rest.to_owned(), segments, hash, resource })
    }

    /// The one or two segments as name and variant.
    pub fn name_and_variant(&self) -> Result<(PackageName, Option<PackageVariant>), UrlError> {
        let parse_name = |text: &String| text.parse().map_err(UrlError::InvalidPathSegment);
        match &self.segments[..] {
            [] => Err(UrlError::MissingName),
            [name] => Ok((parse_name(name)?, None)),
            [name, variant] => Ok((parse_name(name)?, Some(variant.parse().map_err(UrlError::InvalidPathSegment)?))),
            _ => Err(UrlError::ExtraPathSegments),
        }
    }

    pub fn no_hash(&self) -> Result<(), UrlError> {
        if self.hash.is_some() { Err(UrlError::CannotContainHash) } else { Ok(()) }
    }

    pub fn no_resource(&self) -> Result<(), UrlError> {
        if self.resource.is_some() { Err(UrlError::CannotContainResource) } else { Ok(()) }
    }
}

fn split_at(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// The scheme, if the text begins with one, and what follows its colon.
fn split_scheme(text: &str) -> Result<(Option<Scheme>, &str), UrlError> {
    let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return Ok((None, text));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "fuchsia-pkg" => Ok((Some(Scheme::Package), rest)),
        "fuchsia-boot" => Ok((Some(Scheme::Boot), rest)),
        _ => Err(UrlError::InvalidScheme),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// The host of an authority that has nothing else.
fn parse_authority(authority: &str) -> Result<Option<String>, UrlError> {
    let (user, host_port) = match authority.rsplit_once('@') {
        Some((user, host_port)) => (Some(user), host_port),
        None => (None, authority),
    };
    let (host, port) = split_at(host_port, ':');
    if let Some(port) = port {
        let valid = port.is_empty() || port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
        return Err(if valid { UrlError::CannotContainPort } else { UrlError::UrlParseError("the port is no number") });
    }
    match user.map(|user| split_at(user, ':')) {
        Some(("", Some(_))) => return Err(UrlError::CannotContainPassword),
        Some(_) => return Err(UrlError::CannotContainUsername),
        None => {}
    }
    if host.is_empty() {
        return Ok(None);
    }
    check_host(host)?;
    Ok(Some(host.to_owned()))
}

/// The segments of a path: one leading slash dropped, dot segments resolved as WHATWG does, the rest checked.
fn parse_path(path: &str) -> Result<Vec<String>, UrlError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut pieces = path.split('/').peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        match piece.to_ascii_lowercase().replace("%2e", ".").as_str() {
            // A dot segment at the end leaves an empty segment there, unless nothing is left before it.
            "." if !last => {}
            "." => segments.push(""),
            ".." => {
                segments.pop();
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(piece),
        }
    }
    if segments == [""] {
        segments.clear();
    }
    for segment in &segments {
        check_segment(segment).map_err(UrlError::InvalidPathSegment)?;
    }
    Ok(segments.into_iter().map(str::to_owned).collect())
}

fn parse_query(query: &str) -> Result<Option<BlobId>, UrlError> {
    let mut hash = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != "hash" {
            return Err(UrlError::ExtraQueryParameters);
        }
        if hash.is_some() {
            return Err(UrlError::MultipleHashes);
        }
        hash = Some(value.parse().map_err(|error| match error {
            BlobIdError::UpperCase if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => UrlError::UpperCaseHash,
            _ => UrlError::InvalidHash,
        })?);
    }
    Ok(hash)
}

/// The resource of a fragment; an empty fragment is an absent one.
fn parse_fragment(fragment: &str) -> Result<Option<ResourcePath>, UrlError> {
    let decoded = percent_encoding::percent_decode_str(fragment)
        .decode_utf8()
        .map_err(|_| UrlError::ResourcePathPercentDecode)?;
    if decoded.is_empty() {
        return Ok(None);
    }
    decoded.parse().map(Some).map_err(UrlError::InvalidResourcePath)
}
