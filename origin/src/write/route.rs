//! Paths and methods of the write API: one parser, [`parse`], into an [`Act`].
//!
//! Nothing is decoded: a path has plain segments of `[A-Za-z0-9._-]` or it names nothing.

use colibri_api::RepositoryName;
use colibri_common::BlobId;
use colibri_package::delivery::Encoding;
use colibri_repository::wire::{VERSION_SEGMENT, form_of_segment};
use http::Method;
use http::request::Parts;

use super::problem::WriteError;
use super::role::WriteRole;
use crate::limits::WRITE_PATH_BYTES_MAX;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// `GET status`
    Status,
    /// `POST blobs/missing`
    Missing,
    /// `HEAD blobs/FORM/HASH`
    UploadState(Encoding, BlobId),
    /// `PATCH blobs/FORM/HASH`
    Upload(Encoding, BlobId),
    /// `DELETE blobs/FORM/HASH`
    Discard(Encoding, BlobId),
    /// `POST targets`
    Submit,
    /// `POST refresh`
    Refresh,
    /// `POST collect`
    Collect,
}

impl Act {
    /// Its name in metrics and in the audit.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Missing => "missing",
            Self::UploadState(..) => "upload-state",
            Self::Upload(..) => "upload",
            Self::Discard(..) => "discard",
            Self::Submit => "submit",
            Self::Refresh => "refresh",
            Self::Collect => "collect",
        }
    }

    /// What it takes.
    pub const fn needs(self) -> WriteRole {
        match self {
            Self::Status => WriteRole::Reader,
            Self::Missing | Self::UploadState(..) | Self::Upload(..) | Self::Discard(..) => WriteRole::Publisher,
            Self::Submit | Self::Refresh => WriteRole::Publisher,
            Self::Collect => WriteRole::Admin,
        }
    }

    /// Whether it changes something, so that it is recorded when it succeeds too.
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Status | Self::Missing | Self::UploadState(..))
    }

    /// The blob it is about.
    pub const fn blob(self) -> Option<BlobId> {
        match self {
            Self::UploadState(_, id) | Self::Upload(_, id) | Self::Discard(_, id) => Some(id),
            _ => None,
        }
    }
}

/// Understands a request's path and method.
pub(crate) fn parse(parts: &Parts) -> Result<(RepositoryName, Act), WriteError> {
    let nothing = || WriteError::NotFound("there is nothing at this path".to_owned());
    let path = parts.uri.path();
    if path.len() > WRITE_PATH_BYTES_MAX || parts.uri.query().is_some() {
        return Err(nothing());
    }
    let mut segments = path.strip_prefix('/').ok_or_else(nothing)?.split('/');
    if segments.next() != Some(VERSION_SEGMENT) {
        return Err(nothing());
    }
    let repository: RepositoryName = segments.next().and_then(|name| name.parse().ok()).ok_or_else(nothing)?;
    let rest: Vec<&str> = segments.take(4).collect();
    let method = &parts.method;
    let only = |allowed: Method, allow, act| {
        if *method == allowed { Ok(act) } else { Err(WriteError::MethodNotAllowed { allow }) }
    };
    let act = match rest.as_slice() {
        ["status"] => only(Method::GET, "GET", Act::Status)?,
        ["blobs", "missing"] => only(Method::POST, "POST", Act::Missing)?,
        ["blobs", form, id] => {
            let form = form_of_segment(form).ok_or_else(nothing)?;
            let id: BlobId = id.parse().map_err(|_| nothing())?;
            match *method {
                Method::HEAD => Act::UploadState(form, id),
                Method::PATCH => Act::Upload(form, id),
                Method::DELETE => Act::Discard(form, id),
                _ => return Err(WriteError::MethodNotAllowed { allow: "HEAD, PATCH, DELETE" }),
            }
        }
        ["targets"] => only(Method::POST, "POST", Act::Submit)?,
        ["refresh"] => only(Method::POST, "POST", Act::Refresh)?,
        ["collect"] => only(Method::POST, "POST", Act::Collect)?,
        _ => return Err(nothing()),
    };
    Ok((repository, act))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, path: &str) -> Result<(RepositoryName, Act), WriteError> {
        let request = http::Request::builder().method(method).uri(path).body(()).unwrap();
        parse(&request.into_parts().0)
    }

    #[test]
    fn every_act_has_one_path_and_one_method() {
        let id: BlobId = "ab".repeat(32).parse().unwrap();
        let raw = Encoding::Raw;
        let cases = [
            ("GET", "status".to_owned(), Act::Status),
            ("POST", "blobs/missing".to_owned(), Act::Missing),
            ("HEAD", format!("blobs/raw/{id}"), Act::UploadState(raw, id)),
            ("PATCH", format!("blobs/raw/{id}"), Act::Upload(raw, id)),
            ("DELETE", format!("blobs/raw/{id}"), Act::Discard(raw, id)),
            ("POST", "targets".to_owned(), Act::Submit),
            ("POST", "refresh".to_owned(), Act::Refresh),
            ("POST", "collect".to_owned(), Act::Collect),
        ];
        for (method, path, act) in cases {
            let path = format!("/v1/fleet.example/{path}");
            assert_eq!(parsed(method, &path), Ok(("fleet.example".parse().unwrap(), act)), "{method} {path}");
            let refused = parsed("PUT", &path).unwrap_err();
            assert!(matches!(refused, WriteError::MethodNotAllowed { .. }), "PUT {path}: {refused:?}");
        }
    }

    #[test]
    fn all_else_names_nothing() {
        let id = "ab".repeat(32);
        let upper = id.to_uppercase();
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v1/a",
            "/v1/a/",
            "/v2/a/status",
            "/v1/a/status/",
            "/v1/a/status?x",
            "/v1//status",
            "/v1/.a/status",
            "/v1/../status",
            "/v1/a/./status",
            "/v1/a%2f/status",
            "/v1/%61/status",
            "/v1/blobs/status",
            "/v1/a/blobs/3/x",
            "/a/timestamp.json",
            &format!("/v1/a/blobs/raw/{upper}"),
            &format!("/v1/a/blobs/raw/{id}/x"),
            &format!("/v1/a/blobs/3/{id}"),
            &format!("/v1/a/blobs/raw/{id}0"),
            &format!("/v1/{}/status", "a".repeat(600)),
        ] {
            for method in ["GET", "POST", "PATCH", "HEAD"] {
                let refused = parsed(method, path).unwrap_err();
                assert!(matches!(refused, WriteError::NotFound(_)), "{method} {path}: {refused:?}");
            }
        }
    }
}
