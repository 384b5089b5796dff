//! What a command fails with, and the exit code that it becomes.

use std::io::Write;

pub const USAGE: u8 = 2;

pub type Result<T> = std::result::Result<T, CliError>;

#[derive(Debug)]
pub enum CliError {
    /// The user asked for something that makes no sense or is not there: exit code 2.
    Usage(String),
    /// Something went wrong: exit code 1.
    Failed(String),
    /// A build failed; `excerpt` quotes the Dockerfile.
    Build { excerpt: Option<String>, message: String },
}

impl CliError {
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => USAGE,
            CliError::Failed(_) | CliError::Build { .. } => 1,
        }
    }

    pub fn print(&self) {
        let mut stderr = std::io::stderr().lock();
        let _ = match self {
            CliError::Usage(message) | CliError::Failed(message) => writeln!(stderr, "error: {message}"),
            CliError::Build { excerpt, message } => {
                let excerpt = excerpt.as_deref().unwrap_or_default();
                writeln!(stderr, "{excerpt}error: failed to solve: {message}")
            }
        };
    }
}

/// Any error of the libraries is a failure whose text is its own.
impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        CliError::Failed(error.to_string())
    }
}
