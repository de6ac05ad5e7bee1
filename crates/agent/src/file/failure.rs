//! Why a file call failed, in the form the API gives: an answer with status 200, `success: false` and this as data.
//!
//! It is never `data: null`: the SDK would take that for a success.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::http::ApiError;

/// A failed file call. The facts are boxed because results carry this type everywhere.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Failure(Box<Facts>);

/// `FileOperationError` of the API.
#[derive(Debug, Clone, Serialize)]
struct Facts {
    path: String,
    operation: &'static str,
    message: String,
    error_type: &'static str,
    retryable: bool,
    errno: Option<i32>,
    errno_name: Option<&'static str>,
    exception_type: &'static str,
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
        let shown = path.to_string_lossy().into_owned();
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
        }))
    }

    pub(crate) fn new(operation: &'static str, path: &Path, kind: Kind, reason: impl AsRef<str>) -> Self {
        let shown = path.to_string_lossy().into_owned();
        let (error_type, exception_type) = match kind {
            Kind::InvalidTarget => ("invalid_target", "OSError"),
            Kind::InvalidPath => ("invalid_path", "ValueError"),
            Kind::Decode => ("decode_error", "UnicodeDecodeError"),
            Kind::TooLarge => ("io_error", "OSError"),
            Kind::PermissionDenied => ("permission_denied", "PermissionError"),
            Kind::BadPattern => ("invalid_path", "ValueError"),
            Kind::AlreadyExists => ("already_exists", "FileExistsError"),
            Kind::NoMatch => ("invalid_target", "ValueError"),
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
        }))
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The status of routes that answer with raw bytes and cannot put the failure into a 200.
    pub(crate) fn http_status(&self) -> http::StatusCode {
        match self.0.error_type {
            "not_found" => http::StatusCode::NOT_FOUND,
            "permission_denied" => http::StatusCode::FORBIDDEN,
            "invalid_path" | "invalid_target" => http::StatusCode::BAD_REQUEST,
            _ => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn classify(error: &io::Error) -> (&'static str, &'static str, bool, Option<&'static str>) {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else {
        return ("io_error", "OSError", false, None);
    };
    match errno {
        Errno::NOENT => ("not_found", "FileNotFoundError", false, Some("ENOENT")),
        Errno::NOTDIR => ("not_found", "NotADirectoryError", false, Some("ENOTDIR")),
        Errno::ACCESS => ("permission_denied", "PermissionError", false, Some("EACCES")),
        Errno::PERM => ("permission_denied", "PermissionError", false, Some("EPERM")),
        Errno::ISDIR => ("invalid_target", "IsADirectoryError", false, Some("EISDIR")),
        Errno::NXIO => ("invalid_target", "OSError", false, Some("ENXIO")),
        Errno::EXIST => ("already_exists", "FileExistsError", false, Some("EEXIST")),
        Errno::ROFS => ("read_only_filesystem", "OSError", false, Some("EROFS")),
        Errno::NOSPC => ("no_space_left", "OSError", true, Some("ENOSPC")),
        Errno::DQUOT => ("no_space_left", "OSError", true, Some("EDQUOT")),
        Errno::FBIG => ("no_space_left", "OSError", false, Some("EFBIG")),
        Errno::NAMETOOLONG => ("invalid_path", "OSError", false, Some("ENAMETOOLONG")),
        Errno::LOOP => ("invalid_path", "OSError", false, Some("ELOOP")),
        Errno::INVAL => ("invalid_path", "OSError", false, Some("EINVAL")),
        Errno::TXTBSY => ("io_error", "OSError", true, Some("ETXTBSY")),
        Errno::BUSY => ("io_error", "OSError", true, Some("EBUSY")),
        Errno::MFILE => ("io_error", "OSError", true, Some("EMFILE")),
        Errno::NFILE => ("io_error", "OSError", true, Some("ENFILE")),
        Errno::IO => ("io_error", "OSError", false, Some("EIO")),
        _ => ("io_error", "OSError", false, None),
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        ApiError::failed_call(failure.0.message.clone(), &failure)
    }
}
