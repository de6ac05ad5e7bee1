use super::*;

fn mk_allowed() -> AllowedHosts {
    ["stockade.example.com", ".corp.example"].iter().map(|name| name.parse().unwrap()).collect()
}

/// What is said to a request with this `Host` and this `Origin`.
fn check(host: &str, origin: Option<&str>, expect: Result<(), &str>) {
    let mut request = http::Request::get("/api/sandboxes").header("host", host);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let result = examine(&request.body(()).unwrap(), &mk_allowed()).map_err(|refusal| match refusal {
        Refusal::NoHost => "no host",
        Refusal::UnknownHost(_) => "host",
        Refusal::ForeignOrigin(_) => "origin",
        Refusal::CrossSite => "site",
    });
    assert_eq!(result, expect, "{host} {origin:?}");
}

#[test]
fn names_that_no_page_can_have_are_known() {
    for host in [
        "127.0.0.1:8002",
        "10.1.2.3",
        "[::1]:8002",
        "localhost:8002",
        "LOCALHOST",
        "provisioner:8002",
        "host.docker.internal:8002",
        "stockade.deer-flow.svc:8002",
        "stockade.deer-flow.svc.cluster.local",
        "stockade.deer-flow.svc.cluster.local.",
        "stockade.example.com",
        "Stockade.Example.Com:443",
        "a.b.corp.example",
    ] {
        check(host, None, Ok(()));
    }
}

#[test]
fn names_of_others_are_not() {
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "svc.evil.example",
        "evil.stockade.example.com",
        "evilcorp.example",
        "corp.example",
        "user@127.0.0.1",
        "a b",
        "",
    ] {
        check(host, None, Err("host"));
    }
}

#[test]
fn a_page_must_be_of_this_server_or_of_a_configured_name() {
    let host = "127.0.0.1:8002";
    check(host, Some("http://127.0.0.1:8002"), Ok(()));
    check("localhost", Some("http://localhost:80"), Ok(()));
    check("localhost", Some("https://localhost"), Ok(()));
    check(host, Some("https://stockade.example.com"), Ok(()));
    for foreign in [
        "null",
        "",
        "http://127.0.0.1",
        "http://127.0.0.1:8003",
        "http://localhost:8002",
        "https://evil.example",
        "file://",
        "chrome-extension://127.0.0.1:8002",
    ] {
        check(host, Some(foreign), Err("origin"));
    }
}

#[test]
fn a_page_of_another_site_is_refused_without_an_origin_too() {
    let verdict = |path: &str, headers: &[(&str, &str)]| {
        let mut request = http::Request::get(path).header("host", "localhost:8002");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        examine(&request.body(()).unwrap(), &mk_allowed()).is_ok()
    };
    let (list, docs) = ("/api/sandboxes", "/docs");
    for path in [list, docs] {
        assert!(verdict(path, &[]), "no browser");
        assert!(verdict(path, &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), "typed in");
        assert!(
            verdict(path, &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]),
            "our own page"
        );
        for site in ["cross-site", "same-site", "of-tomorrow", ""] {
            for mode in ["no-cors", "cors", "websocket"] {
                assert!(
                    !verdict(path, &[("sec-fetch-site", site), ("sec-fetch-mode", mode)]),
                    "{path} {site}"
                );
            }
        }
        assert!(!verdict(path, &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]), "{path}");
    }
    let link =
        |place| [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", place)];
    assert!(verdict(docs, &link("document")), "a link that a person follows");
    assert!(!verdict(docs, &link("iframe")) && !verdict(list, &link("document")));
}

#[test]
fn one_host_is_named_and_no_more() {
    let none = http::Request::get("/").body(()).unwrap();
    assert_eq!(examine(&none, &mk_allowed()), Err(Refusal::NoHost));
    let two = http::Request::get("/").header("host", "a").header("host", "b").body(()).unwrap();
    assert_eq!(examine(&two, &mk_allowed()), Err(Refusal::NoHost));
    let absolute = http::Request::get("http://evil.example/").header("host", "a").body(()).unwrap();
    assert!(matches!(examine(&absolute, &mk_allowed()), Err(Refusal::UnknownHost(_))));
    let old = http::Request::get("/").version(Version::HTTP_10).body(()).unwrap();
    assert_eq!(examine(&old, &mk_allowed()), Ok(()));
}

#[test]
fn configured_names_are_names() {
    for bad in ["", ".", "http://x.example", "x.example:80", "a..b", "*", "*.x.example", "a b", "x/y"] {
        assert!(bad.parse::<AllowedHost>().is_err(), "{bad:?}");
    }
}
