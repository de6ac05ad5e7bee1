//! Who may call: everybody, or, with `JWT_PUBLIC_KEY`, those who have a token or a ticket.
//!
//! The gate stands before all routes. What an MCP tool calls is behind it already.

mod key;
mod routes;
#[cfg(test)]
mod testing;
mod tickets;
mod token;

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::http::ApiError;

pub use key::TokenKey;
pub(crate) use routes::router;
use tickets::Tickets;

/// How long a ticket is valid unless `TICKET_TTL_SECONDS` says otherwise.
pub(crate) const TICKET_LIFE: Duration = Duration::from_secs(30);

/// The gate. Without a key it is open.
pub(crate) struct Gate {
    key: Option<TokenKey>,
    tickets: Tickets,
}

impl Gate {
    pub(crate) fn new(key: Option<TokenKey>, ticket_life: Duration) -> Self {
        Self { key, tickets: Tickets::new(ticket_life) }
    }

    /// Whether tokens are asked for.
    pub(crate) fn is_shut(&self) -> bool {
        self.key.is_some()
    }

    /// Lets a request pass that is not for [`is_open`], or says what is missing. A ticket is used up by passing.
    pub(crate) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.key.is_none() { Ok(()) } else { self.identify(uri, headers) }
    }

    /// Whether the request comes with a token (or nothing has to).
    pub(crate) fn knows(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|key| bearer(headers, key).is_ok_and(|found| found))
    }

    fn identify(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.key else { return Ok(()) };
        if bearer(headers, key)? {
            return Ok(());
        }
        // A ticket is worth a token once, so it must not be worth another ticket.
        match ticket(uri).filter(|_| uri.path() != routes::TICKETS) {
            Some(ticket) if self.tickets.redeem(ticket, Instant::now()) => Ok(()),
            Some(_) => Err(refused("the ticket is unknown, used or expired")),
            None => Err(refused("this sandbox asks for a token").with_hint(
                "send Authorization: Bearer TOKEN; where no header can be sent, ?ticket= from POST /tickets",
            )),
        }
    }
}

/// What probes and pages need before they can have a token. `/v1/sandbox` says less without one.
pub(crate) fn is_open(method: &Method, path: &str) -> bool {
    let public = matches!(path, "/v1/sandbox" | "/terminal") || path.starts_with(crate::shell::page::ASSETS);
    matches!(*method, Method::GET | Method::HEAD) && public
}

/// Whether there is a token, which then is a good one.
fn bearer(headers: &HeaderMap, key: &TokenKey) -> Result<bool, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() {
        return Err(refused("there is more than one Authorization header"));
    }
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    let token =
        token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    let token = token.ok_or_else(|| refused("the Authorization header is not Bearer TOKEN"))?;
    key.check(token, SystemTime::now()).map_err(|error| refused(&error.to_string()))?;
    Ok(true)
}

/// The value of `ticket` in the query. Tickets need no decoding.
fn ticket(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("ticket="))
}

fn refused(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    fn gate() -> Gate {
        Gate::new(Some(TokenKey::parse(testing::PEM).unwrap()), TICKET_LIFE)
    }

    fn good() -> String {
        let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        testing::sign(&json!({ "exp": now + 60 }))
    }

    fn verdict(gate: &Gate, method: &Method, uri: &str, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let uri = uri.parse::<Uri>().unwrap();
        is_open(method, uri.path()) || gate.admit(&uri, &headers).is_ok()
    }

    #[test]
    fn a_token_opens_everything_and_nothing_else_does() {
        let (gate, token) = (gate(), good());
        let (bearer, lower) = (format!("Bearer {token}"), format!("bearer  {token}"));
        for uri in ["/v1/shell/exec", "/", "/tickets", "/auth", "/mcp", "/proxy/80/", "/v1/shell/ws"] {
            assert!(verdict(&gate, &Method::GET, uri, &[&bearer]), "{uri}");
            assert!(verdict(&gate, &Method::POST, uri, &[&lower]), "{uri}");
            for values in [
                vec![],
                vec![token.as_str()],
                vec!["Bearer"],
                vec!["Bearer x"],
                vec!["Basic eA=="],
                vec![&bearer, &bearer],
            ] {
                assert!(!verdict(&gate, &Method::GET, uri, &values), "{uri} {values:?}");
            }
        }
    }

    #[test]
    fn probes_and_the_terminals_page_need_none() {
        let gate = gate();
        assert!(verdict(&gate, &Method::GET, "/v1/sandbox", &[]));
        assert!(verdict(&gate, &Method::GET, "/terminal?x", &[]));
        assert!(verdict(&gate, &Method::GET, "/static/sandbox/xterm@5.5.0/xterm.js", &[]));
        assert!(!verdict(&gate, &Method::GET, "/static/sandbox/other", &[]));
        for (method, uri) in [
            (Method::POST, "/v1/sandbox"),
            (Method::GET, "/v1/sandbox/hooks"),
            (Method::GET, "//v1/sandbox"),
            (Method::GET, "/v1/sandbox/"),
            (Method::GET, "/v1/openapi.json"),
        ] {
            assert!(!verdict(&gate, &method, uri, &[]), "{uri}");
        }
        assert!(verdict(&Gate::new(None, TICKET_LIFE), &Method::POST, "/v1/shell/exec", &[]));
    }

    #[test]
    fn a_ticket_passes_once_and_makes_no_other() {
        let gate = gate();
        let ticket = gate.tickets.issue(Instant::now()).unwrap();
        assert!(!verdict(&gate, &Method::POST, &format!("/tickets?ticket={ticket}"), &[]));
        assert!(!verdict(&gate, &Method::GET, "/v1/shell/ws?ticket=", &[]));
        let uri = format!("/v1/shell/ws?a=b&ticket={ticket}");
        assert!(!verdict(&gate, &Method::GET, &uri, &["Bearer x"]), "a bad token is not mended by a ticket");
        assert!(verdict(&gate, &Method::GET, &uri, &[]));
        assert!(!verdict(&gate, &Method::GET, &uri, &[]));
    }
}
