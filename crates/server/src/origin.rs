//! No web page may reach a loopback port through its reader's browser.
//!
//! A page can send requests anywhere, and, by pointing a DNS name of its own at 127.0.0.1, read the
//! answers too. So names nobody configured are refused (the page's own name stands in `Host`), and so
//! are origins other than this server. Programs that are not browsers send no `Origin`.
//!
//! Of a GET that it makes for a picture, a script or a form, a browser sends no `Origin` either, and says
//! `Sec-Fetch-Site`, which no page can change. Such requests of other sites are refused too; a link that a person
//! follows is not, where it leads to a document.

use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{Method, StatusCode, Version, header};
use stockade_api::echo;
use thiserror::Error;

use crate::error::ApiError;
use crate::state::ServerState;

/// Suffixes under which nobody can register a name for a page: Kubernetes' Services, and the names that
/// are reserved for private use and for loopback.
const PRIVATE_SUFFIXES: [&str; 4] = [".svc", ".svc.cluster.local", ".internal", ".localhost"];

/// The names this server answers to, beyond IP addresses, names without a dot, and private ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<AllowedHost>);

/// One name: `stockade.example.com`, or, with a dot in front, every name below: `.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

/// Why a text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a host name; write names without scheme and port, like stockade.example.com, or .example.com for all below"
)]
pub struct HostNameError(String);

impl FromStr for AllowedHost {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(HostNameError(text.to_owned()));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl FromIterator<AllowedHost> for AllowedHosts {
    fn from_iter<I: IntoIterator<Item = AllowedHost>>(hosts: I) -> Self {
        Self(hosts.into_iter().collect())
    }
}

impl AllowedHosts {
    fn knows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        is_address(&host)
            || !host.contains('.')
            || PRIVATE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
            || self.is_configured(&host)
    }

    fn is_configured(&self, host: &str) -> bool {
        self.0.iter().any(
            |AllowedHost(known)| {
                if known.starts_with('.') { host.ends_with(known.as_str()) } else { host == known }
            },
        )
    }
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

/// Why a request is turned away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Refusal {
    #[error("the request has no Host header, or more than one")]
    NoHost,
    #[error(
        "this server does not know itself as {0:?}; add the name to STOCKADE_ALLOWED_HOSTS on the server, or \
         use its IP address"
    )]
    UnknownHost(String),
    #[error(
        "requests from web pages of {0:?} are refused; if that page is yours, add its host name to \
         STOCKADE_ALLOWED_HOSTS on the server"
    )]
    ForeignOrigin(String),
    #[error("requests from web pages of other sites are refused; open the address itself instead")]
    CrossSite,
}

/// Turns requests away that a web page may have sent.
pub(crate) async fn check(State(state): State<ServerState>, request: Request, next: Next) -> Response {
    // The contract: /health is always open. It says nothing.
    if matches!(request.uri().path(), "/health" | "/healthz") {
        return next.run(request).await;
    }
    match examine(&request, &state.settings().allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let (status, code) = match refusal {
                Refusal::NoHost => (StatusCode::BAD_REQUEST, "no_host"),
                Refusal::UnknownHost(_) => (StatusCode::MISDIRECTED_REQUEST, "unknown_host"),
                Refusal::ForeignOrigin(_) | Refusal::CrossSite => (StatusCode::FORBIDDEN, "foreign_origin"),
            };
            ApiError::own(status, code, refusal.to_string()).into_response()
        }
    }
}

fn examine<B>(request: &http::Request<B>, allowed: &AllowedHosts) -> Result<(), Refusal> {
    let authority = match (named_host(request)?, request.version()) {
        (Some(authority), _) => authority,
        // Nothing that old is a browser.
        (None, Version::HTTP_10 | Version::HTTP_09) => return Ok(()),
        (None, _) => return Err(Refusal::NoHost),
    };
    if !allowed.knows(authority.host()) {
        return Err(Refusal::UnknownHost(echo::bounded_text(authority.host())));
    }
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) if is_of_another_site(request) => Err(Refusal::CrossSite),
        (None, _) => Ok(()),
        (Some(origin), None) if is_own(origin.as_bytes(), &authority, allowed) => Ok(()),
        (Some(origin), _) => {
            Err(Refusal::ForeignOrigin(echo::bounded_text(&String::from_utf8_lossy(origin.as_bytes()))))
        }
    }
}

/// Whether a browser says that a page of another site sent this. Another port of one host is the same site and
/// another origin. What says nothing is no browser, or one that does not trust the way here.
fn is_of_another_site<B>(request: &http::Request<B>) -> bool {
    let headers = request.headers();
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let is_foreign = sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && headers.get("sec-fetch-dest").is_some_and(|place| place == "document")
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.uri().path().starts_with("/api/");
    is_foreign && !navigates
}

/// What the request takes this server for: the authority of its target, else its one `Host` header.
fn named_host<B>(request: &http::Request<B>) -> Result<Option<Authority>, Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::NoHost);
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = host else { return Ok(None) };
    let unreadable = || Refusal::UnknownHost(echo::bounded_text(&String::from_utf8_lossy(host.as_bytes())));
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| unreadable())?;
    if authority.as_str().contains('@') {
        return Err(unreadable());
    }
    Ok(Some(authority))
}

/// Whether a page of this origin is this server's own, or of a configured name.
fn is_own(origin: &[u8], authority: &Authority, allowed: &AllowedHosts) -> bool {
    let Ok(origin) = http::Uri::try_from(origin) else { return false };
    let (Some(scheme), Some(from)) = (origin.scheme_str(), origin.authority()) else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    (from.host().eq_ignore_ascii_case(authority.host()) && port(from) == port(authority))
        || allowed.is_configured(&from.host().to_ascii_lowercase())
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
