//! Which of the processes below a session's bash a command has started, and ending those.
//!
//! Below the session's keeper are bash, its children, and orphans of theirs. What lives on when a command is ended:
//!
//! - what was there before the command began, and what that starts;
//! - jobs of the shell: children of bash in a process group of their own that is not in front, and what they start;
//! - orphans of these, which are known by their session or, in bash's own session, by the job's process group.
//!
//! Everything else is the command's.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use rustix::process::Signal;

use super::terminal::Terminal;
use crate::process::{Reaper, tree::Stat};

/// What lives on when a command is ended.
#[derive(Debug, Default)]
pub(crate) struct Spared {
    processes: HashSet<(i32, u64)>,
    /// Of processes that are not in bash's session.
    sessions: HashSet<i32>,
    /// Of processes that are.
    groups: HashSet<i32>,
}

/// The processes that the others are told apart by.
#[derive(Debug, Clone, Copy)]
struct Around {
    keeper: i32,
    shell: i32,
    /// The process group that was in front when the ending began.
    front: Option<i32>,
}

impl Spared {
    /// All of `members` but bash: a command is about to begin.
    pub(super) fn all(members: &[Stat], shell: i32) -> Self {
        let mut spared = Self::default();
        for member in members.iter().filter(|member| member.pid != shell) {
            spared.add(member, shell);
        }
        spared
    }

    fn add(&mut self, member: &Stat, shell: i32) {
        self.processes.insert(member.identity());
        match (member.session == shell, member.group == shell) {
            (false, _) => self.sessions.insert(member.session),
            (true, false) => self.groups.insert(member.group),
            (true, true) => false,
        };
    }

    /// Those of `members` that the command has started. What else there is is remembered.
    fn doomed(&mut self, members: &[Stat], around: Around) -> Vec<Stat> {
        let Around { keeper, shell, front } = around;
        let mut children: HashMap<i32, Vec<&Stat>> = HashMap::new();
        for member in members {
            children.entry(member.parent).or_default().push(member);
        }
        let is_job =
            |member: &Stat| member.parent == shell && member.group != shell && Some(member.group) != front;
        let known: Vec<&Stat> = members
            .iter()
            .filter(|member| member.pid != shell)
            .filter(|member| self.processes.contains(&member.identity()) || is_job(member))
            .collect();
        self.add_with_children(known, &children, shell);
        let of_theirs: Vec<&Stat> = members
            .iter()
            .filter(|member| member.parent == keeper && member.pid != shell && Some(member.group) != front)
            .filter(|member| match member.session == shell {
                true => self.groups.contains(&member.group),
                false => self.sessions.contains(&member.session),
            })
            .collect();
        self.add_with_children(of_theirs, &children, shell);
        let is_doomed = |member: &&Stat| member.pid != shell && !self.processes.contains(&member.identity());
        members.iter().filter(is_doomed).copied().collect()
    }

    fn add_with_children<'a>(
        &mut self,
        mut found: Vec<&'a Stat>,
        children: &HashMap<i32, Vec<&'a Stat>>,
        shell: i32,
    ) {
        let mut seen = HashSet::new();
        while let Some(member) = found.pop() {
            if seen.insert(member.pid) {
                self.add(member, shell);
                found.extend(children.get(&member.pid).into_iter().flatten().copied());
            }
        }
    }
}

/// Ends what a command has started but bash itself, and says how many would not end. Reads `/proc`: call it on the pool.
///
/// bash is stopped meanwhile: so it starts nothing, and never hears that what it waits for was stopped before it ended,
/// which it would take for a Ctrl-Z.
pub(super) fn end_command(
    terminal: &Terminal,
    reaper: &Reaper,
    spared: &Mutex<Spared>,
    front: Option<i32>,
) -> usize {
    let shell = terminal.pid;
    let around = Around { keeper: terminal.family.keeper(), shell: shell.as_raw_nonzero().get(), front };
    reaper.signal(shell, Signal::STOP);
    let left = terminal.family.end_those(|members| spared.lock().doomed(members, around));
    reaper.signal(shell, Signal::CONT);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPER: i32 = 2;
    const BASH: i32 = 3;
    const FRONT: i32 = 50;

    fn process(pid: i32, parent: i32, group: i32, session: i32) -> Stat {
        Stat::for_test(pid, parent, group, session)
    }

    #[track_caller]
    fn check(spared: &mut Spared, members: &[Stat], expect: &[i32]) {
        let around = Around { keeper: KEEPER, shell: BASH, front: Some(FRONT) };
        let mut pids: Vec<i32> = spared.doomed(members, around).iter().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, expect);
    }

    #[test]
    fn what_is_in_front_goes_with_all_below_it_and_all_that_left_it() {
        let members = [
            process(BASH, KEEPER, BASH, BASH),
            process(50, BASH, FRONT, BASH),
            process(51, 50, FRONT, BASH),
            process(52, 51, 52, BASH),
            process(53, 51, 53, 53),
            process(60, KEEPER, FRONT, BASH),
            process(61, KEEPER, 61, 61),
            process(62, 61, 61, 61),
            process(63, BASH, BASH, BASH),
        ];
        check(&mut Spared::default(), &members, &[50, 51, 52, 53, 60, 61, 62, 63]);
    }

    #[test]
    fn jobs_of_the_shell_stay_with_what_they_started() {
        let members = [
            process(BASH, KEEPER, BASH, BASH),
            process(40, BASH, 40, BASH),
            process(41, 40, 40, BASH),
            process(42, 41, 42, 42),
            // An orphan of the job, and one of what the job put into a session of its own.
            process(43, KEEPER, 40, BASH),
            process(44, KEEPER, 44, 42),
            process(50, BASH, FRONT, BASH),
        ];
        check(&mut Spared::default(), &members, &[50]);
    }

    #[test]
    fn what_was_there_before_stays_with_what_it_starts_later() {
        let daemon = process(30, KEEPER, 30, 30);
        let bash = process(BASH, KEEPER, BASH, BASH);
        let mut spared = Spared::all(&[bash, daemon], BASH);
        let members = [
            bash,
            daemon,
            process(31, 30, 31, 31),
            process(32, KEEPER, 32, 30),
            process(33, KEEPER, 33, 33),
            process(50, BASH, FRONT, BASH),
        ];
        check(&mut spared, &members, &[33, 50]);
        // bash has ended meanwhile, and its jobs are orphans.
        let mut spared = Spared::default();
        let job = process(40, BASH, 40, BASH);
        check(&mut spared, &[bash, job, process(50, BASH, FRONT, BASH)], &[50]);
        check(&mut spared, &[process(40, KEEPER, 40, BASH), process(51, KEEPER, FRONT, BASH)], &[51]);
    }
}
