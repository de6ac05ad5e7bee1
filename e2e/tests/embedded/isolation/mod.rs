//! Every promise of isolation, attacked from inside.
//!
//! An attack is a Python program in `attacks/`. It makes attempts, prints those that succeed, and says how many
//! there were, so that an attack that does not run cannot pass for one that was withstood.

mod bombs;
mod files;
mod limits;
mod network;
mod processes;

use serde_json::json;

use crate::world::{RunBy, as_each_user};

#[test]
fn system_calls_lead_nowhere() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("kernel").await;
        sandbox.withstands(include_str!("attacks/kernel.py"), &json!({}), 80).await;
    });
}

#[test]
fn proc_and_sys_change_nothing_and_tell_little() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("proc").await;
        sandbox.withstands(include_str!("attacks/kernel_files.py"), &json!({}), 500).await;
    });
}

#[test]
fn control_groups_are_out_of_reach() {
    as_each_user(async |world| {
        let sandbox = world.sandbox("groups").await;
        // An ordinary user has groups where some were left to it.
        let groups = world.run_by == RunBy::Root;
        let facts = json!({ "id": sandbox.id, "groups": groups });
        sandbox.withstands(include_str!("attacks/cgroups.py"), &facts, 7).await;
    });
}
