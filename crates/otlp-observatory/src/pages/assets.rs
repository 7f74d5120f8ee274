//! Static files of the pages, embedded in the binary: the HTML document, which is served at every page address, and the
//! modules, styles and libraries that it loads from `/assets/`.

use std::{
    hash::{DefaultHasher, Hasher as _},
    sync::LazyLock,
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::{error::PageError, response::has_current};

/// Embedded file from the folder `assets`.
struct Asset {
    path: &'static str,
    content: &'static [u8],
}

macro_rules! assets {
    ($($path:literal,)*) => {
        [$(Asset {
            path: $path,
            content: include_bytes!(concat!("../../assets/", $path)),
        },)*]
    };
}

const SHELL: &[u8] = include_bytes!("../../assets/index.html");

/// Files served below `/assets/`. A test compares the list with the folder.
static ASSETS: &[Asset] = &assets![
    "api.js",
    "app.js",
    "cell.js",
    "components/attributes.js",
    "components/chart.js",
    "components/code.js",
    "components/filters.js",
    "components/first-visit.js",
    "components/group-details.js",
    "components/heatmap.js",
    "components/log-list.js",
    "components/minimap.js",
    "components/parts.js",
    "components/query-line.js",
    "components/range.js",
    "components/saved-views.js",
    "components/shell.js",
    "components/sort-head.js",
    "components/span-details.js",
    "components/span-row.js",
    "components/statistics.js",
    "components/text.js",
    "components/trace-tools.js",
    "components/waterfall.js",
    "critical-path.js",
    "css/base.css",
    "css/charts.css",
    "css/filters.css",
    "css/first-visit.css",
    "css/forced-colors.css",
    "css/layout.css",
    "css/logs.css",
    "css/map.css",
    "css/parts.css",
    "css/problems.css",
    "css/query.css",
    "css/tables.css",
    "css/tokens.css",
    "css/trace-tools.css",
    "css/trace.css",
    "editor.js",
    "filters.js",
    "find.js",
    "format.js",
    "graph.js",
    "hash.js",
    "heatmap.js",
    "html.js",
    "hue.js",
    "icon.svg",
    "import.js",
    "keys.js",
    "links.js",
    "live.js",
    "map.js",
    "mark.js",
    "pages/compare.js",
    "pages/logs.js",
    "pages/map.js",
    "pages/metric.js",
    "pages/metrics.js",
    "pages/overview.js",
    "pages/problems.js",
    "pages/status.js",
    "pages/trace.js",
    "pages/traces.js",
    "paste.js",
    "query.js",
    "router.js",
    "series.js",
    "services.js",
    "stack.js",
    "statistics.js",
    "sort.js",
    "tail.js",
    "text.js",
    "theme-early.js",
    "theme.js",
    "timeline.js",
    "vendor/VENDORED.md",
    "vendor/dagre.LICENSE",
    "vendor/dagre.esm.js",
    "vendor/htm.LICENSE",
    "vendor/htm.module.js",
    "vendor/preact-hooks.mjs",
    "vendor/preact.LICENSE",
    "vendor/preact.mjs",
    "vendor/uPlot.esm.js",
    "vendor/uPlot.min.css",
    "vendor/uplot.LICENSE",
    "views.js",
    "waterfall.js",
];

/// Entity tag of every file; it changes when any of them changes.
static ETAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for asset in ASSETS {
        hasher.write(asset.path.as_bytes());
        hasher.write(asset.content);
    }
    format!("\"{:016x}\"", hasher.finish())
});

/// Returns the HTML document, which requests the JSON of its own address.
pub(super) fn shell() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], SHELL).into_response()
}

/// Returns the route of the static files.
pub(super) fn routes() -> Router {
    Router::new().route("/assets/{*path}", get(asset))
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return PageError::NoPage.into_response();
    };
    // Browsers must revalidate, because the file may change at the same address.
    let revalidated = [(header::ETAG, ETAG.as_str()), (header::CACHE_CONTROL, "no-cache")];
    if has_current(&headers, &ETAG) {
        return (StatusCode::NOT_MODIFIED, revalidated).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, content_type(asset.path))];
    (revalidated, content_type, asset.content).into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use axum::http::HeaderValue;

    use super::*;

    /// Collects the paths below `folder`, relative to `root`.
    fn files(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.insert(name.replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_file_of_the_pages_is_served() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let mut existing = BTreeSet::new();
        files(&root, &root, &mut existing);
        // `index.html` is served at the page addresses; `package.json` is for Node.js only.
        existing.remove("index.html");
        existing.remove("package.json");
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, existing);
    }

    /// The pages load nothing from other hosts and have no inline scripts or styles.
    #[test]
    fn the_pages_use_no_other_host_and_no_inline_code() {
        let own = ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/"));
        for (path, content) in own
            .map(|asset| (asset.path, asset.content))
            .chain([("index.html", SHELL)])
        {
            let text = std::str::from_utf8(content).unwrap();
            for (index, _) in text.match_indices("://") {
                // The second is part of a command that the pages show; the others are addresses of editors.
                let known = [
                    "http://www.w3.org/2000/svg",
                    "https://github.com/open-telemetry/",
                    "vscode://file/",
                    "cursor://file/",
                    "zed://file/",
                    "idea://open?file=",
                ];
                let start = text[..index].rfind(['"', '\'', ' ']).map_or(0, |at| at + 1);
                assert!(
                    known.iter().any(|known| text[start..].starts_with(known)),
                    "{path} names another host: {}",
                    text[start..].lines().next().unwrap_or_default()
                );
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
        let shell = std::str::from_utf8(SHELL).unwrap();
        assert!(
            !shell.contains("style="),
            "the content security policy forbids style attributes"
        );
        assert_eq!(
            shell.matches("<script").count(),
            shell.matches("src=\"/assets/").count()
        );
    }

    #[test]
    fn every_file_that_the_document_loads_is_served() {
        let shell = std::str::from_utf8(SHELL).unwrap();
        let loaded: Vec<_> = shell.split("\"/assets/").skip(1).collect();
        assert!(loaded.len() > 5, "{loaded:?}");
        for rest in loaded {
            let path = rest.split('"').next().unwrap();
            assert!(ASSETS.iter().any(|asset| asset.path == path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_cached_file_is_not_sent_again() {
        let first = asset(path("app.js"), HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(
            first.headers()[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");

        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let second = asset(path("app.js"), headers.clone()).await;
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);

        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"another\""));
        assert_eq!(asset(path("app.js"), headers).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn unknown_files_are_not_found() {
        for wrong in ["nothing.js", "../Cargo.toml", "", "index.html"] {
            let response = asset(path(wrong), HeaderMap::new()).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{wrong}");
        }
    }

    fn path(path: &str) -> axum::extract::Path<String> {
        axum::extract::Path(path.to_owned())
    }
}
