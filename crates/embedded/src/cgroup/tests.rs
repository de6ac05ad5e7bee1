//! On the real control groups of this machine, where we may make some; and, for the controllers of version 2, on a
//! tree of plain files, because a machine has each controller in one version only.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use stockade_core::resources::{Bytes, Millicores};

use super::*;

/// Groups of a machine that is only this test's. Dropping it ends and removes them.
struct World {
    groups: Cgroups,
}

impl World {
    fn on(layout: &CgroupLayout) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        Self { groups: Cgroups::open(layout, &name).unwrap() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in self.groups.list() {
            self.groups.discard(&id, KILL_DEADLINE).unwrap();
        }
        self.groups.close().unwrap();
    }
}

/// Each tree of control groups there is here: those of the layout found, and the unified one beside version 1, which
/// has no controllers but stops and kills as any.
fn worlds() -> Vec<World> {
    let mut layouts = vec![CgroupLayout::find()];
    let unified = Path::new("/sys/fs/cgroup/unified");
    if unified.is_dir() && rustix::process::geteuid().is_root() {
        layouts.push(CgroupLayout::V2 { base: unified.to_owned(), controllers: Vec::new() });
    }
    layouts.retain(|layout| !matches!(layout, CgroupLayout::None { .. }));
    layouts.iter().map(World::on).collect()
}

/// Runs `script` in the groups, and as a command of them.
fn run_in(fds: &[OwnedFd], script: &str) -> Child {
    let joins: String = fds
        .iter()
        .map(|fd| format!("echo 0 > /proc/{}/fd/{}; ", std::process::id(), fd.as_raw_fd()))
        .collect();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{joins} echo joined; {script}")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut said = [0_u8; 7];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert_eq!(&said, b"joined\n");
    child
}

/// Whether there is something to read within `milliseconds`.
fn speaks_within(child: &Child, milliseconds: u64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let time = Timespec::try_from(Duration::from_millis(milliseconds)).unwrap();
    let stdout = child.stdout.as_ref().unwrap();
    rustix::event::poll(&mut [PollFd::new(stdout, PollFlags::IN)], Some(&time)).unwrap() > 0
}

fn drain(child: &Child) {
    let mut buffer = [0_u8; 65_536];
    while speaks_within(child, 0) {
        rustix::io::read(child.stdout.as_ref().unwrap(), &mut buffer).unwrap();
    }
}

#[test]
fn a_process_that_joins_is_there_until_it_is_killed() {
    for world in worlds() {
        let group = world.groups.create("one", &Limits::default()).unwrap();
        let mut agent = run_in(&group.join_fds().unwrap(), "exec sleep 1000");
        let mut command = run_in(&group.command_fds().unwrap(), "exec sleep 1000");
        let mut expected = [agent.id(), command.id()].map(|pid| i32::try_from(pid).unwrap());
        expected.sort_unstable();
        let mut there = group.processes();
        there.sort_unstable();
        assert_eq!(there, expected, "{:?}", world.groups.layout);
        assert!(matches!(
            world.groups.create("one", &Limits::default()),
            Err(CgroupError::Occupied { processes: 2, .. })
        ));
        group.kill().unwrap();
        agent.wait().unwrap();
        command.wait().unwrap();
        assert_eq!(world.groups.list(), ["one"]);
        group.remove(KILL_DEADLINE).unwrap();
        assert!(world.groups.list().is_empty());
    }
}

#[test]
fn a_stopped_sandbox_does_nothing_until_it_is_woken() {
    for world in worlds() {
        let group = world.groups.create("one", &Limits::default()).unwrap();
        let mut child = run_in(&group.join_fds().unwrap(), "while :; do echo x; done");
        assert!(speaks_within(&child, 5000));
        group.freeze().unwrap();
        assert!(group.is_frozen().unwrap());
        drain(&child);
        assert!(!speaks_within(&child, 50));
        let (fd, word) = group.thaw_handle().unwrap().unwrap();
        rustix::io::write(&fd, word).unwrap();
        assert!(speaks_within(&child, 5000));
        assert!(!group.is_frozen().unwrap());
        group.freeze().unwrap();
        group.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn processes_that_multiply_are_all_killed() {
    for world in worlds() {
        let limits = Limits { processes: Some(200), ..Limits::default() };
        let group = world.groups.create("bomb", &limits).unwrap();
        // Without a limit of processes it must not eat the machine: so it multiplies to a bound, and again.
        let bomb = "b() { [ $1 -gt 6 ] && exec sleep 1000; b $(($1+1)) & b $(($1+1)) & wait; }; while :; do b 0; done";
        let mut child = run_in(&group.command_fds().unwrap(), bomb);
        let end = Instant::now() + KILL_DEADLINE;
        while group.processes().len() < 50 {
            assert!(Instant::now() < end, "the bomb does not go off");
            std::thread::yield_now();
        }
        group.kill().unwrap();
        assert!(group.processes().is_empty());
        child.wait().unwrap();
        group.remove(KILL_DEADLINE).unwrap();
    }
}

#[test]
fn limits_can_be_set_raised_and_lowered() {
    let mk = |cpu, memory: u64, processes| Limits {
        cpu: Some(Millicores(cpu)),
        memory: Some(Bytes(memory << 20)),
        processes: Some(processes),
    };
    for world in worlds() {
        let group = world.groups.create("one", &mk(500, 256, 64)).unwrap();
        group.set_limits(&mk(2000, 1024, 512)).unwrap();
        group.set_limits(&mk(250, 64, 32)).unwrap();
        group.set_limits(&Limits::default()).unwrap();
        group.set_limits(&mk(100, 16, 8)).unwrap();
    }
}

#[test]
fn memory_beyond_the_limit_is_a_counted_end() {
    let layout = CgroupLayout::find();
    if !layout.has(Controller::Memory) {
        return;
    }
    let world = World::on(&layout);
    let limits = Limits { memory: Some(Bytes(64 << 20)), ..Limits::default() };
    let group = world.groups.create("one", &limits).unwrap();
    assert_eq!(group.oom_kills(), 0);
    let mut child = run_in(&group.command_fds().unwrap(), "head -c 200000000 /dev/zero | tail");
    child.wait().unwrap();
    assert!(group.oom_kills() > 0);
    assert!(group.usage().memory.is_some_and(|Bytes(used)| used < 64 << 20));
}

/// Fills sockets that nobody reads, and says how many megabytes they took.
const FILL_SOCKETS: &str = "python3 -c '
import socket
listener, full, kept = socket.create_server((\"127.0.0.1\", 0)), 0, []
while full < 200 << 20 and len(kept) < 600:
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    one.setblocking(False)
    kept += [one, other]
    try:
        while True: full += one.send(b\"x\" * 65536)
    except BlockingIOError: pass
print(full >> 20, flush=True)'; exec sleep 1000";

#[test]
fn what_waits_in_connections_is_limited() {
    let layout = CgroupLayout::find();
    if !matches!(layout, CgroupLayout::V1 { .. }) || !layout.has(Controller::Memory) {
        return;
    }
    let world = World::on(&layout);
    let filled = |id: &str, memory: Option<Bytes>| {
        let group = world.groups.create(id, &Limits { memory, ..Limits::default() }).unwrap();
        let mut child = run_in(&group.command_fds().unwrap(), FILL_SOCKETS);
        assert!(speaks_within(&child, 60_000));
        let mut said = [0_u8; 16];
        let length = rustix::io::read(child.stdout.as_ref().unwrap(), &mut said).unwrap();
        group.kill().unwrap();
        child.wait().unwrap();
        std::str::from_utf8(&said[..length]).unwrap().trim().parse::<u64>().unwrap()
    };
    let (limited, free) = (filled("limited", Some(Bytes(128 << 20))), filled("free", None));
    // Memory that a buffer takes is somewhat more than what is in it, and each socket may have a little in any case.
    assert!(limited < 64 && limited * 2 < free, "{limited} MB with a limit, {free} MB without");
}

#[test]
fn processes_beyond_the_limit_do_not_begin() {
    let layout = CgroupLayout::find();
    if !layout.has(Controller::Pids) {
        return;
    }
    let world = World::on(&layout);
    let limits = Limits { processes: Some(20), ..Limits::default() };
    let group = world.groups.create("one", &limits).unwrap();
    // A shell that cannot fork ends; so one that began forty is asked how far another came.
    let script =
        "(i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done); echo over; wait; exec sleep 1000";
    let mut child = run_in(&group.command_fds().unwrap(), script);
    assert!(speaks_within(&child, 10_000), "{:?}", group.processes());
    // Commands have three quarters of twenty: the two shells and thirteen, of which one shell has ended.
    assert_eq!(group.processes().len(), 14);
    assert_eq!(group.usage().processes, Some(14));
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_sandbox_is_adopted_whole_and_discarded_in_part() {
    for world in worlds() {
        assert!(world.groups.adopt("one").unwrap().is_none());
        let group = world.groups.create("one", &Limits::default()).unwrap();
        let mut child = run_in(&group.command_fds().unwrap(), "exec sleep 1000");
        let adopted = world.groups.adopt("one").unwrap().unwrap();
        assert_eq!(adopted.processes().len(), 1);
        world.groups.discard("one", KILL_DEADLINE).unwrap();
        child.wait().unwrap();
        assert!(world.groups.list().is_empty());
        // As a server leaves it that was killed in the middle of a create.
        std::fs::create_dir(world.groups.parents()[0].join("half")).unwrap();
        assert!(world.groups.adopt("half").unwrap().is_none());
        assert_eq!(world.groups.list(), ["half"]);
        world.groups.discard("half", KILL_DEADLINE).unwrap();
        assert!(world.groups.list().is_empty());
    }
}

#[test]
fn without_control_groups_everything_is_a_no_op_that_says_so() {
    let layout = CgroupLayout::None { reason: "nobody delegated any".to_owned() };
    let groups = Cgroups::open(&layout, "m").unwrap();
    let group = groups.create("one", &Limits { processes: Some(1), ..Limits::default() }).unwrap();
    assert!(group.join_fds().unwrap().is_empty() && group.command_fds().unwrap().is_empty());
    let error = group.freeze().unwrap_err().to_string();
    assert_eq!(error, "sandboxes cannot be paused here: nobody delegated any");
    assert!(group.thaw_handle().unwrap().is_none());
    group.kill().unwrap();
    group.remove(Duration::ZERO).unwrap();
}

#[test]
fn names_stay_one_level_deep() {
    let layout = CgroupLayout::None { reason: String::new() };
    assert!(Cgroups::open(&layout, "a/b").is_err());
    let groups = Cgroups::open(&layout, "m").unwrap();
    for name in ["", ".", "..", "a/b", "../x", "_server", "a b", "a\n"] {
        assert!(groups.create(name, &Limits::default()).is_err(), "{name:?}");
    }
}

/// A tree of plain files as the kernel would show it.
fn mk_plain_v2_tree(id: &str) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let parent = tree.path().join("stockade-m");
    let groups =
        [parent.clone(), parent.join(id), parent.join(id).join("agent"), parent.join(id).join(COMMANDS)];
    for group in std::iter::once(tree.path().to_owned()).chain(groups) {
        std::fs::create_dir_all(&group).unwrap();
        for file in [
            "cgroup.subtree_control",
            "cgroup.procs",
            "cpu.max",
            "cpu.weight",
            "memory.max",
            "memory.swap.max",
            "pids.max",
        ] {
            std::fs::write(group.join(file), "").unwrap();
        }
    }
    tree
}

#[test]
fn version_2_is_told_its_limits_in_its_own_words() {
    let tree = mk_plain_v2_tree("one");
    let controllers = vec![Controller::Cpu, Controller::Memory, Controller::Pids];
    let layout = CgroupLayout::V2 { base: tree.path().to_owned(), controllers };
    let groups = Cgroups::open(&layout, "m").unwrap();
    let limits = Limits { cpu: Some(Millicores(1500)), memory: Some(Bytes(512 << 20)), processes: Some(100) };
    let group = groups.create("one", &limits).unwrap();
    let whole = tree.path().join("stockade-m/one");
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    for path in [tree.path(), &tree.path().join("stockade-m"), &whole] {
        assert_eq!(read(path.join("cgroup.subtree_control")), "+cpu +memory +pids");
    }
    for (file, expect) in [
        ("cpu.max", "150000 100000"),
        ("memory.max", "536870912"),
        ("memory.swap.max", "0"),
        ("pids.max", "100"),
        ("commands/cpu.max", "142500 100000"),
        ("commands/cpu.weight", "50"),
        ("commands/memory.max", "503316480"),
        ("commands/pids.max", "75"),
    ] {
        assert_eq!(read(whole.join(file)), expect, "{file}");
    }
    std::fs::write(whole.join("memory.events"), "low 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
        .unwrap();
    std::fs::write(whole.join("memory.current"), "1000\n").unwrap();
    std::fs::write(whole.join("memory.stat"), "anon 1\ninactive_file 400\n").unwrap();
    std::fs::write(whole.join("pids.current"), "3\n").unwrap();
    std::fs::write(whole.join("cpu.stat"), "usage_usec 2500000\nuser_usec 1\n").unwrap();
    assert_eq!(group.oom_kills(), 2);
    let usage = group.usage();
    assert_eq!(usage.cpu, Some(Duration::from_millis(2500)));
    assert_eq!((usage.memory, usage.processes), (Some(Bytes(600)), Some(3)));
    assert_eq!(group.join_fds().unwrap().len(), 1);
}

#[test]
fn a_limit_that_cannot_be_written_is_named_with_file_and_value() {
    let tree = mk_plain_v2_tree("one");
    let file = tree.path().join("stockade-m/one/pids.max");
    std::fs::remove_file(&file).unwrap();
    let layout = CgroupLayout::V2 { base: tree.path().to_owned(), controllers: vec![Controller::Pids] };
    let groups = Cgroups::open(&layout, "m").unwrap();
    let limits = Limits { processes: Some(100), ..Limits::default() };
    let error = groups.create("one", &limits).unwrap_err().to_string();
    assert_eq!(error, format!("cannot write \"100\" to {}", file.display()));
}

/// Tried where control groups are of version 2 and we are root: a group that hands controllers down may hold no process.
#[test]
fn processes_in_the_way_step_aside_and_back() {
    let CgroupLayout::V2 { base: top, controllers } = CgroupLayout::find() else { return };
    if !rustix::process::geteuid().is_root() || controllers.is_empty() {
        return;
    }
    v2::hand_down(&top, &controllers).unwrap();
    let base = top.join(format!("test-aside-{}", std::process::id()));
    file::make(&base).unwrap();
    let mut other = run_in(&[file::writer(&base, "cgroup.procs").unwrap()], "exec sleep 1000");
    let pid = i32::try_from(other.id()).unwrap();
    let layout = CgroupLayout::V2 { base: base.clone(), controllers };
    let (one, two) = (Cgroups::open(&layout, "one").unwrap(), Cgroups::open(&layout, "two").unwrap());
    let group = one.create("a", &Limits::default()).unwrap();
    assert_eq!(file::processes(&base.join(ASIDE)), [pid]);
    group.remove(KILL_DEADLINE).unwrap();
    one.close().unwrap();
    assert_eq!(file::processes(&base.join(ASIDE)), [pid], "the other server hands controllers down");
    two.close().unwrap();
    assert_eq!((file::processes(&base), file::children(&base)), (vec![pid], vec![]));
    other.kill().unwrap();
    other.wait().unwrap();
    file::remove(&base, Instant::now() + KILL_DEADLINE).unwrap();
}
