use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{IngressHandle, IngressSpec, Intake, Source};
use tokio::sync::mpsc;

/// How much is read at once, in bytes.
const BLOCK: usize = 256 << 10;

/// A file, or standard input: anything that is read to its end.
///
/// It is read on a thread of its own, which is at most two blocks ahead of what was taken in. A read that blocks, as on a
/// terminal, does not hold up the end of the system. Where the system ends first, a line that was read in part is forgotten:
/// it is not cut off, it is still where it came from.
pub struct ReaderSource {
    name: String,
    spec: IngressSpec,
    reader: Box<dyn Read + Send>,
    taken_in: Arc<AtomicU64>,
}

impl std::fmt::Debug for ReaderSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ReaderSource {
    /// Reads `reader` to its end. `name` stands in errors.
    pub fn new(name: impl Into<String>, spec: IngressSpec, reader: impl Read + Send + 'static) -> Self {
        Self { name: name.into(), spec, reader: Box::new(reader), taken_in: Arc::default() }
    }

    /// How many bytes have been taken in, as it grows.
    #[must_use]
    pub fn taken_in(&self) -> Arc<AtomicU64> {
        self.taken_in.clone()
    }
}

impl Source for ReaderSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let Self { name, spec, reader, taken_in } = *self;
            let (send, mut blocks) = mpsc::channel(2);
            std::thread::Builder::new()
                .name("headworks-reader".to_owned())
                .spawn(move || read_all(reader, &send))
                .map_err(|why| format!("cannot start a thread to read {name}: {why}"))?;
            let ingress = intake.open(spec).await.map_err(|why| why.to_string())?;
            let mut closing = std::pin::pin!(intake.closing());
            loop {
                let block = tokio::select! {
                    biased;
                    () = &mut closing => return Ok(()),
                    block = blocks.recv() => block,
                };
                match block {
                    Some(Ok(bytes)) => {
                        let read = bytes.len() as u64;
                        if ingress.feed(bytes).await.is_err() {
                            return Ok(());
                        }
                        taken_in.fetch_add(read, Ordering::Relaxed);
                    }
                    Some(Err(why)) => {
                        finish(&ingress, false).await?;
                        let after = taken_in.load(Ordering::Relaxed);
                        return Err(format!("reading {name} failed after {after} bytes: {why}"));
                    }
                    None => return finish(&ingress, true).await,
                }
            }
        }
        .boxed_local()
    }
}

async fn finish(ingress: &IngressHandle, clean: bool) -> Result<(), String> {
    ingress.finish(clean).await.map_err(|why| why.to_string())
}

fn read_all(mut reader: Box<dyn Read + Send>, blocks: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut block = vec![0; BLOCK];
        let read = match reader.read(&mut block) {
            Ok(0) => return,
            Ok(read) => read,
            Err(why) if why.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(why) => {
                // Whoever is gone does not want to know.
                let _ = blocks.blocking_send(Err(why));
                return;
            }
        };
        block.truncate(read);
        if blocks.blocking_send(Ok(block)).is_err() {
            return;
        }
    }
}
