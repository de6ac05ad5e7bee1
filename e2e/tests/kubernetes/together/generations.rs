//! The older generations of the contract.

use std::fs;

use stockade_e2e::world::scenario;

use crate::support::mk_request;

#[test]
fn g0_serves_one_skills_directory_and_user_data_by_thread() {
    scenario(async |world| {
        let skills = world.dirs.make("skills");
        fs::write(format!("{skills}/SKILL.md"), "old skill").unwrap();
        let threads = world.dirs.make("threads");
        let server = world
            .server_with(&[
                ("DEER_FLOW_HOST_BASE_DIR", ""),
                ("SKILLS_HOST_PATH", &skills),
                ("THREADS_HOST_PATH", &threads),
            ])
            .await;
        let body = serde_json::to_value(mk_request("old", "alice", "t1")).unwrap();
        let answer = server.post("/api/sandboxes", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for key in ["user_id", "thread_id", "mount_contract_version"] {
            assert_eq!(answer.json().get(key), None, "{key} is from contract 2");
        }
        let capabilities = server.get("/api/capabilities").await.json();
        assert_eq!(capabilities.get("mount_contract_version"), None);

        let sandbox = server.client().get("old").await.unwrap().expect("the sandbox");
        let testbox = world.enter(&sandbox).await;
        assert_eq!(testbox.read("/mnt/skills/SKILL.md").await.unwrap(), "old skill");
        assert_eq!(testbox.write("/mnt/skills/SKILL.md", "x").await, Err("EROFS".to_owned()));
        testbox.write("/mnt/user-data/a.txt", "a").await.unwrap();
        assert_eq!(fs::read_to_string(format!("{threads}/t1/user-data/a.txt")).unwrap(), "a");
    });
}

#[test]
fn g1_serves_three_skill_views_and_user_data_by_thread() {
    scenario(async |world| {
        world.dirs.make_user("alice");
        let threads = world.dirs.make("threads");
        let server =
            world.server_with(&[("MOUNT_CONTRACT_VERSION", "1"), ("THREADS_HOST_PATH", &threads)]).await;
        let mut request = mk_request("mid", "alice", "t1");
        request.required_mount_contract_version = Some(2);
        let sandbox = server.client().create(&request).await.expect("contract 1 does not know the field");
        assert_eq!((&sandbox.user_id, &sandbox.mount_contract_version), (&None, &None));
        let testbox = world.enter(&sandbox).await;
        assert_eq!(testbox.read("/mnt/skills/public/SKILL.md").await.unwrap(), "public skill");
        assert!(testbox.mount_at("/mnt/skills/legacy").await.read_only);
        testbox.write("/mnt/user-data/b.txt", "b").await.unwrap();
        assert_eq!(fs::read_to_string(format!("{threads}/t1/user-data/b.txt")).unwrap(), "b");
    });
}
