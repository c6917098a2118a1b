//! The pages `/` and `/REPO/`: HTML for people, JSON for programs. No styling, no scripts, no state.

use std::fmt::Write;

use bytes::Bytes;
use colibri_api::{RepositoryName, Route};
use http::HeaderValue;
use serde_json::json;

use crate::repository::Summary;

/// A page in one of its two forms.
pub(crate) struct Page {
    /// Media type.
    pub content_type: HeaderValue,
    /// The page.
    pub bytes: Bytes,
}

/// The list of repositories.
pub(crate) fn index<'a>(names: impl Iterator<Item = &'a RepositoryName>, as_json: bool) -> Page {
    let links = names.map(|name| (name, Route::RepositoryIndex { repository: name.clone() }.path()));
    if as_json {
        let repositories: Vec<_> = links.map(|(name, path)| json!({"name": name, "path": path})).collect();
        return json_page(&json!({"repositories": repositories}));
    }
    let mut list = String::new();
    for (name, path) in links {
        _ = writeln!(list, "<li><a href=\"{}\">{}</a></li>", escape(&path), escape(name.as_str()));
    }
    html_page("Repositories", &format!("<ul>\n{list}</ul>\n"))
}

/// One repository and its packages.
pub(crate) fn repository(summary: &Summary, as_json: bool) -> Page {
    if as_json {
        return json_page(&json!(summary));
    }
    let mut rows = String::new();
    for package in &summary.packages {
        let hash = package.hash.as_deref().unwrap_or("unknown");
        _ = writeln!(rows, "<tr><td>{}</td><td><code>{}</code></td></tr>", escape(&package.name), escape(hash));
    }
    let version = summary.targets_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let mut body = format!("<p>{} packages, targets version {version}</p>\n", summary.package_count);
    if summary.packages.len() < summary.package_count {
        _ = writeln!(body, "<p>Only the first {} are listed.</p>", summary.packages.len());
    }
    _ = write!(body, "<table>\n<tr><th>package</th><th>hash</th></tr>\n{rows}</table>\n");
    html_page(summary.name.as_str(), &body)
}

fn json_page(value: &serde_json::Value) -> Page {
    Page { content_type: HeaderValue::from_static("application/json"), bytes: Bytes::from(format!("{value}\n")) }
}

fn html_page(title: &str, body: &str) -> Page {
    let title = escape(title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n{body}</body></html>\n"
    );
    Page { content_type: HeaderValue::from_static("text/html; charset=utf-8"), bytes: Bytes::from(page) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::PackageLine;

    fn page(name: &str, package_count: usize) -> String {
        let line = PackageLine { name: name.to_owned(), hash: None, meta_far_bytes: None };
        let name = "devhost".parse().expect("a name");
        let summary = Summary { name, targets_version: None, package_count, packages: vec![line] };
        String::from_utf8(repository(&summary, false).bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn names_are_text_and_never_markup() {
        let html = page("<script src=\"x\">&/0", 1);
        assert!(html.contains("&lt;script src=&quot;x&quot;&gt;&amp;/0") && !html.contains("<script"), "{html}");
    }

    #[test]
    fn a_cut_list_says_so() {
        assert!(page("a/0", 5).contains("5 packages") && page("a/0", 5).contains("Only the first 1"));
        assert!(!page("a/0", 1).contains("Only the first"));
    }
}
