//! What happens when something fails or is killed.

use std::fs;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use stockade_embedded::launch::spec::WritableLayer;
use stockade_embedded::launch::{Exit, LaunchError, LaunchSpec, Launcher};

use crate::Test;
use crate::world::World;

pub(crate) const TESTS: &[Test] = &[
    ("a_failed_step_is_named_and_leaves_nothing", a_failed_step_is_named_and_leaves_nothing),
    ("the_launcher_leaks_no_descriptor", the_launcher_leaks_no_descriptor),
    ("the_end_of_a_sandbox_is_told", the_end_of_a_sandbox_is_told),
    ("a_launch_nobody_waits_for_is_ended", a_launch_nobody_waits_for_is_ended),
    ("sandboxes_outlive_their_launcher", sandboxes_outlive_their_launcher),
    (
        "a_launcher_killed_at_any_moment_leaves_no_half_made_sandbox",
        a_launcher_killed_at_any_moment_leaves_no_half_made_sandbox,
    ),
    ("a_description_that_is_too_large_is_refused", a_description_that_is_too_large_is_refused),
    ("many_launches_at_once_all_work", many_launches_at_once_all_work),
];

/// Processes whose parent is this one.
fn children(parent: u32) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn mounts(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Waits until a process is gone. A child ends when its set-up is done, which a busy disk may take long over.
fn gone(pidfd: &OwnedFd) -> bool {
    let deadline = Timespec { tv_sec: 60, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&deadline)).unwrap() == 1
}

fn a_failed_step_is_named_and_leaves_nothing(world: &World) {
    let launcher = world.start_launcher();
    let before = (mounts(std::process::id()), mounts(launcher.pid()), descriptors(launcher.pid()));
    let missing = world.path("nowhere");
    let spec = LaunchSpec { writable: WritableLayer::Disk(missing.clone()), ..world.spec("failing") };
    let result = world.runtime.block_on(launcher.launch(&spec, world.fds("failing")));
    let Err(LaunchError::Step(failure)) = result else { panic!("{result:?}") };
    assert_eq!(failure.path.as_ref(), Some(&missing));
    assert_eq!(failure.errno, libc::ENOENT);
    let text = format!(
        "keep what is written in {0}: {0}: No such file or directory (os error 2)",
        missing.display()
    );
    assert_eq!(failure.to_string(), text);
    until(|| children(launcher.pid()).is_empty());
    assert_eq!((mounts(std::process::id()), mounts(launcher.pid()), descriptors(launcher.pid())), before);
}

fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::yield_now();
    }
}

fn the_launcher_leaks_no_descriptor(world: &World) {
    let launcher = world.start_launcher();
    drop(world.launch_with(&launcher, &world.spec("first")));
    let before = descriptors(launcher.pid());
    for _ in 0..20 {
        drop(world.launch_with(&launcher, &world.spec("leaks")));
        let failing = LaunchSpec { writable: WritableLayer::Disk("/nowhere".into()), ..world.spec("leaks") };
        world.runtime.block_on(launcher.launch(&failing, world.fds("leaks"))).unwrap_err();
    }
    until(|| children(launcher.pid()).is_empty());
    assert_eq!(descriptors(launcher.pid()), before);
}

fn the_end_of_a_sandbox_is_told(world: &World) {
    for (signal, expected) in [(Signal::KILL, Exit::Signal(9)), (Signal::TERM, Exit::Code(0))] {
        let mut sandbox = world.plain("ending");
        pidfd_send_signal(&sandbox.launched.pidfd, signal).unwrap();
        let exit = world.runtime.block_on(&mut sandbox.launched.exit).unwrap();
        assert_eq!(exit, expected);
    }
}

/// Begins a launch and drops it as soon as the request is on its way.
fn a_launch_nobody_waits_for_is_ended(world: &World) {
    let launcher = world.start_launcher();
    let (spec, fds) = (world.spec("unwanted"), world.fds("unwanted"));
    {
        let _context = world.runtime.enter();
        let mut launch = Box::pin(launcher.launch(&spec, fds));
        let polled = launch.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    // The next one is served after it.
    drop(world.launch_with(&launcher, &world.spec("next")));
    until(|| children(launcher.pid()).is_empty());
}

fn sandboxes_outlive_their_launcher(world: &World) {
    let launcher = world.start_launcher();
    let mut sandbox = world.launch_with(&launcher, &world.spec("outliving"));
    let process = Pid::from_raw(launcher.pid().cast_signed()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    world.runtime.block_on(launcher.ended());
    let late = world.runtime.block_on(launcher.launch(&world.spec("late"), world.fds("late")));
    assert!(matches!(late, Err(LaunchError::Ended)), "{late:?}");
    world.runtime.block_on(&mut sandbox.launched.exit).unwrap_err();
    assert_eq!(sandbox.said("echo still here"), "still here");
    assert_eq!(world.launch_with(&world.start_launcher(), &world.spec("anew")).said("echo new"), "new");
    assert_eq!(sandbox.said("id -u"), "1000");
}

/// Kills launchers ever later while they are busy; of what they were making nothing may run on, but for sandboxes
/// the server was told of.
fn a_launcher_killed_at_any_moment_leaves_no_half_made_sandbox(world: &World) {
    for round in 0..24_u64 {
        let launcher = world.start_launcher();
        let (known, started) = kill_while_busy(world, &launcher, Duration::from_micros(round * 700));
        for pidfd in &started {
            let told_of = known.iter().any(|(known, _)| same(known, pidfd));
            // A child that was told to go on was told of before.
            assert!(told_of || gone(pidfd), "a sandbox nobody knows of runs on");
        }
        for (pidfd, _) in &known {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            assert!(gone(pidfd));
        }
    }
}

type Known = Vec<(OwnedFd, i32)>;

/// The sandboxes the server was told of, and all processes there were.
fn kill_while_busy(world: &World, launcher: &Launcher, after: Duration) -> (Known, Vec<OwnedFd>) {
    let specs: Vec<LaunchSpec> = (0..6).map(|_| world.spec("killed")).collect();
    let fds: Vec<_> = specs.iter().map(|_| world.fds("killed")).collect();
    let process = Pid::from_raw(launcher.pid().cast_signed()).unwrap();
    let mut started = Vec::new();
    let results = std::thread::scope(|scope| {
        let launch = |(spec, fds)| scope.spawn(move || world.runtime.block_on(launcher.launch(spec, fds)));
        let running: Vec<_> = specs.iter().zip(fds).map(launch).collect();
        until(|| !children(launcher.pid()).is_empty());
        let busy = Instant::now();
        while busy.elapsed() < after {
            std::thread::yield_now();
        }
        // What is stopped makes no more children between being counted and being killed.
        kill_process(process, Signal::STOP).unwrap();
        let pids = children(launcher.pid());
        let open = |pid: i32| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
        started.extend(pids.into_iter().filter_map(open));
        kill_process(process, Signal::KILL).unwrap();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    world.runtime.block_on(launcher.ended());
    let known = results.into_iter().filter_map(|result| match result {
        Ok(launched) => Some((launched.pidfd, launched.pid)),
        Err(LaunchError::Ended) => None,
        Err(other) => panic!("{other}"),
    });
    (known.collect(), started)
}

/// Descriptors of one process have one inode, on kernels that give them any; else they are looked up.
fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let number = |fd: &OwnedFd| {
        use std::os::fd::AsRawFd;
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Pid:").map(|pid| pid.trim().to_owned())).unwrap()
    };
    number(a) == number(b)
}

fn a_description_that_is_too_large_is_refused(world: &World) {
    let mut spec = world.spec("large");
    spec.environment.insert("BIG".to_owned(), "x".repeat(200_000));
    let result = world.runtime.block_on(world.launcher().launch(&spec, world.fds("large")));
    assert!(matches!(result, Err(LaunchError::TooLarge { .. })), "{result:?}");
    spec.environment.insert("BIG".to_owned(), "x".repeat(100_000));
    assert_eq!(world.launch(&spec).said("echo ${#BIG}"), "100000");
}

fn many_launches_at_once_all_work(world: &World) {
    let sandboxes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..40).map(|_| scope.spawn(|| world.launch(&world.spec("many")))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for sandbox in &sandboxes {
        assert_eq!(sandbox.said("id -un"), "gem");
    }
}
