//! Whether the sandbox that is there is the one that is asked for.

use stockade_core::backend::Conflict;
use stockade_core::egress::EgressPolicy;
use stockade_core::resources::{Amount, Bytes, Millicores};
use stockade_core::{BackendError, ContractVersion, SandboxSpec};

use super::request::Asked;
use crate::network::ResolvedPolicy;
use crate::state::record::Record;

/// Whether it is the same person's, of the same conversation, and has the same mounts. Under contract 1 mounts do
/// not count.
pub(crate) fn check_same(
    record: &Record,
    spec: &SandboxSpec,
    asked: &Asked,
    contract: ContractVersion,
) -> Result<(), BackendError> {
    let conflict = |conflict| Err(BackendError::Conflict { id: spec.id.clone(), conflict });
    if record.identity.user != spec.user {
        return conflict(Conflict::User);
    }
    if record.identity.thread != spec.thread {
        return conflict(Conflict::Thread);
    }
    if contract >= ContractVersion::V2 && record.signature != asked.signature {
        return conflict(Conflict::Mounts);
    }
    Ok(())
}

/// Whether it has what the request says about variables, limits and network. What a request leaves out always
/// matches: the defaults may have changed since the sandbox was made.
pub(crate) fn check_extensions(
    record: &Record,
    spec: &SandboxSpec,
    asked: &Asked,
) -> Result<(), BackendError> {
    let mut differs = Vec::new();
    differs.extend(network(&record.network, &spec.network, &asked.network));
    let (has, wanted) = (&record.limits, &spec.resources);
    differs.extend(limit("cpu", wanted.cpu, Millicores(has.millicores)));
    differs.extend(limit("memory", wanted.memory, Bytes(has.memory)));
    differs.extend(limit("ephemeral_storage", wanted.ephemeral_storage, Bytes(has.storage)));
    let variables =
        spec.env.iter().filter(|(name, value)| record.launch.environment.get(*name) != Some(*value));
    // Names alone: values may be secrets.
    differs.extend(variables.map(|(name, _)| format!("the variable {name} is not the one asked for")));
    if differs.is_empty() {
        return Ok(());
    }
    let conflict = Conflict::Extensions { differs: differs.join(", ") };
    Err(BackendError::Conflict { id: spec.id.clone(), conflict })
}

fn network(has: &ResolvedPolicy, wanted: &EgressPolicy, asked: &ResolvedPolicy) -> Option<String> {
    if wanted.mode.is_none() && wanted.allow.is_empty() {
        return None;
    }
    match (has, asked) {
        (ResolvedPolicy::Open(has), ResolvedPolicy::Open(asked)) => {
            // In any order, and however often.
            let same =
                has.iter().all(|hole| asked.contains(hole)) && asked.iter().all(|hole| has.contains(hole));
            (!same).then(|| "the network is open with other destinations in `allow`".to_owned())
        }
        (ResolvedPolicy::Isolated, ResolvedPolicy::Isolated) => None,
        (ResolvedPolicy::Open(_), ResolvedPolicy::Isolated) => {
            Some("the network is open, not isolated".to_owned())
        }
        (ResolvedPolicy::Isolated, ResolvedPolicy::Open(_)) => {
            Some("the network is isolated, not open".to_owned())
        }
    }
}

fn limit<T: PartialOrd + std::fmt::Display>(name: &str, wanted: Amount<T>, has: T) -> Option<String> {
    match (wanted.limit, wanted.request) {
        (Some(limit), _) if limit != has => Some(format!("{name} is limited to {has}, not {limit}")),
        (None, Some(request)) if request > has => {
            Some(format!("{name} is limited to {has}, less than {request}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use stockade_core::egress::NetworkMode;
    use stockade_core::resources::Resources;
    use stockade_core::{SandboxId, UserId};

    use super::*;
    use crate::network::resolve;
    use crate::state::record::StoredLimits;
    use crate::state::tests::mk_record;

    /// What is asked for where the default network is open; the sandbox that is there is isolated.
    fn check(change: impl FnOnce(&mut SandboxSpec)) -> Result<(), String> {
        let record = mk_record("s1");
        let mut spec = SandboxSpec::new(SandboxId::new("s1").unwrap());
        change(&mut spec);
        let asked = Asked {
            signature: record.signature.clone(),
            binds: vec![],
            limits: StoredLimits { millicores: 7, memory: 7, storage: 7, pids: 7 },
            network: resolve(&spec.network, NetworkMode::Open).unwrap(),
            environment: BTreeMap::new(),
        };
        check_same(&record, &spec, &asked, ContractVersion::V2)
            .and_then(|()| check_extensions(&record, &spec, &asked))
            .map_err(|error| format!("{}: {error}", error.code()))
    }

    fn at_most<T>(limit: T) -> Amount<T> {
        Amount { request: None, limit: Some(limit) }
    }

    #[test]
    fn a_request_that_says_nothing_matches_whatever_the_defaults_are_now() {
        assert_eq!(check(|_| ()), Ok(()));
        let other = check(|spec| spec.user = UserId::new("other").unwrap()).unwrap_err();
        assert!(other.starts_with("other_user"), "{other}");
    }

    #[test]
    fn what_is_asked_for_and_there_matches() {
        let resources = Resources {
            cpu: at_most(Millicores(1000)),
            memory: Amount { request: Some(Bytes(1 << 20)), limit: None },
            ephemeral_storage: at_most(Bytes(1 << 30)),
        };
        let same = check(|spec| {
            spec.resources = resources;
            spec.env = BTreeMap::from([("TOKEN".to_owned(), "s3cret".to_owned())]);
            spec.network.mode = Some(NetworkMode::Isolated);
        });
        assert_eq!(same, Ok(()));
    }

    #[test]
    fn what_differs_is_named_and_no_secret_with_it() {
        let differs = |change: &dyn Fn(&mut SandboxSpec), expect: &str| {
            let error = check(|spec| change(spec)).unwrap_err();
            assert!(error.starts_with("incompatible_extensions: "), "{error}");
            assert!(error.contains(expect), "{error}");
            assert!(!error.contains("0ther") && !error.contains("s3cret"), "{error}");
        };
        differs(&|spec| spec.network.mode = Some(NetworkMode::Open), "the network is isolated, not open");
        differs(&|spec| spec.network.allow = vec!["10.0.0.0/8".parse().unwrap()], "not open");
        differs(
            &|spec| spec.resources.memory = at_most(Bytes(64 << 20)),
            "memory is limited to 1Gi, not 64Mi",
        );
        differs(
            &|spec| spec.resources.memory.request = Some(Bytes(2 << 30)),
            "memory is limited to 1Gi, less than 2Gi",
        );
        differs(&|spec| spec.resources.cpu = at_most(Millicores(500)), "cpu is limited to 1, not 500m");
        differs(&|spec| drop(spec.env.insert("TOKEN".into(), "0ther".into())), "the variable TOKEN");
        differs(&|spec| drop(spec.env.insert("MORE".into(), "0ther".into())), "the variable MORE");
    }
}
