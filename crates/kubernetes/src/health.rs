//! Whether the backend works, as `/readyz` shows it.

use parking_lot::Mutex;

use crate::record::Kind;

/// What is wrong with each part, `None` when nothing is.
#[derive(Debug)]
pub(crate) struct Health {
    parts: Mutex<Parts>,
}

#[derive(Debug)]
struct Parts {
    pods: Option<String>,
    services: Option<String>,
    namespace: Option<String>,
}

impl Health {
    pub(crate) fn starting() -> Self {
        let not_yet = || Some("not connected yet".to_owned());
        let parts = Parts { pods: not_yet(), services: not_yet(), namespace: not_yet() };
        Self { parts: Mutex::new(parts) }
    }

    /// A watch broke. Says whether that is news.
    pub(crate) fn broke(&self, kind: Kind, problem: &str) -> bool {
        self.watch(kind, |part| part.replace(problem.to_owned())).as_deref() != Some(problem)
    }

    /// A watch works. Says whether it did not until now.
    pub(crate) fn works(&self, kind: Kind) -> bool {
        self.watch(kind, Option::take).is_some()
    }

    /// The namespace is there, or why not.
    pub(crate) fn namespace(&self, problem: Option<String>) {
        self.parts.lock().namespace = problem;
    }

    fn watch<T>(&self, kind: Kind, edit: impl FnOnce(&mut Option<String>) -> T) -> T {
        let mut parts = self.parts.lock();
        match kind {
            Kind::Pods => edit(&mut parts.pods),
            Kind::Services => edit(&mut parts.services),
        }
    }

    pub(crate) fn parts(&self) -> Vec<(&'static str, Option<String>)> {
        let parts = self.parts.lock();
        vec![
            ("watch_pods", parts.pods.clone()),
            ("watch_services", parts.services.clone()),
            ("namespace", parts.namespace.clone()),
        ]
    }
}
