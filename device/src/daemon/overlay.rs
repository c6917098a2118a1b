//! The developer overlay.

use colibri_transport::Response;
use serde_json::json as value;

use super::Daemon;
use super::answer::json;
use super::packages::parse_url;
use super::wire::{OverlayAdd, OverlayEntry, Problem};
use crate::overlay::Overlaid;

impl Daemon {
    pub(super) fn overlay(&self) -> OverlayEntry {
        let (overlay, permitted) = (self.device().overlay(), self.device().overlay_permitted());
        OverlayEntry {
            packages: overlay.packages.iter().map(ToString::to_string).collect(),
            repositories: overlay.repositories.iter().map(ToString::to_string).collect(),
            in_force: permitted.is_ok(),
            refused: permitted.err().map(|error| error.to_string()),
        }
    }

    pub(super) fn add_to_overlay(&self, wanted: OverlayAdd) -> Result<Response, Problem> {
        let (overlaid, added) = match wanted {
            OverlayAdd::Package(url) => (Overlaid::Package(parse_url(&url)?), url),
            OverlayAdd::Repository(url) => {
                let refused = |error| Problem::bad_request(format!("`{url}`: not a repository: {error}"));
                (Overlaid::Repository(url.parse().map_err(refused)?), url)
            }
        };
        self.device().overlay_add(overlaid)?;
        Ok(json(&value!({ "added": added })))
    }

    pub(super) fn clear_overlay(&self) -> Result<Response, Problem> {
        self.device().overlay_clear()?;
        Ok(json(&value!({ "cleared": true })))
    }
}
