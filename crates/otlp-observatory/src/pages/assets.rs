//! The page's own files, in the binary: the one HTML document that every page address answers browsers with,
//! and the modules, styles and libraries it loads from `/assets/`. Nothing here knows what the pages show;
//! they ask for JSON.

use std::{
    hash::{DefaultHasher, Hasher as _},
    sync::LazyLock,
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::Refusal;

/// A file of `crates/otlp-observatory/assets`.
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

/// Everything the pages load. A test notices what is missing.
static ASSETS: &[Asset] = &assets![
    "api.js",
    "app.js",
    "cell.js",
    "components/attributes.js",
    "components/chart.js",
    "components/filters.js",
    "components/first-visit.js",
    "components/log-list.js",
    "components/parts.js",
    "components/shell.js",
    "components/span-details.js",
    "components/text.js",
    "components/waterfall.js",
    "css/base.css",
    "css/charts.css",
    "css/filters.css",
    "css/first-visit.css",
    "css/layout.css",
    "css/logs.css",
    "css/map.css",
    "css/parts.css",
    "css/tables.css",
    "css/tokens.css",
    "css/trace.css",
    "filters.js",
    "format.js",
    "graph.js",
    "hash.js",
    "html.js",
    "hue.js",
    "icon.svg",
    "keys.js",
    "live.js",
    "pages/logs.js",
    "pages/map.js",
    "pages/metric.js",
    "pages/metrics.js",
    "pages/overview.js",
    "pages/status.js",
    "pages/trace.js",
    "pages/traces.js",
    "router.js",
    "series.js",
    "tail.js",
    "text.js",
    "theme-early.js",
    "theme.js",
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
    "waterfall.js",
];

/// One tag for all of them: they only make sense together.
static ETAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    for asset in ASSETS {
        hasher.write(asset.path.as_bytes());
        hasher.write(asset.content);
    }
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()))
        .expect("hex digits in quotes are a header's value")
});

/// The page that shows whatever its address answers.
pub(super) fn shell() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], SHELL).into_response()
}

/// The files the page loads.
pub(super) fn routes() -> Router {
    Router::new().route("/assets/{*path}", get(asset))
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return Refusal::NoPage.into_response();
    };
    // A browser keeps them, and asks whether they are still the same: another version may serve this address
    // tomorrow.
    let revalidated = [
        (header::ETAG, ETAG.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if is_known(&headers) {
        return (StatusCode::NOT_MODIFIED, revalidated).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, content_type(asset.path))];
    (revalidated, content_type, asset.content).into_response()
}

/// Whether the browser has what is here.
fn is_known(headers: &HeaderMap) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = tags
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tags.any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == ETAG.as_bytes())
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

    use super::*;

    /// Every file below `folder`, named as the pages name it.
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
        let mut there = BTreeSet::new();
        files(&root, &root, &mut there);
        // The document has addresses of its own; the other tells Node.js what the modules are.
        there.remove("index.html");
        there.remove("package.json");
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(served, there);
    }

    /// The pages work without any other host, and run nothing that was not served as a file.
    #[test]
    fn nothing_of_the_pages_is_elsewhere_or_inline() {
        let own = ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/"));
        for (path, content) in own
            .map(|asset| (asset.path, asset.content))
            .chain([("index.html", SHELL)])
        {
            let text = std::str::from_utf8(content).unwrap();
            for (place, _) in text.match_indices("://") {
                let known = ["http://www.w3.org/2000/svg", "http://localhost:8000"];
                let start = text[..place].rfind(['"', '\'', ' ']).map_or(0, |at| at + 1);
                assert!(
                    known.iter().any(|known| text[start..].starts_with(known)),
                    "{path} names another host: {}",
                    text[start..].lines().next().unwrap_or_default()
                );
            }
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                assert!(!text.contains(never), "{path} has {never}");
            }
        }
        let shell = std::str::from_utf8(SHELL).unwrap();
        assert!(
            !shell.contains("style="),
            "a style attribute is refused by the policy"
        );
        assert_eq!(
            shell.matches("<script").count(),
            shell.matches("src=\"/assets/").count()
        );
    }

    #[test]
    fn what_the_document_loads_is_served() {
        let shell = std::str::from_utf8(SHELL).unwrap();
        let loaded: Vec<_> = shell.split("\"/assets/").skip(1).collect();
        assert!(loaded.len() > 5, "{loaded:?}");
        for rest in loaded {
            let path = rest.split('"').next().unwrap();
            assert!(ASSETS.iter().any(|asset| asset.path == path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_file_that_a_browser_has_is_not_sent_again() {
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
    async fn a_file_that_is_not_there_is_not_found() {
        for wrong in ["nothing.js", "../Cargo.toml", "", "index.html"] {
            let answer = asset(path(wrong), HeaderMap::new()).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{wrong}");
        }
    }

    fn path(path: &str) -> axum::extract::Path<String> {
        axum::extract::Path(path.to_owned())
    }
}
