//! Sends bytes that are ready in memory, each stream over a connection of its own, all at once, as fast as they are taken.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

/// `begins` is told right before the first byte.
pub(crate) fn blast<B>(streams: &[B], address: SocketAddr, begins: impl FnOnce()) -> io::Result<()>
where
    B: AsRef<[u8]> + Sync,
{
    let connections = streams.iter().map(|_| TcpStream::connect(address)).collect::<io::Result<Vec<_>>>()?;
    begins();
    thread::scope(|scope| {
        let senders: Vec<_> = connections
            .into_iter()
            .zip(streams)
            .map(|(mut connection, stream)| {
                let send =
                    move || connection.write_all(stream.as_ref()).and_then(|()| connection.shutdown(Shutdown::Write));
                scope.spawn(send)
            })
            .collect();
        senders.into_iter().try_for_each(|sender| sender.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))))
    })
}
