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

    /// The port in `3000-box.example.org`, when `box.example.org` was given as a name of ours. Names that
    /// are ours without being given may begin like this by chance.
    fn previewed(&self, host: &str) -> Option<u16> {
        let (port, name) = host.split_once('-')?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let below = |suffix: &String| name.ends_with(suffix.as_str()) && name.len() > suffix.len();
        let given = name == "localhost" || self.exact.contains(&name) || self.suffixes.iter().any(below);
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|port| digits && given && *port > 0)
    }
}

/// The port in the sandbox that a request is for by the name it came to.
pub(crate) fn previewed_port(known: &KnownHosts, uri: &Uri, headers: &HeaderMap) -> Option<u16> {
    known.previewed(host_of(&authority_of(uri, headers)))
}

fn authority_of(uri: &Uri, headers: &HeaderMap) -> String {
    match headers.get(header::HOST) {
        Some(value) => value.to_str().unwrap_or("?").to_owned(),
        None => uri.authority().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Checks `Host` and `Origin` of one request.
pub(crate) fn check(known: &KnownHosts, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let authority = authority_of(uri, headers);
    let host = host_of(&authority);
    if !authority.is_empty() && !known.knows(host) && known.previewed(host).is_none() {
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
    fn a_port_is_in_names_that_were_given() {
        let known = KnownHosts::parse("box.example.org, *.sandboxes.example");
        for (host, expect) in [
            ("3000-box.example.org", Some(3000)),
            ("3000-a.sandboxes.example", Some(3000)),
            ("3000-localhost", Some(3000)),
            ("box.example.org", None),
            ("0-box.example.org", None),
            ("99999-box.example.org", None),
            ("+80-box.example.org", None),
            ("3000-evil.example.com", None),
            ("10-0-0-7", None),
            ("8080-container", None),
        ] {
            assert_eq!(known.previewed(host), expect, "{host}");
        }
        assert!(verdict("box.example.org", "3000-box.example.org:80", None));
        assert!(!verdict("box.example.org", "3000-evil.example.com", None));
    }

    #[test]
    fn only_the_same_origin_may_call() {
        assert!(verdict("", "127.0.0.1:8080", Some("http://127.0.0.1:8080")));
        for origin in ["http://evil.com", "null", "http://127.0.0.1:9999", ""] {
            assert!(!verdict("", "127.0.0.1:8080", Some(origin)), "{origin}");
        }
    }
}
