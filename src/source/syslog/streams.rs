use std::time::Duration;

use headworks_actors::{IngressSpec, Intake};
use tokio::sync::OwnedSemaphorePermit;

use crate::source::allowed::{Bound, Peer};
use crate::source::idle::Idle;
use crate::source::listener::{Connection, Serve};
use crate::source::octet_counted::Reframer;
use crate::source::tcp::{Gate, finish, goodbye, read_all};

/// Messages of TCP connections.
#[derive(Debug, Clone)]
pub(super) struct Messages {
    pub(super) spec: IngressSpec,
    pub(super) max_frame: usize,
    pub(super) idle: Option<Duration>,
}

impl Serve for Messages {
    async fn serve(
        self,
        mut stream: impl Connection,
        peer: Peer,
        intake: Intake,
        _place: OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let Self { spec, max_frame, idle } = self;
        let spec = match peer.allowed {
            Some(allowed) => spec.decoded_by(|decoder| Bound { decoder, allowed: Some(allowed) }),
            None => spec,
        };
        let mut idle = Idle::new(idle, spec.framing());
        let ingress = intake.open(spec).await.map_err(|why| why.to_string())?;
        let mut reframer = Reframer::new(max_frame);
        let reframe = |bytes: &mut Vec<u8>| reframer.reframe(bytes);
        let end = read_all(&mut stream, vec![], &ingress, &intake, &Gate::default(), &mut idle, reframe).await;
        finish(&ingress, &end, Some(reframer)).await?;
        goodbye(stream).await;
        end.into_result()
    }
}
