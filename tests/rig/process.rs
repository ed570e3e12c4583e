use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;

use serde_json::Value;

use super::DEADLINE;

/// A program that runs. It does not outlive its test.
pub(crate) struct Process {
    child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    /// What it says on stderr, line by line; closed when the process has ended.
    log: Receiver<String>,
    said: Vec<String>,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    /// The same, if the program did what was asked.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        self.with(0)
    }

    /// The same, if the program ended with this code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.err);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let out = std::thread::spawn(move || {
            let mut out = vec![];
            stdout.read_to_end(&mut out).unwrap();
            out
        });
        let (tell, log) = channel();
        // Ends with the pipe, or when nobody listens any more.
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Self { child, out: Some(out), log, said: vec![] }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its stdin and closes it.
    pub(crate) fn feed(mut self, bytes: &[u8]) -> Self {
        self.stdin(bytes);
        self.child.stdin = None;
        self
    }

    /// Writes to its stdin and leaves it open.
    pub(crate) fn stdin(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap();
    }

    /// Waits until it logs this message, and gives back the whole entry.
    #[track_caller]
    pub(crate) fn says(&mut self, message: &str) -> Value {
        self.says_in("message", message)
    }

    /// The same of a program that has its messages under another key.
    #[track_caller]
    pub(crate) fn says_in(&mut self, key: &str, message: &str) -> Value {
        loop {
            let line = match self.log.recv_timeout(DEADLINE) {
                Ok(line) => line,
                Err(why) => panic!("it did not say {message:?} ({why}), but:\n{}", self.said.join("\n")),
            };
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            self.said.push(line);
            if entry[key] == message {
                return entry;
            }
        }
    }

    /// Waits until it warns of something, and gives back the whole entry.
    #[cfg(feature = "nats")]
    #[track_caller]
    pub(crate) fn next_warning(&mut self) -> Value {
        loop {
            let line = self.log.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|why| panic!("it warned of nothing ({why}):\n{}", self.said.join("\n")));
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            self.said.push(line);
            if entry["level"] == "WARN" {
                return entry;
            }
        }
    }

    /// Waits until it listens, and says where.
    #[track_caller]
    pub(crate) fn listens(&mut self) -> SocketAddr {
        self.says("listening")["address"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until it listens, and says where; none where it ended before.
    pub(crate) fn listens_unless_it_ends(&mut self) -> Option<SocketAddr> {
        loop {
            let line = match self.log.recv_timeout(DEADLINE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("neither did it listen nor end:\n{}", self.said.join("\n")),
            };
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            self.said.push(line);
            if entry["message"] == "listening" {
                return entry["address"].as_str().and_then(|address| address.parse().ok());
            }
        }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// Ends it without a warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.ended().code, None);
    }

    /// Waits until it has died without a warning: at a fault point.
    #[track_caller]
    pub(crate) fn died(self) {
        let ended = self.ended();
        assert_eq!(ended.code, None, "it was to be killed, but ended: {}", ended.err);
    }

    /// The memory it has, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn terminated(self) -> Ended {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        loop {
            match self.log.recv_timeout(DEADLINE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end, but said:\n{}", self.said.join("\n")),
            }
        }
        let code = self.child.wait().unwrap().code();
        let out = self.out.take().unwrap().join().unwrap();
        Ended { code, out, err: std::mem::take(&mut self.said).join("\n") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
