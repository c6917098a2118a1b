//! [`WriteError`]: why a request of the write API is refused, as `application/problem+json` (RFC 9457).

use colibri_repository::wire::{NeededBlob, UPLOAD_OFFSET, WriteProblem, WrongPackage};
use colibri_transport::{Body, BodyError, Response};
use http::{HeaderValue, StatusCode, header};

use super::role::WriteRole;

/// Why a request is refused. Each message is the `detail` the client reads: no path of this machine, no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("a bearer token or a client certificate is needed")]
    NoCredentials,
    #[error("this token is not known, has ended or was revoked")]
    BadToken,
    #[error("the Authorization header must be there once, as `Bearer TOKEN`")]
    BadAuthorization,
    #[error("{who} is {role}; this needs {needed}")]
    Forbidden { who: String, role: WriteRole, needed: WriteRole },
    #[error("{who} may not write to this repository")]
    WrongRepository { who: String },
    #[error("{0}")]
    NotFound(String),
    #[error("this address answers {allow} only")]
    MethodNotAllowed { allow: &'static str },
    #[error("{0}")]
    BadRequest(String),
    #[error("the body must be application/json")]
    NotJson,
    #[error("the body may have {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("{0}")]
    TooSlow(String),
    #[error("the upload is at byte {offset}: go on from there")]
    WrongOffset { offset: u64 },
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    WrongContent(String),
    #[error("nothing was published: {count} blobs are absent or wrong, {} packages make no sense", .wrong.len())]
    Unfit { blobs: Vec<NeededBlob>, count: u64, wrong: Vec<WrongPackage> },
    #[error("too many requests: try again in {retry_after_s} s")]
    TooMany { retry_after_s: u64 },
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Held(String),
    #[error("{0}")]
    Internal(String),
}

impl WriteError {
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoCredentials | Self::BadToken => (StatusCode::UNAUTHORIZED, "unauthorized", "Not authenticated"),
            Self::BadAuthorization | Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request", "Bad request"),
            Self::Forbidden { .. } | Self::WrongRepository { .. } => {
                (StatusCode::FORBIDDEN, "forbidden", "Not allowed")
            }
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Self::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "Unsupported media type"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, "too-slow", "Request too slow"),
            Self::WrongOffset { .. } => (StatusCode::CONFLICT, "wrong-offset", "Upload is elsewhere"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict", "Conflict"),
            Self::WrongContent(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wrong-content", "Not that blob"),
            Self::Unfit { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unfit", "Packages not whole"),
            Self::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy"),
            Self::Held(_) => (StatusCode::SERVICE_UNAVAILABLE, "held", "The publish gate did not open"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// The whole answer; `head` leaves the body away.
    pub fn respond(&self, head: bool) -> Response {
        let (status, name, title) = self.kind();
        let (blobs, wrong) = match self {
            Self::Unfit { blobs, wrong, .. } => (blobs.clone(), wrong.clone()),
            _ => (Vec::new(), Vec::new()),
        };
        let problem = WriteProblem {
            kind: format!("urn:colibri:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            blobs,
            wrong,
        };
        let mut response = json(status, &problem);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, colibri_api::problem::PROBLEM_JSON);
        match self {
            Self::NoCredentials | Self::BadToken => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"colibri\""));
            }
            Self::MethodNotAllowed { allow } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            Self::TooMany { retry_after_s } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            Self::Busy(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::WrongOffset { offset } => {
                headers.insert(UPLOAD_OFFSET, HeaderValue::from(*offset));
            }
            _ => {}
        }
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }
}

/// An answer with a JSON body, which nobody may keep.
pub(crate) fn json<T: serde::Serialize>(status: StatusCode, value: &T) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec())
        }
    };
    let mut response = empty(status);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::full(body);
    response
}

/// An answer without a body, which nobody may keep.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl From<BodyError> for WriteError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::OverLimit { bytes_max } => Self::TooLarge { bytes_max },
            BodyError::Idle(_) => Self::TooSlow(error.to_string()),
            error => Self::BadRequest(error.to_string()),
        }
    }
}
