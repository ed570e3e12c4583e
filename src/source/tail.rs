mod follow;
mod pattern;
mod positions;
mod watcher;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use headworks_actors::{IngressSpec, Intake, Lost, Source};
use tokio::sync::mpsc;

pub use pattern::{InvalidPattern, PathPattern};
use positions::Positions;
use watcher::{Looked, Watcher};

/// How often it is looked for files, and for what was appended to them.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Files that grow, and are renamed and replaced: the logs of other programs. One ingress a file, and one stream, so that the
/// journal knows how many of its lines it has: with a durable journal each line is taken in once, however the process ends.
///
/// A file is known by its place on its disk (device and inode), the beginning of it, and what was last read: one that was renamed is
/// read on from where it was, and the one that took its name from its beginning, once the older one is read to its end. A file that was
/// cut, or written anew in its place, is read from its beginning; what of it is known to have been cut unread is logged and counted. A
/// last line without its `\n` waits for it, until the file is deleted. Files are looked at four times a second: that works on every
/// file system.
#[derive(Debug)]
pub struct TailSource {
    name: String,
    watcher: Watcher,
    lost: Arc<AtomicU64>,
}

/// What a [`TailSource`] reads.
#[derive(Debug, Clone)]
pub struct TailOptions {
    /// Which files. Include the names that rotation gives them, as in `/var/log/app.log*`: else what was rotated while nobody
    /// looked is found again only if it was known before.
    pub pattern: PathPattern,
    /// Where it is kept which file is which stream, and what of it is settled. Made if it is not there.
    pub positions: PathBuf,
    /// How many files are open at once; further ones wait until others are read to their end. Default 1,024.
    pub max_files: usize,
}

impl TailOptions {
    /// Files of a pattern, with up to 1,024 open.
    #[must_use]
    pub fn new(pattern: PathPattern, positions: impl Into<PathBuf>) -> Self {
        Self { pattern, positions: positions.into(), max_files: 1_024 }
    }
}

impl TailSource {
    /// Reads the positions; files are read once the source is added to a system. Lines are decoded as `spec` says, or, where the
    /// pattern has `{tenant}`, are events of that tenant as they are. The framing of `spec` is to be lines.
    ///
    /// # Errors
    /// The positions cannot be read: to begin without them would be to take in everything again.
    pub fn open(name: impl Into<String>, spec: IngressSpec, options: TailOptions) -> io::Result<Self> {
        let name = name.into();
        let positions = Positions::open(options.positions.clone())?;
        let lost = Arc::new(AtomicU64::new(0));
        let watcher = Watcher::new(name.clone(), spec, options, positions, lost.clone());
        Ok(Self { name, watcher, lost })
    }

    /// How many bytes are known to have been cut off, deleted or replaced before they were read, as it grows.
    #[must_use]
    pub fn lost_bytes(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }
}

impl Source for TailSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(self: Box<Self>, intake: Intake) -> LocalBoxFuture<'static, Result<(), String>> {
        async move {
            let mut watcher = self.watcher;
            let (running, mut ended) = mpsc::channel::<()>(1);
            let mut closing = std::pin::pin!(intake.closing());
            let mut looks = tokio::time::interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = &mut closing => break,
                    _ = looks.tick() => {}
                }
                let looked;
                (watcher, looked) = off_thread(watcher, Watcher::look).await?;
                tell(&self.name, &intake, &looked);
                for job in looked.jobs {
                    let running = running.clone();
                    intake.spread(move |intake| {
                        async move {
                            follow::follow(&intake, job).await;
                            drop(running);
                        }
                        .boxed_local()
                    });
                }
            }
            drop(running);
            // What they had read is fed by then.
            let _ = ended.recv().await;
            let (_, looked) = off_thread(watcher, Watcher::end).await?;
            tell(&self.name, &intake, &looked);
            Ok(())
        }
        .boxed_local()
    }
}

fn tell(name: &str, intake: &Intake, looked: &Looked) {
    for (bytes, why) in &looked.gone {
        intake.lost(name, Lost::Bytes(*bytes), why);
    }
    match &looked.wrong {
        Some(why) => intake.fails_in_part(name, why, Some(LOOK_EVERY)),
        None => intake.works(name),
    }
}

/// Disks are slow.
async fn off_thread<T: Send + 'static>(
    mut watcher: Watcher,
    work: impl FnOnce(&mut Watcher) -> T + Send + 'static,
) -> Result<(Watcher, T), String> {
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&mut watcher);
        (watcher, done)
    });
    done.await.map_err(|why| format!("looking for files failed: {why}"))
}
