//! From a [`Route`] to the representation it names: one function per kind of route.

use std::sync::Arc;

use bytes::Bytes;
use colibri_api::problem::VARY_CODING;
use colibri_api::{
    ApiError, BlobForm, Coding, ETag, RepositoryName, Representation, Route, cache, negotiate, prefers_json,
};
use colibri_common::BlobId;
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_transport::Secure;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, header};

use crate::blob_folders::{STORED_FORMS, StoredBlob};
use crate::content::Content;
use crate::error::OriginError;
use crate::file::blocking;
use crate::origin::Shared;
use crate::pages::{self, Page};
use crate::proof::Proven;
use crate::repository::ServedRepository;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A representation that was found, ready to be sent.
pub(crate) struct Found {
    pub representation: Representation,
    pub content: Content,
    /// How it was come by, for `Cache-Status`.
    pub detail: &'static str,
}

/// How a small file is sent.
struct Kind {
    content_type: HeaderValue,
    accept_ranges: bool,
    coding: Coding,
    vary: Option<HeaderValue>,
}

impl Shared {
    /// Finds what `route` names.
    pub async fn find(self: &Arc<Self>, route: &Route, request: &Parts) -> Result<Found, ApiError> {
        match route {
            Route::Metadata { repository, file } => {
                let coding = negotiate(&request.headers)?;
                let kind = Kind { content_type: JSON, accept_ranges: false, coding, vary: Some(VARY_CODING) };
                self.small_file(route, repository, &file.file_name(), kind).await
            }
            Route::Target { repository, name } => {
                let coding = Coding::Identity;
                let kind = Kind { content_type: OCTETS, accept_ranges: true, coding, vary: None };
                self.small_file(route, repository, &format!("targets/{name}"), kind).await
            }
            Route::Blob { repository: Some(name), id, form } => self.blob(&[self.repository(name)?], *id, *form).await,
            Route::Blob { repository: None, id, form } => self.blob(&self.repositories, *id, *form).await,
            Route::RepoConfig { repository } => self.device_config(route, self.repository(repository)?, request).await,
            Route::PmConfig => self.device_config(route, self.only_repository()?, request).await,
            Route::RepositoryIndex { repository } => self.repository_page(route, repository, request).await,
            // Answered before: it is no representation.
            Route::Auto { .. } => Err(ApiError::NotFound("this is a stream of events".to_owned())),
            Route::Index => {
                let names = self.repositories.iter().map(|repository| &repository.name);
                Ok(self.page(route, pages::index(names, prefers_json(&request.headers))))
            }
        }
    }

    pub fn repository(&self, name: &RepositoryName) -> Result<Arc<ServedRepository>, ApiError> {
        let found = self.repositories.iter().find(|repository| repository.name == *name);
        found.cloned().ok_or_else(|| ApiError::NotFound(format!("there is no repository {name} here")))
    }

    /// The repository of a server that has one.
    fn only_repository(&self) -> Result<Arc<ServedRepository>, ApiError> {
        if let [only] = &self.repositories[..] {
            return Ok(only.clone());
        }
        let paths: Vec<String> =
            self.repositories.iter().map(|repository| format!("/{}/repo.config", repository.name)).collect();
        Err(ApiError::NotFound(format!("there are several repositories here; ask for one of {}", paths.join(", "))))
    }

    /// A file of the metadata folder. Metadata is sent whole and may be coded, targets may be asked for in parts.
    async fn small_file(
        self: &Arc<Self>,
        route: &Route,
        repository: &RepositoryName,
        name: &str,
        kind: Kind,
    ) -> Result<Found, ApiError> {
        let (shared, path) = (self.clone(), self.repository(repository)?.metadata_path(name));
        let find = move || {
            let Some(file) = shared.files.get(&path)? else { return Ok(None) };
            let form = shared.forms.of(file.sha256, kind.coding, &file.bytes)?;
            Ok(Some((file.sha256, form)))
        };
        let found = blocking(find).await.map_err(|error| log(&error))?;
        let (sha256, form) =
            found.ok_or_else(|| ApiError::NotFound(format!("repository {repository} has no {name}")))?;
        let representation = Representation {
            length: form.len() as u64,
            etag: Some(ETag::coded(&sha256, kind.coding)),
            cache_control: cache::for_route(route, self.config.timestamp_max_age_s),
            content_type: kind.content_type,
            accept_ranges: kind.accept_ranges,
            coding: kind.coding,
            vary: kind.vary,
        };
        Ok(Found { representation, content: Content::Memory(form), detail: "stored" })
    }

    /// A blob in one form, from the first repository and stored form that can prove it.
    async fn blob(
        &self,
        repositories: &[Arc<ServedRepository>],
        id: BlobId,
        form: BlobForm,
    ) -> Result<Found, ApiError> {
        let stored_forms: &[Encoding] = match form {
            BlobForm::Raw | BlobForm::Leaves => &STORED_FORMS,
            BlobForm::Delivery(1) => &[Encoding::Delivery(DeliveryType::Type1)],
            BlobForm::Delivery(_) => &[Encoding::Delivery(DeliveryType::Type2)],
        };
        let mut refusal = ApiError::NotFound(format!("there is no blob {id} here ({})", form.label()));
        for repository in repositories {
            for encoding in stored_forms {
                let (place, encoding) = (repository.clone(), *encoding);
                let stored = blocking(move || place.blobs.open(id, encoding)).await.map_err(|error| log(&error))?;
                let Some(stored) = stored else { continue };
                match self.proofs.of(&stored).await {
                    Ok(proven) => return Ok(blob_form(stored, &proven, form)),
                    // Another copy may be whole. The damage was logged when it was found.
                    Err(error @ OriginError::Corrupt { .. }) => refusal = error.to_client(),
                    Err(error) => return Err(log(&error)),
                }
            }
        }
        Err(refusal)
    }

    async fn device_config(
        self: &Arc<Self>,
        route: &Route,
        repository: Arc<ServedRepository>,
        request: &Parts,
    ) -> Result<Found, ApiError> {
        let mirror_url = format!("{}/{}", base_url(request)?, repository.name);
        let shared = self.clone();
        let config = blocking(move || repository.device_config(&shared.files, &mirror_url)).await;
        let mut config = config.map_err(|error| log(&error))?;
        config.mirrors.iter_mut().for_each(|mirror| mirror.subscribe = self.config.subscribe);
        let text = serde_json::to_string(&config).map_err(|error| ApiError::Internal(error.to_string()))?;
        let page = Page { content_type: JSON, bytes: Bytes::from(text) };
        let mut found = self.page(route, page);
        found.representation.vary = None;
        Ok(found)
    }

    async fn repository_page(
        self: &Arc<Self>,
        route: &Route,
        repository: &RepositoryName,
        request: &Parts,
    ) -> Result<Found, ApiError> {
        let (shared, repository) = (self.clone(), self.repository(repository)?);
        let summary =
            blocking(move || shared.summaries.of(&repository, &shared.files)).await.map_err(|error| log(&error))?;
        Ok(self.page(route, pages::repository(&summary, prefers_json(&request.headers))))
    }

    fn page(&self, route: &Route, page: Page) -> Found {
        let representation = Representation {
            length: page.bytes.len() as u64,
            etag: None,
            cache_control: cache::for_route(route, self.config.timestamp_max_age_s),
            content_type: page.content_type,
            accept_ranges: false,
            coding: Coding::Identity,
            vary: Some(HeaderValue::from_static("accept")),
        };
        Found { representation, content: Content::Memory(page.bytes), detail: "made" }
    }
}

/// One form of a blob, given a stored form and what is proven of it.
fn blob_form(stored: StoredBlob, proven: &Proven, form: BlobForm) -> Found {
    let id = stored.id;
    let layout = &proven.layout;
    let decoded = || Content::Decoded(stored.clone(), layout.clone());
    let (length, etag, content, detail) = match (form, layout.identity()) {
        (BlobForm::Leaves, _) => {
            let list = layout.leaves().wire();
            (list.len() as u64, ETag::leaves(id), Content::Memory(list), "leaves")
        }
        (BlobForm::Raw, None) => (proven.length.bytes(), ETag::raw(id), decoded(), "stored"),
        (BlobForm::Raw, Some(_)) => (proven.length.bytes(), ETag::raw(id), decoded(), "decoded"),
        (BlobForm::Delivery(number), identity) => {
            let etag =
                identity.map_or_else(|| ETag::raw(id), |identity| ETag::delivery(id, number, identity.as_bytes()));
            (layout.encoded_length().0, etag, Content::Stored(stored), "stored")
        }
    };
    let representation = Representation {
        length,
        etag: Some(etag),
        cache_control: cache::IMMUTABLE,
        content_type: OCTETS,
        accept_ranges: true,
        coding: Coding::Identity,
        vary: None,
    };
    Found { representation, content, detail }
}

/// Scheme and authority that the request was made to.
fn base_url(request: &Parts) -> Result<String, ApiError> {
    let named = match request.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let authority =
        named.and_then(|text| text.parse::<Authority>().ok()).filter(|authority| !authority.as_str().contains('@'));
    let authority = authority
        .ok_or_else(|| ApiError::BadRequest("the request does not name the host it was made to".to_owned()))?;
    let secure = request.extensions.get::<Secure>().is_some_and(|secure| secure.0);
    Ok(format!("{}://{authority}", if secure { "https" } else { "http" }))
}

/// Logs an error that is the server's own and gives what the client is told.
pub(crate) fn log(error: &OriginError) -> ApiError {
    tracing::error!(%error, "a request cannot be answered");
    error.to_client()
}
