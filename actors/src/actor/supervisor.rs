//! The root: starts the others on the system's thread, and does what handles ask for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler, MessageResult, Supervised};

use super::ingress::Ingress;
use super::message::{OpenIngress, Run, Spawn};
use super::registry::{Phase, Shared};
use super::stage::Stage;
use super::supervise::{Child, supervise};
use crate::model::{Error, Role, TenantId};
use crate::port::spawn;

pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    stage: Rc<RefCell<Stage>>,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, stage: Rc<RefCell<Stage>>) -> Self {
        Self { shared, stage }
    }

    fn open(&self) -> Result<(), Error> {
        if self.shared.phase() == Phase::Running { Ok(()) } else { Err(Error::Closed) }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

impl Supervised for Supervisor {
    fn restarting(&mut self, _: &mut Self::Context) {
        *self = Self::new(self.shared.clone(), self.stage.clone());
    }
}

impl Child for Supervisor {
    const ROLE: Role = Role::Supervisor;
}

impl Handler<Spawn> for Supervisor {
    type Result = Result<TenantId, Error>;

    fn handle(&mut self, Spawn(spec): Spawn, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("supervisor/Spawn", None);
        self.open()?;
        let slot = match self.shared.unclaimed(&spec) {
            Some(slot) => slot,
            None => self.shared.new_slot(spec)?,
        };
        slot.start(&self.shared);
        Ok(slot.id.clone())
    }
}

impl Handler<OpenIngress> for Supervisor {
    type Result = Result<Addr<Ingress>, Error>;

    fn handle(&mut self, OpenIngress { spec, stream }: OpenIngress, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("supervisor/OpenIngress", None);
        self.open()?;
        let ingress = Ingress::new(spec, stream, self.shared.clone(), self.stage.clone());
        Ok(supervise(&self.shared, ingress).addr)
    }
}

impl Handler<Run> for Supervisor {
    type Result = MessageResult<Run>;

    fn handle(&mut self, Run(make): Run, _: &mut Self::Context) -> Self::Result {
        self.shared.panic_points.pass("supervisor/Run", None);
        // On a task of its own: what panics in there is the task's end, not the supervisor's.
        spawn(async move { make().await });
        MessageResult(())
    }
}
