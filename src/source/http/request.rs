use std::borrow::Cow;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headworks_actors::{Answers, Cause, Code, Error, Framing, IngressHandle, IngressSpec, Intake, Json};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::HttpOptions;
use super::array::Elements;
use super::asked::{Asked, Coding, Refusal, Shape, bearer};
use super::body::{self, Plain};
use super::connection::Hold;
use super::known::Known;
use super::outcome::{End, Outcome, refusal};
use crate::source::allowed::{Allowed, Bound, Peer};

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// How much of the body of a request that was refused is read, so that the client comes to read why, and for how long.
const LEFTOVER: usize = 4 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What all requests of a source share.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) decoder: Json,
    pub(crate) options: Arc<HttpOptions>,
    peer: Peer,
}

impl Site {
    pub(crate) fn new(name: String, decoder: Json, options: HttpOptions) -> Self {
        Self { name: name.into(), decoder, options: Arc::new(options), peer: Peer::default() }
    }

    /// The same, for one connection.
    pub(crate) fn of_peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    /// The peer and the bearer in one: nobody else's keys are its own.
    pub(crate) fn sender<'b>(&self, bearer: Option<&'b [u8]>) -> Option<Cow<'b, [u8]>> {
        match (&self.peer.name, bearer) {
            (None, bearer) => bearer.map(Cow::Borrowed),
            (Some(name), bearer) => Some([name.as_bytes(), bearer.unwrap_or_default()].join(&0).into()),
        }
    }

    /// Whom the peer may speak for that bears this token; everybody, where there are neither tokens nor certificates.
    pub(crate) fn allowed(&self, bearer: Option<&[u8]>) -> Result<Option<Allowed>, Refusal> {
        let Some(tokens) = &self.options.tokens else { return Ok(self.peer.allowed.clone()) };
        let refused = |why: &str| Refusal::new(StatusCode::UNAUTHORIZED, why);
        let token = bearer.ok_or_else(|| refused("a token is needed: Authorization: Bearer TOKEN"))?;
        let allowed = tokens.bearer(token).ok_or_else(|| refused("the token is not known (tokens_file)"))?;
        Ok(Some(allowed.and(self.peer.allowed.clone())))
    }

    /// What the frames of one request or connection mean.
    pub(crate) fn spec(&self, tenant: Option<&headworks_actors::TenantId>, allowed: Option<Allowed>) -> IngressSpec {
        let json = match tenant {
            Some(tenant) => self.decoder.clone().of_tenant(tenant.clone()),
            None => self.decoder.clone(),
        };
        let framing = Framing::Lines { max_bytes: self.options.max_frame };
        IngressSpec::new(&self.name, framing, Bound { decoder: json, allowed })
    }

    /// Counts what was refused because of who sent it.
    pub(crate) fn not_allowed(&self, intake: &Intake, why: &str) {
        intake.reject(&self.name, Cause::new(Code::TenantNotAllowed, why));
    }
}

/// Takes in one request and answers it. An error where there is nobody to answer.
pub(super) async fn answer(
    request: Request<Incoming>,
    site: Site,
    intake: Intake,
    hold: Rc<Hold>,
) -> io::Result<Response<Full<Bytes>>> {
    let feeding = hold.feeding();
    let (head, body) = request.into_parts();
    let bearer = bearer(&head.headers);
    let options = &site.options;
    let asked = async {
        let allowed = site.allowed(bearer)?;
        let asked = Asked::of(&head.method, &head.uri, &head.headers, options.tenant_from, options.ack)?;
        if asked.coding == Coding::Identity && body.size_hint().lower() > options.max_body as u64 {
            return Err(too_large(options.max_body));
        }
        if let (Some(tenant), Some(allowed)) = (&asked.tenant, &allowed)
            && !allowed.allows(tenant.as_str())
        {
            let why = format!("the sender may not speak for the tenant {tenant}");
            return Err(Refusal::new(StatusCode::FORBIDDEN, why));
        }
        Ok((asked, allowed))
    };
    let (asked, allowed) = match asked.await {
        Ok(asked) => asked,
        Err(Refusal { status, why }) => {
            let is_about_who = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if is_about_who {
                site.not_allowed(&intake, &why);
            }
            drop(feeding);
            leave(body).await;
            return Ok(refusal(status, &why, is_about_who.then_some(Code::TenantNotAllowed)));
        }
    };
    let spec = site.spec(asked.tenant.as_ref(), allowed);
    let opened = match asked.stream(&site.name, site.sender(bearer).as_deref()) {
        Some(stream) => intake.open_stream(spec, stream, 1, asked.level).await,
        None => intake.open_call(spec, asked.level).await,
    };
    let (ingress, mut answers) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            drop(feeding);
            leave(body).await;
            let status = match why {
                Error::TakenOver => StatusCode::CONFLICT,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            return Ok(refusal(status, &why.to_string(), None));
        }
    };

    let mut outcome = Outcome::default();
    let known = Known::new(options.max_frame, if asked.key.is_some() { answers.last() } else { 0 });
    let mut taking = Taking {
        body: body::plain(body, asked.coding),
        elements: (asked.shape == Shape::Array).then(Elements::default),
        known,
        options,
    };
    let end = {
        let mut collecting = std::pin::pin!(collect(&mut answers, &mut outcome));
        let taken = tokio::select! {
            biased;
            end = taking.all(&ingress, &intake) => Some(end),
            () = &mut collecting => None,
        };
        drop(feeding);
        match taken {
            None => End::Cut(StatusCode::CONFLICT, Error::TakenOver.to_string()),
            Some(end @ End::Late(_)) => end,
            // What it brought so far is answered for all the same.
            Some(end) => match timeout(options.answer_within, collecting).await {
                Ok(()) => end,
                Err(_) => End::Late(format!(
                    "not all events are {} after {}; they may still come to be, and a request with an Idempotency-Key may be repeated as it is",
                    asked.level,
                    humantime::format_duration(options.answer_within)
                )),
            },
        }
    };
    // A server that stops does not wait for anybody.
    if !matches!(end, End::Whole | End::Closing) {
        leave_rest(&mut taking.body).await;
    }
    Ok(outcome.response(&end))
}

async fn collect(answers: &mut Answers, outcome: &mut Outcome) {
    while let Some(more) = answers.next().await {
        outcome.add(more);
    }
}

fn too_large(max_body: usize) -> Refusal {
    let why =
        format!("the body is larger than {} (max_body); send it in parts", crate::units::bytes::display(max_body));
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// A body on its way in.
struct Taking<'o> {
    body: Plain,
    elements: Option<Elements>,
    known: Known,
    options: &'o HttpOptions,
}

impl Taking<'_> {
    /// Feeds the body as it comes, and finishes the ingress.
    async fn all(&mut self, ingress: &IngressHandle, intake: &Intake) -> End {
        let end = match self.pieces(ingress, intake).await {
            Ok(()) => End::Whole,
            Err(end) => end,
        };
        // Whoever found no room waits no longer, also not for what it fed.
        if let End::Late(_) = end {
            return end;
        }
        // The last line needs no end, where the body has one.
        match ingress.finish(matches!(end, End::Whole)).await {
            Ok(()) => end,
            Err(why) => ended(&why),
        }
    }

    async fn pieces(&mut self, ingress: &IngressHandle, intake: &Intake) -> Result<(), End> {
        let mut closing = std::pin::pin!(intake.closing());
        let options = self.options;
        let (mut buffer, mut lines, mut total) = (Vec::with_capacity(PIECE), vec![], 0usize);
        let (mut due, mut since_line) = (Instant::now() + options.idle_timeout, 0usize);
        loop {
            buffer.clear();
            let read = tokio::select! {
                biased;
                () = &mut closing => return Err(End::Closing),
                read = timeout_at(due, self.body.read_buf(&mut buffer)) => read,
            };
            let read = match read {
                Ok(Ok(0)) => break,
                Ok(Ok(read)) => read,
                Ok(Err(why)) => {
                    let why = format!("the body cannot be read to its end: {why}");
                    return Err(End::Cut(StatusCode::BAD_REQUEST, why));
                }
                Err(_) => {
                    let why = format!(
                        "no whole line came for {} (idle_timeout)",
                        humantime::format_duration(options.idle_timeout)
                    );
                    return Err(End::Cut(StatusCode::REQUEST_TIMEOUT, why));
                }
            };
            total += read;
            if total > options.max_body {
                let Refusal { status, why } = too_large(options.max_body);
                return Err(End::Cut(status, why));
            }
            let mut bad = Ok(());
            if let Some(elements) = &mut self.elements {
                lines.clear();
                bad = elements.push(&buffer, &mut lines);
                std::mem::swap(&mut lines, &mut buffer);
            }
            since_line += read;
            if since_line >= PIECE || memchr::memchr(b'\n', &buffer).is_some() {
                since_line = 0;
                due = Instant::now() + options.idle_timeout;
            }
            self.known.pass(&mut buffer);
            if !buffer.is_empty() {
                let began = Instant::now();
                buffer = match timeout(options.answer_within, ingress.feed(buffer)).await {
                    Ok(Ok(used)) => used,
                    Ok(Err(why)) => return Err(ended(&why)),
                    Err(_) => {
                        return Err(End::Late(format!(
                            "there was no room for {}; what was not answered for may or may not be taken in, and a request with an Idempotency-Key may be repeated as it is",
                            humantime::format_duration(options.answer_within)
                        )));
                    }
                };
                // The wait for room was not the client's.
                due += began.elapsed();
            }
            bad.map_err(|why| End::Cut(StatusCode::BAD_REQUEST, why.to_string()))?;
            buffer.reserve(PIECE);
        }
        if let Some(elements) = &self.elements {
            elements.finish().map_err(|why| End::Cut(StatusCode::BAD_REQUEST, why.to_string()))?;
        }
        match self.known.missing() {
            0 => Ok(()),
            missing => {
                let why =
                    format!("an earlier request of this Idempotency-Key had {missing} lines more: it was another body");
                Err(End::Cut(StatusCode::UNPROCESSABLE_ENTITY, why))
            }
        }
    }
}

/// What the refusal of the ingress means to the request.
fn ended(why: &Error) -> End {
    match why {
        Error::Closed => End::Closing,
        Error::TakenOver => End::Cut(StatusCode::CONFLICT, why.to_string()),
        _ => End::Cut(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()),
    }
}

/// Reads what is on its way of a body that is not taken in.
async fn leave(body: Incoming) {
    leave_rest(&mut body::plain(body, Coding::Identity)).await;
}

async fn leave_rest(body: &mut Plain) {
    let rest = async {
        let _ = tokio::io::copy(&mut body.take(LEFTOVER as u64), &mut tokio::io::sink()).await;
    };
    // A client that goes on is not waited for.
    let _ = timeout(LINGER, rest).await;
}
