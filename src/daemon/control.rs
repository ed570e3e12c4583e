use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use tokio::net::{UnixListener, UnixSocket};
use tokio::sync::oneshot;

use super::DaemonError;
use crate::admin::Address;

/// How many connections may wait to be taken.
const BACKLOG: u32 = 64;
/// How long a request that is under way may take to end, once the daemon does.
const GRACE: Duration = Duration::from_secs(2);

/// The control socket, served on a thread of its own until this is dropped: it answers whatever the caller's runtime is
/// busy with.
#[derive(Debug)]
pub(super) struct Control {
    address: Address,
    /// Dropped, it stops the server.
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Control {
    /// Binds the socket in `data_dir`, whose lock is held: a socket that is there is one that a killed daemon left.
    pub(super) fn start(data_dir: &Path, router: Router) -> Result<Self, DaemonError> {
        let address = Address::of(data_dir);
        let address = address.map_err(|why| DaemonError::Control { path: data_dir.join("control.sock"), why })?;
        let cannot = |why| DaemonError::Control { path: address.path().to_owned(), why };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(4).build().map_err(cannot)?;
        let listener = {
            let _inside = runtime.enter();
            bind(&address).map_err(cannot)?
        };
        let ((stop, stopped), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let spawned = std::thread::Builder::new().name("headworks-control".into()).spawn(move || {
            runtime.block_on(serve(listener, router, stopped));
            // A long read of the database is not waited for.
            runtime.shutdown_background();
            drop(end);
        });
        if let Err(why) = spawned {
            let _ = std::fs::remove_file(address.path());
            return Err(cannot(why));
        }
        Ok(Self { address, stop: Some(stop), ended })
    }

    /// Takes no more requests, and waits a moment for those that are under way.
    pub(super) async fn end(mut self) {
        self.stop = None;
        // An error is the thread's word that it has ended.
        let _ = (&mut self.ended).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The lock is held yet, so that this is no successor's.
        let _ = std::fs::remove_file(self.address.path());
    }
}

/// The mode comes between the name and the ear: nobody else can ever connect.
fn bind(address: &Address) -> io::Result<UnixListener> {
    let path = address.path();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("there is something of that name that is no socket; move it away")),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(address.bound())?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

async fn serve(listener: UnixListener, router: Router, stopped: oneshot::Receiver<()>) {
    let (tell, told) = oneshot::channel();
    let stop = async move {
        // Nothing is ever sent: its sender is dropped.
        let _ = stopped.await;
        let _ = tell.send(());
    };
    let patience = async move {
        let _ = told.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop) => {
            if let Err(why) = served {
                tracing::error!(target: "headworks", %why, "the control socket is not served any more");
            }
        }
        () = patience => {}
    }
}
