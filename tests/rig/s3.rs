//! A server of S3 in the test's own process: `s3s-fs`, an implementation that we did not write, with its objects in a directory. It can be
//! killed, and told to fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use headworks::TenantId;
use headworks::store::{ObjectOptions, ObjectReader, ObjectStore};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Bodies, DEADLINE, Place};

pub(crate) const BUCKET: &str = "bucket";
const KEYS: &str = "[default]\naws_access_key_id = AKIDHEADWORKS\naws_secret_access_key = s3cret\n";

/// What becomes of a request.
#[derive(Clone)]
pub(crate) enum Fault {
    None,
    /// It is answered with this status, for this reason.
    Status(u16, &'static str),
    /// The connection ends before anything is done.
    CutBefore,
    /// All is done, and the connection ends without an answer.
    CutAfter,
    /// Nothing is done and nothing said.
    Hang,
    /// What is done is done once that is let go, whoever waits for it, or not any more.
    Hold(Arc<Held>),
}

/// A request that is held.
#[derive(Default)]
pub(crate) struct Held {
    go: Notify,
    done: Notify,
}

impl Held {
    /// Lets it go, and waits until it is done.
    pub(crate) async fn let_go(&self) {
        self.go.notify_one();
        tokio::time::timeout(DEADLINE, self.done.notified()).await.unwrap();
    }
}

type Plan = Box<dyn FnMut(&str, &str) -> Fault + Send>;

/// A server with one bucket, which is gone with this.
pub(crate) struct S3 {
    folder: TempDir,
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
    serving: Option<tokio::task::JoinHandle<()>>,
    service: S3Service,
    plan: Arc<Mutex<Plan>>,
    requests: Arc<AtomicUsize>,
    is_heedless: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir_all(folder.path().join("s3").join(BUCKET)).unwrap();
        let keys = folder.path().join("keys");
        std::fs::write(&keys, KEYS).unwrap();
        std::fs::set_permissions(keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let files = s3s_fs::FileSystem::new(folder.path().join("s3")).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single("AKIDHEADWORKS", "s3cret"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut server = Self {
            folder,
            address: ([127, 0, 0, 1], 0).into(),
            runtime: Some(runtime),
            serving: None,
            service: builder.build(),
            plan: Arc::new(Mutex::new(Box::new(|_, _| Fault::None))),
            requests: Arc::default(),
            is_heedless: Arc::default(),
            most: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        server.restart();
        server
    }

    /// Whatever is asked for from now on fails as this says, by its method and its path.
    pub(crate) fn plan(&self, plan: impl FnMut(&str, &str) -> Fault + Send + 'static) {
        *self.plan.lock().unwrap() = Box::new(plan);
    }

    /// From now on it puts an object where there is one already, as a server does that does not know of conditions.
    pub(crate) fn heeds_no_condition(&self) {
        self.is_heedless.store(true, Ordering::Relaxed);
    }

    /// From now on it takes no object that is longer.
    pub(crate) fn takes_at_most(&self, bytes: usize) {
        self.most.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn well(&self) {
        self.plan(|_, _| Fault::None);
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Ends every connection where it is, and takes no more.
    pub(crate) fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // The listener is closed, and requests are where they are.
            while !serving.is_finished() {
                std::thread::yield_now();
            }
        }
    }

    /// Serves again, at the same address.
    pub(crate) fn restart(&mut self) {
        let (tell, told) = mpsc::channel();
        let (address, service) = (self.address, self.service.clone());
        let (plan, requests) = (self.plan.clone(), self.requests.clone());
        let (is_heedless, most) = (self.is_heedless.clone(), self.most.clone());
        let root = self.folder.path().join("s3");
        let serve = async move {
            let listener = TcpListener::bind(address).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (service, plan, requests, root) = (service.clone(), plan.clone(), requests.clone(), root.clone());
                let (is_heedless, most) = (is_heedless.clone(), most.clone());
                let answer = move |request: Request<Incoming>| {
                    requests.fetch_add(1, Ordering::Relaxed);
                    if request.headers().contains_key("if-none-match") && is_heedless.load(Ordering::Relaxed) {
                        // What is there is gone before it is looked for.
                        let _ = std::fs::remove_file(root.join(request.uri().path().trim_start_matches('/')));
                    }
                    let fault = plan.lock().unwrap()(request.method().as_str(), request.uri().path());
                    answered(service.clone(), request, fault, most.load(Ordering::Relaxed))
                };
                connections.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), service_fn(answer)).await;
                });
                while connections.try_join_next().is_some() {}
            }
        };
        self.serving = self.runtime.as_ref().map(|runtime| runtime.spawn(serve));
        self.address = told.recv().unwrap();
    }

    /// A file with the keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Of a store of its own.
    pub(crate) fn options(&self, prefix: &str) -> ObjectOptions {
        let mut options = ObjectOptions::at(format!("s3://{BUCKET}/{prefix}"));
        options.endpoint = Some(self.endpoint());
        options.credentials_file = Some(self.keys());
        options
    }

    /// In a bucket of its own.
    pub(crate) fn options_in(&self, bucket: &str) -> ObjectOptions {
        let bucket = bucket.replace('.', "-");
        std::fs::create_dir_all(self.folder.path().join("s3").join(&bucket)).unwrap();
        let mut options = self.options("");
        options.url = format!("s3://{bucket}");
        options
    }

    pub(crate) fn open(&self, prefix: &str) -> ObjectStore {
        ObjectStore::open(self.options(prefix)).unwrap()
    }

    pub(crate) fn reader(&self, prefix: &str) -> ObjectReader {
        ObjectReader::new(self.options(prefix)).unwrap()
    }

    /// The objects with that prefix, by their keys, past the server.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        objects(&self.folder.path().join("s3").join(BUCKET).join(prefix))
    }

    /// Those of batches that are not yet part of a larger object.
    pub(crate) fn waiting(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        objects(&self.folder.path().join("s3").join(BUCKET).join(prefix).join("_headworks/batches"))
    }

    /// What the store keeps for itself.
    pub(crate) fn own(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        objects(&self.folder.path().join("s3").join(BUCKET).join(prefix).join("_headworks"))
    }

    /// Takes an object away, past the server.
    pub(crate) fn take(&self, prefix: &str, key: &str) -> Vec<u8> {
        let path = self.folder.path().join("s3").join(BUCKET).join(prefix).join(key);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        bytes
    }

    /// Puts one there, past the server.
    pub(crate) fn give(&self, prefix: &str, key: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join("s3").join(BUCKET).join(prefix).join(key), bytes).unwrap();
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The files below a directory that have a batch in them, by their paths.
pub(crate) fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            let key = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !key.starts_with('_') && !key.contains('#') {
                found.insert(key, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The end of a connection, for hyper.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn answered(
    service: S3Service,
    request: Request<Incoming>,
    fault: Fault,
    most: usize,
) -> Result<Response<s3s::Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let fault = if body.len() > most { Fault::Status(400, "EntityTooLarge") } else { fault };
    let done = async move {
        let done = service.call(Request::from_parts(head, s3s::Body::from(body))).await;
        done.map_err(|_| Cut)
    };
    match fault {
        Fault::None => done.await,
        Fault::Status(status, code) => {
            let body = s3s::Body::from(format!("<Error><Code>{code}</Code></Error>"));
            Ok(Response::builder().status(status).header("etag", "\"0\"").body(body).unwrap())
        }
        Fault::CutBefore => Err(Cut),
        Fault::CutAfter => {
            let _ = done.await;
            Err(Cut)
        }
        Fault::Hang => std::future::pending::<Result<_, Infallible>>().await.map_err(|_| Cut),
        Fault::Hold(held) => {
            // Not on the connection, which may end first.
            let done = tokio::spawn(async move {
                held.go.notified().await;
                let answer = done.await;
                held.done.notify_one();
                answer
            });
            done.await.map_err(|_| Cut)?
        }
    }
}

/// What the store `store` of a data directory holds, if it is in objects.
pub(crate) fn stored(place: &Place) -> Bodies {
    let mut bodies = Bodies::new();
    let Ok(text) = std::fs::read(place.data().join("stores.json")) else { return bodies };
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let Some(options) = manifest["object"].get("store") else { return bodies };
    let reader = ObjectReader::new(serde_json::from_value(options.clone()).unwrap()).unwrap();
    for totals in reader.tenants().unwrap() {
        let tenant: TenantId = totals.tenant;
        let read = reader.bodies(&tenant).unwrap();
        assert_eq!(read.len() as u64, totals.events, "{tenant}: the heads and the lines must agree");
        bodies.insert(tenant.to_string(), read);
    }
    bodies
}

/// How long a client that tries again waits.
pub(crate) const AGAIN: Duration = Duration::from_millis(5);
