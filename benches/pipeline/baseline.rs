//! The contestant to beat: a loop without actors, as one would write it by hand for this one job.
//!
//! One thread reads, frames, decodes and groups; with a real store a second one writes. No supervision, no retries, no
//! journal, no budgets: what those cost is what this benchmark shows.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use crate::contest::{Contest, Result, Store};
use crate::report::{Outcome, Tally, ready};
use crate::windows::{Sink, Windows};
use crate::writer::Writer;

/// Read at once, and the longest line.
const READ: usize = 2048 * 1024;

/// How late a window may close or be handed to the store.
const TICK: Duration = Duration::from_millis(20);

/// Takes part in the contest.
pub(crate) fn run(contest: &Contest) -> Result<Outcome> {
    let sink = match contest.store {
        Store::Null => Sink::Null(Tally::default()),
        Store::Sqlite | Store::Index => Sink::Sqlite(Writer::open()?),
    };
    let windows = Rc::new(RefCell::new(Windows::new(sink)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let start = LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let start = ready(listener.local_addr()?)?;
        let clock = tokio::task::spawn_local(tick(Rc::clone(&windows)));
        let mut connections = JoinSet::new();
        for _ in 0..contest.load.connections {
            let (connection, _) = listener.accept().await?;
            connections.spawn_local(receive(connection, Rc::clone(&windows)));
        }
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        clock.abort();
        Ok::<_, Box<dyn std::error::Error>>(start)
    })?;
    // The tasks and their handles went with the local set.
    let windows = Rc::into_inner(windows).ok_or("a task still holds the windows")?.into_inner();
    match windows.close_all()? {
        Sink::Null(tally) => Ok(Outcome { finish: start.finish()?, stored: tally.counts() }),
        Sink::Sqlite(writer) => {
            let database = writer.finish()?;
            Ok(Outcome { finish: start.finish()?, stored: database.counts()? })
        }
    }
}

/// Keeps the time when nothing comes in.
async fn tick(windows: Rc<RefCell<Windows>>) -> Result<()> {
    loop {
        tokio::time::sleep(TICK).await;
        windows.borrow_mut().tick(Instant::now())?;
    }
}

/// One connection, to its end.
async fn receive(connection: TcpStream, windows: Rc<RefCell<Windows>>) -> Result<()> {
    let mut buffer = vec![0; READ];
    let mut filled = 0;
    loop {
        connection.readable().await?;
        match connection.try_read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        let mut windows = windows.borrow_mut();
        let now = Instant::now();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..filled]) {
            windows.push(&buffer[start..end], now)?;
            start = end + 1;
        }
        windows.close_due(now)?;
        if start == 0 && filled == READ {
            return Err(format!("a line is longer than {READ} bytes").into());
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
    if filled > 0 {
        windows.borrow_mut().push(&buffer[..filled], Instant::now())?;
    }
    Ok(())
}
