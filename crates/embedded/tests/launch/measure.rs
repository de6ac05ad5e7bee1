//! How fast sandboxes start, and how large they are. `launch --measure [COUNT]`, of a release build.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use stockade_embedded::cgroup::{Cgroups, Limits};
use stockade_embedded::launch::{LaunchFds, LaunchSpec, Launched};

use crate::mounts;
use crate::world::{World, network};

/// What one launch needs, made before the time is taken: in the product a pool holds networks ready.
struct Ready {
    spec: LaunchSpec,
    fds: LaunchFds,
}

struct Bench<'a> {
    world: &'a World,
    groups: Cgroups,
    made: Vec<String>,
}

#[allow(clippy::print_stdout)]
pub(crate) fn run(world: &World, names: &[&String]) {
    let count = names.first().and_then(|count| count.parse().ok()).unwrap_or(300);
    let groups = Cgroups::open(&world.facts.cgroups, "measure").unwrap();
    let mut bench = Bench { world, groups, made: Vec::new() };
    println!("{:?}, kernel {}, {count} launches", world.kind, world.facts.kernel);
    bench.one_by_one(count, false);
    bench.one_by_one(count, true);
    for at_once in [2, 4, 16] {
        bench.many(count, at_once);
    }
    bench.memory(count.min(200));
    bench.end();
}

impl Bench<'_> {
    fn ready(&mut self, binds: bool) -> Ready {
        let mut spec = self.world.spec("measure");
        if binds {
            spec.binds = mounts::like_deerflow(self.world);
        }
        let group = self.groups.create(&spec.id, &Limits::default()).unwrap();
        self.made.push(spec.id.clone());
        let log = fs::File::create(self.world.path("measure.log")).unwrap().into();
        let fds = LaunchFds {
            netns: network(),
            log,
            join: group.join_fds().unwrap(),
            commands: group.command_fds().unwrap(),
        };
        Ready { spec, fds }
    }

    fn launch(&self, ready: Ready) -> (Launched, Duration, Duration) {
        let start = Instant::now();
        let launched = self.world.runtime.block_on(self.world.launcher().launch(&ready.spec, ready.fds));
        let launched = launched.unwrap_or_else(|error| panic!("{error}"));
        let made = start.elapsed();
        wait(&launched.ready);
        (launched, made, start.elapsed())
    }

    #[allow(clippy::print_stdout)]
    fn one_by_one(&mut self, count: usize, binds: bool) {
        let (mut made, mut listening) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let ready = self.ready(binds);
            let (launched, first, second) = self.launch(ready);
            made.push(first);
            listening.push(second);
            end(&launched);
        }
        let what = if binds { "with DeerFlow's mounts" } else { "without mounts" };
        println!("one by one, {what}: set up {}; agent listens {}", shown(&mut made), shown(&mut listening));
    }

    #[allow(clippy::print_stdout)]
    fn many(&mut self, count: usize, at_once: usize) {
        let mut waiting: VecDeque<Ready> = (0..count).map(|_| self.ready(true)).collect();
        let shares: Vec<Vec<Ready>> =
            (0..at_once).map(|_| waiting.drain(..count / at_once).collect()).collect();
        let start = Instant::now();
        let mut times: Vec<Duration> = std::thread::scope(|scope| {
            let share = |share: Vec<Ready>| {
                let one = |ready| {
                    let (launched, _, time) = self.launch(ready);
                    end(&launched);
                    time
                };
                scope.spawn(move || share.into_iter().map(one).collect::<Vec<_>>())
            };
            let running: Vec<_> = shares.into_iter().map(share).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        println!("{at_once} at once, launched and ended: {rate:.0}/s; agent listens {}", shown(&mut times));
    }

    #[allow(clippy::print_stdout)]
    fn memory(&mut self, count: usize) {
        let (free, slab) = (meminfo("MemAvailable"), meminfo("Slab"));
        let mut all = Vec::new();
        for _ in 0..count {
            let ready = self.ready(true);
            all.push(self.launch(ready).0);
        }
        let pss: u64 = all.iter().map(|launched| pss(launched.pid)).sum();
        let each = |bytes: u64| bytes as f64 / count as f64 / 1024.0;
        println!(
            "{count} idle: {:.2} MB less available each, of it slab {:.2} MB; PSS of the agent {:.2} MB",
            each(free.saturating_sub(meminfo("MemAvailable"))),
            each(meminfo("Slab").saturating_sub(slab)),
            each(pss)
        );
        all.iter().for_each(end);
    }

    fn end(self) {
        for id in &self.made {
            self.groups.discard(id, Duration::from_secs(5)).unwrap();
        }
        self.groups.close().unwrap();
    }
}

fn wait(fd: &OwnedFd) {
    let mut byte = [0];
    assert_eq!(rustix::io::read(fd, &mut byte).unwrap(), 1, "the agent died");
}

fn end(launched: &Launched) {
    pidfd_send_signal(&launched.pidfd, Signal::KILL).unwrap();
    poll(&mut [PollFd::new(&launched.pidfd, PollFlags::IN)], None).unwrap();
}

fn shown(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    format!("median {:.2} ms, p95 {:.2}, p99 {:.2}, most {:.2}", at(50), at(95), at(99), at(100))
}

/// In kilobytes.
fn meminfo(name: &str) -> u64 {
    field(&fs::read_to_string("/proc/meminfo").unwrap(), name)
}

fn pss(pid: i32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default(), "Pss")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
