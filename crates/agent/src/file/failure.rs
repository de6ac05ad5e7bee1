//! Why a file call failed, in the form the API gives: an answer with status 200, `success: false` and this as data.
//!
//! It is never `data: null`: the SDK would take that for a success.

use std::io;
use std::path::Path;

use serde::Serialize;
use utoipa::ToSchema;

use super::names;
use crate::http::ApiError;

/// A failed file call. The facts are boxed because results carry this type everywhere.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Failure(Box<Facts>);

/// `FileOperationError` of the API: why a file call failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Facts {
    path: String,
    /// The call, such as `read`.
    #[schema(value_type = String)]
    operation: &'static str,
    message: String,
    error_type: ErrorType,
    /// The same call may succeed later.
    retryable: bool,
    /// The kernel's number for it.
    errno: Option<i32>,
    #[schema(value_type = Option<String>)]
    errno_name: Option<&'static str>,
    /// What Python calls it.
    #[schema(value_type = String)]
    exception_type: &'static str,
    /// What to do about it.
    #[serde(skip)]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorType {
    NotFound,
    PermissionDenied,
    InvalidTarget,
    AlreadyExists,
    InvalidPath,
    ReadOnlyFilesystem,
    NoSpaceLeft,
    DecodeError,
    IoError,
}

/// What kind of failure it is, apart from those the kernel names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    InvalidTarget,
    InvalidPath,
    Decode,
    TooLarge,
    PermissionDenied,
    BadPattern,
    AlreadyExists,
    NoMatch,
}

impl Failure {
    pub(crate) fn io(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        let shown = names::shown(path).into_owned();
        let errno = error.raw_os_error();
        let (error_type, exception_type, retryable, errno_name) = classify(error);
        Self(Box::new(Facts {
            message: format!("cannot {operation} {shown}: {error}"),
            path: shown,
            operation,
            error_type,
            retryable,
            errno,
            errno_name,
            exception_type,
            hint: None,
        }))
    }

    pub(crate) fn new(operation: &'static str, path: &Path, kind: Kind, reason: impl AsRef<str>) -> Self {
        let shown = names::shown(path).into_owned();
        let (error_type, exception_type) = match kind {
            Kind::InvalidTarget => (ErrorType::InvalidTarget, "OSError"),
            Kind::InvalidPath => (ErrorType::InvalidPath, "ValueError"),
            Kind::Decode => (ErrorType::DecodeError, "UnicodeDecodeError"),
            Kind::TooLarge => (ErrorType::IoError, "OSError"),
            Kind::PermissionDenied => (ErrorType::PermissionDenied, "PermissionError"),
            Kind::BadPattern => (ErrorType::InvalidPath, "ValueError"),
            Kind::AlreadyExists => (ErrorType::AlreadyExists, "FileExistsError"),
            Kind::NoMatch => (ErrorType::InvalidTarget, "ValueError"),
        };
        Self(Box::new(Facts {
            message: format!("cannot {operation} {shown}: {}", reason.as_ref()),
            path: shown,
            operation,
            error_type,
            retryable: false,
            errno: None,
            errno_name: None,
            exception_type,
            hint: None,
        }))
    }

    /// Adds to what is said.
    pub(crate) fn because(mut self, more: &str) -> Self {
        self.0.message.push_str("; ");
        self.0.message.push_str(more);
        self
    }

    pub(crate) fn with_hint(mut self, hint: String) -> Self {
        self.0.hint = Some(hint);
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The status of routes that answer with raw bytes and cannot put the failure into a 200.
    pub(crate) fn http_status(&self) -> http::StatusCode {
        match self.0.error_type {
            ErrorType::NotFound => http::StatusCode::NOT_FOUND,
            ErrorType::PermissionDenied => http::StatusCode::FORBIDDEN,
            ErrorType::InvalidPath | ErrorType::InvalidTarget => http::StatusCode::BAD_REQUEST,
            _ => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn classify(error: &io::Error) -> (ErrorType, &'static str, bool, Option<&'static str>) {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else {
        return (ErrorType::IoError, "OSError", false, None);
    };
    match errno {
        Errno::NOENT => (ErrorType::NotFound, "FileNotFoundError", false, Some("ENOENT")),
        Errno::NOTDIR => (ErrorType::NotFound, "NotADirectoryError", false, Some("ENOTDIR")),
        Errno::ACCESS => (ErrorType::PermissionDenied, "PermissionError", false, Some("EACCES")),
        Errno::PERM => (ErrorType::PermissionDenied, "PermissionError", false, Some("EPERM")),
        Errno::ISDIR => (ErrorType::InvalidTarget, "IsADirectoryError", false, Some("EISDIR")),
        Errno::NXIO => (ErrorType::InvalidTarget, "OSError", false, Some("ENXIO")),
        Errno::EXIST => (ErrorType::AlreadyExists, "FileExistsError", false, Some("EEXIST")),
        Errno::ROFS => (ErrorType::ReadOnlyFilesystem, "OSError", false, Some("EROFS")),
        Errno::NOSPC => (ErrorType::NoSpaceLeft, "OSError", true, Some("ENOSPC")),
        Errno::DQUOT => (ErrorType::NoSpaceLeft, "OSError", true, Some("EDQUOT")),
        Errno::FBIG => (ErrorType::NoSpaceLeft, "OSError", false, Some("EFBIG")),
        Errno::NAMETOOLONG => (ErrorType::InvalidPath, "OSError", false, Some("ENAMETOOLONG")),
        Errno::LOOP => (ErrorType::InvalidPath, "OSError", false, Some("ELOOP")),
        Errno::INVAL => (ErrorType::InvalidPath, "OSError", false, Some("EINVAL")),
        Errno::TXTBSY => (ErrorType::IoError, "OSError", true, Some("ETXTBSY")),
        Errno::BUSY => (ErrorType::IoError, "OSError", true, Some("EBUSY")),
        Errno::MFILE => (ErrorType::IoError, "OSError", true, Some("EMFILE")),
        Errno::NFILE => (ErrorType::IoError, "OSError", true, Some("ENFILE")),
        Errno::IO => (ErrorType::IoError, "OSError", false, Some("EIO")),
        _ => (ErrorType::IoError, "OSError", false, None),
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let error = ApiError::failed_call(failure.0.message.clone(), &failure);
        match failure.0.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}
