//! What is wrong with certificates, keys and revocation lists, in words for the person who has to put it right.

use std::{error::Error as StdError, fmt, path::Path};

/// TLS cannot be set up with the files that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    problem: String,
    cause: Option<String>,
    fix: Option<String>,
}

impl TlsError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            cause: None,
            fix: None,
        }
    }

    /// Something about one file: its path, then what it is or does.
    pub(super) fn of_file(path: &Path, what: impl fmt::Display) -> Self {
        Self::new(format!("{} {what}", path.display()))
    }

    /// Something about one section of a file.
    pub(super) fn at_line(path: &Path, line: usize, what: impl fmt::Display) -> Self {
        Self::new(format!("{} line {line}: {what}", path.display()))
    }

    #[must_use]
    pub(super) fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    #[must_use]
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// What a client may be told to do: options of the command line are not its own.
    pub(super) fn without_server_options(mut self) -> Self {
        if self
            .fix
            .as_ref()
            .is_some_and(|fix| fix.contains("--ssl") || fix.contains("FRAMEGATE_SSL"))
        {
            self.fix = Some(
                "give the file of the key beside that of the certificate, and the password of an encrypted key"
                    .to_owned(),
            );
        }
        self
    }

    /// What is wrong and where, in one line.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Why, if that is known and not obvious.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// What can be done about it.
    pub fn remedy(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "; {fix}")?;
        }
        Ok(())
    }
}

impl StdError for TlsError {}
