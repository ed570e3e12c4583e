//! `headworks top`: what a running daemon does, on a terminal, once a second.
//!
//! [`state`] is what is known and chosen, [`draw`] makes a frame of it and nothing else; the daemon is asked on a thread of its own,
//! so that keys are answered however long it takes.

mod draw;
mod feed;
mod state;

use std::io::{IsTerminal, stdout};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{SignalKind, signal};

use super::data::Data;
use super::exit::Exit;
use super::say;
use super::table::{json, screen};
use feed::Feed;
use state::{Key, Look, Next, State};

/// What `headworks top` takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopArgs {
    /// Print one frame as text and end; so it is where stdout is no terminal
    #[arg(long)]
    once: bool,
    /// Print what a frame would show as one JSON document and end
    #[arg(long)]
    json: bool,
}

type Failure = (Exit, String);

/// A second, for rates.
const APART: Duration = Duration::from_secs(1);
/// How often is looked whether the terminal is still there.
const GONE: Duration = Duration::from_secs(1);

/// How long it may take to leave after a signal.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a key is waited for before what the daemon said meanwhile is looked at.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn run(data: &Data, args: &TopArgs) -> Result<Exit, Failure> {
    let mut state = State::new(colours());
    if args.once || args.json || !stdout().is_terminal() {
        let text = once(data, args, &mut state)?;
        return Ok(say(text.as_bytes()));
    }
    let feed = Feed::start(data.clone()).map_err(|why| (Exit::Internal, format!("cannot start a thread: {why}")))?;
    let ended = signals().map_err(|why| (Exit::Internal, format!("cannot listen for signals: {why}")))?;
    let failed = |why: std::io::Error| (Exit::Io, format!("cannot draw on the terminal: {why}"));
    // From here on the terminal is not as it was: whichever way this ends, a panic included, it is put back.
    let _restored = Restore;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    watch(&mut terminal, &mut state, &feed, &ended).map_err(failed)?;
    Ok(Exit::Ok)
}

/// See <https://no-color.org>.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Puts the terminal back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to put back, and nobody to tell.
        let _ = ratatui::try_restore();
    }
}

/// Tells of a signal that is to end the program: whoever sends one must find the terminal as it was, too.
fn signals() -> std::io::Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _in_runtime = runtime.enter();
        [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()].map(signal)
    };
    if let Some(why) = signals.iter_mut().find_map(|signal| signal.as_mut().err()) {
        return Err(std::io::Error::new(why.kind(), why.to_string()));
    }
    let (tell, told) = channel();
    std::thread::Builder::new().name("headworks-top-signals".to_owned()).spawn(move || {
        let mut signals: Vec<_> = signals.into_iter().flatten().collect();
        let signal = futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
        runtime.block_on(futures::future::select(signal, std::pin::pin!(terminal_is_gone())));
        // Where nobody takes it, the program has ended.
        let _ = tell.send(());
        // Whoever waits for keys of a terminal that is gone may never look up.
        std::thread::sleep(LEAVE);
        let _ = ratatui::try_restore();
        std::process::exit(0);
    })?;
    Ok(told)
}

/// A terminal that is gone tells so by a signal only those of its session, and whoever reads keys from it reads nothing for ever.
async fn terminal_is_gone() {
    while stdout().is_terminal() {
        tokio::time::sleep(GONE).await;
    }
}

fn watch(terminal: &mut DefaultTerminal, state: &mut State, feed: &Feed, ended: &Receiver<()>) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| draw::draw(frame, state))?;
        loop {
            if ended.try_recv().is_ok() {
                return Ok(());
            }
            let told = match feed.told.try_recv() {
                Ok(told) => Some(told),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return Err(std::io::Error::other("the thread that asks has ended")),
            };
            if let Some(told) = told {
                state.told(told);
                break;
            }
            if !event::poll(LOOK)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let is_ctrl_c = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
                    match if is_ctrl_c {
                        Next::Quit
                    } else {
                        pressed(key.code).map_or(Next::Draw, |key| state.press(key))
                    } {
                        Next::Quit => return Ok(()),
                        Next::Ask => feed.ask(state.opened()),
                        Next::Draw => {}
                    }
                    break;
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}

fn pressed(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Move(-1),
        KeyCode::Down => Key::Move(1),
        KeyCode::PageUp => Key::Move(-10),
        KeyCode::PageDown => Key::Move(10),
        KeyCode::Home => Key::Move(isize::MIN),
        KeyCode::End => Key::Move(isize::MAX),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}

/// One frame as text, or what it shows as JSON, by two looks a second apart.
fn once(data: &Data, args: &TopArgs, state: &mut State) -> Result<String, Failure> {
    let mut asker = feed::Asker::new(data.clone());
    state.told(Ok(asker.ask(None)?));
    std::thread::sleep(APART);
    let log = asker.log()?;
    state.told(Ok(Look { log, ..asker.ask(None)? }));
    if args.json {
        return json(&state.document()).map_err(|why| (Exit::Internal, why.to_string()));
    }
    let width = u16::try_from(screen().unwrap_or(80)).unwrap_or(80).max(80);
    Ok(text(state, width, 24))
}

/// A frame as text.
fn text(state: &State, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| draw::draw(frame, state));
    let cells = frame.buffer.content();
    let lines = cells.chunks(usize::from(width)).map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests;
