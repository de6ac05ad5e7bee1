//! The objects of the scripted API server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(super) struct Objects {
    namespace: String,
    revision: u64,
    next_port: u64,
    all: BTreeMap<(String, String), Value>,
}

pub(super) fn kind(resource: &str) -> &'static str {
    match resource {
        "pods" => "Pod",
        "services" => "Service",
        "namespaces" => "Namespace",
        _ => "Event",
    }
}

impl Objects {
    pub(super) fn new(namespace: &str) -> Self {
        let mut objects =
            Self { namespace: namespace.to_owned(), revision: 100, next_port: 30_000, all: BTreeMap::new() };
        let _ = objects.create("namespaces", json!({ "metadata": { "name": namespace } }));
        objects
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn turn_the_world(&mut self) {
        self.revision += 1;
    }

    pub(super) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.all.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn all(&self, resource: &str) -> Vec<Value> {
        self.all.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Objects changed after this revision.
    pub(super) fn since(&self, resource: &str, revision: u64) -> Vec<Value> {
        let mut changed = self.all(resource);
        changed.retain(|object| revision_of(object) > revision);
        changed.sort_by_key(revision_of);
        changed
    }

    pub(super) fn list(&self, resource: &str, limit: Option<u64>) -> Value {
        let items = self.all(resource);
        let taken = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(items.len());
        json!({
            "kind": format!("{}List", kind(resource)), "apiVersion": "v1",
            "metadata": { "resourceVersion": self.revision.to_string() },
            "items": items[..taken],
        })
    }

    /// The object as it is kept, or the name that is taken.
    pub(super) fn create(&mut self, resource: &str, mut object: Value) -> Result<Value, String> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), name.clone());
        if self.all.contains_key(&key) {
            return Err(name);
        }
        self.revision += 1;
        object["kind"] = json!(kind(resource));
        object["apiVersion"] = json!("v1");
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("uid-{}", self.revision));
        metadata["resourceVersion"] = json!(self.revision.to_string());
        metadata["creationTimestamp"] = json!("2026-11-01T00:00:00Z");
        metadata["namespace"] = json!(self.namespace);
        match resource {
            "pods" if object["status"].is_null() => object["status"] = json!({ "phase": "Pending" }),
            "services" if object["spec"]["type"] == "NodePort" => {
                self.next_port += 1;
                object["spec"]["ports"][0]["nodePort"] = json!(self.next_port);
            }
            _ => {}
        }
        self.all.insert(key, object.clone());
        Ok(object)
    }

    pub(super) fn edit(
        &mut self,
        resource: &str,
        name: &str,
        edit: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        let object = self.all.get_mut(&(resource.to_owned(), name.to_owned()))?;
        edit(object);
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        Some(object.clone())
    }

    pub(super) fn remove(&mut self, resource: &str, name: &str) -> Option<Value> {
        let mut object = self.all.remove(&(resource.to_owned(), name.to_owned()))?;
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        Some(object)
    }
}

pub(super) fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}
