//! A scripted API server for tests: small, in this process, with faults on demand.
//!
//! It keeps objects, gives revisions, UIDs and node ports, honours UID preconditions, sends watch events and
//! (when there is something to say) the bookmark before a watch ends, and does what a test tells it to do wrong. It has no scheduler and no
//! kubelet: a test plays their part. What it does is what was seen of a real API server; the end-to-end tests
//! run the same paths against one.

mod objects;
mod script;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_test::mock::SendResponse;

use objects::Objects;
pub use script::{Call, Fault};
use script::{Script, Verb};
pub use settings::settings;

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// Events a watcher may be behind before the test is told that it lost some.
const WATCH_QUEUE: usize = 1024;

/// The server, and what a test does to it.
#[derive(Clone)]
pub struct ScriptedApi {
    state: Arc<Mutex<State>>,
}

struct State {
    objects: Objects,
    script: Script,
    watchers: Vec<Watcher>,
    /// Watches bring nothing and do not end: a connection that is dead without knowing it.
    watches_are_dead: bool,
}

struct Watcher {
    resource: String,
    events: mpsc::Sender<Value>,
}

impl ScriptedApi {
    /// A client and the server it speaks to. Needs a Tokio runtime.
    #[must_use]
    pub fn start(namespace: &str) -> (kube::Client, Self) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Answer>();
        handle.allow(u64::MAX);
        let state = State {
            objects: Objects::new(namespace),
            script: Script::default(),
            watchers: Vec::new(),
            watches_are_dead: false,
        };
        let api = Self { state: Arc::new(Mutex::new(state)) };
        let server = api.clone();
        tokio::spawn(async move {
            while let Some((request, respond)) = handle.next_request().await {
                tokio::spawn(server.clone().serve(request, respond));
            }
        });
        (kube::Client::new(service, namespace), api)
    }

    /// The next `times` calls of this verb (`create`, `get`, `list`, `watch`, `delete`) on this resource fail.
    pub fn fail(&self, verb: &str, resource: &str, fault: Fault, times: usize) {
        self.state.lock().script.add(verb, resource, fault, times);
    }

    /// No call fails any more.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.script.clear();
        state.watches_are_dead = false;
    }

    /// All watches go silent without ending, those to come too.
    pub fn kill_watches_silently(&self) {
        self.state.lock().watches_are_dead = true;
    }

    /// What was called so far, watches left out.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().script.calls()
    }

    /// Forgets what was called.
    pub fn forget_calls(&self) {
        self.state.lock().script.forget_calls();
    }

    /// All objects of a resource.
    #[must_use]
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.state.lock().objects.all(resource)
    }

    /// Changes an object as another client or a controller would.
    pub fn edit(&self, resource: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        if let Some(object) = state.objects.edit(resource, name, edit) {
            state.tell(resource, "MODIFIED", &object);
        }
    }

    /// Puts an object as another client would.
    pub fn put(&self, resource: &str, object: Value) {
        let mut state = self.state.lock();
        if let Ok(object) = state.objects.create(resource, object) {
            state.tell(resource, "ADDED", &object);
        }
    }

    /// Takes an object away as a controller, or the kubelet at the end of a grace period, would.
    pub fn take(&self, resource: &str, name: &str) {
        let mut state = self.state.lock();
        if let Some(object) = state.objects.remove(resource, name) {
            state.tell(resource, "DELETED", &object);
        }
    }

    /// Takes an object away without any watch hearing of it.
    pub fn take_unheard(&self, resource: &str, name: &str) {
        self.state.lock().objects.remove(resource, name);
    }

    async fn serve(self, request: Request<Body>, respond: SendResponse<Answer>) {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let call = Call::parse(&parts, &body);
        let fault = self.state.lock().script.take(&call);
        match fault {
            Some(Fault::Hang) => {
                // Held until the client gives up; the test's clock decides when that is.
                std::future::pending::<()>().await;
                drop(respond);
            }
            Some(Fault::Disconnect) => respond.send_error(std::io::Error::other("connection refused")),
            Some(Fault::Status { code, reason, message }) => {
                respond.send_response(status(code, reason, &message));
            }
            None => respond.send_response(self.answer(&call)),
        }
    }

    fn answer(&self, call: &Call) -> Answer {
        if call.verb == Verb::Watch {
            return self.watch(call);
        }
        let mut state = self.state.lock();
        let (resource, name) = (call.resource.as_str(), call.name.as_deref().unwrap_or_default());
        match call.verb {
            Verb::Get => match state.objects.get(resource, name) {
                Some(object) => ok(StatusCode::OK, &object),
                None => not_found(resource, name),
            },
            Verb::List => ok(StatusCode::OK, &state.objects.list(resource, call.limit())),
            Verb::Create => match state.objects.create(resource, call.body.clone()) {
                Ok(object) => {
                    state.tell(resource, "ADDED", &object);
                    ok(StatusCode::CREATED, &object)
                }
                Err(name) => status(409, "AlreadyExists", &format!("{resource} \"{name}\" already exists")),
            },
            Verb::Delete => delete(&mut state, resource, name, call),
            Verb::Watch => unreachable!("answered above"),
        }
    }

    fn watch(&self, call: &Call) -> Answer {
        let (events, received) = mpsc::channel(WATCH_QUEUE);
        let mut state = self.state.lock();
        for object in state.objects.since(&call.resource, call.revision()) {
            let _ = events.try_send(json!({ "type": "MODIFIED", "object": object }));
        }
        if !state.watches_are_dead {
            state.watchers.push(Watcher { resource: call.resource.clone(), events });
        }
        let api = self.clone();
        let resource = call.resource.clone();
        let reached = state.objects.revision();
        let ends = tokio::time::Instant::now() + Duration::from_secs(call.timeout_seconds());
        let lines = stream::unfold(Some((received, reached)), move |state| {
            let (api, resource) = (api.clone(), resource.clone());
            async move {
                let (mut received, reached) = state?;
                let event = tokio::time::timeout_at(ends, received.recv()).await;
                if api.state.lock().watches_are_dead {
                    std::future::pending::<()>().await;
                }
                match event {
                    Ok(Some(event)) => {
                        let reached = reached.max(objects::revision_of(&event["object"]));
                        Some((event, Some((received, reached))))
                    }
                    _ => api.bookmark(&resource, reached).map(|bookmark| (bookmark, None)),
                }
            }
        });
        let frames = lines.map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames) as SyncStream)))
    }

    /// As a real one: nothing when the watcher is there already.
    fn bookmark(&self, resource: &str, reached: u64) -> Option<Value> {
        let revision = self.state.lock().objects.revision();
        let kind = objects::kind(resource);
        (revision > reached).then(|| {
            json!({ "type": "BOOKMARK", "object": {
                "apiVersion": "v1", "kind": kind, "metadata": { "resourceVersion": revision.to_string() },
            }})
        })
    }

    /// Others write to the same store: the revision grows, and none of our objects changes.
    pub fn turn_the_world(&self) {
        self.state.lock().objects.turn_the_world();
    }
}

type SyncStream =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + Sync>>;

impl State {
    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        self.watchers
            .retain(|watcher| watcher.resource != resource || watcher.events.try_send(event.clone()).is_ok());
    }
}

fn delete(state: &mut State, resource: &str, name: &str, call: &Call) -> Answer {
    let Some(object) = state.objects.get(resource, name) else { return not_found(resource, name) };
    let wanted = &call.body["preconditions"]["uid"];
    if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
        return status(409, "Conflict", "the UID in the precondition does not match");
    }
    // A Pod that runs ends gracefully: it is marked, and the kubelet takes it away later.
    if resource == "pods" {
        let marked = state.objects.edit(resource, name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = call.body["gracePeriodSeconds"].clone();
        });
        let marked = marked.unwrap_or(object);
        state.tell(resource, "MODIFIED", &marked);
        return ok(StatusCode::OK, &marked);
    }
    if let Some(object) = state.objects.remove(resource, name) {
        state.tell(resource, "DELETED", &object);
    }
    let success = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    ok(StatusCode::OK, &success)
}

fn not_found(resource: &str, name: &str) -> Answer {
    status(404, "NotFound", &format!("{resource} \"{name}\" not found"))
}

/// What a status is about, as an API server says it: the first word of such a message.
fn about(reason: &str, message: &str) -> Value {
    let kind = message.split(' ').next().filter(|_| reason == "NotFound").unwrap_or_default();
    json!({ "kind": kind })
}

fn ok(code: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut answer = Response::new(BodyExt::boxed(body));
    *answer.status_mut() = code;
    answer
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message, "details": about(reason, message),
    });
    ok(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
}
