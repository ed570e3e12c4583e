use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A line between a client and a server that breaks: each connection, in turn, after so many bytes from the client; once the
/// list is at its end it holds.
pub(super) struct Proxy {
    address: SocketAddr,
    broken: Arc<AtomicUsize>,
}

impl Proxy {
    pub(super) fn between(server: SocketAddr, cuts: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broken = Arc::new(AtomicUsize::new(0));
        let counter = broken.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            let mut cuts = cuts.into_iter();
            for client in listener.incoming().map_while(Result::ok) {
                let (server, cut) = (TcpStream::connect(server).unwrap(), cuts.next());
                let counter = counter.clone();
                std::thread::spawn(move || pass(&client, &server, cut, &counter));
            }
        });
        Self { address, broken }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has broken.
    pub(super) fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }
}

fn pass(mut client: &TcpStream, mut server: &TcpStream, cut: Option<u64>, broken: &AtomicUsize) {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Write);
        });
        let sent = std::io::copy(&mut client.take(cut.unwrap_or(u64::MAX)), &mut { server }).unwrap_or(0);
        if Some(sent) == cut {
            broken.fetch_add(1, Ordering::Relaxed);
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        } else {
            let _ = server.shutdown(Shutdown::Write);
        }
    });
    let _ = server.flush();
}
