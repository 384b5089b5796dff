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
    /// A build failed.
    Build {
        /// What is quoted of the Dockerfile, whole lines.
        excerpt: String,
        /// The name of the rule that was broken.
        rule: Option<&'static str>,
        message: String,
        notes: Vec<String>,
    },
}

impl CliError {
    /// A build that failed for a reason outside of the Dockerfile.
    pub fn build(message: String) -> CliError {
        CliError::Build { excerpt: String::new(), rule: None, message, notes: Vec::new() }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => USAGE,
            CliError::Failed(_) | CliError::Build { .. } => 1,
        }
    }

    pub fn print(&self) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), "{self}");
    }
}

/// As the user sees it, without the last newline.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(message) | CliError::Failed(message) => write!(f, "error: {message}"),
            CliError::Build { excerpt, rule, message, notes } => {
                let rule = rule.map(|rule| format!("[{rule}]")).unwrap_or_default();
                write!(f, "{excerpt}error{rule}: failed to solve: {message}")?;
                notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))
            }
        }
    }
}

/// Any error of the libraries is a failure whose text is its own.
impl<E: std::error::Error> From<E> for CliError {
    fn from(error: E) -> Self {
        CliError::Failed(error.to_string())
    }
}
