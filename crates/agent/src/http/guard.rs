//! Refuses what a web page could send to a loopback port: a foreign `Origin`, or a `Host` that is
//! not a name of ours (a page whose own name was rebound to our address).

use std::net::IpAddr;

use http::{HeaderMap, StatusCode, Uri, header};

use super::reply::ApiError;

/// Names the agent answers to, besides IP addresses, `localhost`, names without a dot (containers
/// on one network call each other so) and Service names.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    exact: Vec<String>,
    suffixes: Vec<String>,
    any: bool,
}

impl KnownHosts {
    /// `names`: comma-separated host names; `*.example.org` stands for every name below it, `*` for all.
    #[must_use]
    pub fn parse(names: &str) -> Self {
        let mut known = Self::default();
        known.add(names);
        known
    }

    /// Adds more names in the same notation.
    pub fn add(&mut self, names: &str) {
        for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|n| !n.is_empty()) {
            if name == "*" {
                self.any = true;
            } else if let Some(suffix) = name.strip_prefix('*') {
                self.suffixes.push(suffix.to_owned());
            } else {
                self.exact.push(name);
            }
        }
    }

    fn knows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if self.any || host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") {
            return true;
        }
        let service = host.ends_with(".svc") || host.ends_with(".svc.cluster.local");
        let docker = host == "host.docker.internal" || host == "gateway.docker.internal";
        let single_label = !host.is_empty() && !host.contains('.');
        service
            || docker
            || single_label
            || self.exact.contains(&host)
            || self.suffixes.iter().any(|suffix| host.ends_with(suffix.as_str()) && host.len() > suffix.len())
    }
}

/// Checks `Host` and `Origin` of one request.
pub(crate) fn check(known: &KnownHosts, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let authority = match headers.get(header::HOST) {
        Some(value) => value.to_str().unwrap_or("?").to_owned(),
        None => uri.authority().map(ToString::to_string).unwrap_or_default(),
    };
    if !authority.is_empty() && !known.knows(host_of(&authority)) {
        let message = format!("host {:?} is not a name of this sandbox", clipped(&authority));
        return Err(ApiError::new(StatusCode::FORBIDDEN, message)
            .with_hint("add it to STOCKADE_ALLOWED_HOSTS (comma-separated; *.example.org for all below)"));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("?");
    let own = origin.split_once("://").map(|(_, rest)| rest);
    if own.is_some_and(|rest| rest.eq_ignore_ascii_case(&authority)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        format!("origin {:?} may not call this sandbox", clipped(origin)),
    ))
}

fn host_of(authority: &str) -> &str {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or("");
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn verdict(known: &str, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(&KnownHosts::parse(known), &Uri::from_static("/v1/sandbox"), &headers).is_ok()
    }

    #[test]
    fn own_names_are_known_and_others_refused() {
        for host in ["127.0.0.1:8080", "[::1]:8080", "localhost", "sandbox-1:8080", "a.ns.svc", "10.0.0.7"] {
            assert!(verdict("", host, None), "{host}");
        }
        for host in ["evil.example.com", "evil.example.com:8080", "127.0.0.1.evil.com", "x.svc.evil.com"] {
            assert!(!verdict("", host, None), "{host}");
        }
        assert!(verdict("box.example.org, *.sandboxes.example", "box.example.org:1", None));
        assert!(verdict("*.sandboxes.example", "a.sandboxes.example", None));
        assert!(!verdict("*.sandboxes.example", "sandboxes.example", None));
    }

    #[test]
    fn only_the_same_origin_may_call() {
        assert!(verdict("", "127.0.0.1:8080", Some("http://127.0.0.1:8080")));
        for origin in ["http://evil.com", "null", "http://127.0.0.1:9999", ""] {
            assert!(!verdict("", "127.0.0.1:8080", Some(origin)), "{origin}");
        }
    }
}
