//! The server of a webhook: what is sent to it, and what its answers come to.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use headworks_actors::{Attempt, Batch, BatchId, StorageError, TenantId, UnixMillis};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Response, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::WebhookOptions;
use super::answer::{Verdict, advice, retry_after, verdict};
use super::request::Message;
use super::sign::Secrets;
use crate::text::chain;

type Outcome = Result<(), StorageError>;

/// So much of an answer is read, and so much of that is told.
const LONGEST_ANSWER: usize = 64 << 10;
const TOLD: usize = 200;
/// So many batches that were refused are remembered for their rollbacks.
const REFUSED: usize = 4096;

pub(super) struct Target {
    pub(super) options: WebhookOptions,
    url: Uri,
    rollback_url: Option<Uri>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    known: Mutex<Known>,
}

/// What was learned from answers.
#[derive(Default)]
struct Known {
    /// Until when nothing is to be sent: at all, and of a tenant.
    later: Option<Instant>,
    tenants: HashMap<TenantId, Instant>,
    /// Batches of which it is known that they are not there, and the order in which that was learned.
    refused: HashSet<BatchId>,
    order: VecDeque<BatchId>,
}

impl Known {
    /// How long the server wants to be left alone with events of the tenant.
    fn left_alone(&mut self, tenant: &TenantId, now: Instant) -> Option<Duration> {
        self.tenants.retain(|_, until| *until > now);
        self.later = self.later.filter(|until| *until > now);
        let until = self.tenants.get(tenant).copied().max(self.later)?;
        Some(until - now)
    }

    /// The server is to be asked again at once, whatever it said; whether it was left alone.
    fn ask_again(&mut self, tenant: &TenantId, now: Instant) -> bool {
        let was_left_alone = self.left_alone(tenant, now).is_some();
        self.later = None;
        self.tenants.remove(tenant);
        was_left_alone
    }

    fn is_not_there(&mut self, id: &BatchId) {
        if self.refused.insert(id.clone()) {
            self.order.push_back(id.clone());
            if self.order.len() > REFUSED
                && let Some(oldest) = self.order.pop_front()
            {
                self.refused.remove(&oldest);
            }
        }
    }

    /// Whether it was known not to be there; from here on it may be.
    fn may_be_there(&mut self, id: &BatchId) {
        if self.refused.remove(id) {
            self.order.retain(|other| other != id);
        }
    }
}

/// How a request failed.
struct Failed {
    error: StorageError,
    /// Whether the server has certainly not taken it.
    is_certain: bool,
}

impl Target {
    pub(super) fn new(options: WebhookOptions) -> Result<Self, String> {
        let uri = |name: &str, url: &str| {
            WebhookOptions::check_url(url).map_err(|why| format!("{name} {why}"))?;
            url.parse::<Uri>().map_err(|why| format!("{name} is no address: {why}"))
        };
        let url = uri("url", &options.url)?;
        let rollback_url = options.rollback_url.as_ref().map(|url| uri("rollback_url", url)).transpose()?;
        if let Some(path) = &options.secret_file {
            Secrets::read(path)?;
        }
        let is_tls =
            [Some(&url), rollback_url.as_ref()].into_iter().flatten().any(|url| url.scheme_str() == Some("https"));
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(options.connect_timeout));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls(&options, is_tls)?).https_or_http();
        let connector = connector.enable_http1().wrap_connector(http);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(options.pool_size.max(1));
        Ok(Self { url, rollback_url, client: builder.build(connector), known: Mutex::default(), options })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask_again(&self, tenant: &TenantId) -> bool {
        self.known().ask_again(tenant, Instant::now())
    }

    pub(super) async fn store(&self, batch: &Batch, attempt: Attempt) -> Outcome {
        let id = batch.id();
        let what = format!("store batch {id}");
        let message = Message::batch(batch, attempt).map_err(StorageError::permanent)?;
        let was_refused = self.known().refused.contains(id);
        // Whatever becomes of this call, dropped ones included.
        self.known().may_be_there(id);
        self.send(&what, &self.url, message).await.map_err(|failed| {
            // A first attempt, or those before are known not to have landed.
            if failed.is_certain && (was_refused || attempt.0 == 1) {
                self.known().is_not_there(id);
            }
            failed.error
        })
    }

    pub(super) async fn rollback(&self, id: &BatchId, attempt: Attempt) -> Outcome {
        let what = format!("roll back batch {id}");
        let Some(url) = &self.rollback_url else {
            return if self.known().refused.contains(id) {
                Ok(())
            } else {
                let url = &self.url;
                Err(StorageError::permanent(format!(
                    "cannot {what}: it may be at {url}, and without a rollback_url nobody can be asked to take it back"
                )))
            };
        };
        let message = Message::rollback(id, attempt).map_err(StorageError::permanent)?;
        self.send(&what, url, message).await.map_err(|failed| failed.error)
    }

    pub(super) async fn look(&self) -> Outcome {
        let is_tls = self.url.scheme_str() == Some("https");
        let host = self.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let connecting = tokio::net::TcpStream::connect((host, port));
        let limit = self.options.connect_timeout;
        let away =
            |why: &dyn std::fmt::Display| StorageError::unavailable(format!("cannot connect to {}: {why}", self.url));
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected.map(drop).map_err(|why| away(&why)),
            Err(_) => Err(away(&format!("no answer within {}", humantime::format_duration(limit)))),
        }
    }

    async fn send(&self, what: &str, to: &Uri, message: Message) -> Result<(), Failed> {
        let tenant = message.tenant.clone();
        if let Some(wait) = self.known().left_alone(&tenant, Instant::now()) {
            let detail = format!("cannot {what}: {to} asked to be left alone, for another {}", patience(wait, &tenant));
            return Err(Failed { error: StorageError::unavailable_after(detail, wait), is_certain: true });
        }
        let unready = |why: String| Failed {
            error: StorageError::unavailable(format!("cannot {what}: {why}")),
            is_certain: true,
        };
        let secrets = self.options.secret_file.as_deref().map(Secrets::read).transpose().map_err(unready)?;
        let request = message.request(to.clone(), secrets.as_ref(), self.options.compression, UnixMillis::now());
        let request = request.await.map_err(unready)?;
        let until = Instant::now() + self.options.request_timeout;
        let answer = match tokio::time::timeout_at(until, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                let detail = format!("cannot {what}: {to}: {}", chain(&why));
                return Err(match why.is_connect() {
                    true => Failed { error: StorageError::unavailable(detail), is_certain: true },
                    false => Failed { error: StorageError::transient(detail), is_certain: false },
                });
            }
            Err(_) => {
                let most = self.options.request_timeout;
                let detail = format!("cannot {what}: {to} did not answer within {}", humantime::format_duration(most));
                return Err(Failed { error: StorageError::transient(detail), is_certain: false });
            }
        };
        self.judge(what, to, &tenant, answer, until).await
    }

    async fn judge(
        &self,
        what: &str,
        to: &Uri,
        tenant: &TenantId,
        answer: Response<Incoming>,
        until: Instant,
    ) -> Result<(), Failed> {
        let (head, body) = answer.into_parts();
        let after =
            head.headers.get(RETRY_AFTER).and_then(|after| retry_after(after.to_str().ok()?, SystemTime::now()));
        let verdict = verdict(head.status, after);
        // To its end, so that the connection can be used again; what it says is of no weight beside its status.
        let body = tokio::time::timeout_at(until, Limited::new(body, LONGEST_ANSWER).collect()).await;
        if verdict == Verdict::Done {
            return Ok(());
        }
        let mut detail = format!("cannot {what}: {to} answers {}{}", head.status, advice(head.status));
        if let Ok(Ok(body)) = body
            && let told = told(&body.to_bytes())
            && !told.is_empty()
        {
            let _ = write!(detail, "; it says {told:?}");
        }
        let (error, is_certain) = match verdict {
            Verdict::Done | Verdict::Refused => (StorageError::permanent(detail), true),
            Verdict::Outage => (StorageError::unavailable(detail), true),
            Verdict::Passing => (StorageError::transient(detail), false),
            Verdict::TenantLater(wait) => {
                self.known().tenants.insert(tenant.clone(), Instant::now() + wait);
                let asks =
                    format!("{detail}; it asks to be left alone with this tenant for {}", patience(wait, tenant));
                (StorageError::unavailable_after(asks, wait), true)
            }
            Verdict::Later(wait) => {
                self.known().later = Some(Instant::now() + wait);
                let asks = format!("{detail}; it asks to be left alone for {}", patience(wait, tenant));
                (StorageError::unavailable_after(asks, wait), true)
            }
        };
        Err(Failed { error, is_certain })
    }
}

/// How long, and how not to wait for so long.
fn patience(wait: Duration, tenant: &TenantId) -> String {
    let wait = Duration::from_secs(wait.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX));
    format!("{} (`headworks tenants resume {tenant}` has it asked before)", humantime::format_duration(wait))
}

/// The beginning of an answer, in one line.
fn told(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Those that the system trusts, or those of the file.
fn tls(options: &WebhookOptions, is_tls: bool) -> Result<ClientConfig, String> {
    if let Some(path) = &options.ca_file {
        return crate::tls::client(path);
    }
    let config = ClientConfig::builder_with_provider(crate::tls::provider());
    let config = config.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
    let config = match is_tls {
        true => config
            .with_native_roots()
            .map_err(|why| format!("the system's certificates cannot be read: {why}; name a ca_file"))?,
        false => config.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}
