//! Looking for what would keep sandboxes from working.

use std::io::{self, Write};
use std::process::ExitCode;

use stockade_embedded::EmbeddedSettings;
use stockade_embedded::facts::{self as machine, MachineFacts};
use stockade_kubernetes::doctor::{self as kubernetes, Finding, Level};

use crate::settings::{BackendSettings, Settings, SettingsError};

/// Looks at the settings and, when they are good, at the cluster.
pub(crate) async fn examine(settings: Result<Settings, SettingsError>) -> Vec<Finding> {
    match settings {
        Ok(settings) => {
            let mut findings = examine_settings(&settings);
            match &settings.backend {
                BackendSettings::Kubernetes(settings) => findings.extend(kubernetes::examine(settings).await),
                BackendSettings::Embedded(settings) => findings.extend(examine_machine(settings)),
            }
            findings
        }
        Err(error) => error
            .problems()
            .iter()
            .map(|problem| {
                Finding::new(problem.variable(), Level::Fail, problem.found()).fix(problem.expected())
            })
            .collect(),
    }
}

/// What this machine can and cannot isolate, and what the settings make of it.
fn examine_machine(settings: &EmbeddedSettings) -> Vec<Finding> {
    let findings = MachineFacts::probe().findings().into_iter().chain(machine::findings_about(settings));
    let findings = findings.map(|finding| {
        let level = match finding.level {
            machine::Level::Good => Level::Ok,
            machine::Level::Less => Level::Warn,
            machine::Level::Missing => Level::Fail,
        };
        let found = Finding::new(finding.subject, level, finding.text);
        match finding.remedy {
            Some(remedy) => found.fix(remedy),
            None => found,
        }
    });
    findings.collect()
}

fn examine_settings(settings: &Settings) -> Vec<Finding> {
    let storage = match &settings.backend {
        BackendSettings::Kubernetes(kubernetes) => &kubernetes.storage,
        BackendSettings::Embedded(embedded) => &embedded.storage,
    };
    let contract = format!("serves mount contract {}: {}", storage.contract, settings.contract_reason);
    let backend = match &settings.backend {
        BackendSettings::Kubernetes(_) => "kubernetes; --backend embedded looks at this machine",
        BackendSettings::Embedded(_) => "embedded; --backend kubernetes looks at a cluster",
    };
    let mut findings = vec![
        Finding::new("backend", Level::Ok, backend),
        Finding::new("settings", Level::Ok, "every value is good"),
        Finding::new("mount contract", Level::Ok, contract),
    ];
    findings.extend(
        settings.warnings.iter().map(|warning| Finding::new("settings", Level::Warn, warning.as_str())),
    );
    findings
}

/// Prints the findings, one a line, or as a JSON list.
pub(crate) fn print(out: &mut dyn Write, findings: &[Finding], json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, findings)?;
        return writeln!(out);
    }
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        writeln!(out, "{level}  {}: {}", finding.name, finding.detail)?;
        if let Some(fix) = &finding.fix {
            writeln!(out, "      fix: {fix}")?;
        }
    }
    Ok(())
}

/// Fails when anything does not work.
pub(crate) fn exit_code(findings: &[Finding]) -> ExitCode {
    let fails = findings.iter().any(|finding| finding.level == Level::Fail);
    if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: bool) -> String {
        let findings =
            [Finding::new("a", Level::Ok, "good"), Finding::new("b", Level::Fail, "bad").fix("mend it")];
        let mut out = Vec::new();
        print(&mut out, &findings, json).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn findings_are_printed_with_their_fix() {
        assert_eq!(printed(false), "ok    a: good\nFAIL  b: bad\n      fix: mend it\n");
        let json: serde_json::Value = serde_json::from_str(&printed(true)).unwrap();
        assert_eq!(
            json[1],
            serde_json::json!({"name": "b", "level": "fail", "detail": "bad", "fix": "mend it"})
        );
        assert_eq!(json[0].get("fix"), None);
    }
}
