use std::io;
use std::path::Path;

use stockade_core::egress::NetworkMode;
use stockade_core::layout::UserData;
use stockade_core::resources::{Bytes, Millicores};
use stockade_embedded::settings::{
    DefaultLimits, MissingLimits, MissingViews, PortRange, RestartLimit, WritableKind,
};
use stockade_server::Access;

use super::*;

/// The settings of `up` from variables, written as `NAME=value`; the file `/env` has one variable.
fn load(environment: &[&str]) -> Result<Settings, SettingsError> {
    load_with(environment, Overrides { start: Start::Up, ..Overrides::default() }, true)
}

fn load_with(environment: &[&str], overrides: Overrides, is_root: bool) -> Result<Settings, SettingsError> {
    let lookup = |name: &str| {
        let pair = environment.iter().filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name);
        pair.map(|(_, value)| value.into())
    };
    let read_file = |path: &Path| match path.to_str() {
        Some("/env") => Ok("TOKEN=t0p\n".to_owned()),
        Some("/bad") => Ok("hunter22\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    Settings::load(&Surroundings { variable: &lookup, read_file: &read_file, is_root }, overrides)
}

fn embedded(settings: Settings) -> EmbeddedSettings {
    match settings.backend {
        BackendSettings::Embedded(settings) => *settings,
        BackendSettings::Kubernetes(settings) => panic!("{settings:?}"),
    }
}

#[test]
fn up_needs_no_variable() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8002");
    assert_eq!(settings.state_dir.as_deref(), Some(Path::new("/var/lib/stockade")));
    // Its key is yet to be made, which is nothing to warn of.
    assert!(matches!(settings.server.access, Access::Nobody));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let embedded = embedded(settings);
    assert_eq!(embedded.state_dir, Path::new("/var/lib/stockade"));
    assert_eq!((embedded.bind.to_string(), embedded.node_host.as_str()), ("127.0.0.1".into(), "127.0.0.1"));
    assert_eq!(embedded.ports, PortRange::DEFAULT);
    assert_eq!(embedded.storage.base.as_str(), "/var/lib/stockade/data");
    assert_eq!(embedded.storage.extra_mount_base.as_ref().unwrap().as_str(), "/var/lib/stockade/data");
    assert_eq!(embedded.storage.user_data, UserData::Base);
    assert_eq!(embedded.missing_views, MissingViews::Create);
    assert_eq!(embedded.limits, DefaultLimits::DEFAULT);
    assert_eq!(embedded.restarts, RestartLimit::DEFAULT);
    assert_eq!((embedded.network, embedded.subnet, embedded.agent), (None, None, None));
}

#[test]
fn every_variable_is_taken() {
    let settings = load(&[
        "STOCKADE_STATE_DIR=/srv/state",
        "SANDBOX_BIND=0.0.0.0",
        "SANDBOX_PORT_RANGE=10000-10099",
        "NODE_HOST=host.docker.internal",
        "SANDBOX_CONTAINER_PORT=9090",
        "SANDBOX_CPU_LIMIT=500m",
        "SANDBOX_MEMORY_LIMIT=512Mi",
        "SANDBOX_STORAGE_LIMIT=1Gi",
        "SANDBOX_PIDS_LIMIT=64",
        "SANDBOX_LIMITS=where-possible",
        "SANDBOX_NETWORK=isolated",
        "SANDBOX_SUBNET=10.9.0.0/16",
        "SANDBOX_WRITABLE=tmpfs",
        "SANDBOX_ENV_FILE=/env",
        "SANDBOX_DELETE_GRACE_SECONDS=1",
        "SANDBOX_MAX=100",
        "SANDBOX_RESTARTS=0",
        "SANDBOX_LOG_BYTES=64Ki",
        "SANDBOX_SHM_SIZE=256Mi",
        "STOCKADE_AGENT=/opt/agent",
        "DEER_FLOW_HOST_BASE_DIR=/srv/df",
        "PROVISIONER_API_KEY=k3y",
    ])
    .unwrap();
    assert!(matches!(settings.server.access, Access::Key(_)));
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let embedded = embedded(settings);
    assert_eq!(embedded.state_dir, Path::new("/srv/state"));
    assert_eq!(
        (embedded.bind.to_string(), embedded.ports.to_string()),
        ("0.0.0.0".into(), "10000-10099".into())
    );
    assert_eq!((embedded.node_host.as_str(), embedded.container_port), ("host.docker.internal", 9090));
    let limits =
        DefaultLimits { cpu: Millicores(500), memory: Bytes(512 << 20), storage: Bytes(1 << 30), pids: 64 };
    assert_eq!(embedded.limits, limits);
    assert_eq!(embedded.missing_limits, MissingLimits::Accept);
    assert_eq!(embedded.network, Some(NetworkMode::Isolated));
    assert_eq!(embedded.subnet.unwrap().to_string(), "10.9.0.0/16");
    assert_eq!(embedded.writable, WritableKind::Tmpfs);
    assert_eq!(embedded.environment["TOKEN"], "t0p");
    assert_eq!(
        (embedded.delete_grace.as_secs(), embedded.max_sandboxes, embedded.restarts.most),
        (1, 100, 0)
    );
    assert_eq!(embedded.log_bytes, 64 << 10);
    assert_eq!(embedded.agent.as_deref(), Some(Path::new("/opt/agent")));
    assert_eq!((embedded.storage.base.as_str(), embedded.missing_views), ("/srv/df", MissingViews::Empty));
}

#[test]
fn a_wrong_value_is_named_with_what_would_be_right() {
    let check = |environment: &[&str], variable: &str, said: &str| {
        let error = load(environment).err().unwrap_or_else(|| panic!("{environment:?} is accepted"));
        assert_eq!(error.problems()[0].variable(), variable, "{environment:?}");
        assert!(error.to_string().contains(said), "{environment:?}: {error}");
    };
    check(&["STOCKADE_STATE_DIR=state"], "STOCKADE_STATE_DIR", "absolute");
    check(&["SANDBOX_BIND=localhost"], "SANDBOX_BIND", "IP address");
    check(&["SANDBOX_PORT_RANGE=20000"], "SANDBOX_PORT_RANGE", "20000-29999");
    check(&["SANDBOX_PORT_RANGE=20000-20009", "SANDBOX_MAX=11"], "SANDBOX_PORT_RANGE", "lower SANDBOX_MAX");
    check(&["SANDBOX_SUBNET=10.0.0.0/24", "SANDBOX_MAX=252"], "SANDBOX_SUBNET", "lower SANDBOX_MAX");
    check(&["SANDBOX_SUBNET=10.0.0.0/30"], "SANDBOX_SUBNET", "at least a /29");
    check(&["NODE_HOST=host.docker.internal"], "NODE_HOST", "SANDBOX_BIND");
    check(&["NODE_HOST=127.0.0.2"], "NODE_HOST", "is not where the ports");
    check(&["SANDBOX_CPU_LIMIT=much"], "SANDBOX_CPU_LIMIT", "500m");
    check(&["SANDBOX_MEMORY_LIMIT=16Mi"], "SANDBOX_MEMORY_LIMIT", "at least 32Mi");
    check(&["SANDBOX_STORAGE_LIMIT=1"], "SANDBOX_STORAGE_LIMIT", "at least 1Mi");
    check(&["SANDBOX_PIDS_LIMIT=1"], "SANDBOX_PIDS_LIMIT", "from 16");
    check(&["SANDBOX_LIMITS=maybe"], "SANDBOX_LIMITS", "where-possible");
    check(&["SANDBOX_NETWORK=on"], "SANDBOX_NETWORK", "isolated");
    check(&["SANDBOX_NETWORK=allowlist"], "SANDBOX_NETWORK", "not built yet");
    check(&["SANDBOX_SUBNET=10.0.0.1/8"], "SANDBOX_SUBNET", "first address");
    check(&["SANDBOX_WRITABLE=memory"], "SANDBOX_WRITABLE", "tmpfs");
    check(&["SANDBOX_ENV_FILE=/none"], "SANDBOX_ENV_FILE", "cannot be read");
    check(&["SANDBOX_ENV_FILE=env"], "SANDBOX_ENV_FILE", "absolute");
    check(&["SANDBOX_MAX=0"], "SANDBOX_MAX", "from 1");
    check(&["SANDBOX_RESTARTS=-1"], "SANDBOX_RESTARTS", "from 0");
    check(&["SANDBOX_LOG_BYTES=1"], "SANDBOX_LOG_BYTES", "at least 4Ki");
    check(&["SANDBOX_SHM_SIZE=0"], "SANDBOX_SHM_SIZE", "from 1");
    check(&["SANDBOX_SHM_SIZE=1"], "SANDBOX_SHM_SIZE", "at least 4Ki");
    check(&["SANDBOX_SHM_SIZE=much"], "SANDBOX_SHM_SIZE", "much");
    check(&["STOCKADE_AGENT=agent"], "STOCKADE_AGENT", "absolute");
    check(&["SKILLS_PVC_NAME=skills"], "SKILLS_PVC_NAME", "SKILLS_HOST_PATH");
    check(&["USERDATA_PVC_NAME=data"], "USERDATA_PVC_NAME", "DEER_FLOW_HOST_BASE_DIR");
    check(&["DEER_FLOW_HOST_BASE_DIR=C:\\x"], "DEER_FLOW_HOST_BASE_DIR", "directory of this machine");
}

#[test]
fn what_is_wrong_is_said_once() {
    for environment in [
        &["SANDBOX_MAX=0", "SANDBOX_PORT_RANGE=20000-20009"][..],
        &["SANDBOX_BIND=localhost", "NODE_HOST=host.docker.internal"],
    ] {
        let error = load(environment).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{environment:?}: {error}");
    }
}

#[test]
fn what_is_not_said_follows_from_what_is() {
    let settings = |environment: &[&str]| embedded(load(environment).unwrap());
    for (bind, expect) in
        [("10.1.2.3", "10.1.2.3"), ("0.0.0.0", "127.0.0.1"), ("[::1]", "[::1]"), ("::", "[::1]")]
    {
        assert_eq!(settings(&[&format!("SANDBOX_BIND={bind}")]).node_host, expect, "{bind}");
    }
    assert_eq!(settings(&[]).max_sandboxes, 1000);
    assert_eq!(settings(&["SANDBOX_PORT_RANGE=20000-20009"]).max_sandboxes, 10);
    assert_eq!(settings(&["SANDBOX_SUBNET=10.9.0.0/24"]).max_sandboxes, 251);
}

#[test]
fn no_secret_of_an_env_file_is_shown() {
    let error = load(&["SANDBOX_ENV_FILE=/bad"]).unwrap_err();
    assert!(error.to_string().contains("line 1") && !format!("{error:?}").contains("hunter22"), "{error}");
    let settings = load(&["SANDBOX_ENV_FILE=/env"]).unwrap();
    assert!(!format!("{settings:?}").contains("t0p"));
}

#[test]
fn what_is_for_the_other_backend_is_said() {
    for (variable, _) in kubernetes::ONLY {
        let settings = load(&[&format!("{variable}=x")]).unwrap();
        assert!(settings.warnings.iter().any(|said| said.starts_with(variable)), "{variable}");
    }
    let serve = |pair: &str| load_with(&[pair, "PROVISIONER_API_KEY=k"], Overrides::default(), true);
    for variable in embedded::ONLY {
        let settings = serve(&format!("{variable}=/x")).unwrap();
        assert!(settings.warnings[0].starts_with(variable), "{:?}", settings.warnings);
    }
    for variable in embedded::BOUNDS {
        let error = serve(&format!("{variable}=x")).unwrap_err();
        assert_eq!(error.problems()[0].variable(), variable);
    }
}

#[test]
fn the_backend_is_what_was_said_and_never_another() {
    let kind = |environment: &[&str], start, backend| {
        let overrides = Overrides { start, backend, ..Overrides::default() };
        match load_with(environment, overrides, true).unwrap().backend {
            BackendSettings::Kubernetes(_) => BackendKind::Kubernetes,
            BackendSettings::Embedded(_) => BackendKind::Embedded,
        }
    };
    use BackendKind::{Embedded, Kubernetes};
    assert_eq!(kind(&[], Start::Serve, None), Kubernetes);
    assert_eq!(kind(&[], Start::Up, None), Embedded);
    assert_eq!(kind(&["STOCKADE_BACKEND=embedded"], Start::Serve, None), Embedded);
    assert_eq!(kind(&["STOCKADE_BACKEND=kubernetes"], Start::Up, None), Kubernetes);
    assert_eq!(kind(&["STOCKADE_BACKEND=kubernetes"], Start::Serve, Some(Embedded)), Embedded);
}

#[test]
fn state_lies_where_its_user_s_lies() {
    let dir = |environment: &[&str], argument: Option<&str>, is_root| {
        let lookup = |name: &str| {
            let pair = environment.iter().filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name);
            pair.map(|(_, value)| value.into())
        };
        state_dir(argument.map(PathBuf::from), &lookup, is_root).map(|path| path.display().to_string())
    };
    let home = ["HOME=/home/u"];
    assert_eq!(dir(&home, None, true).unwrap(), "/var/lib/stockade");
    assert_eq!(dir(&home, None, false).unwrap(), "/home/u/.local/state/stockade");
    assert_eq!(dir(&["HOME=/home/u", "XDG_STATE_HOME=/s"], None, false).unwrap(), "/s/stockade");
    assert_eq!(
        dir(&["HOME=/home/u", "XDG_STATE_HOME=s"], None, false).unwrap(),
        "/home/u/.local/state/stockade"
    );
    assert_eq!(dir(&["STOCKADE_STATE_DIR=/x"], None, true).unwrap(), "/x");
    assert_eq!(dir(&["STOCKADE_STATE_DIR=/x"], Some("/y"), true).unwrap(), "/y");
    assert!(dir(&[], None, false).unwrap_err().contains("STOCKADE_STATE_DIR"));
    assert!(dir(&["STOCKADE_STATE_DIR=x"], None, false).unwrap_err().contains("absolute"));
}
