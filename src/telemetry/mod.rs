//! Traces and metrics for a collector, by OTLP.
//!
//! Traces are made of what [observers](headworks_actors::Observer) are told anyway: nothing on the way of an event knows of them.
//! Metrics are the families of [`metrics`](crate::metrics), told to another exporter. Everything leaves by one thread that nobody
//! waits for: the queue to it is bounded, and what does not fit is dropped and counted.

mod client;
mod export;
mod span;
mod tracer;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use headworks_actors::Observer;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::client::{Client, headers};
use self::export::{Exporter, Numbers};
use self::tracer::{Told, Tracer};
use crate::config::TelemetryConfig;
use crate::metrics::otlp::text;
use crate::metrics::{Exported, Metrics};
use crate::secret_file;

/// So many spans may wait to be exported.
const QUEUE: usize = 4096;

/// What the file of headers may hold, in bytes.
const MOST_HEADERS: usize = 64 << 10;

/// The end of the exporter may take so much longer than it was told to, before nobody waits for it any more.
const GRACE: Duration = Duration::from_millis(200);

/// Telemetry that is ready to begin.
#[derive(Debug)]
pub(crate) struct Ready {
    config: TelemetryConfig,
    client: Client,
    exported: Exported,
    tell: mpsc::Sender<Told>,
    queue: mpsc::Receiver<Told>,
}

/// Telemetry that is exported. Dropped, it ends without what is left.
#[derive(Debug)]
pub(crate) struct Telemetry {
    stop: oneshot::Sender<Instant>,
    ended: oneshot::Receiver<()>,
}

impl Ready {
    /// As the configuration says; `None` where there is nothing to do. Nobody is spoken to yet.
    ///
    /// # Errors
    /// What cannot be read of it, as a sentence.
    pub(crate) fn of(config: &TelemetryConfig) -> Result<Option<Self>, String> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        if config.metrics_every.is_zero() && config.trace_one_in == 0 {
            return Ok(None);
        }
        let headers = config.headers_file.as_ref().map(|path| {
            let read = secret_file::read(path, MOST_HEADERS).map_err(|why| why.to_string());
            read.and_then(|text| headers(&text))
                .map_err(|why| format!("cannot use the headers in {} (telemetry.headers_file): {why}", path.display()))
        });
        let client = Client::new(endpoint, config.protocol, headers.transpose()?.unwrap_or_default());
        let client = client.map_err(|why| format!("telemetry cannot be exported (telemetry.endpoint): {why}"))?;
        let (tell, queue) = mpsc::channel(QUEUE);
        Ok(Some(Self { config: config.clone(), client, exported: Exported::default(), tell, queue }))
    }

    /// What is exported is counted here.
    pub(crate) fn exported(&self) -> Exported {
        self.exported.clone()
    }

    /// Who is to look on, if traces are wanted.
    pub(crate) fn observer(&self) -> Option<impl Observer + use<>> {
        let one_in = self.config.trace_one_in;
        (one_in > 0).then(|| Tracer::new(one_in, self.tell.clone(), self.exported.clone()))
    }

    /// Begins.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(self, metrics: Metrics, data_dir: PathBuf) -> std::io::Result<Telemetry> {
        let every = Some(self.config.metrics_every).filter(|every| !every.is_zero());
        let exporter = Exporter {
            resource: resource(&self.config),
            client: self.client,
            queue: self.queue,
            numbers: Numbers { metrics, data_dir, every, began: SystemTime::now() },
            exported: self.exported,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ((stop, stopped), (tell_end, ended)) = (oneshot::channel(), oneshot::channel());
        std::thread::Builder::new().name("headworks-otlp".into()).spawn(move || {
            runtime.block_on(exporter.run(stopped));
            // The look-up of a name may hang.
            runtime.shutdown_background();
            let _ = tell_end.send(());
        })?;
        Ok(Telemetry { stop, ended })
    }
}

impl Telemetry {
    /// Exports what is left, until `deadline` at the latest.
    pub(crate) async fn end(self, deadline: Instant) {
        if self.stop.send(deadline).is_ok() {
            // Where code that hangs holds a tenant, its numbers cannot be read.
            let _ = tokio::time::timeout_at(deadline + GRACE, self.ended).await;
        }
    }
}

/// What is said of this process.
fn resource(config: &TelemetryConfig) -> Resource {
    let mut attributes: Vec<KeyValue> = config.attributes().into_iter().map(|(key, value)| text(key, value)).collect();
    let mut set = |key: &str, value: String| {
        // What the operator says counts.
        if !attributes.iter().any(|attribute| attribute.key == key) {
            attributes.push(text(key, value));
        }
    };
    set("service.name", config.service_name.clone());
    set("service.version", env!("CARGO_PKG_VERSION").to_owned());
    set("service.instance.id", instance_id());
    set("process.pid", std::process::id().to_string());
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        set("host.name", host.trim().to_owned());
    }
    Resource { attributes, ..Resource::default() }
}

/// A random UUID, another in each process.
fn instance_id() -> String {
    let random = fastrand::u128(..);
    let version_and_variant = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{version_and_variant:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_is_a_random_uuid() {
        let id = instance_id();
        assert_eq!(id.len(), 36);
        assert_eq!((id.as_bytes()[14], id.matches('-').count()), (b'4', 4), "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(id, instance_id());
    }

    #[test]
    fn what_the_operator_says_of_the_process_counts() {
        let resource_attributes = "service.instance.id=one,team=data".to_owned();
        let told = resource(&TelemetryConfig { resource_attributes, ..TelemetryConfig::default() });
        let named =
            |key: &str| told.attributes.iter().filter(|attribute| attribute.key == key).cloned().collect::<Vec<_>>();
        assert_eq!(named("service.instance.id"), [text("service.instance.id", "one")]);
        assert_eq!(named("service.name"), [text("service.name", "headworks")]);
        assert_eq!((named("team").len(), named("process.pid").len()), (1, 1));
    }
}
