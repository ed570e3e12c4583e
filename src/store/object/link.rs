use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use headworks_actors::TenantId;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Certificate, ClientOptions, CredentialProvider, Error, GetOptions, ObjectMeta, ObjectStore, PutMode, PutOptions,
    PutPayload, RetryConfig, UpdateVersion,
};

use super::ObjectOptions;
use super::error::Failure;
use super::key::{self, Name, Template};
use crate::secret_file;
use crate::store::columns::Column;

/// A place for objects, and the way to it.
#[derive(Debug)]
pub(super) struct Link {
    objects: Box<dyn ObjectStore>,
    /// Where they are, if that is a directory.
    directory: Option<PathBuf>,
    /// What stands before every key.
    prefix: String,
    /// For errors: where it is, without any secret.
    pub(super) place: String,
    pub(super) template: Template,
    pub(super) options: ObjectOptions,
    patience: Duration,
}

/// What was there when it was looked at.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) bytes: Bytes,
    version: UpdateVersion,
}

/// What is at the end of a URL.
enum Place<'u> {
    Directory(PathBuf),
    /// The scheme, the bucket, and the prefix.
    Bucket(&'u str, &'u str, &'u str),
}

/// The URL, taken apart.
fn place(url: &str) -> Result<Place<'_>, String> {
    let wrong = "it reads file:///srv/events, or s3://BUCKET/PREFIX";
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("url is {url:?}; {wrong}"))?;
    if rest.contains(['@', '?', '#']) {
        return Err(format!("url may have no user, no question mark and no # in it; {wrong}"));
    }
    match scheme {
        "file" if rest.starts_with('/') => Ok(Place::Directory(rest.into())),
        "file" => Err(format!("url is {url:?}, but needs the whole path of a directory; {wrong}")),
        "s3" | "gs" | "az" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_end_matches('/');
            if bucket.is_empty() {
                return Err(format!("url names no bucket; {wrong}"));
            }
            Path::parse(prefix).map_err(|why| format!("url has a prefix that cannot be ({why}); {wrong}"))?;
            Ok(Place::Bucket(scheme, bucket, prefix))
        }
        _ => Err(format!("url begins with {scheme}://, which this headworks does not know; {wrong}")),
    }
}

/// What is wrong with a URL, if anything; for the check of a configuration.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    match place(url)? {
        Place::Bucket("gs", ..) if cfg!(not(feature = "gcs")) => Err(not_built("gs", "gcs")),
        Place::Bucket("az", ..) if cfg!(not(feature = "azure")) => Err(not_built("az", "azure")),
        _ => Ok(()),
    }
}

fn not_built(scheme: &str, feature: &str) -> String {
    format!("url begins with {scheme}://, which this headworks was built without: build it with --features {feature}")
}

impl Link {
    /// What the options say; nothing is asked of a server yet. A directory is made where there is none, if it may be.
    pub(super) fn new(options: ObjectOptions, may_make: bool) -> Result<Self, String> {
        check_url(&options.url)?;
        let template = Template::new(&options.path, options.format.ending()).map_err(|why| format!("path {why}"))?;
        Column::parse_all(&options.columns).map_err(|why| format!("columns {why}"))?;
        if options.format == super::ObjectFormat::Parquet && cfg!(not(feature = "parquet")) {
            return Err(
                "format is \"parquet\", which this headworks was built without: build it with --features parquet"
                    .to_owned(),
            );
        }
        let mut directory = None;
        let (objects, prefix): (Box<dyn ObjectStore>, _) = match place(&options.url)? {
            Place::Directory(path) => {
                let unusable = |why: &dyn std::fmt::Display| format!("cannot use {} (url): {why}", path.display());
                if may_make {
                    std::fs::create_dir_all(&path).map_err(|why| unusable(&why))?;
                }
                let objects = LocalFileSystem::new_with_prefix(&path).map_err(|why| unusable(&why))?;
                directory = Some(path);
                // What is answered as stored survives the machine.
                (Box::new(objects.with_fsync(true)), String::new())
            }
            Place::Bucket(scheme, bucket, prefix) => (remote(scheme, bucket, &options)?, prefix.to_owned()),
        };
        // Above the limits of the client, which go first where it has some.
        let patience = options.connect_timeout + options.request_timeout;
        Ok(Self { objects, directory, prefix, place: options.url.clone(), template, options, patience })
    }

    /// Whether batches become part of packs.
    pub(super) fn compacts(&self) -> bool {
        self.options.compact_after.is_some()
    }

    /// Where a batch is put.
    pub(super) fn key(&self, name: &Name) -> String {
        let key = self.template.key(name);
        if self.compacts() { format!("{}/{key}", key::WAITING) } else { key }
    }

    /// The batch of a key, if it is one's.
    pub(super) fn name_of(&self, key: &str) -> Option<Name> {
        let key = if self.compacts() { key.strip_prefix(key::WAITING)?.strip_prefix('/')? } else { key };
        self.template.parse(key)
    }

    /// The folder that has all batches, or a tenant's and as few others as can be.
    pub(super) fn folder(&self, tenant: Option<&TenantId>) -> String {
        let folder = tenant.map_or_else(String::new, |tenant| self.template.folder(tenant));
        let folders = [if self.compacts() { key::WAITING } else { "" }, &folder];
        folders.into_iter().filter(|folder| !folder.is_empty()).collect::<Vec<_>>().join("/")
    }

    fn path(&self, key: &str) -> Result<Path, Failure> {
        let whole = if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(whole).map_err(|why| Failure::Objects(Error::from(why)))
    }

    async fn within<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.patience, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::Silent),
        }
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<(), Failure> {
        let path = self.path(key)?;
        let put = self.objects.put_opts(&path, PutPayload::from_bytes(bytes), PutOptions::from(mode));
        self.within(put).await.map(drop)
    }

    /// Puts it there unless there is something already; whether there was nothing. The one request on which all hangs.
    pub(super) async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, Failure> {
        match self.put(key, bytes, PutMode::Create).await {
            Ok(()) => Ok(true),
            Err(Failure::Objects(Error::AlreadyExists { .. })) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Puts it there, whatever is there.
    pub(super) async fn replace(&self, key: &str, bytes: Bytes) -> Result<(), Failure> {
        self.put(key, bytes, PutMode::Overwrite).await
    }

    /// What is there, if anything.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Bytes>, Failure> {
        Ok(self.look(key).await?.map(|seen| seen.bytes))
    }

    /// The same, to be replaced if it is still the same then.
    pub(super) async fn look(&self, key: &str) -> Result<Option<Seen>, Failure> {
        let path = self.path(key)?;
        let get = async {
            let got = self.objects.get_opts(&path, GetOptions::default()).await?;
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            Ok(Seen { version, bytes: got.bytes().await? })
        };
        match self.within(get).await {
            Ok(seen) => Ok(Some(seen)),
            Err(Failure::Objects(Error::NotFound { .. })) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Puts it there if what was seen is there still; whether it was.
    pub(super) async fn replace_seen(&self, key: &str, seen: Seen, bytes: Bytes) -> Result<bool, Failure> {
        if let Some(directory) = &self.directory {
            let (lock, path) = (directory.join(key::OWN).join("lock"), directory.join(key));
            // To its end, whoever waits for it: nothing arrives late.
            let done = tokio::task::spawn_blocking(move || replace_file(&lock, &path, &seen.bytes, &bytes)).await;
            let failed = |source| Failure::Objects(Error::Generic { store: "LocalFileSystem", source });
            return done.map_err(|why| failed(why.into()))?.map_err(|why| failed(why.into()));
        }
        match self.put(key, bytes, PutMode::Update(seen.version)).await {
            Ok(()) => Ok(true),
            Err(Failure::Objects(Error::Precondition { .. } | Error::NotFound { .. })) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// Whether the server heeds it when something is to be replaced only if it is still as it was seen: told by an object that was
    /// never so.
    pub(super) async fn heeds_versions(&self, key: &str, bytes: Bytes) -> Result<bool, Failure> {
        let e_tag = Some("\"00000000000000000000000000000000\"".to_owned());
        let seen = Seen { bytes: Bytes::new(), version: UpdateVersion { e_tag, version: Some("0".to_owned()) } };
        Ok(!self.replace_seen(key, seen, bytes).await?)
    }

    /// Takes away what is there.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), Failure> {
        let paths: Vec<_> = keys.iter().map(|key| self.path(key)).collect::<Result<_, _>>()?;
        let mut deleted = self.objects.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        loop {
            match self.within(async { deleted.next().await.transpose() }).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(Failure::Objects(Error::NotFound { .. })) => {}
                Err(why) => return Err(why),
            }
        }
    }

    /// The keys in a folder and below, with what is known of the objects; nothing where there is no such folder.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>, Failure> {
        let path = match (self.prefix.as_str(), folder) {
            ("", "") => None,
            (prefix, "") => Some(Path::parse(prefix).map_err(Error::from)?),
            (_, folder) => Some(self.path(folder)?),
        };
        let mut listing = self.objects.list(path.as_ref());
        let mut found = vec![];
        // Each page of a long listing is a request.
        while let Some(meta) = self.within(listing.try_next()).await? {
            let key = meta.location.as_ref();
            let key = key.strip_prefix(&self.prefix).unwrap_or(key).trim_start_matches('/');
            found.push((key.to_owned(), meta));
        }
        Ok(found)
    }
}

/// A file is replaced, whole, if it is as it was seen; by one process at a time.
fn replace_file(lock: &FilePath, path: &FilePath, seen: &[u8], bytes: &[u8]) -> io::Result<bool> {
    let lock = File::options().create(true).append(true).open(lock)?;
    lock.lock()?;
    match std::fs::read(path) {
        Ok(there) if there == seen => {}
        Ok(_) => return Ok(false),
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(false),
        Err(why) => return Err(why),
    }
    // A name that no listing shows, as those of files that are in the making.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push("#0");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(true)
}

fn client(options: &ObjectOptions) -> Result<ClientOptions, String> {
    // Of the two that there are, this program has this one; whoever chose before has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = ClientOptions::new()
        .with_connect_timeout(options.connect_timeout)
        .with_timeout(options.request_timeout)
        .with_allow_http(options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")));
    if let Some(path) = &options.ca_file {
        let unread = |why: &dyn std::fmt::Display| {
            format!("cannot read certificates (PEM) from {} (ca_file): {why}", path.display())
        };
        let pem = std::fs::read(path).map_err(|why| unread(&why))?;
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|why| unread(&why))? {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

/// None: the system decides when a batch comes again, and it must not wait behind one that never will.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn remote(scheme: &str, bucket: &str, options: &ObjectOptions) -> Result<Box<dyn ObjectStore>, String> {
    match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client(options)?)
                .with_retry(no_retries());
            let builder = options.endpoint.iter().fold(builder, |builder, endpoint| builder.with_endpoint(endpoint));
            let builder = options.region.iter().fold(builder, |builder, region| builder.with_region(region));
            let builder = match &options.credentials_file {
                Some(path) => builder.with_credentials(Arc::new(KeysFile(path.clone()))),
                None => builder,
            };
            Ok(Box::new(builder.build().map_err(|why| why.to_string())?))
        }
        #[cfg(feature = "gcs")]
        "gs" => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_client_options(client(options)?)
                .with_retry(no_retries());
            let key = options.credentials_file.iter();
            let builder = key.fold(builder, |builder, path| builder.with_service_account_path(path.to_string_lossy()));
            Ok(Box::new(builder.build().map_err(|why| why.to_string())?))
        }
        #[cfg(feature = "azure")]
        "az" => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_client_options(client(options)?)
                .with_retry(no_retries());
            Ok(Box::new(builder.build().map_err(|why| why.to_string())?))
        }
        other => Err(format!("url begins with {other}://, which this headworks does not know")),
    }
}

/// Keys in a file, read anew for each request, so that they can be changed while the daemon runs.
#[derive(Debug)]
struct KeysFile(PathBuf);

impl CredentialProvider for KeysFile {
    type Credential = AwsCredential;

    fn get_credential<'s, 'f>(&'s self) -> BoxFuture<'f, object_store::Result<Arc<AwsCredential>>>
    where
        's: 'f,
        Self: 'f,
    {
        let refused = |why: String| Error::Unauthenticated { path: self.0.display().to_string(), source: why.into() };
        let keys = keys(&self.0).map(Arc::new).map_err(refused);
        async move { keys }.boxed()
    }
}

fn keys(path: &FilePath) -> Result<AwsCredential, String> {
    let text = secret_file::read(path, secret_file::MOST)
        .map_err(|why| format!("cannot read {} (credentials_file): {why}", path.display()))?;
    // As Amazon's own tools write theirs; of several sections the first one that has a key counts.
    let value = |name: &str| {
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let needed = |name: &str| {
        value(name).ok_or_else(|| format!("{} (credentials_file) has no line {name} = ...", path.display()))
    };
    Ok(AwsCredential {
        key_id: needed("aws_access_key_id")?,
        secret_key: needed("aws_secret_access_key")?,
        token: value("aws_session_token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_leads_nowhere_is_refused_with_what_it_should_read() {
        for url in
            ["", "/srv", "file://srv", "s3://", "s3:///x", "ftp://x/y", "s3://key:secret@bucket/x", "s3://b/a//b"]
        {
            let why = check_url(url).unwrap_err();
            assert!(why.contains("file:///srv/events"), "{url}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
        for url in ["file:///srv/events", "s3://bucket", "s3://bucket/", "s3://bucket/a/b"] {
            check_url(url).unwrap();
        }
    }

    #[test]
    fn a_file_is_replaced_only_where_it_is_as_it_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let [lock, path] = ["lock", "object"].map(|name| folder.path().join(name));
        assert!(!replace_file(&lock, &path, b"a", b"b").unwrap());
        std::fs::write(&path, "a").unwrap();
        assert!(!replace_file(&lock, &path, b"b", b"c").unwrap());
        assert!(replace_file(&lock, &path, b"a", b"c").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"c");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn keys_are_read_as_the_tools_of_amazon_write_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "[default]\naws_access_key_id = AK\naws_secret_access_key=S=K\n").unwrap();
        let read = keys(&path).unwrap();
        assert_eq!((&*read.key_id, &*read.secret_key, read.token), ("AK", "S=K", None));
        std::fs::write(&path, "aws_access_key_id = AK\n").unwrap();
        assert!(keys(&path).unwrap_err().contains("no line aws_secret_access_key"));
    }
}
