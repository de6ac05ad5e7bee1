//! The variables of the server itself: who may call, and under which names.

use secrecy::SecretString;
use stockade_server::{Access, AllowedHost, AllowedHosts, ServerSettings};

use super::Start;
use super::reader::Reader;
use super::values;

/// Reads them. `node_host` is a name callers reach sandboxes by.
pub(super) fn read(
    reader: &mut Reader<'_>,
    start: Start,
    node_host: &str,
    warnings: &mut Vec<String>,
) -> ServerSettings {
    let key = reader.parse_secret("PROVISIONER_API_KEY", |text| {
        values::api_key(text).map(|text| Access::key(&SecretString::from(text)))
    });
    let is_open = reader.parse("PROVISIONER_AUTH_DISABLED", values::boolean).unwrap_or(false);
    let access = match (is_open, key) {
        (true, key) => {
            let beside = if key.is_some() { "; PROVISIONER_API_KEY has no effect beside it" } else { "" };
            warnings.push(format!(
                "PROVISIONER_AUTH_DISABLED is true: whoever reaches this server can run code in sandboxes{beside}"
            ));
            Access::Open
        }
        (false, Some(access)) => access,
        // There is going to be one.
        (false, None) if start == Start::Up => Access::Nobody,
        (false, None) => {
            warnings.push(
                "PROVISIONER_API_KEY is not set: every call below /api is answered with 401. Set it here and at \
                 the caller, or set PROVISIONER_AUTH_DISABLED=true"
                    .to_owned(),
            );
            Access::Nobody
        }
    };
    let configured = reader.parse("STOCKADE_ALLOWED_HOSTS", |text| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<Vec<AllowedHost>, _>>()
    });
    // Callers that reach sandboxes by this name may reach the server by it.
    let own = node_host.parse::<AllowedHost>().ok();
    let allowed_hosts: AllowedHosts = configured.unwrap_or_default().into_iter().chain(own).collect();
    let metrics_need_key = reader.parse("STOCKADE_METRICS_AUTH", values::boolean).unwrap_or(false);
    ServerSettings { access, allowed_hosts, metrics_need_key }
}
