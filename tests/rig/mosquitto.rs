//! A broker of a test's own, Mosquitto of Debian, which `.ci/run` installs, and its clients: what they say and what they are told.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use tempfile::TempDir;

use super::DEADLINE;

const PACKAGE: &str = "Mosquitto is in Debian's packages mosquitto and mosquitto-clients, which .ci/run installs";
const SECURITY: &str = "mosquitto_dynamic_security.so";

/// A broker. It does not outlive its test.
pub(crate) struct Mosquitto {
    dir: TempDir,
    port: u16,
    settings: String,
    broker: Option<Child>,
    /// What it says, line by line.
    log: Option<Mutex<Receiver<String>>>,
}

impl Mosquitto {
    /// One that everybody may use, and that keeps sessions and what they wait for over a restart.
    pub(crate) fn start() -> Self {
        let mut mosquitto = Self::prepared("allow_anonymous true\n");
        mosquitto.restart();
        mosquitto
    }

    /// With these lines in its configuration, in which DIR is a directory of its own; it is not started yet.
    pub(crate) fn prepared(settings: &str) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        // None that the system gives to who asks for any: another test may do so before the broker is up.
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(is_free).unwrap();
        Self { dir, port, settings: settings.to_owned(), broker: None, log: None }
    }

    /// One that lets everybody connect, and nobody subscribe.
    pub(crate) fn unsubscribable() -> Self {
        let found = Command::new("find").args(["/usr/lib", "-name", SECURITY]).output().unwrap();
        let plugin = String::from_utf8(found.stdout).unwrap();
        assert!(plugin.contains(SECURITY), "{PACKAGE}");
        let settings =
            format!("allow_anonymous true\nplugin {}\nplugin_opt_config_file DIR/roles.json\n", plugin.trim());
        let mosquitto = Self::prepared(&settings);
        mosquitto.own(
            "roles.json",
            r#"{"defaultACLAccess":{"publishClientSend":true,"publishClientReceive":true,"subscribe":false,"unsubscribe":true},
                "clients":[],"groups":[],"roles":[]}"#,
        );
        mosquitto
    }

    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A file that the broker may read and write.
    pub(crate) fn own(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        path
    }

    /// A user with a password, of those that may connect where the settings say `password_file DIR/passwords`.
    pub(crate) fn user(&self, name: &str, password: &str) {
        let passwords = self.own("passwords", "");
        let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([name, password]).status();
        assert!(made.expect(PACKAGE).success());
        std::fs::set_permissions(&passwords, Permissions::from_mode(0o666)).unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn encrypted_url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.port)
    }

    /// Stops it, with time to write down what it keeps.
    pub(crate) fn stop(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            let kill = format!("kill -s TERM {}", broker.id());
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
            broker.wait().unwrap();
        }
    }

    /// Starts it where it was, once it is stopped, and waits until it listens.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let directory = self.dir.path().to_str().unwrap();
        let text = format!(
            "listener {} 127.0.0.1\npersistence true\npersistence_location {directory}/\nmax_queued_messages 0\n\
             max_inflight_messages 0\nlog_dest stderr\nlog_type all\n{}",
            self.port,
            self.settings.replace("DIR", directory)
        );
        let configuration = self.own("mosquitto.conf", text);
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig=KILL"]);
            command.arg("/usr/sbin/mosquitto");
            command
        } else {
            Command::new("/usr/sbin/mosquitto")
        };
        command.arg("-c").arg(configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut broker = command.spawn().expect(PACKAGE);
        let stderr = broker.stderr.take().unwrap();
        let (tell, log) = channel();
        // Ends with the pipe; what nobody wants to hear is read all the same.
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
        });
        (self.broker, self.log) = (Some(broker), Some(Mutex::new(log)));
        self.says(" running");
    }

    /// Waits until it says a line with this in it.
    #[track_caller]
    pub(crate) fn says(&self, part: &str) {
        let mut said = vec![];
        let log = self.log.as_ref().unwrap().lock().unwrap();
        loop {
            match log.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(part) => return,
                Ok(line) => said.push(line),
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("it did not say {part:?} ({why}), but:\n{}", said.join("\n"));
                }
            }
        }
    }

    /// All that it says from now on, line by line, up to its next end: for whoever waits for more than one thing.
    pub(crate) fn log(&mut self) -> Receiver<String> {
        self.log.take().unwrap().into_inner().unwrap()
    }

    /// Publishes each line as a message, with the client of the broker's makers, and waits until the broker has them.
    pub(crate) fn publish(&self, topic: &str, qos: u8, lines: &[u8]) {
        self.published(&["-t", topic, "-q", &qos.to_string(), "-l"], lines);
    }

    /// Publishes one message, whatever its bytes.
    pub(crate) fn publish_one(&self, topic: &str, payload: &[u8]) {
        self.published(&["-t", topic, "-q", "1", "-s"], payload);
    }

    /// Publishes nothing: a message without a payload.
    pub(crate) fn publish_empty(&self, topic: &str) {
        self.published(&["-t", topic, "-q", "1", "-n"], b"");
    }

    pub(crate) fn published(&self, words: &[&str], input: &[u8]) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(words);
        let mut client = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(PACKAGE);
        client.stdin.take().unwrap().write_all(input).unwrap();
        let ended = client.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(broker) = &mut self.broker {
            // It may have ended already.
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }
}
