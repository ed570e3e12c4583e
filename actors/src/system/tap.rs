use tokio::time::Instant;

use super::handle::System;
use crate::observe::{Tap, TapOptions};

impl System {
    /// Opens a tap: from now on a sample of the events as they are accepted, at a bounded rate. The stream never waits for who
    /// reads: what is not taken in time is missed, and counted. What hooks of events drop, and what is refused, is not accepted and
    /// not told; what a hook fails on neither. While no tap is open it costs nothing.
    ///
    /// Events are told as they are: see [`Redaction`](crate::Redaction) for what must not be shown.
    ///
    /// ```
    /// # use headworks_actors::{System, TapItem, TapOptions, TenantSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let system = System::builder().start()?;
    /// let acme = system.spawn(TenantSpec::new("acme")?).await?;
    /// let mut tap = system.tap(TapOptions::default());
    /// acme.offer(["a door opened"]).await?;
    /// let TapItem::Event(event) = tap.next().await else { panic!("nothing was missed") };
    /// assert_eq!((event.tenant.as_str(), &*event.body), ("acme", &b"a door opened"[..]));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tap(&self, options: TapOptions) -> Tap {
        self.shared.taps.open(options, Instant::now())
    }
}
