use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use headworks_actors::{Code, Intake};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::http::{Hold, HttpTenant, Site, bearer, pairs, refusal, tenant};
use super::talk::Talk;

/// The subprotocol that a client may ask for, and what the one begins with by which a page in a browser shows its token:
/// it can send no other header.
const PROTOCOL: &str = "headworks";
const TOKEN: &str = "bearer.";

/// What a connection comes to, and what became of its request.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) site: Site,
    pub(super) max_message: usize,
    pub(super) opened: Rc<RefCell<Option<(OnUpgrade, Talk)>>>,
}

/// Answers the request that a WebSocket begins with; where it becomes one, that is left at the door.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    door: Door,
    intake: Intake,
    hold: Rc<Hold>,
) -> io::Result<Response<Full<Bytes>>> {
    let site = &door.site;
    let refused = |status, why: &str| Ok(refusal(status, why, None));
    if request.uri().path() != "/v1/ws" {
        return refused(StatusCode::NOT_FOUND, "there is nothing here; a WebSocket is opened with GET /v1/ws");
    }
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| request.method() == Method::GET);
    let is_asked = has(headers, header::UPGRADE, "websocket") && has(headers, header::CONNECTION, "upgrade");
    let Some(key) = key.filter(|_| is_asked && has(headers, header::SEC_WEBSOCKET_VERSION, "13")) else {
        let mut response = refusal(StatusCode::UPGRADE_REQUIRED, "this is for WebSocket, version 13, alone", None);
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Ok(response);
    };
    let Ok(accepted) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return refused(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key is none");
    };
    let not_allowed = |status, why: &str| {
        site.not_allowed(&intake, why);
        Ok(refusal(status, why, Some(Code::TenantNotAllowed)))
    };
    // Any page that somebody looks at can open a WebSocket to what their machine can reach.
    if site.options.tokens.is_none() && headers.contains_key(header::ORIGIN) {
        return not_allowed(StatusCode::FORBIDDEN, "a page in a browser needs a token here (tokens_file)");
    }
    let token = bearer(headers).or_else(|| token(headers)).map(<[u8]>::to_vec);
    let allowed = match site.allowed(token.as_deref()) {
        Ok(allowed) => allowed,
        Err(why) => return not_allowed(why.status, &why.why),
    };
    let from = site.options.tenant_from;
    if let Some((unknown, _)) = pairs(request.uri()).find(|(name, _)| *name != "tenant" || from != HttpTenant::Query) {
        let why = format!("there is no parameter {unknown:?} here; there is tenant, with tenant_from = \"query\"");
        return refused(StatusCode::BAD_REQUEST, &why);
    }
    let tenant = match tenant(from, request.uri(), headers) {
        Ok(tenant) => tenant,
        Err(why) => return refused(StatusCode::BAD_REQUEST, &why),
    };
    if let (Some(tenant), Some(allowed)) = (&tenant, &allowed)
        && !allowed.allows(tenant.as_str())
    {
        return not_allowed(StatusCode::FORBIDDEN, &format!("the bearer may not speak for the tenant {tenant}"));
    }

    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accepted),
    ]);
    if has(headers, header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    let talk = Talk {
        spec: site.spec(tenant.as_ref(), allowed),
        max_message: door.max_message,
        idle: site.options.idle_timeout,
        least: site.options.ack,
        // Of senders that are known each has its own names for its streams.
        scope: site.sender(token.as_deref().filter(|_| site.options.tokens.is_some())).map(|who| crc32c::crc32c(&who)),
        intake,
        place: hold.take_place(),
    };
    door.opened.replace(Some((hyper::upgrade::on(&mut request), talk)));
    Ok(response)
}

/// The words of a header, which commas divide.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim))
}

fn has(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    words(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

/// The token of a page in a browser.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    words(headers, header::SEC_WEBSOCKET_PROTOCOL).find_map(|word| word.strip_prefix(TOKEN)).map(str::as_bytes)
}
