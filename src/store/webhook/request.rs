//! Requests, ready to be sent.

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use headworks_actors::{Attempt, Batch, BatchId, TenantId, UnixMillis};
use http_body_util::Full;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Uri};
use tokio::io::AsyncWriteExt as _;

use super::Compression;
use super::sign::Secrets;
use crate::store::files::line::push_line;

/// What is sent, whoever it is sent to.
pub(super) struct Message {
    pub(super) tenant: TenantId,
    /// The same for each attempt.
    key: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Message {
    /// A batch, an event a line.
    pub(super) fn batch(batch: &Batch, attempt: Attempt) -> Result<Self, String> {
        let mut body = Vec::with_capacity(batch.body_bytes() + batch.len());
        batch.events().for_each(|event| push_line(event.body, &mut body));
        let mut message = Self::new(batch.id(), attempt, batch.id().to_string(), "application/x-ndjson", body)?;
        message.headers.insert(HeaderName::from_static("headworks-events"), HeaderValue::from(batch.len()));
        Ok(message)
    }

    /// The wish that attempts at a batch up to this one be taken back.
    pub(super) fn rollback(id: &BatchId, attempt: Attempt) -> Result<Self, String> {
        let wish = serde_json::json!({ "batch": id.to_string(), "tenant": id.tenant, "attempt": attempt.0 });
        Self::new(
            id,
            attempt,
            format!("{id}/rollback/{}", attempt.0),
            "application/json",
            wish.to_string().into_bytes(),
        )
    }

    fn new(id: &BatchId, attempt: Attempt, key: String, kind: &'static str, body: Vec<u8>) -> Result<Self, String> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|why| format!("{text:?} is no header: {why}"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("headworks/", env!("CARGO_PKG_VERSION"))));
        headers.insert(HeaderName::from_static("idempotency-key"), value(&key)?);
        headers.insert(HeaderName::from_static("headworks-tenant"), value(id.tenant.as_str())?);
        headers.insert(HeaderName::from_static("headworks-attempt"), HeaderValue::from(attempt.0));
        Ok(Self { tenant: id.tenant.clone(), key, headers, body })
    }

    /// Signed as it is `now`, and compressed.
    pub(super) async fn request(
        self,
        to: Uri,
        secrets: Option<&Secrets>,
        compression: Compression,
        now: UnixMillis,
    ) -> Result<Request<Full<Bytes>>, String> {
        let Self { key, mut headers, body, .. } = self;
        if let Some(secrets) = secrets {
            // A dot divides id, time and body.
            let (id, timestamp) = (key.replace('.', "%2E"), now.0.div_euclid(1000));
            let value = |text: &str| HeaderValue::from_str(text).map_err(|why| why.to_string());
            headers.insert(HeaderName::from_static("webhook-signature"), value(&secrets.sign(&id, timestamp, &body))?);
            headers.insert(HeaderName::from_static("webhook-id"), value(&id)?);
            headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp));
        }
        let (body, encoding) = compressed(body, compression).await.map_err(|why| why.to_string())?;
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let mut request = Request::post(to).body(Full::new(body.into())).map_err(|why| why.to_string())?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

async fn compressed(body: Vec<u8>, compression: Compression) -> std::io::Result<(Vec<u8>, Option<&'static str>)> {
    Ok(match compression {
        Compression::None => (body, None),
        Compression::Gzip => {
            let mut encoder = GzipEncoder::new(vec![]);
            encoder.write_all(&body).await?;
            encoder.shutdown().await?;
            (encoder.into_inner(), Some("gzip"))
        }
        Compression::Zstd => {
            let mut encoder = ZstdEncoder::new(vec![]);
            encoder.write_all(&body).await?;
            encoder.shutdown().await?;
            (encoder.into_inner(), Some("zstd"))
        }
    })
}
