//! What a request asks for, by its head alone.

use headworks_actors::{AckLevel, StreamId, TenantId};
use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode, Uri};

/// Where it stands whose event one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HttpTenant {
    /// In the field of each event that the decoder reads.
    #[default]
    Field,
    /// In the query of the request, for all its events: `?tenant=acme`.
    Query,
    /// In the header `Headworks-Tenant` of the request, for all its events.
    Header,
}

impl std::str::FromStr for HttpTenant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "field" => Ok(Self::Field),
            "query" => Ok(Self::Query),
            "header" => Ok(Self::Header),
            _ => Err(format!("is {text:?}, but must be \"field\", \"query\" or \"header\"")),
        }
    }
}

/// The header of [`HttpTenant::Header`].
const TENANT: &str = "headworks-tenant";

/// The longest key of a request.
const LONGEST_KEY: usize = 100;

/// How a body is cut into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Lines,
    Array,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// A request that may be taken in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) shape: Shape,
    pub(super) coding: Coding,
    pub(super) level: AckLevel,
    /// Whose all its events are.
    pub(super) tenant: Option<TenantId>,
    pub(super) key: Option<String>,
}

/// Why a request is refused by its head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// The one value of a header; none where it is not there.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let bad = || Refusal::new(StatusCode::BAD_REQUEST, format!("the header {name} is there twice, or is not ASCII"));
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|value| Some(value.trim())).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

/// The bearer's token.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The tenant that a request names, if it is to name one.
pub(crate) fn tenant(from: HttpTenant, uri: &Uri, headers: &HeaderMap) -> Result<Option<TenantId>, String> {
    let query = || pairs(uri).find_map(|(key, value)| (key == "tenant").then_some(value));
    let (named, place) = match from {
        HttpTenant::Field => return Ok(None),
        HttpTenant::Query => (query(), "the query: ?tenant=NAME"),
        HttpTenant::Header => (one(headers, TENANT).map_err(|refusal| refusal.why)?, "the header Headworks-Tenant"),
    };
    let named = named.ok_or_else(|| format!("this source wants to be told the tenant in {place}"))?;
    TenantId::new(named).map(Some).map_err(|why| format!("the tenant in {place} is none: {why}"))
}

/// What may be in a value here needs no escape.
pub(crate) fn pairs(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

impl Asked {
    /// Reads the head of a request; `least` is the level of the source.
    pub(super) fn of(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        from: HttpTenant,
        least: AckLevel,
    ) -> Result<Self, Refusal> {
        let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
        if uri.path() != "/v1/events" {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "there is nothing here; events go to POST /v1/events"));
        }
        if method != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "events go to POST /v1/events"));
        }
        let mut level = least;
        for (key, value) in pairs(uri) {
            match key {
                "ack" => {
                    let asked = value.parse::<AckLevel>();
                    level =
                        least
                            .max(asked.map_err(|_| {
                                bad(format!("ack={value:?} is none of received, journaled and stored"))
                            })?);
                }
                "tenant" if from == HttpTenant::Query => {}
                "tenant" => {
                    return Err(bad("this source does not take the tenant from the query (tenant_from)".to_owned()));
                }
                _ => return Err(bad(format!("there is no parameter {key:?}; there are ack and tenant"))),
            }
        }
        let kind = one(headers, header::CONTENT_TYPE.as_str())?.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let shape = match essence.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "text/plain" => Shape::Lines,
            "application/json" => Shape::Array,
            other => {
                let why = format!(
                    "the Content-Type is {other:?}: application/x-ndjson and text/plain are a JSON object a line, application/json is an array of them"
                );
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
            }
        };
        let coding =
            match one(headers, header::CONTENT_ENCODING.as_str())?.unwrap_or_default().to_ascii_lowercase().as_str() {
                "" | "identity" => Coding::Identity,
                "gzip" | "x-gzip" => Coding::Gzip,
                "zstd" => Coding::Zstd,
                other => {
                    let why = format!("the Content-Encoding is {other:?}: there are gzip and zstd, or none");
                    return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
                }
            };
        let tenant = tenant(from, uri, headers).map_err(bad)?;
        let key = one(headers, "idempotency-key")?.map(str::to_owned);
        if let Some(key) = &key
            && !((1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(bad(format!("an Idempotency-Key has from 1 to {LONGEST_KEY} visible ASCII characters")));
        }
        Ok(Self { shape, coding, level, tenant, key })
    }

    /// The stream that the key stands for, apart from those of other bearers, tenants and sources.
    pub(super) fn stream(&self, source: &str, bearer: Option<&[u8]>) -> Option<StreamId> {
        let key = self.key.as_ref()?;
        let tenant = self.tenant.as_ref().map(TenantId::as_str).unwrap_or_default();
        let scope = [source.as_bytes(), bearer.unwrap_or_default(), tenant.as_bytes()].join(&0);
        // A key of its length fits.
        StreamId::new(&format!("http:{:08x}:{key}", crc32c::crc32c(&scope))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str, headers: &[(&str, &str)], from: HttpTenant) -> Result<Asked, (u16, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Asked::of(&method.parse().unwrap(), &uri.parse().unwrap(), &map, from, AckLevel::Received)
            .map_err(|Refusal { status, why }| (status.as_u16(), why))
    }

    const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson; charset=utf-8");

    #[test]
    fn the_head_says_how_the_body_reads_and_how_safe_it_is_to_be() {
        let all = [NDJSON, ("Content-Encoding", "GZIP"), ("Idempotency-Key", "k-1")];
        let read = asked("POST", "/v1/events?ack=stored", &all, HttpTenant::Field).unwrap();
        let expected = Asked {
            shape: Shape::Lines,
            coding: Coding::Gzip,
            level: AckLevel::Stored,
            tenant: None,
            key: Some("k-1".into()),
        };
        assert_eq!(read, expected);
        assert_ne!(read.stream("a", None), read.stream("b", None));
        assert_ne!(read.stream("a", None), read.stream("a", Some(b"t")));
    }

    #[test]
    fn what_is_wrong_in_the_head_is_told() {
        let long = "k".repeat(101);
        for (method, uri, headers, from, status, word) in [
            ("POST", "/", vec![NDJSON], HttpTenant::Field, 404, "POST /v1/events"),
            ("GET", "/v1/events", vec![], HttpTenant::Field, 405, "POST"),
            ("POST", "/v1/events", vec![], HttpTenant::Field, 415, "application/x-ndjson"),
            ("POST", "/v1/events", vec![("Content-Type", "text/html")], HttpTenant::Field, 415, "text/html"),
            ("POST", "/v1/events", vec![NDJSON, ("Content-Encoding", "br")], HttpTenant::Field, 415, "\"br\""),
            ("POST", "/v1/events", vec![NDJSON, NDJSON], HttpTenant::Field, 400, "twice"),
            ("POST", "/v1/events?ack=x", vec![NDJSON], HttpTenant::Field, 400, "received, journaled"),
            ("POST", "/v1/events?tenant=a", vec![NDJSON], HttpTenant::Field, 400, "tenant_from"),
            ("POST", "/v1/events?color=a", vec![NDJSON], HttpTenant::Field, 400, "no parameter"),
            ("POST", "/v1/events", vec![NDJSON], HttpTenant::Query, 400, "?tenant=NAME"),
            ("POST", "/v1/events?tenant=a/b", vec![NDJSON], HttpTenant::Query, 400, "is none"),
            ("POST", "/v1/events", vec![NDJSON], HttpTenant::Header, 400, "Headworks-Tenant"),
            ("POST", "/v1/events", vec![NDJSON, ("Idempotency-Key", &*long)], HttpTenant::Field, 400, "1 to 100"),
        ] {
            let (told, why) = asked(method, uri, &headers, from).unwrap_err();
            assert!(told == status && why.contains(word), "{uri} {headers:?}: {told} {why}");
        }
    }
}
