use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Admin, Problem};
use crate::metrics::{Beside, Format};

/// For so long a scrape waits for a tenant whose code holds its lane. Prometheus itself waits for 10 s.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it may be told in.
pub(super) const TYPES: &[&str] = &["text/plain", "application/openmetrics-text"];

pub(super) async fn show(State(admin): State<Admin>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let format = Format::accepted(&accept.collect::<Vec<_>>().join(","));
    let told = async {
        // Where one is held up, further ones must not hold up all threads for such work.
        let place = admin.scraping.clone().acquire_owned().await.map_err(Problem::internal)?;
        let telling = tokio::task::spawn_blocking(move || {
            let _place = place;
            let beside = Beside::of(&admin.data_dir, &admin.exported);
            admin.metrics.text_with(format, beside)
        });
        telling.await.map_err(Problem::internal)
    };
    let told = tokio::time::timeout(PATIENCE, told).await.map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the numbers cannot be read: code that hangs holds those of a tenant; see `headworks log --what hung`",
        )
    })??;
    Ok(([(header::CONTENT_TYPE, format.content_type())], told).into_response())
}
