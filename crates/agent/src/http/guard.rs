//! Refuses what a web page could send to a loopback port: a foreign `Origin`, or a `Host` that is
//! not a name of ours (a page whose own name was rebound to our address). Of a GET for a picture or a script a
//! browser sends no `Origin`, but says in `Sec-Fetch-Site` that a page of another site wants it.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, Uri, header};

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

/// Checks `Host`, and `Origin` or `Sec-Fetch-Site`, of one request.
pub(crate) fn check(
    known: &KnownHosts,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let authority = authority_of(uri, headers);
    let host = host_of(&authority);
    if !authority.is_empty() && !known.knows(host) && known.previewed(host).is_none() {
        let message = format!("host {:?} is not a name of this sandbox", clipped(&authority));
        return Err(ApiError::new(StatusCode::FORBIDDEN, message)
            .with_hint("add it to STOCKADE_ALLOWED_HOSTS (comma-separated; *.example.org for all below)"));
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return if is_of_another_site(method, uri, headers) {
            Err(ApiError::new(StatusCode::FORBIDDEN, "a web page of another site may not call this sandbox")
                .with_hint("open the address itself"))
        } else {
            Ok(())
        };
    };
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

/// Whether a browser says that a page of another site sent this. Another port of one host is the same site and
/// another origin. Documents may be opened from there, also in a frame, which is how an agent's front end shows
/// previews and the terminal: no page can read what it frames, and what a document's own page asks for then is of
/// the same origin. The API has no documents.
fn is_of_another_site(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let is_foreign = sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate")
        && matches!(*method, Method::GET | Method::HEAD)
        && !uri.path().starts_with("/v1/");
    is_foreign && !navigates
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
        check(&KnownHosts::parse(known), &Method::GET, &Uri::from_static("/v1/sandbox"), &headers).is_ok()
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
    fn a_page_of_another_site_may_open_documents_and_nothing_else() {
        let verdict = |method: Method, path: &'static str, said: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
            for (name, value) in said {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check(&KnownHosts::default(), &method, &Uri::from_static(path), &headers).is_ok()
        };
        for path in ["/v1/sandbox", "/v1/file/download?path=/etc/passwd", "/proxy/3000/", "/terminal"] {
            assert!(verdict(Method::GET, path, &[]), "{path}: no browser");
            assert!(verdict(Method::GET, path, &[("sec-fetch-site", "none")]), "{path}: typed in");
            assert!(verdict(Method::GET, path, &[("sec-fetch-site", "same-origin")]), "{path}: our own page");
            for site in ["cross-site", "same-site", "of-tomorrow"] {
                for mode in ["no-cors", "cors", "websocket"] {
                    let said = [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
                    assert!(!verdict(Method::GET, path, &said), "{path} {site} {mode}");
                }
                let opened = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
                assert_eq!(verdict(Method::GET, path, &opened), !path.starts_with("/v1/"), "{path} {site}");
                assert!(!verdict(Method::POST, path, &opened), "{path} {site}: a form");
            }
        }
    }

    #[test]
    fn only_the_same_origin_may_call() {
        assert!(verdict("", "127.0.0.1:8080", Some("http://127.0.0.1:8080")));
        for origin in ["http://evil.com", "null", "http://127.0.0.1:9999", ""] {
            assert!(!verdict("", "127.0.0.1:8080", Some(origin)), "{origin}");
        }
    }
}
