//! What single values may be. Each function says what would be right when a value is not.

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;
use stockade_api::field::boolean_word;

/// Yes or no.
pub(super) fn boolean(text: &str) -> Result<bool, &'static str> {
    boolean_word(text).ok_or("must be true or false")
}

/// A port that can be listened on.
pub(super) fn port(text: &str) -> Result<u16, &'static str> {
    text.parse().ok().filter(|port| *port != 0).ok_or("must be a port from 1 to 65535")
}

/// A label of a DNS name, as Kubernetes names namespaces.
pub(super) fn dns_label(text: &str) -> Result<String, &'static str> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err("must be a DNS label: at most 63 of a-z, 0-9 and `-`, and no `-` at an end, like deer-flow")
}

/// Labels with dots between them, as Kubernetes names claims.
pub(super) fn dns_subdomain(text: &str) -> Result<String, &'static str> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("must be a DNS subdomain: at most 253 of a-z, 0-9, `-` and `.`, like user-data")
}

fn is_label(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A reference to an image. The runtime knows better what is good; this keeps out what cannot be.
pub(super) fn image(text: &str) -> Result<String, &'static str> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must be an image reference, without spaces or control characters");
    }
    Ok(text.to_owned())
}

/// A host name or an address, as it stands in a URL: IPv6 gets its brackets.
pub(super) fn url_host(text: &str) -> Result<String, &'static str> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<Ipv6Addr>() {
        return Ok(format!("[{ip}]"));
    }
    let is_part = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    let is_address = text.parse::<IpAddr>().is_ok();
    // What looks like an IPv4 address and is none is a slip of the pen, not a name.
    let looks_like_address = text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if is_address || (text.len() <= 253 && text.split('.').all(is_part) && !looks_like_address) {
        return Ok(text.to_owned());
    }
    Err("must be a host name or an IP address, without scheme and port, like host.docker.internal")
}

/// The address of an API server.
pub(super) fn server_url(text: &str) -> Result<String, &'static str> {
    let expected = "must be a URL like https://host.docker.internal:6443";
    let uri: Uri = text.parse().map_err(|_| expected)?;
    let authority = uri.authority().ok_or(expected)?;
    if !matches!(uri.scheme_str(), Some("http" | "https"))
        || authority.host().is_empty()
        || uri.query().is_some()
    {
        return Err(expected);
    }
    if authority.as_str().contains('@') {
        return Err("must not hold a user or a password; credentials come from the kubeconfig");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A key that can stand in a header.
pub(super) fn api_key(text: &str) -> Result<&str, &'static str> {
    let is_visible = text.bytes().all(|c| (0x20..0x7f).contains(&c));
    if !is_visible || text.trim() != text {
        return Err(
            "must be visible ASCII without spaces at its ends (a line feed at the end of a file is a usual cause): \
             callers send it in a header",
        );
    }
    Ok(text)
}
