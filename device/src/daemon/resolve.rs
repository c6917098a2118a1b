//! `POST /resolve`: lines of progress, then what came of it. Whoever goes away stops it; what was verified is kept.

use colibri_package::url::AbsolutePackageUrl;
use colibri_transport::Response;

use super::Daemon;
use super::answer::{Lines, Without};
use super::packages::parse_url;
use super::progress::Watch;
use super::wire::{Event, Problem, Resolve, ResolvedPackage};
use crate::device::Resolved;

/// What is said of a package that was resolved.
pub(super) fn described(url: &AbsolutePackageUrl, resolved: &Resolved) -> ResolvedPackage {
    let report = &resolved.report;
    ResolvedPackage {
        url: url.to_string(),
        resolved_url: resolved.url.to_string(),
        hash: resolved.hash,
        version_by: resolved.by.as_str().to_owned(),
        packages: report.packages,
        blobs: report.blobs,
        fetched: report.fetched,
        fetched_content_bytes: report.content_bytes,
        reused_content_bytes: report.reused_bytes,
    }
}

/// Tells how far it was in the end, who was blamed, and what came of it.
pub(super) async fn tell_end(lines: &mut Lines, watch: &mut Watch, last: Event) -> bool {
    let mut events = vec![Event::Progress(watch.progress())];
    events.extend(watch.blamed().into_iter().map(Event::Blamed));
    events.push(last);
    for event in events {
        if lines.send(&event).await.is_err() {
            return false;
        }
    }
    true
}

impl Daemon {
    /// Watches the mirrors that a URL may be fetched from.
    pub(super) fn watch(&self, url: &AbsolutePackageUrl) -> Watch {
        let device = self.device();
        let meant = device.rules().rewrite(url);
        let mut hosts = vec![url.repository().host(), meant.repository().host()];
        hosts.dedup();
        let repositories = hosts.into_iter().filter_map(|host| device.repositories().get(host).ok());
        Watch::of(repositories.map(|repository| repository.sources().clone()).collect())
    }

    /// Watches all mirrors there are.
    pub(super) fn watch_all(&self) -> Watch {
        let repositories = self.device().repositories().list();
        Watch::of(repositories.iter().map(|repository| repository.sources().clone()).collect())
    }

    pub(super) fn resolve(&self, wanted: &Resolve) -> Result<Response, Problem> {
        let url = parse_url(&wanted.url)?;
        let place = self.operation()?;
        let mut watch = self.watch(&url);
        let (device, observer, asked) = (self.device().clone(), watch.counts.observer(), url.clone());
        let working = self.work(Without::Stops, async move {
            let _place = place;
            Ok(device.resolve(&asked, observer).await?)
        });
        Ok(self.lines(|mut lines| async move {
            let progress = || Some(Event::Progress(watch.progress()));
            let Some(resolved) = working.watched(&mut lines, progress).await else { return };
            let last = match resolved {
                Ok(resolved) => Event::Resolved(described(&url, &resolved)),
                Err(problem) => Event::Failed(problem),
            };
            if tell_end(&mut lines, &mut watch, last).await {
                lines.finish();
            }
        }))
    }
}
