//! What a command fails with, and the exit code that it becomes.

use std::fmt;

pub const USAGE: u8 = 2;

pub type Result<T> = std::result::Result<T, CliError>;

#[derive(Debug)]
pub enum CliError {
    /// The user asked for something that makes no sense or is not there: exit code 2.
    Usage(String),
    /// Something went wrong: exit code 1.
    Failed(String),
    /// Something is wrong with the Dockerfile.
    Dockerfile(Fault),
    /// A build failed: said as BuildKit says it.
    Build(Fault),
}

/// What went wrong, and where in the Dockerfile.
#[derive(Debug, Default)]
pub struct Fault {
    /// What is quoted of the Dockerfile, whole lines.
    pub excerpt: String,
    /// The name of the rule that was broken.
    pub rule: Option<&'static str>,
    pub message: String,
    pub notes: Vec<String>,
}

impl CliError {
    /// A build that failed for a reason outside of the Dockerfile.
    pub fn build(message: String) -> CliError {
        CliError::Build(Fault { message, ..Fault::default() })
    }

    /// Of a command that builds.
    pub fn of_build(self) -> CliError {
        match self {
            CliError::Dockerfile(fault) => CliError::Build(fault),
            other => other,
        }
    }

    /// With something to add, where there is room for it.
    pub fn with_note(mut self, note: String) -> CliError {
        if let CliError::Dockerfile(fault) | CliError::Build(fault) = &mut self {
            fault.notes.push(note);
        }
        self
    }

    pub fn message(&self) -> &str {
        match self {
            CliError::Usage(message) | CliError::Failed(message) => message,
            CliError::Dockerfile(fault) | CliError::Build(fault) => &fault.message,
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => USAGE,
            CliError::Failed(_) | CliError::Dockerfile(_) | CliError::Build(_) => 1,
        }
    }

    pub fn print(&self) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), "{self}");
    }
}

/// Whether there was no room for what was to be written.
pub fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let errno = error.downcast_ref::<rustix::io::Errno>().map(|errno| std::io::Error::from(*errno).kind());
        matches!(io.or(errno), Some(StorageFull | QuotaExceeded))
    })
}

/// As the user sees it, without the last newline.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(message) | CliError::Failed(message) => write!(f, "error: {message}"),
            CliError::Dockerfile(fault) => fault.write(f, ""),
            CliError::Build(fault) => fault.write(f, "failed to solve: "),
        }
    }
}

impl Fault {
    fn write(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        let rule = self.rule.map(|rule| format!("[{rule}]")).unwrap_or_default();
        write!(f, "{}error{rule}: {what}{}", self.excerpt, self.message)?;
        self.notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))
    }
}

/// Any error of the libraries is a failure whose text is its own.
impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        CliError::Failed(error.to_string())
    }
}
