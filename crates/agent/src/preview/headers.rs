//! What a previewed program is told of a request, and how the places it answers with are turned back.
//!
//! Servers of developers refuse names they do not know, because a page whose own name was rebound to this machine
//! could reach them otherwise. Who may call was checked before; so the program sees the name it expects,
//! `localhost:PORT`, and the caller's in `X-Forwarded-*`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that belong to one connection and are not passed on.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How the caller sees the program.
pub(super) struct Seen {
    port: u16,
    /// The name and port the caller used.
    authority: Option<HeaderValue>,
    /// What the caller's paths begin with, and the program's do not.
    prefix: String,
}

impl Seen {
    pub(super) fn of(headers: &HeaderMap, port: u16, prefix: &str) -> Self {
        Self { port, authority: headers.get(header::HOST).cloned(), prefix: prefix.to_owned() }
    }

    fn local(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Changes the headers of a request to what the program is to see. What a proxy before us said of the caller stays:
    /// it knows more.
    pub(super) fn tell(&self, headers: &mut HeaderMap, peer: Option<IpAddr>) {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        if let Some(authority) = &self.authority {
            headers.entry(FORWARDED_HOST).or_insert_with(|| authority.clone());
        }
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        let said = |headers: &HeaderMap, name: &HeaderName| {
            let all: Vec<&str> =
                headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            all.join(", ")
        };
        if let Some(peer) = peer {
            let before = said(headers, &FORWARDED_FOR);
            let all = if before.is_empty() { peer.to_string() } else { format!("{before}, {peer}") };
            value(&all).map(|all| headers.insert(FORWARDED_FOR, all));
        }
        if !self.prefix.is_empty() {
            let before = said(headers, &FORWARDED_PREFIX);
            let whole = format!("{}{}", before.trim_end_matches('/'), self.prefix);
            value(&whole).map(|whole| headers.insert(FORWARDED_PREFIX, whole));
        }
        // A page of the caller's origin is one of the program's own, which compares it with the name it sees.
        if headers.contains_key(header::ORIGIN) {
            value(&format!("http://{}", self.local())).map(|origin| headers.insert(header::ORIGIN, origin));
        }
        value(&self.local()).map(|host| headers.insert(header::HOST, host));
    }

    /// Turns places that the program names into those the caller can go to.
    pub(super) fn turn_back(&self, headers: &mut HeaderMap) {
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let turned = headers.get(&name).and_then(|place| self.place(place.to_str().ok()?));
            if let Some(place) = turned.and_then(|place| HeaderValue::from_str(&place).ok()) {
                headers.insert(name, place);
            }
        }
    }

    /// The caller's name of a place, if it is another than the program's.
    fn place(&self, place: &str) -> Option<String> {
        let names = ["localhost", "127.0.0.1", "[::1]"];
        let own = |rest: &str| {
            names.iter().find_map(|name| {
                let rest = rest.strip_prefix(name)?.strip_prefix(&format!(":{}", self.port))?;
                (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then(|| rest.to_owned())
            })
        };
        let absolute = place.strip_prefix("http://").or_else(|| place.strip_prefix("https://"));
        // `//name/path` names another place, as an address with a scheme does.
        let absolute = absolute.or_else(|| place.strip_prefix("//"));
        let path = match absolute {
            Some(rest) => own(rest)?,
            None if place.starts_with('/') && !self.prefix.is_empty() => place.to_owned(),
            None => return None,
        };
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let below =
            path.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        // A program that heeds X-Forwarded-Prefix has put it there.
        Some(if self.prefix.is_empty() || below { path } else { format!("{}{path}", self.prefix) })
    }
}

/// Takes away what belongs to one connection; what is switched to stays.
pub(super) fn clean(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(given: &[(&'static str, &str)], prefix: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Seen::of(&headers, 5173, prefix).tell(&mut headers, Some([10, 0, 0, 9].into()));
        headers
    }

    #[test]
    fn the_program_sees_the_name_it_expects_and_the_callers_beside_it() {
        let headers =
            told(&[("host", "box.example.org"), ("origin", "http://box.example.org")], "/proxy/5173");
        for (name, expect) in [
            ("host", "localhost:5173"),
            ("origin", "http://localhost:5173"),
            ("x-forwarded-host", "box.example.org"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/proxy/5173"),
            ("x-forwarded-for", "10.0.0.9"),
        ] {
            assert_eq!(headers[name], expect, "{name}");
        }
        let headers = told(&[("host", "a")], "");
        assert!(!headers.contains_key("x-forwarded-prefix") && !headers.contains_key("origin"));
    }

    #[test]
    fn what_a_proxy_before_us_said_stays() {
        let given = [
            ("host", "10.0.0.7:8080"),
            ("x-forwarded-host", "app.example.org"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/sandboxes/1/"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
        ];
        let headers = told(&given, "/proxy/5173");
        assert_eq!(headers["x-forwarded-host"], "app.example.org");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-prefix"], "/sandboxes/1/proxy/5173");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1, 192.0.2.2, 10.0.0.9");
    }

    #[test]
    fn places_of_the_program_are_turned_into_the_callers() {
        for (prefix, place, expect) in [
            ("/proxy/5173", "http://localhost:5173/a?b#c", Some("/proxy/5173/a?b#c")),
            ("/proxy/5173", "https://127.0.0.1:5173", Some("/proxy/5173/")),
            ("/proxy/5173", "//[::1]:5173/a", Some("/proxy/5173/a")),
            ("/proxy/5173", "/login", Some("/proxy/5173/login")),
            ("/proxy/5173", "/proxy/5173/login", Some("/proxy/5173/login")),
            ("/proxy/5173", "/proxy/51730", Some("/proxy/5173/proxy/51730")),
            ("/proxy/5173", "login", None),
            ("/proxy/5173", "https://example.org/", None),
            ("/proxy/5173", "http://localhost:51730/", None),
            ("/proxy/5173", "//example.org/a", None),
            ("", "http://localhost:5173/a", Some("/a")),
            ("", "/login", None),
        ] {
            let seen = Seen { port: 5173, authority: None, prefix: prefix.to_owned() };
            assert_eq!(seen.place(place).as_deref(), expect, "{prefix} {place}");
        }
    }
}
