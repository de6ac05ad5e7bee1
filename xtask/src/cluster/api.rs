//! A small client for what `up` has to ask the cluster itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::layout::Layout;
use super::pki::API_PORT;

/// One question; everything asked here is answered in milliseconds by a healthy component.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The administrator's connection to the cluster's servers.
#[derive(Debug)]
pub struct Api {
    agent: ureq::Agent,
    base: String,
}

impl Api {
    /// With the administrator's certificate of this cluster.
    ///
    /// # Errors
    /// When a certificate or key cannot be read.
    pub fn new(layout: &Layout, node_address: Ipv4Addr) -> Result<Self> {
        let read = |file: &str| {
            let path = layout.pki(file);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let authority = Certificate::from_pem(&read("ca.crt")?).context("ca.crt is no certificate")?;
        let certificate =
            Certificate::from_pem(&read("admin.crt")?).context("admin.crt is no certificate")?;
        let key = PrivateKey::from_pem(&read("admin.key")?).context("admin.key is no key")?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[authority]))
            .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
            .build();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            // A developer's proxy has no way to the cluster.
            .proxy(None)
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Self { agent, base: format!("https://{node_address}:{API_PORT}") })
    }

    /// The status and body of any URL of the cluster.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn probe(&self, url: &str) -> Result<(u16, String)> {
        let mut answer = self.agent.get(url).call().with_context(|| format!("GET {url}"))?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default()))
    }

    /// An object of the API; `None` when there is none.
    ///
    /// # Errors
    /// When there is no answer, or one that is neither 200 nor 404.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        let (status, body) = self.probe(&format!("{}{path}", self.base))?;
        match status {
            200 => Ok(Some(serde_json::from_str(&body).with_context(|| format!("GET {path}"))?)),
            404 => Ok(None),
            _ => anyhow::bail!("GET {path} answered {status}: {body}"),
        }
    }

    /// Creates an object; the status and body of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, object: &Value) -> Result<(u16, String)> {
        let mut answer = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .send(object.to_string())
            .with_context(|| format!("POST {path}"))?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default()))
    }
}
