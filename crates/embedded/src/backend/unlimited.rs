//! Limits that this machine cannot hold sandboxes to, because it lets us make no control groups for them.

use stockade_core::BackendError;
use stockade_core::resources::Resources;

use crate::cgroup::{CgroupLayout, Controller};
use crate::settings::MissingLimits;

/// What is limited by which controller, in words.
const LIMITED: [(Controller, &str); 3] = [
    (Controller::Cpu, "processor time"),
    (Controller::Memory, "memory"),
    (Controller::Pids, "the number of processes"),
];

/// What is not limited here and why, as a sentence; `None` where all limits hold.
pub(crate) fn note(layout: &CgroupLayout) -> Option<String> {
    let lacking: Vec<&str> =
        LIMITED.iter().filter(|(controller, _)| !layout.has(*controller)).map(|(_, words)| *words).collect();
    if lacking.is_empty() {
        return None;
    }
    Some(format!("not limited here: {}, because {}", lacking.join(", "), why(layout)))
}

fn why(layout: &CgroupLayout) -> String {
    match layout {
        CgroupLayout::None { reason } => reason.clone(),
        CgroupLayout::V1 { .. } | CgroupLayout::V2 { .. } => {
            let lacking = LIMITED.iter().filter(|(controller, _)| !layout.has(*controller));
            let names: Vec<&str> = lacking.map(|(controller, _)| controller.name()).collect();
            format!("the control groups that may be made lack {}", names.join(", "))
        }
    }
}

/// Refuses limits that a request asks for by name and that would not hold, unless the operator allows that.
pub(crate) fn refuse(
    resources: &Resources,
    layout: &CgroupLayout,
    allowed: MissingLimits,
) -> Result<(), BackendError> {
    if allowed == MissingLimits::Accept {
        return Ok(());
    }
    let asked = [
        ("cpu", Controller::Cpu, resources.cpu.limit.is_some()),
        ("memory", Controller::Memory, resources.memory.limit.is_some()),
    ];
    let Some((name, ..)) =
        asked.into_iter().find(|(_, controller, is_asked)| *is_asked && !layout.has(*controller))
    else {
        return Ok(());
    };
    let message = format!(
        "resources.{name}.limit cannot be applied on this machine: {}; leave it out, run the server as root or in a \
         group that was left to it (see `stockade doctor`), or allow such requests with SANDBOX_LIMITS=where-possible",
        why(layout)
    );
    Err(BackendError::Refused { message })
}

#[cfg(test)]
mod tests {
    use stockade_core::resources::{Amount, Bytes, Millicores};

    use super::*;

    fn mk_none() -> CgroupLayout {
        CgroupLayout::None { reason: "none is writable".to_owned() }
    }

    fn mk_some(controllers: &[Controller]) -> CgroupLayout {
        CgroupLayout::V2 { base: "/sys/fs/cgroup/x".into(), controllers: controllers.to_vec() }
    }

    #[test]
    fn what_does_not_hold_is_said_with_its_reason() {
        let all = [Controller::Cpu, Controller::Memory, Controller::Pids];
        assert_eq!(note(&mk_some(&all)), None);
        assert_eq!(
            note(&mk_none()).unwrap(),
            "not limited here: processor time, memory, the number of processes, because none is writable"
        );
        assert_eq!(
            note(&mk_some(&all[1..])).unwrap(),
            "not limited here: processor time, because the control groups that may be made lack cpu"
        );
    }

    #[test]
    fn a_limit_that_is_asked_for_holds_or_is_refused_or_allowed_not_to() {
        let cpu =
            Resources { cpu: Amount { request: None, limit: Some(Millicores(500)) }, ..Resources::default() };
        let storage = Resources {
            ephemeral_storage: Amount { request: None, limit: Some(Bytes(1 << 30)) },
            ..Resources::default()
        };
        let refused = refuse(&cpu, &mk_none(), MissingLimits::Refuse).unwrap_err().to_string();
        assert!(refused.contains("resources.cpu.limit") && refused.contains("none is writable"), "{refused}");
        assert!(refuse(&cpu, &mk_some(&[Controller::Memory]), MissingLimits::Refuse).is_err());
        assert!(refuse(&cpu, &mk_some(&[Controller::Cpu]), MissingLimits::Refuse).is_ok());
        assert!(refuse(&cpu, &mk_none(), MissingLimits::Accept).is_ok());
        // Files are measured, without any group.
        assert!(refuse(&storage, &mk_none(), MissingLimits::Refuse).is_ok());
        assert!(refuse(&Resources::default(), &mk_none(), MissingLimits::Refuse).is_ok());
    }
}
