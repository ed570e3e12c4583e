//! Who may ask over TCP: whoever bears the token, if there is one, and no page of another site in somebody's browser.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};

use super::{Problem, is_page};
use crate::secret_file;

/// The lengths that a token may have, in bytes.
const SHORTEST: usize = 16;
const LONGEST: usize = 1024;

/// A secret that requests bear. No output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads it from a file; a newline at its end is none of it.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner and group may read it or others than its owner write it, or it is no token:
    /// from 16 to 1024 visible ASCII characters.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = secret_file::read(path, LONGEST + 3)?;
        let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
        if !(SHORTEST..=LONGEST).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = format!("it holds no token: one line of {SHORTEST} to {LONGEST} visible ASCII characters");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self(text.into()))
    }

    /// The token itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Takes as long for one wrong token as for another of its length.
    fn is(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(other).fold(0, |all, (own, other)| std::hint::black_box(all | (own ^ other)));
        own.len() == other.len() && differences == 0
    }

    /// Whether the request bears it.
    fn is_borne(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(one), None) = (all.next(), all.next()) else { return false };
        let Some((scheme, token)) = one.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.is(token.trim_ascii())
    }
}

/// The same routes for strangers. With a token, a request without it learns nothing but that; without, the API is for this machine
/// alone, and the names that a browser may know it by are those that no stranger's name server can give away.
pub fn guarded(router: Router, token: Option<Token>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let verdict = judge(token.as_ref(), &request);
        async move {
            match verdict {
                Ok(()) => next.run(request).await,
                Err(refusal) => *refusal,
            }
        }
    }))
}

fn judge(token: Option<&Token>, request: &Request) -> Result<(), Box<Response>> {
    let headers = request.headers();
    match token {
        // A browser has none before the page has asked for it; the page's files are the same in every copy of the program.
        Some(_) if request.method() == Method::GET && is_page(request.uri().path()) => {}
        Some(token) if !token.is_borne(headers) => return Err(Box::new(unknown())),
        Some(_) => {}
        None => {
            let host = host(request);
            if !host.as_ref().is_some_and(is_local) {
                let why = "this API is asked by the address or as localhost: the Host of the request is neither";
                return Err(Box::new(Problem::new(StatusCode::FORBIDDEN, why).into_response()));
            }
        }
    }
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_reading && !is_own_page(headers.get(header::ORIGIN), host(request).as_ref()) {
        let why = "the page that asks for this change is of another origin";
        return Err(Box::new(Problem::new(StatusCode::FORBIDDEN, why).into_response()));
    }
    Ok(())
}

fn unknown() -> Response {
    let why = "a token is needed: Authorization: Bearer TOKEN";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Whom the request is meant for; `None` where it does not say so once.
fn host(request: &Request) -> Option<Authority> {
    let mut all = request.headers().get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => Authority::try_from(one.as_bytes()).ok(),
        _ => None,
    }
}

/// Whether it is a name that no name server gives to this machine.
fn is_local(host: &Authority) -> bool {
    let name = host.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// No origin is no browser's page.
fn is_own_page(origin: Option<&HeaderValue>, host: Option<&Authority>) -> bool {
    let Some(origin) = origin else { return true };
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else { return false };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use axum::body::Body;

    use super::*;

    fn token() -> Token {
        Token("correct-horse-battery".into())
    }

    fn asked(method: &str, headers: &[(&str, &str)]) -> Request {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri("/v1"), |request, (name, value)| request.header(*name, *value));
        request.body(Body::empty()).unwrap()
    }

    fn verdict(token: Option<&Token>, method: &str, headers: &[(&str, &str)]) -> u16 {
        judge(token, &asked(method, headers)).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn without_the_very_token_nothing_is_told() {
        let token = token();
        for wrong in [
            &[][..],
            &[("authorization", "Bearer correct-horse-batterx")],
            &[("authorization", "Bearer correct-horse-batter")],
            &[("authorization", "Bearer correct-horse-battery-")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic correct-horse-battery")],
            &[("authorization", "correct-horse-battery")],
            &[("authorization", "Bearer correct-horse-battery"), ("authorization", "Bearer x")],
        ] {
            assert_eq!(verdict(Some(&token), "GET", wrong), 401, "{wrong:?}");
        }
        for right in ["Bearer correct-horse-battery", "bearer  correct-horse-battery"] {
            assert_eq!(verdict(Some(&token), "GET", &[("authorization", right)]), 200, "{right}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_name_that_a_strangers_name_server_may_have_given_is_refused() {
        for host in ["127.0.0.1:7401", "[::1]:7401", "localhost", "LOCALHOST:1", "a.localhost:7401", "10.0.0.7"] {
            assert_eq!(verdict(None, "GET", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example:7401", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "notlocalhost"]
        {
            assert_eq!(verdict(None, "GET", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(verdict(None, "GET", &[]), 403);
        assert_eq!(verdict(None, "GET", &[("host", "localhost"), ("host", "evil.example")]), 403);
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let host = ("host", "127.0.0.1:7401");
        for (origin, status) in [
            ("http://127.0.0.1:7401", 200),
            ("http://127.0.0.1:8000", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            assert_eq!(verdict(None, "POST", &[host, ("origin", origin)]), status, "{origin}");
            assert_eq!(verdict(None, "GET", &[host, ("origin", origin)]), 200, "what it reads it cannot see");
        }
        assert_eq!(verdict(None, "DELETE", &[host]), 200, "no browser");
    }

    #[test]
    fn a_token_is_read_without_its_newline_and_only_from_a_file_that_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |bytes: &[u8], mode: u32| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::read(&path).map_err(|why| why.to_string())
        };
        for text in ["correct-horse-battery", "correct-horse-battery\n", "correct-horse-battery\r\n"] {
            assert_eq!(read(text.as_bytes(), 0o600), Ok(token()));
        }
        read(b"correct-horse-battery", 0o440).unwrap();
        for mode in [0o604, 0o644, 0o620, 0o777] {
            assert!(read(b"correct-horse-battery", mode).unwrap_err().contains("others may use it; chmod 600 "));
        }
        let long = "x".repeat(LONGEST + 1);
        for text in
            ["", "short", "correct horse battery", "correct-horse-battery\n\n", "correct-horse-b\u{e4}ttery", &long]
        {
            assert!(read(text.as_bytes(), 0o600).unwrap_err().contains("no token"), "{text}");
        }
        assert!(Token::read(&folder.path().join("none")).is_err());
    }
}
