//! The way to a running daemon: HTTP on the control socket in its data directory.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use headworks::admin::{Address, Hello, Problem, Ready};
use headworks::text::inert;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::exit::Exit;

/// How long the daemon may take to say who it is. What it is asked after that may take as long as reading its database
/// does.
const PATIENCE: Duration = Duration::from_secs(5);

const JSON: &str = "application/json";
/// Where the daemon says whether it is ready.
pub(crate) const READY: &str = "/readyz";

/// What a daemon is asked.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    /// Of the body.
    kind: &'a str,
    body: Vec<u8>,
}

impl<'a> Asked<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: "GET", path, kind: JSON, body: vec![] }
    }
}

/// A daemon that answers.
pub(crate) struct Live {
    runtime: Runtime,
    address: Address,
    holder: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The daemon says why.
    Refused(Problem),
    /// It says nothing that makes sense.
    Silent(String),
}

impl From<NoAnswer> for (Exit, String) {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Refused(problem) if problem.status >= 500 => (Exit::Io, problem.detail),
            NoAnswer::Refused(problem) => (Exit::Failure, problem.detail),
            NoAnswer::Silent(why) => (Exit::Unavailable, why),
        }
    }
}

impl Live {
    /// Greets the daemon that writes to `data_dir`; `holder` is what its lock says of it.
    pub(crate) fn greet(data_dir: &Path, holder: String) -> Result<Self, (Exit, String)> {
        let address = Address::of(data_dir)
            .map_err(|why| (Exit::Io, format!("cannot name the control socket of {}: {why}", data_dir.display())))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| (Exit::Internal, format!("cannot start a runtime: {why}")))?;
        let live = Self { runtime, address, holder };
        let greeting =
            live.runtime.block_on(async { tokio::time::timeout(PATIENCE, live.answer::<Hello>("/v1")).await });
        match greeting {
            Ok(greeting) => greeting.map(|_| ()).map_err(<(Exit, String)>::from)?,
            Err(_) => {
                let within = humantime::format_duration(PATIENCE);
                return Err(live.silent(format!("it did not answer within {within}")).into());
            }
        }
        Ok(live)
    }

    /// What the daemon answers, read as JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        self.runtime.block_on(self.answer(path))
    }

    /// Says on stderr what keeps the daemon from its work: who looks at one thing should not miss it.
    pub(crate) fn warn_unless_ready(&self) {
        let Ok(ready) = self.get::<Ready>(READY) else { return };
        // That a daemon starts, ends or takes in a file is nothing to mend.
        let wrong = ready.checks.iter().filter(|check| !check.ok && !matches!(&*check.name, "running" | "sources"));
        for check in wrong {
            let why = inert(check.why.as_deref().unwrap_or("it does not say why"));
            // Where stderr is gone, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "headworks: the daemon is not ready: {}: {why}", check.name);
        }
    }

    /// What the daemon answers to a request with a JSON body.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, NoAnswer> {
        let body = serde_json::to_vec(body).map_err(|why| self.silent(why))?;
        self.runtime
            .block_on(async { self.read(path, self.ask(Asked { method, path, kind: JSON, body }).await?).await })
    }

    /// What the daemon answers to these bytes.
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, NoAnswer> {
        let asked = Asked { method: "PUT", path, kind: "application/octet-stream", body };
        self.runtime.block_on(async { self.read(path, self.ask(asked).await?).await })
    }

    /// Writes what the daemon answers to a request with a JSON body, as it comes.
    pub(crate) fn copy_sent(
        &self,
        path: &str,
        body: &impl Serialize,
        out: &mut dyn Write,
    ) -> Result<std::io::Result<()>, NoAnswer> {
        let body = serde_json::to_vec(body).map_err(|why| self.silent(why))?;
        self.copy_asked(Asked { method: "POST", path, kind: JSON, body }, out)
    }

    /// Has the daemon do something that needs no more words, and reads what it answers as JSON.
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        let asked = Asked { method: "POST", path, kind: JSON, body: vec![] };
        self.runtime.block_on(async { self.read(path, self.ask(asked).await?).await })
    }

    /// Writes what the daemon answers, as it comes.
    pub(crate) fn copy(&self, path: &str, out: &mut dyn Write) -> Result<std::io::Result<()>, NoAnswer> {
        self.copy_asked(Asked::get(path), out)
    }

    fn copy_asked(&self, asked: Asked<'_>, out: &mut dyn Write) -> Result<std::io::Result<()>, NoAnswer> {
        self.runtime.block_on(async {
            let mut body = self.ask(asked).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|why| self.silent(format!("it broke off: {why}")))?;
                if let Some(bytes) = frame.data_ref()
                    && let Err(why) = out.write_all(bytes)
                {
                    return Ok(Err(why));
                }
            }
            Ok(out.flush())
        })
    }

    async fn answer<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        self.read(path, self.ask(Asked::get(path)).await?).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, response: Response<Incoming>) -> Result<T, NoAnswer> {
        let body = response.into_body().collect().await.map_err(|why| self.silent(format!("it broke off: {why}")))?;
        let read = serde_json::from_slice(&body.to_bytes());
        read.map_err(|why| {
            self.silent(format!("its answer to {path} is not understood ({why}); is it another version?"))
        })
    }

    /// The answer, if it is no error.
    async fn ask(&self, asked: Asked<'_>) -> Result<Response<Incoming>, NoAnswer> {
        let stream = UnixStream::connect(self.address.bound()).await.map_err(|why| self.silent(why))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|why| self.silent(why))?;
        // It ends with the sender; what fails there fails in the answer too.
        tokio::spawn(connection);
        let Asked { method, path, kind, body } = asked;
        let request = Request::builder().method(method).uri(path).header(header::HOST, "headworks");
        let request = request.header(header::CONTENT_TYPE, kind).body(Full::new(Bytes::from(body)));
        let request = request.map_err(|why| self.silent(why))?;
        let response = sender.send_request(request).await.map_err(|why| self.silent(why))?;
        // What is not ready says why.
        if response.status() == StatusCode::OK || path == READY {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|why| self.silent(why))?.to_bytes();
        Err(match serde_json::from_slice(&body) {
            Ok(problem) => NoAnswer::Refused(problem),
            Err(_) => self.silent(format!("it answered {status}")),
        })
    }

    fn silent(&self, why: impl std::fmt::Display) -> NoAnswer {
        NoAnswer::Silent(format!(
            "{} writes to this data directory and is not to be had on its control socket {}: {why}; it may be starting or \
             ending: try again, or stop it to have its files read directly",
            self.holder,
            self.address.path().display(),
        ))
    }
}

/// A value as a part of a URL.
pub(crate) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_url_holds_nothing_that_a_url_means_something_by() {
        assert_eq!(encoded("00ff/acme/1#2 ä&?%"), "00ff%2Facme%2F1%232%20%C3%A4%26%3F%25");
        assert_eq!(encoded("A-z_0.9~"), "A-z_0.9~");
    }
}
