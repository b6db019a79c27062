//! The object store: raw files as they were uploaded, sealed, in a local folder or in S3.
//!
//! What is put here is sealed before it arrives ([`crate::knowledge`] does that), under a key that only the database
//! holds (wrapped). So whoever reads the folder or the bucket reads nothing, and an object whose row is gone is noise.
//!
//! # What holds
//! - An object's key is made once, by chance, and never used again; nothing overwrites an object.
//! - **Nothing is left behind.** Before an object is put, its key stands in `object_garbage`, with a time when it is to go.
//!   The transaction that begins to use the object takes the key out of that table, and fails when it is not there any
//!   more. When the last row that names an object is deleted, whoever deletes it, a trigger puts the key back in. [`sweep`]
//!   deletes what is due: object first, row second, so a crash between the two repeats.
//! - Every call is bounded in time and bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::db::objects as db;
use crate::queue::pause;

/// One call, with its retries.
const CALL_MAX: Duration = Duration::from_secs(120);
const CONNECT_MAX: Duration = Duration::from_secs(10);
const RETRIES: usize = 4;
/// How often what is due is looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Objects deleted in one step.
const SWEEP_BATCH: i64 = 100;
/// An object that nothing uses so long after it was put was left by a crash.
pub const UNUSED_MAX_S: i64 = 24 * 3_600;
/// Sealing adds a few bytes.
const OBJECT_BYTES_MAX: u64 = 33 << 20;

/// Where raw files are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectSettings {
    /// Name of an S3 bucket; empty: a local folder.
    pub bucket: String,
    /// The folder; empty: `objects` in `engines.data_dir`.
    pub dir: PathBuf,
    pub region: String,
    /// Address of an S3-compatible server; empty: AWS.
    pub endpoint: String,
    /// Before every key, so that several installations share a bucket.
    pub prefix: String,
    /// Lets `endpoint` be `http://`.
    pub allow_http: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the folder {path} for raw files cannot be made or entered: {source}; set objects.dir", path = path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the object store's settings do not fit: {source}; see [objects]")]
    Settings {
        #[source]
        source: object_store::Error,
    },
    #[error("the object store does not {action}: {source}")]
    Store {
        action: &'static str,
        #[source]
        source: object_store::Error,
    },
    #[error("the object store did not {action} within {} s", CALL_MAX.as_secs())]
    TimedOut { action: &'static str },
    #[error("the raw file {key} is not in the object store: somebody deleted it there")]
    Gone { key: String },
    #[error("the raw file {key} has {found} bytes, more than was ever put")]
    TooLarge { key: String, found: u64 },
    #[error("the database does not keep what stands in the object store: {source}")]
    Database {
        #[from]
        source: sqlx::Error,
    },
}

/// What one needs to enter a bucket. Without them the machine's own role is used (instance metadata, web identity).
#[derive(Debug, Clone)]
pub struct S3Credentials {
    pub access_key_id: SecretString,
    pub secret_access_key: SecretString,
}

/// The object store of a host.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    pool: PgPool,
}

impl Objects {
    /// Opens a folder or a bucket. `data_dir` is where a folder without a name of its own is made.
    ///
    /// # Errors
    /// [`ObjectError::Folder`] and [`ObjectError::Settings`]; whether a bucket can be entered shows at the first call.
    pub fn open(
        settings: &ObjectSettings,
        credentials: Option<&S3Credentials>,
        data_dir: &std::path::Path,
        pool: PgPool,
    ) -> Result<Self, ObjectError> {
        let store: Arc<dyn ObjectStore> = match settings.bucket.is_empty() {
            true => Arc::new(folder(settings, data_dir)?),
            false => Arc::new(bucket(settings, credentials)?),
        };
        Ok(Self { store, prefix: Key::from(settings.prefix.as_str()), pool })
    }

    /// Puts an object under a new key. Until a transaction [claims](db::claim) the key, the object is garbage to be.
    ///
    /// # Errors
    /// When the database or the store fails; nothing is left then that [`sweep`] would not find.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<String, ObjectError> {
        let key = format!("raw/{}", Uuid::new_v4().simple());
        db::announce(&self.pool, &key, UNUSED_MAX_S).await?;
        within("take a file", self.store.put(&self.path(&key), Bytes::from(bytes).into())).await?;
        Ok(key)
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`ObjectError::Gone`] when it is not there.
    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        let path = self.path(key);
        let read = async {
            let found = self.store.get(&path).await?;
            let size = found.meta.size;
            if size > OBJECT_BYTES_MAX {
                return Ok(Err(size));
            }
            found.bytes().await.map(Ok)
        };
        match within("give a file back", read).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(found)) => Err(ObjectError::TooLarge { key: key.to_owned(), found }),
            Err(ObjectError::Store { source: object_store::Error::NotFound { .. }, .. }) => {
                Err(ObjectError::Gone { key: key.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes objects that are due. Returns how many; call it until it gives 0.
    ///
    /// # Errors
    /// When the store or the database fails; what is left stays due.
    pub async fn sweep_once(&self) -> Result<usize, ObjectError> {
        let mut tx = self.pool.begin().await?;
        let due = db::due(&mut *tx, SWEEP_BATCH).await?;
        for key in &due {
            match within("delete a file", self.store.delete(&self.path(key))).await {
                Ok(()) | Err(ObjectError::Store { source: object_store::Error::NotFound { .. }, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        db::forget(&mut *tx, &due).await?;
        tx.commit().await?;
        Ok(due.len())
    }

    fn path(&self, key: &str) -> Key {
        Key::from_iter(self.prefix.parts().chain(Key::from(key).parts()))
    }
}

/// Starts the background task that deletes what nothing uses.
pub fn start_sweeping(objects: Objects, tasks: &TaskTracker, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        while pause(SWEEP, &stop).await {
            loop {
                match objects.sweep_once().await {
                    Ok(0) => break,
                    Ok(count) => tracing::info!(count, "raw files that nothing uses were deleted"),
                    Err(error) => {
                        tracing::error!(%error, "raw files could not be deleted; it is tried again");
                        break;
                    }
                }
            }
        }
    });
}

async fn within<T>(
    action: &'static str,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, ObjectError> {
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(outcome) => outcome.map_err(|source| ObjectError::Store { action, source }),
        Err(_) => Err(ObjectError::TimedOut { action }),
    }
}

/// Flushed to the disk before it counts, as the database's rows are.
fn folder(settings: &ObjectSettings, data_dir: &std::path::Path) -> Result<LocalFileSystem, ObjectError> {
    let path = match settings.dir.as_os_str().is_empty() {
        true => data_dir.join("objects"),
        false => settings.dir.clone(),
    };
    let unusable = |source| ObjectError::Folder { path: path.clone(), source };
    std::fs::create_dir_all(&path).map_err(unusable)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(unusable)?;
    }
    let folder = LocalFileSystem::new_with_prefix(&path).map_err(|source| ObjectError::Settings { source })?;
    Ok(folder.with_fsync(true))
}

fn bucket(
    settings: &ObjectSettings,
    credentials: Option<&S3Credentials>,
) -> Result<object_store::aws::AmazonS3, ObjectError> {
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: CALL_MAX };
    let client = ClientOptions::new()
        .with_timeout(CALL_MAX)
        .with_connect_timeout(CONNECT_MAX)
        .with_allow_http(settings.allow_http);
    let mut builder =
        AmazonS3Builder::new().with_bucket_name(&settings.bucket).with_client_options(client).with_retry(retry);
    if !settings.region.is_empty() {
        builder = builder.with_region(&settings.region);
    }
    if !settings.endpoint.is_empty() {
        builder = builder.with_endpoint(&settings.endpoint);
    }
    if let Some(credentials) = credentials {
        builder = builder
            .with_access_key_id(credentials.access_key_id.expose_secret())
            .with_secret_access_key(credentials.secret_access_key.expose_secret());
    }
    builder.build().map_err(|source| ObjectError::Settings { source })
}
