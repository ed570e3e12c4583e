//! The page for a browser: static files in the program itself, which ask nobody but the admin API they came from.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Problem;

/// Nothing from anywhere else, nothing inline, no text that becomes HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:ident),+ $(,)?) => {
        /// By name: the kind and the content.
        const FILES: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("page/", $name)))),+];
    };
}

files! {
    "index.html" HTML,
    "page.css" CSS,
    "icon.svg" SVG,
    "main.js" JS,
    "api.js" JS,
    "dom.js" JS,
    "charts.js" JS,
    "model.js" JS,
    "overview.js" JS,
    "table.js" JS,
    "tenants.js" JS,
    "tenant.js" JS,
    "log.js" JS,
    "letters.js" JS,
}

/// What its files are of.
pub(super) const TYPES: &[&str] = &["text/html", "text/css", "text/javascript", "image/svg+xml"];

/// The names of its files.
pub(super) fn files() -> Vec<&'static str> {
    FILES.iter().map(|(name, ..)| *name).collect()
}

const SVG: &str = "image/svg+xml";

/// Whether a path is one of the page's own files. They say nothing of the daemon, so that a browser, which bears no token
/// before the page has asked for it, may have them without one.
#[must_use]
pub fn is_page(path: &str) -> bool {
    path == "/" || path.strip_prefix("/page/").is_some_and(|name| found(name).is_some())
}

fn found(name: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    FILES.iter().find(|(known, ..)| *known == name)
}

pub(super) async fn index() -> Response {
    answer("index.html")
}

pub(super) async fn file(Path(name): Path<String>) -> Response {
    answer(&name)
}

fn answer(name: &str) -> Response {
    let Some((_, kind, content)) = found(name) else {
        return Problem::new(StatusCode::NOT_FOUND, format!("the page has no file {name:?}")).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A daemon of another version may answer here next.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_that_is_not_in_the_program() {
        for (name, _, content) in FILES {
            for other in ["http://", "https://", "innerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                let namespace = content.replace("http://www.w3.org/", "");
                assert!(!namespace.contains(other), "{name} has {other}");
            }
            for import in content.lines().filter(|line| line.starts_with("import ")) {
                let file = import.split("\"./").nth(1).and_then(|rest| rest.split('"').next());
                assert!(file.is_some_and(|file| found(file).is_some()), "{name}: {import}");
            }
        }
        let index = found("index.html").map_or("", |(.., content)| *content);
        assert!(
            !index.contains("<style") && !index.contains(" style=") && !index.contains(" onclick="),
            "nothing inline"
        );
    }

    #[test]
    fn its_own_files_alone_are_of_the_page() {
        assert!(is_page("/") && is_page("/page/main.js"));
        for path in
            ["", "/page", "/page/", "/page/../v1", "/page/nothing.js", "/v1", "/v1/tenants", "//", "/index.html"]
        {
            assert!(!is_page(path), "{path}");
        }
    }
}
