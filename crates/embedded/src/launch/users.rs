//! User namespaces: which users of the machine the users inside are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::failure::{At, Problem};
use super::spec::UserMap;
use super::sys::check;

/// One line of a map: ids from `inside` on are those from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// The machine's root, to whom most directories belong that are shown.
pub(crate) const ROOT: u32 = 0;

/// The map of a sandbox's users.
pub(crate) fn sandbox_map(users: UserMap) -> Vec<Extent> {
    match users {
        UserMap::Range { first } => vec![Extent { inside: 0, outside: first, count: UserMap::COUNT }],
        // Our own id is 0 in the user namespace the server entered.
        UserMap::Single => vec![Extent { inside: UserMap::USER, outside: 0, count: 1 }],
    }
}

/// The map under which files of `owner` belong to the sandbox's user, and others' to others.
///
/// Every other id keeps its number, but for the one the sandbox's user would have: it gets the owner's.
pub(crate) fn owner_map(first: u32, owner: u32) -> Vec<Extent> {
    let user = UserMap::USER;
    if owner == user {
        return sandbox_map(UserMap::Range { first });
    }
    let mut map = vec![Extent { inside: owner, outside: first + user, count: 1 }];
    let inside = owner < UserMap::COUNT;
    if inside {
        map.push(Extent { inside: user, outside: first + owner, count: 1 });
    }
    let (low, high) = if inside { (user.min(owner), user.max(owner)) } else { (user, user) };
    for (start, end) in [(0, low), (low + 1, high), (high + 1, UserMap::COUNT)] {
        if start < end {
            map.push(Extent { inside: start, outside: first + start, count: end - start });
        }
    }
    map
}

/// The map under which the machine's system is shown: as [`sandbox_map`], but for the machine's own user of the number
/// that the sandbox's user has. Files that only it may read are not the sandbox's: it changes places with a
/// number that nobody is given, whose files, should there be any, nobody inside can open.
pub(crate) fn system_map(first: u32) -> Vec<Extent> {
    const _: () = assert!(UserMap::USER < NOBODY_ELSE && NOBODY_ELSE + 1 < UserMap::COUNT);
    let same = |start: u32, end: u32| Extent { inside: start, outside: first + start, count: end - start };
    vec![
        same(0, UserMap::USER),
        Extent { inside: UserMap::USER, outside: first + NOBODY_ELSE, count: 1 },
        same(UserMap::USER + 1, NOBODY_ELSE),
        same(NOBODY_ELSE + 1, UserMap::COUNT),
    ]
}

/// Between the ranges that Debian gives to users (to 59,999) and systemd to its own (61,184 and on).
const NOBODY_ELSE: u32 = 60_999;

/// Makes a user namespace with these maps. `proc` is a `/proc` of this process's own process namespace.
///
/// With a `creator`, an id outside, what the kernel counts by user in the namespace (inotify instances, message
/// queues, signals) counts for that one. Otherwise all sandboxes and the machine's root would share one account,
/// and one sandbox could use it up.
pub(crate) fn make(
    proc: BorrowedFd<'_>,
    map: UserMap,
    users: &[Extent],
    groups: &[Extent],
) -> Result<OwnedFd, Problem> {
    // As long as this lives we are the namespace's owner, who may look at it without a right to look at any process.
    let _owner = match map {
        UserMap::Range { first } => Some(Effective::become_user(first)?),
        UserMap::Single => None,
    };
    let holder = Holder::start()?;
    let write = |name: &str, map: &[Extent]| {
        let text: String =
            map.iter().map(|line| format!("{} {} {}\n", line.inside, line.outside, line.count)).collect();
        let path = format!("{}/{name}", holder.pid);
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(proc, &path, flags, Mode::empty())
            .and_then(|file| rustix::io::write(&file, text.as_bytes()))
            .at(format!("/proc/{path}"))
    };
    write("uid_map", users)?;
    write("gid_map", groups)?;
    let path = format!("{}/ns/user", holder.pid);
    rustix::fs::openat(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(format!("/proc/{path}"))
}

/// While this lives, the effective user is another; all rights stay.
struct Effective {
    secure_bits: libc::c_int,
    dumpable: libc::c_int,
}

/// `SECBIT_NO_SETUID_FIXUP` of the kernel: changing users takes no capabilities. Making a user namespace needs some
/// where ordinary users may make none.
const RIGHTS_STAY: libc::c_int = 1 << 2;

impl Effective {
    #[allow(unsafe_code)]
    fn become_user(user: u32) -> Result<Self, Errno> {
        // SAFETY: numbers only.
        let secure_bits = check(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) }.into())?;
        // SAFETY: numbers only.
        let dumpable = check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }.into())?;
        set(libc::PR_SET_SECUREBITS, secure_bits | RIGHTS_STAY)?;
        let changed = Self { secure_bits, dumpable };
        set_effective_user(user)?;
        // Changing users makes a process one that only who may look at any can look at.
        set(libc::PR_SET_DUMPABLE, dumpable)?;
        Ok(changed)
    }
}

impl Drop for Effective {
    fn drop(&mut self) {
        // Root may become root. Should the kernel not think so, the next step fails for want of rights.
        let _ = set_effective_user(0)
            .and_then(|()| set(libc::PR_SET_SECUREBITS, self.secure_bits))
            .and_then(|()| set(libc::PR_SET_DUMPABLE, self.dumpable));
    }
}

/// Sets an attribute of this process.
#[allow(unsafe_code)]
fn set(option: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(option, libc::c_long::from(value), 0, 0, 0) }.into()).map(drop)
}

#[allow(unsafe_code)]
fn set_effective_user(user: u32) -> Result<(), Errno> {
    const SAME: libc::c_long = -1;
    // SAFETY: numbers only. The raw call changes this thread alone, and the process has no other.
    check(unsafe { libc::syscall(libc::SYS_setresuid, SAME, libc::c_long::from(user), SAME) }).map(drop)
}

/// A process that exists to hold a user namespace until it has a descriptor.
struct Holder {
    pid: i32,
    /// What it runs on; it is gone before this is.
    _stack: Box<[u128]>,
}

/// It only waits for its end, and a signal needs no stack of it.
const STACK: usize = 16 * 1024;

impl Holder {
    #[allow(unsafe_code)]
    fn start() -> Result<Self, Errno> {
        let mut stack = vec![0_u128; STACK / size_of::<u128>()].into_boxed_slice();
        let top = stack.as_mut_ptr_range().end;
        // SAFETY: the process shares our memory, which saves copying it, has this stack to itself, and touches
        // nothing else: `wait_for_the_end` makes one system call. It is killed and waited for before the stack
        // is freed.
        let pid = check(
            unsafe {
                libc::clone(
                    wait_for_the_end,
                    top.cast(),
                    libc::CLONE_VM | libc::CLONE_NEWUSER | libc::SIGCHLD,
                    std::ptr::null_mut(),
                )
            }
            .into(),
        )?;
        Ok(Self { pid, _stack: stack })
    }
}

#[allow(unsafe_code)]
extern "C" fn wait_for_the_end(_: *mut libc::c_void) -> libc::c_int {
    loop {
        // SAFETY: no arguments. The raw call leaves errno, which is shared, alone unless a signal came.
        unsafe { libc::syscall(libc::SYS_rt_sigsuspend, &raw const ALL_SIGNALS, size_of::<u64>()) };
    }
}

static ALL_SIGNALS: u64 = u64::MAX;

impl Drop for Holder {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: numbers only; the process is our child and not waited for by anyone else, so that its number
        // is still its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            let mut status = 0;
            while libc::waitpid(self.pid, &raw mut status, libc::__WALL) < 0
                && *libc::__errno_location() == libc::EINTR
            {}
        }
    }
}

/// Enters the sandbox's user namespace and becomes its user.
pub(crate) fn become_user(namespace: &OwnedFd, users: UserMap) -> Result<(), Errno> {
    super::sys::enter_namespace(namespace.as_fd(), libc::CLONE_NEWUSER)?;
    // With one user only, the kernel lets nobody leave a group.
    if matches!(users, UserMap::Range { .. }) {
        super::sys::leave_groups()?;
    }
    super::sys::set_user(UserMap::USER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(map: &[Extent], inside: u32) -> Option<u32> {
        map.iter()
            .find(|line| (line.inside..line.inside + line.count).contains(&inside))
            .map(|line| line.outside + (inside - line.inside))
    }

    #[test]
    fn the_owner_of_a_directory_is_the_user_of_the_sandbox() {
        let first = 1_000_000;
        for owner in [0, 1, 999, 1000, 1001, 65_535, 65_536, 4_000_000] {
            let map = owner_map(first, owner);
            assert_eq!(outside(&map, owner), Some(first + 1000), "{owner}");
            let mut seen = std::collections::BTreeSet::new();
            for line in &map {
                for id in line.outside..line.outside + line.count {
                    assert!(seen.insert(id), "{owner}: {id} twice");
                    assert!((first..first + UserMap::COUNT).contains(&id));
                }
            }
        }
    }

    #[test]
    fn other_users_stay_other_users() {
        let map = owner_map(500_000, 0);
        assert_eq!(outside(&map, 33), Some(500_033));
        assert_eq!(outside(&map, 1000), Some(500_000));
        assert_eq!(outside(&map, 65_536), None);
    }

    #[test]
    fn the_machines_own_user_of_that_number_is_another() {
        let first = 500_000;
        let map = system_map(first);
        let mut seen = std::collections::BTreeSet::new();
        for id in 0..UserMap::COUNT {
            match outside(&map, id) {
                Some(outside) if id == UserMap::USER => assert_eq!(outside, first + NOBODY_ELSE),
                Some(outside) => assert_eq!(outside, first + id),
                None => assert_eq!(id, NOBODY_ELSE),
            }
            seen.extend(outside(&map, id));
        }
        assert!(!seen.contains(&(first + UserMap::USER)), "nothing is the sandbox user's");
        assert_eq!(seen.len(), UserMap::COUNT as usize - 1);
    }
}
