use stockade_core::ContractVersion;
use stockade_core::layout::{Skills, UserData};
use stockade_core::path::HostPath;

use super::kubernetes::DEFAULT_IMAGE;
use super::*;
use stockade_kubernetes::settings::{LarkImages, ServiceType};
use stockade_server::{Access, AllowedHost};

/// Settings from variables, written as `NAME=value`.
fn load(environment: &[&str]) -> Result<Settings, SettingsError> {
    load_with(environment, Overrides::default())
}

fn load_with(environment: &[&str], overrides: Overrides) -> Result<Settings, SettingsError> {
    let lookup = |name: &str| {
        let pair = environment.iter().filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name);
        pair.map(|(_, value)| value.into())
    };
    let read_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    Settings::load(&Surroundings { variable: &lookup, read_file: &read_file, is_root: true }, overrides)
}

/// What the settings say to the Kubernetes backend.
fn kubernetes(settings: Settings) -> KubernetesSettings {
    match settings.backend {
        BackendSettings::Kubernetes(settings) => *settings,
        BackendSettings::Embedded(settings) => panic!("{settings:?}"),
    }
}

/// The variables that are wrong.
fn wrong(environment: &[&str]) -> Vec<&'static str> {
    load(environment)
        .err()
        .map_or(vec![], |error| error.problems().iter().map(super::reader::Problem::variable).collect())
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

#[test]
fn an_empty_environment_has_the_contract_s_defaults() {
    let empty = ["K8S_NAMESPACE=", "SANDBOX_CONTAINER_PORT=", "PROVISIONER_API_KEY=", "NODE_HOST="];
    for environment in [&[][..], &empty[..]] {
        let settings = load(environment).unwrap();
        assert!(matches!(settings.server.access, Access::Nobody));
        assert!(!settings.server.metrics_need_key);
        assert_eq!(settings.state_dir, None);
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8002");
        let kubernetes = kubernetes(settings);
        assert_eq!(kubernetes.namespace, "deer-flow");
        assert_eq!(kubernetes.image, DEFAULT_IMAGE);
        assert_eq!(kubernetes.agent_image, None);
        assert_eq!(kubernetes.container_port, 8080);
        assert_eq!(kubernetes.service_type, ServiceType::NodePort);
        assert_eq!(kubernetes.node_host, "host.docker.internal");
        assert_eq!(kubernetes.kubeconfig, PathBuf::from("/root/.kube/config"));
        assert_eq!(kubernetes.api_server, None);
        assert_eq!(kubernetes.lark, LarkImages::default());
        assert_eq!(kubernetes.delete_grace, Duration::from_secs(5));
        assert_eq!(kubernetes.create_wait, Duration::from_secs(3));
    }
}

#[test]
fn every_variable_is_taken() {
    let settings = load(&[
        "K8S_NAMESPACE=boxes",
        "SANDBOX_IMAGE=sandbox:dev",
        "SANDBOX_INJECT_AGENT=true",
        "SANDBOX_AGENT_IMAGE=agent:dev",
        "SANDBOX_CONTAINER_PORT=9090",
        "SANDBOX_SERVICE_TYPE=ClusterIP",
        "NODE_HOST=fd00::1",
        "KUBECONFIG_PATH=/kube/config",
        "K8S_API_SERVER=https://10.0.0.1:6443/",
        "LARK_CLI_INIT_IMAGE=lark:init",
        "LARK_CLI_BROKER_IMAGE=lark:broker",
        "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS=auth,config",
        "PROVISIONER_API_KEY=k3y",
        "SANDBOX_DELETE_GRACE_SECONDS=30",
        "SANDBOX_CREATE_WAIT=0",
        "STOCKADE_BACKEND=kubernetes",
        "STOCKADE_LISTEN=127.0.0.1:9000",
        "STOCKADE_ALLOWED_HOSTS=stockade.example.com, .corp.example",
        "STOCKADE_METRICS_AUTH=yes",
    ])
    .unwrap();
    assert!(matches!(settings.server.access, Access::Key(_)));
    assert!(settings.server.metrics_need_key);
    let hosts =
        ["stockade.example.com", ".corp.example"].iter().map(|name| name.parse::<AllowedHost>().unwrap());
    assert_eq!(settings.server.allowed_hosts, hosts.collect());
    assert_eq!(settings.listen.to_string(), "127.0.0.1:9000");
    let kubernetes = kubernetes(settings);
    assert_eq!(kubernetes.namespace, "boxes");
    assert_eq!(kubernetes.image, "sandbox:dev");
    assert_eq!((kubernetes.agent_image.as_deref(), kubernetes.inject_agent), (Some("agent:dev"), true));
    assert_eq!(kubernetes.container_port, 9090);
    assert_eq!(kubernetes.service_type, ServiceType::ClusterIp);
    assert_eq!(kubernetes.node_host, "[fd00::1]");
    assert_eq!(kubernetes.kubeconfig, PathBuf::from("/kube/config"));
    assert_eq!(kubernetes.api_server.as_deref(), Some("https://10.0.0.1:6443"));
    assert_eq!(kubernetes.lark.init.as_deref(), Some("lark:init"));
    assert_eq!(kubernetes.lark.broker.as_deref(), Some("lark:broker"));
    assert_eq!(kubernetes.lark.deny_subcommands.as_deref(), Some("auth,config"));
    assert_eq!(kubernetes.delete_grace, Duration::from_secs(30));
    assert_eq!(kubernetes.create_wait, Duration::ZERO);
}

#[test]
fn a_wrong_value_is_named_with_what_would_be_right() {
    let check = |pair: &'static str, said: &str| {
        let error = load(&[pair]).err().unwrap_or_else(|| panic!("{pair:?} is accepted"));
        let (variable, _) = pair.split_once('=').unwrap();
        assert_eq!(error.problems()[0].variable(), variable, "{pair:?}");
        let text = error.to_string();
        assert!(text.contains(said), "{pair:?}: {text}");
        assert!(text.lines().skip(1).all(|line| !line.chars().any(char::is_control)), "{text:?}");
    };
    for name in ["Deer_Flow", "-a", "a.b", "a b"] {
        check(Box::leak(format!("K8S_NAMESPACE={name}").into_boxed_str()), "DNS label");
    }
    check("SANDBOX_IMAGE=a b", "image reference");
    check("SANDBOX_IMAGE=a\n", "\"a\\n\"");
    check("SANDBOX_AGENT_IMAGE=a b", "image reference");
    check("SANDBOX_INJECT_AGENT=perhaps", "true or false");
    check("SANDBOX_CONTAINER_PORT=0", "1 to 65535");
    check("SANDBOX_CONTAINER_PORT=65536", "1 to 65535");
    check("SANDBOX_CONTAINER_PORT=http", "1 to 65535");
    check("SANDBOX_SERVICE_TYPE=nodeport", "NodePort or ClusterIP");
    check("SANDBOX_SERVICE_TYPE=LoadBalancer", "NodePort or ClusterIP");
    check("NODE_HOST=http://x", "without scheme");
    check("NODE_HOST=x:80", "without scheme");
    check("NODE_HOST=300.1.1.1", "IP address");
    check("K8S_API_SERVER=10.0.0.1:6443", "https://");
    check("K8S_API_SERVER=ftp://10.0.0.1", "https://");
    check("THREADS_HOST_PATH=./threads", "not an absolute path");
    check("DEER_FLOW_HOST_BASE_DIR=deer", "not an absolute path");
    check("SKILLS_HOST_PATH=C:skills", "not an absolute path");
    check("SKILLS_PVC_NAME=Skills", "DNS subdomain");
    check("USERDATA_PVC_NAME=a_b", "DNS subdomain");
    check("SKILLS_PVC_SUBPATH_TEMPLATE={tenant}", "{user_id}");
    check("LARK_CLI_INIT_IMAGE=a b", "image reference");
    check("LARK_CLI_BROKER_IMAGE=a b", "image reference");
    check("PROVISIONER_AUTH_DISABLED=perhaps", "true or false");
    check("MOUNT_CONTRACT_VERSION=3", "1 or 2");
    check("SANDBOX_DELETE_GRACE_SECONDS=0", "1 to 300");
    for value in ["21", "-1", "1.5", "3s"] {
        check(Box::leak(format!("SANDBOX_CREATE_WAIT={value}").into_boxed_str()), "0 to 20");
    }
    check("STOCKADE_LISTEN=8002", "0.0.0.0:8002");
    check("STOCKADE_BACKEND=docker", "must be kubernetes or embedded");
    check("STOCKADE_ALLOWED_HOSTS=https://x", "without scheme");
    check("STOCKADE_METRICS_AUTH=2", "true or false");
}

#[test]
fn all_wrong_values_are_named_at_once() {
    let environment = ["K8S_NAMESPACE=A", "SANDBOX_CONTAINER_PORT=0", "STOCKADE_LISTEN=x", "NODE_HOST=a b"];
    let mut names = wrong(&environment);
    names.sort_unstable();
    assert_eq!(names, ["K8S_NAMESPACE", "NODE_HOST", "SANDBOX_CONTAINER_PORT", "STOCKADE_LISTEN"]);
}

#[test]
fn the_agent_is_injected_from_an_image_that_is_named_or_the_start_stops() {
    const KEY: &str = "PROVISIONER_API_KEY=k";
    let on = ["SANDBOX_INJECT_AGENT=true", "SANDBOX_IMAGE=python:3", KEY];
    assert_eq!(wrong(&on), ["SANDBOX_AGENT_IMAGE"]);
    assert_eq!(wrong(&[&on[..], &["SANDBOX_AGENT_IMAGE="]].concat()), ["SANDBOX_AGENT_IMAGE"]);
    assert_eq!(wrong(&[&on[..], &["SANDBOX_AGENT_IMAGE=a b"]].concat()), ["SANDBOX_AGENT_IMAGE"]);
    let error = load(&on).unwrap_err().to_string();
    assert!(error.contains("SANDBOX_INJECT_AGENT=true takes the agent from"), "{error}");

    let named = "SANDBOX_AGENT_IMAGE=agent:dev";
    let settings = load(&[&on[..], &[named]].concat()).unwrap();
    assert_eq!(settings.warnings, [""; 0]);
    assert_eq!(kubernetes(settings).agent_image.as_deref(), Some("agent:dev"));
    let settings = load(&[named, "SANDBOX_INJECT_AGENT=true", KEY]).unwrap();
    assert!(settings.warnings[0].contains("SANDBOX_IMAGE is not set"), "{:?}", settings.warnings);
    let settings = load(&[named, KEY]).unwrap();
    assert!(settings.warnings[0].contains("no effect"), "{:?}", settings.warnings);
    assert_eq!(kubernetes(settings).agent_image, None);
}

#[test]
fn an_image_that_has_the_agent_is_told_by_naming_the_agent_s() {
    let own = ["SANDBOX_IMAGE=sandbox:1", "SANDBOX_AGENT_IMAGE=sandbox:1", "PROVISIONER_API_KEY=k"];
    let settings = load(&own).unwrap();
    assert_eq!(settings.warnings, [""; 0]);
    let settings = kubernetes(settings);
    assert_eq!((settings.agent_image.as_deref(), settings.inject_agent), (Some("sandbox:1"), false));
    let foreign = kubernetes(load(&own[..1]).unwrap());
    assert_eq!((foreign.agent_image, foreign.inject_agent), (None, false));
}

#[test]
fn no_secret_is_shown_anywhere() {
    let settings = load(&["PROVISIONER_API_KEY=hunter22"]).unwrap();
    assert!(!format!("{settings:?}").contains("hunter22"));
    let error = load(&["PROVISIONER_API_KEY=hunter22\n"]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter22"), "{error}");
    let error = load(&["K8S_API_SERVER=https://user:hunter22@x"]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter22"), "{error}");
}

#[test]
fn access_follows_the_key_and_the_opt_out() {
    let check = |environment: &[&str], expect: &str, warning: Option<&str>| {
        let settings = load(environment).unwrap();
        assert_eq!(format!("{:?}", settings.server.access), expect, "{environment:?}");
        assert_eq!(settings.warnings.len(), usize::from(warning.is_some()), "{:?}", settings.warnings);
        assert!(
            settings.warnings.iter().all(|said| said.contains(warning.unwrap())),
            "{:?}",
            settings.warnings
        );
    };
    check(&["PROVISIONER_API_KEY=k"], "Key(..)", None);
    check(&["PROVISIONER_API_KEY=k", "PROVISIONER_AUTH_DISABLED=false"], "Key(..)", None);
    check(&[], "Nobody", Some("401"));
    check(&["PROVISIONER_AUTH_DISABLED=0"], "Nobody", Some("401"));
    check(&["PROVISIONER_AUTH_DISABLED=True"], "Open", Some("whoever reaches this server"));
    check(&["PROVISIONER_AUTH_DISABLED=1", "PROVISIONER_API_KEY=k"], "Open", Some("no effect"));
}

#[test]
fn the_command_line_wins_over_variables() {
    let listen = Some("127.0.0.1:1".parse().unwrap());
    let overrides = Overrides { listen, ..Overrides::default() };
    let settings = load_with(&["STOCKADE_LISTEN=127.0.0.1:2"], overrides).unwrap();
    assert_eq!(settings.listen.port(), 1);
    let overrides = Overrides { backend: Some(BackendKind::Kubernetes), ..Overrides::default() };
    let settings = load_with(&["STOCKADE_BACKEND=embedded"], overrides).unwrap();
    assert!(matches!(settings.backend, BackendSettings::Kubernetes(_)));
}

/// Where files lie for these variables: contract, user data, base, base of extra mounts.
fn check_storage(
    environment: &[&str],
    contract: ContractVersion,
    user_data: &UserData,
    base: &str,
    extra: Option<&str>,
) {
    let storage =
        kubernetes(load(environment).unwrap_or_else(|error| panic!("{environment:?}: {error}"))).storage;
    assert_eq!(storage.contract, contract, "{environment:?}");
    assert_eq!(&storage.user_data, user_data, "{environment:?}");
    assert_eq!(storage.base.as_str(), base, "{environment:?}");
    assert_eq!(storage.extra_mount_base.as_ref().map(HostPath::as_str), extra, "{environment:?}");
}

#[test]
fn the_contract_follows_from_where_user_data_lies() {
    use ContractVersion::{V1, V2};
    const BASE: &str = "DEER_FLOW_HOST_BASE_DIR=/srv/df";
    const THREADS: &str = "THREADS_HOST_PATH=/old/threads";
    const CLAIM: &str = "USERDATA_PVC_NAME=data";
    const ONE: &str = "MOUNT_CONTRACT_VERSION=1";
    const TWO: &str = "MOUNT_CONTRACT_VERSION=2";
    let claim = UserData::Claim("data".into());
    let threads = |text: &str| UserData::Threads(path(text));
    check_storage(&[], V2, &UserData::Base, "/.deer-flow", None);
    check_storage(&[TWO], V2, &UserData::Base, "/.deer-flow", None);
    check_storage(&[ONE], V1, &threads("/.deer-flow/threads"), "/.deer-flow", None);
    check_storage(&[BASE], V2, &UserData::Base, "/srv/df", Some("/srv/df"));
    check_storage(&[BASE, TWO], V2, &UserData::Base, "/srv/df", Some("/srv/df"));
    check_storage(&[BASE, THREADS], V2, &UserData::Base, "/srv/df", Some("/srv/df"));
    check_storage(&[BASE, ONE], V1, &threads("/srv/df/threads"), "/srv/df", Some("/srv/df"));
    check_storage(&[BASE, THREADS, ONE], V1, &threads("/old/threads"), "/srv/df", Some("/srv/df"));
    check_storage(&[THREADS], V1, &threads("/old/threads"), "/old", Some("/old"));
    check_storage(&[THREADS, ONE], V1, &threads("/old/threads"), "/old", Some("/old"));
    let elsewhere = "THREADS_HOST_PATH=/old/conversations";
    check_storage(&[elsewhere], V1, &threads("/old/conversations"), "/.deer-flow", None);
    check_storage(&[CLAIM], V2, &claim, "/.deer-flow", None);
    check_storage(&[CLAIM, THREADS], V2, &claim, "/old", Some("/old"));
    check_storage(&[CLAIM, THREADS, TWO], V2, &claim, "/old", Some("/old"));
    check_storage(&[CLAIM, BASE, ONE], V1, &claim, "/srv/df", Some("/srv/df"));
    let windows = "DEER_FLOW_HOST_BASE_DIR=C:\\deer\\";
    check_storage(&[windows, ONE], V1, &threads("C:\\deer\\threads"), "C:\\deer", Some("C:\\deer"));
}

#[test]
fn an_explicit_2_without_its_place_stops_the_start() {
    let environment = ["THREADS_HOST_PATH=/old/threads", "MOUNT_CONTRACT_VERSION=2"];
    assert_eq!(wrong(&environment), ["MOUNT_CONTRACT_VERSION"]);
}

#[test]
fn skills_come_from_a_claim_a_directory_or_views() {
    let check = |environment: &[&str], expect: &Skills, warnings: usize| {
        let settings = load(&[environment, &["PROVISIONER_API_KEY=k"]].concat()).unwrap();
        assert_eq!(settings.warnings.len(), warnings, "{:?}", settings.warnings);
        assert_eq!(&kubernetes(settings).storage.skills, expect, "{environment:?}");
    };
    let template = stockade_core::layout::SubPathTemplate::new("u/{user_id}").unwrap();
    let claim = |sub_path| Skills::Claim { name: "skills".into(), sub_path };
    let (name, sub_path) = ("SKILLS_PVC_NAME=skills", "SKILLS_PVC_SUBPATH_TEMPLATE=u/{user_id}");
    check(&[], &Skills::Views, 0);
    check(&["SKILLS_HOST_PATH=/skills"], &Skills::Directory(path("/skills")), 0);
    check(&[name], &claim(None), 0);
    check(&[name, sub_path], &claim(Some(template)), 0);
    check(&[name, "SKILLS_HOST_PATH=/skills"], &claim(None), 1);
    check(&[sub_path], &Skills::Views, 1);
}

#[test]
fn why_a_contract_is_served_is_said() {
    let reason = |environment: &[&str]| load(environment).unwrap().contract_reason;
    assert!(reason(&["MOUNT_CONTRACT_VERSION=1"]).contains("MOUNT_CONTRACT_VERSION"));
    assert!(reason(&["THREADS_HOST_PATH=/t"]).contains("THREADS_HOST_PATH"));
    assert!(reason(&["DEER_FLOW_HOST_BASE_DIR=/t"]).contains("DEER_FLOW_HOST_BASE_DIR"));
    assert!(reason(&["USERDATA_PVC_NAME=t"]).contains("USERDATA_PVC_NAME"));
}
