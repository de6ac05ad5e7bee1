use std::time::Duration;

use stockade_core::SandboxId;
use stockade_core::backend::Conflict;
use stockade_core::mount::MountError;

use super::*;

fn check(error: BackendError, status: u16, retry_after: Option<&str>, code: &str) {
    let response = ApiError::from(error).into_response();
    assert_eq!(response.status().as_u16(), status, "{code}");
    assert_eq!(response.headers().get("retry-after").map(|v| v.to_str().unwrap()), retry_after, "{code}");
    assert_eq!(response.extensions().get::<Code>().unwrap().0, code);
}

#[test]
fn every_backend_error_has_its_status() {
    let id = SandboxId::new("s1").unwrap();
    let message = || "m".to_owned();
    let conflict = |conflict| BackendError::Conflict { id: id.clone(), conflict };
    let seconds = Duration::from_secs;
    check(MountError::NoBase { path: "/x".into() }.into(), 400, None, "invalid_mount");
    check(conflict(Conflict::User), 409, None, "other_user");
    check(conflict(Conflict::Thread), 409, None, "other_thread");
    check(conflict(Conflict::Mounts), 409, None, "incompatible_mounts");
    let differs = "memory".to_owned();
    check(conflict(Conflict::Extensions { differs }), 409, None, "incompatible_extensions");
    check(BackendError::NotFound { id: id.clone() }, 404, None, "not_found");
    check(BackendError::Terminating { id: id.clone(), waited: seconds(25) }, 503, Some("2"), "terminating");
    check(BackendError::Overloaded { what: "x", retry_after: seconds(7) }, 429, Some("7"), "overloaded");
    check(
        BackendError::Unreachable { message: message(), source: None },
        503,
        Some("2"),
        "backend_unreachable",
    );
    check(BackendError::TimedOut { operation: "x", limit: seconds(1) }, 504, None, "backend_timeout");
    check(BackendError::Forbidden { message: message() }, 500, None, "backend_forbidden");
    check(BackendError::QuotaExceeded { message: message() }, 503, Some("2"), "quota_exceeded");
    check(BackendError::Rejected { message: message() }, 500, None, "backend_rejected");
    check(BackendError::PartialCleanup { failures: message() }, 500, None, "partial_cleanup");
    check(BackendError::Unsupported { what: "x" }, 501, None, "unsupported");
}

#[test]
fn what_lies_below_an_error_is_for_the_log_only() {
    let source = std::io::Error::other("token abc");
    let error = BackendError::Unreachable { message: "no answer".into(), source: Some(Box::new(source)) };
    let response = ApiError::from(error).into_response();
    assert_eq!(response.extensions().get::<Cause>().unwrap().0, "no answer: token abc");
}
