use crate::debug::{NO_SHELL, Session};
use crate::users::UserError;
use oci::DiffId;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub type Result<T> = std::result::Result<T, Error>;

/// An op, a source or an exporter that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// With BuildKit's text, since scripts look for it (X1.98).
    #[error("process \"{command}\" did not complete successfully: exit code: {code}")]
    Process { command: String, code: i32 },
    /// R1.11.3.
    #[error("process \"{command}\" did not complete successfully: cannot allocate memory")]
    OutOfMemory { command: String },
    #[error("process \"{command}\" did not complete within {timeout:?} (--timeout)")]
    TimedOut { command: String, timeout: std::time::Duration },
    /// Its program cannot run on this machine.
    #[error("process \"{command}\" did not complete successfully: exec format error: {program}: {reason}")]
    WrongFormat { command: String, program: String, reason: String },
    /// A step that failed with [`source`](Error::Kept::source), and is kept for a look at it.
    #[error("{source}")]
    Kept { source: Box<Error>, session: Box<Session> },
    #[error("this file system has no shell that can be started (tried: {tried}). {advice}", tried = .0.join(", "), advice = NO_SHELL)]
    NoShell(Vec<String>),
    #[error(transparent)]
    Unrunnable(#[from] crate::emulation::Unrunnable),
    #[error("process \"{command}\" did not complete successfully: {source}")]
    User { command: String, source: UserError },
    #[error(transparent)]
    Device(#[from] crate::cdi::DeviceError),
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    #[error(transparent)]
    Secret(#[from] crate::secrets::SecretError),
    #[error(transparent)]
    Ssh(#[from] crate::ssh::SshError),
    #[error(transparent)]
    File(#[from] crate::fileop::Error),
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
    #[error(transparent)]
    Store(#[from] cache::Error),
    #[error(
        "the layers in the store {} were made as {made_as}, and cannot be used as {own}, where files have other owners: name another directory with --root or \
         RBUILD_ROOT, or remove this one",
        root.display()
    )]
    OtherIds { root: std::path::PathBuf, made_as: String, own: &'static str },
    #[error(transparent)]
    Layer(#[from] oci::layer::Error),
    #[error(transparent)]
    Registry(#[from] oci::registry::Error),
    #[error(transparent)]
    Download(#[from] oci::fetch::DownloadError),
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Checksum { url: String, found: String, expected: String },
    #[error(transparent)]
    Git(#[from] crate::source::git::GitError),
    #[error("{0}")]
    Owner(UserError),
    #[error("cannot read the layer: {0}")]
    ReadLayer(io::Error),
    #[error("the image's layer {found} is not the one that its config names ({expected})")]
    WrongDiffId { expected: DiffId, found: DiffId },
    /// The build can go on without them.
    #[error(transparent)]
    Unavailable(Box<crate::remote::Unavailable>),
    #[error(transparent)]
    Remote(Box<cache::remote::Error>),
    #[error("{reference}: the image's manifest {problem}")]
    Manifest { reference: String, problem: String },
    #[error("oci-layout://{path}: {problem}")]
    Layout { path: String, problem: String },
    #[error("no match for platform in manifest: {reference} has no image for {platform}: not found")]
    NoPlatform { reference: String, platform: String },
    #[error("files of the build context changed while they were copied")]
    ContextChanged,
    #[error("there is no context called {0:?}")]
    NoContext(String),
    #[error("this step needs files where it was given a directory of the client, or the reverse")]
    WrongInput,
    #[error("blob {0} of the store was damaged, and is dropped: build, pull or load its image again")]
    DamagedBlob(oci::Digest),
    #[error("cannot write {path}: {source}{}", advice(source))]
    Write { path: String, source: io::Error },
    #[error("a thread of the build ended early: {0}")]
    ThreadGone(String),
    #[error("{0}")]
    Export(String),
}

impl From<crate::remote::Unavailable> for Error {
    fn from(unavailable: crate::remote::Unavailable) -> Self {
        Error::Unavailable(Box::new(unavailable))
    }
}

impl From<cache::remote::Error> for Error {
    fn from(error: cache::remote::Error) -> Self {
        Error::Remote(Box::new(error))
    }
}

impl Error {
    /// Whether a context is no longer what it was when it was looked at.
    pub fn is_stale(&self) -> bool {
        matches!(self, Error::ContextChanged | Error::File(crate::fileop::Error::Changed { .. }))
    }

    /// A layer's blob is not what it should be.
    pub(crate) fn is_of_content(&self) -> bool {
        use oci::layer::Error as LayerError;
        matches!(
            self,
            Error::WrongDiffId { .. }
                | Error::ReadLayer(_)
                | Error::DamagedBlob(_)
                | Error::Layer(LayerError::Input(_) | LayerError::InvalidTar { .. } | LayerError::InvalidEntry { .. })
        )
    }

    /// Writing to the user failed.
    pub fn output(source: io::Error) -> Error {
        Error::Write { path: "the output".into(), source }
    }

    pub(crate) fn write(path: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Write { path: path.to_string(), source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (free some space; `rbuild prune` frees what the build cache takes)"
        }
        _ => "",
    }
}

/// Runs work that blocks on a thread that may, and tells it when nobody waits for it any more.
pub(crate) async fn cancellable<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static,
) -> Result<T> {
    struct Waiting(Arc<AtomicBool>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let waiting = Waiting(Arc::default());
    let cancelled = waiting.0.clone();
    blocking(move || work(&cancelled)).await
}

/// Runs work that blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) if gone.is_panic() => std::panic::resume_unwind(gone.into_panic()),
        Err(gone) => Err(Error::ThreadGone(gone.to_string())),
    }
}
