//! The Kubernetes backend of Stockade.
