//! `headworks top` on a terminal, of which `script` is the other end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod screen;

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use screen::Screen;

use crate::rig::{DEADLINE, Place, Process, lines, send};

/// A shell on a terminal of 80 by 24, in which it runs `headworks top` and tells how the terminal is before and after.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    out: Receiver<Vec<u8>>,
    screen: Screen,
}

impl Terminal {
    fn top(place: &Place) -> Self {
        Self::run(place, concat!(env!("CARGO_BIN_EXE_headworks"), " top --data data"))
    }

    fn run(place: &Place, top: &str) -> Self {
        let shell = format!(
            "stty rows 24 cols 80; echo before $(stty -g) .; sh -c 'echo $$ > pid; exec {top}'; echo ended with $?; echo after $(stty -g) .; echo done"
        );
        // Its environment without what is ours.
        let bare = place.command(&[]);
        let mut script = Command::new("script");
        script.args(["-qec", &shell, "/dev/null"]).current_dir(place.path(""));
        script.envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm-256color");
        script.env_remove("NO_COLOR").env("SHELL", "/bin/sh");
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, out) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                if tell.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, out, screen: Screen::new(80, 24) }
    }

    fn press(&mut self, keys: &str) -> &mut Self {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).unwrap();
        self
    }

    /// Waits until it shows all of this.
    #[track_caller]
    fn shows(&mut self, texts: &[&str]) -> String {
        self.until(&format!("{texts:?}"), |text| texts.iter().all(|part| text.contains(part)))
    }

    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let text = self.screen.text();
            if is(&text) {
                return text;
            }
            match self.out.recv_timeout(Duration::from_secs(1)) {
                Ok(bytes) => self.screen.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended and did not show {what}, but:\n{text}"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            assert!(begun.elapsed() < DEADLINE, "it does not show {what}, but:\n{text}");
        }
    }

    fn signal(&self, place: &Place, name: &str) {
        let pid = std::fs::read_to_string(place.path("pid")).unwrap();
        let kill = format!("kill -s {name} {}", pid.trim());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// It has ended by itself, and the terminal is as it was.
    #[track_caller]
    fn is_as_it_was(&mut self) {
        let text = self.until("its end", |text| text.contains("done"));
        assert!(text.contains("ended with 0"), "{text}");
        // The modes are longer than a line.
        let flat = text.replace('\n', "");
        let modes = |word: &str| {
            let rest = flat.split_once(word).unwrap_or_else(|| panic!("{text}")).1;
            rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == ':').collect::<String>()
        };
        let (before, after) = (modes("before "), modes("after "));
        assert!(before.len() > 20 && before.contains(':'), "{text}");
        assert_eq!(before, after, "{text}");
        assert!(!self.screen.is_alternate && self.screen.is_cursor_seen, "{text}");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_drive_it_and_q_puts_the_terminal_back() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    send(daemon.listens(), &[&lines("acme", 0..3)[..], &lines("bolt", 0..2), b"no JSON\n"].concat());
    place.until("SELECT count(*) FROM events", 5);
    let mut top = Terminal::top(&place);
    let frame =
        top.shows(&["headworks up", "2 tenants", "acme", "bolt", "stored 5", "malformed 1", "? help", "opened"]);
    assert!(frame.lines().count() == 24, "{frame}");
    assert!(top.screen.is_alternate && !top.screen.is_cursor_seen);
    top.press("?").shows(&["sort by the next column", "q, Ctrl-C"]);
    top.press("x").until("no help", |text| !text.contains("sort by the next column"));
    top.press("/bo").shows(&["1 tenants with /bo_"]);
    top.press("\r\r").shows(&["bolt (Esc: back)", "bolt: active", "events     2 accepted = 2 stored"]);
    top.press("\x1b").shows(&["1 tenants with /bo"]);
    top.press("\x1b").shows(&["2 tenants", "acme"]);
    top.press("q").is_as_it_was();
    daemon.terminated().succeeded();
}

#[test]
fn a_signal_and_ctrl_c_put_the_terminal_back() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    daemon.listens();
    for signal in ["TERM", "HUP", "INT", "a key"] {
        let mut top = Terminal::top(&place);
        top.shows(&["headworks up", "0 tenants"]);
        match signal {
            "a key" => _ = top.press("\x03"),
            name => top.signal(&place, name),
        }
        top.is_as_it_was();
    }
    daemon.terminated().succeeded();
}

#[test]
fn it_ends_with_its_terminal() {
    let top = concat!(env!("CARGO_BIN_EXE_headworks"), " top --data data");
    ends_with_its_terminal(top);
    // No signal tells one of another session.
    ends_with_its_terminal(&format!("setsid {top}"));
}

fn ends_with_its_terminal(top: &str) {
    let place = Place::new();
    let mut top = Terminal::run(&place, top);
    top.shows(&["headworks GONE"]);
    let pid = std::fs::read_to_string(place.path("pid")).unwrap();
    drop(top);
    let (begun, process) = (Instant::now(), format!("/proc/{}", pid.trim()));
    while std::path::Path::new(&process).exists() {
        assert!(begun.elapsed() < DEADLINE, "it goes on without a terminal");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn it_says_that_the_daemon_is_gone_and_goes_on_when_there_is_one_again() {
    let place = Place::new();
    let mut daemon = Process::spawn(&mut place.daemon());
    send(daemon.listens(), &lines("acme", 0..3));
    place.until("SELECT count(*) FROM events", 3);
    let mut top = Terminal::top(&place);
    top.shows(&["headworks up", "acme"]);
    daemon.terminated().succeeded();
    top.shows(&["headworks GONE", "no daemon runs on data", "acme", "(trying again)"]);
    let mut daemon = Process::spawn(&mut place.daemon());
    send(daemon.listens(), &lines("zen", 0..1));
    top.shows(&["headworks up", "zen", "? help"]);
    top.press("q").is_as_it_was();
    daemon.terminated().succeeded();
}

#[test]
fn without_a_daemon_it_says_so_and_touches_no_terminal() {
    let place = Place::new();
    let mut top = Terminal::top(&place);
    top.shows(&["headworks GONE", "no daemon runs on data"]);
    top.press("q").is_as_it_was();
    let ended = place.run(&["top", "--data", "data", "--once"]).with(69);
    assert!(ended.err.contains("no daemon runs on data"), "{}", ended.err);
}
