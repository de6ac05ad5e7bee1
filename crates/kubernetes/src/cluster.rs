//! The calls we make to the API server: each with a limit, counted, and with its errors sorted.

use std::future::Future;
use std::time::Duration;

use either::Either;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, LogParams, ObjectList, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Client, Resource};
use stockade_core::SandboxId;
use tokio::time::{Instant, timeout};

use crate::call_error::CallError;
use crate::manifest::{SELECTOR, pod_name, service_name};
use crate::metrics::Metrics;
use crate::record::Record;

/// How long one call may take. The slowest here is a list of 500 Pods, 0.1 s; the callers' own time-outs are
/// 10 s and more.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(4);
/// How many objects one page of a list holds: 500 Pods are about 1 MB.
const PAGE: u32 = 500;
/// How often a call that was not carried out is sent again.
const RETRIES: u32 = 5;

/// One namespace of one cluster.
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    /// The server's address without credentials, for messages.
    server: String,
    metrics: Metrics,
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: String, server: String, metrics: Metrics) -> Self {
        Self { client, namespace, server, metrics }
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn create_pod(&self, pod: &Pod) -> Result<Pod, CallError> {
        self.call("create", "pods", || async { self.api().create(&PostParams::default(), pod).await }).await
    }

    pub(crate) async fn create_service(&self, service: &Service) -> Result<Service, CallError> {
        self.call("create", "services", || async { self.api().create(&PostParams::default(), service).await })
            .await
    }

    /// The Pod as it is now; `None` when there is none.
    pub(crate) async fn get_pod(&self, id: &SandboxId) -> Result<Option<Pod>, CallError> {
        let name = pod_name(id);
        present(self.call("get", "pods", || async { self.api().get(&name).await }).await)
    }

    /// The Service as it is now; `None` when there is none.
    pub(crate) async fn get_service(&self, id: &SandboxId) -> Result<Option<Service>, CallError> {
        let name = service_name(id);
        present(self.call("get", "services", || async { self.api().get(&name).await }).await)
    }

    /// Deletes the Pod of this UID. What comes back is the Pod on its way out, or `None` when it is gone.
    pub(crate) async fn delete_pod(
        &self,
        id: &SandboxId,
        uid: &str,
        grace: Duration,
    ) -> Result<Option<Pod>, CallError> {
        let name = pod_name(id);
        let seconds = u32::try_from(grace.as_secs()).unwrap_or(u32::MAX);
        let params = only(uid).grace_period(seconds);
        self.delete("pods", &name, &params).await
    }

    /// Deletes the Service of this UID.
    pub(crate) async fn delete_service(&self, id: &SandboxId, uid: &str) -> Result<(), CallError> {
        let name = service_name(id);
        self.delete::<Service>("services", &name, &only(uid)).await.map(drop)
    }

    async fn delete<K>(
        &self,
        resource: &'static str,
        name: &str,
        params: &DeleteParams,
    ) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let deleted = self.call("delete", resource, || async { self.api::<K>().delete(name, params).await });
        match deleted.await {
            Ok(Either::Left(object)) => Ok(Some(object)),
            Ok(Either::Right(_)) | Err(CallError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a kind that are ours, from the truth, and the revision they are from.
    pub(crate) async fn list<R: Record>(&self) -> Result<(Vec<(SandboxId, R)>, String), CallError> {
        let mut records = Vec::new();
        let mut params = ListParams::default().labels(SELECTOR).limit(PAGE);
        loop {
            let page = self.list_page::<R>(&params).await?;
            records.extend(page.items.iter().filter_map(R::of));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok((records, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// The revision the API server is at, read through to its store.
    pub(crate) async fn current_revision<R: Record>(&self) -> Result<String, CallError> {
        let page = self.list_page::<R>(&ListParams::default().labels(SELECTOR).limit(1)).await?;
        Ok(page.metadata.resource_version.unwrap_or_default())
    }

    async fn list_page<R: Record>(&self, params: &ListParams) -> Result<ObjectList<R::Object>, CallError> {
        self.call("list", R::KIND.name(), || async { self.api::<R::Object>().list(params).await }).await
    }

    /// What happened to the Pod of this UID.
    pub(crate) async fn events_of(&self, pod_uid: &str) -> Result<Vec<Event>, CallError> {
        let params = ListParams::default().fields(&format!("involvedObject.uid={pod_uid}")).limit(PAGE);
        let list = self.call("list", "events", || async { self.api::<Event>().list(&params).await }).await?;
        Ok(list.items)
    }

    /// The log of a container, as a stream.
    pub(crate) async fn log(
        &self,
        id: &SandboxId,
        params: &LogParams,
    ) -> Result<impl futures::AsyncBufRead + Send + use<>, CallError> {
        let name = pod_name(id);
        self.call("get", "pods/log", || async { self.api::<Pod>().log_stream(&name, params).await }).await
    }

    /// The UID of our namespace; `None` when it is not there.
    pub(crate) async fn namespace_uid(&self) -> Result<Option<String>, CallError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = self.call("get", "namespaces", || async { api.get(&self.namespace).await }).await;
        Ok(present(found)?.and_then(|namespace| namespace.metadata.uid))
    }

    /// Makes our namespace; one that is there already is fine.
    pub(crate) async fn create_namespace(&self) -> Result<(), CallError> {
        let labels = [("app.kubernetes.io/name", "deer-flow"), ("app.kubernetes.io/component", "sandbox")];
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(self.namespace.clone()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        let made = self
            .call("create", "namespaces", || async { api.create(&PostParams::default(), &namespace).await });
        match made.await {
            Ok(_) | Err(CallError::AlreadyExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a request, again where the API server did not carry it out and asks for another try.
    async fn call<T, F>(
        &self,
        verb: &'static str,
        resource: &'static str,
        send: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let until = Instant::now() + CALL_LIMIT;
        let mut attempt = 0;
        loop {
            let started = Instant::now();
            let left = until.saturating_duration_since(started);
            let result = match timeout(left, send()).await {
                Ok(answer) => answer.map_err(CallError::from),
                Err(_) => Err(CallError::TimedOut(CALL_LIMIT)),
            };
            self.metrics.api_call(verb, resource, result.as_ref().err(), started.elapsed());
            match result {
                Err(error) if attempt < RETRIES && was_not_carried_out(verb, &error) => {
                    attempt += 1;
                    let asked = if let CallError::Throttled(wait) = error { wait } else { Duration::ZERO };
                    let wait = asked.max(Duration::from_millis(25 << attempt));
                    if Instant::now() + wait >= until {
                        return Err(error);
                    }
                    tokio::time::sleep(wait).await;
                }
                result => return result,
            }
        }
    }
}

/// An absence that the API server itself said is an answer.
fn present<T>(found: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(CallError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A throttled call was not looked at; a create that conflicts met another at a ResourceQuota's count, and
/// nothing was written.
fn was_not_carried_out(verb: &str, error: &CallError) -> bool {
    match error {
        CallError::Throttled(_) => true,
        CallError::Conflict(_) => verb == "create",
        _ => false,
    }
}

fn only(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}
