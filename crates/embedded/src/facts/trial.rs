//! A child process in namespaces of its own that tries what the setup of a sandbox needs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
};
use rustix::pipe::PipeFlags;

use super::{idmap, net};
use crate::launch::sys::CloneArguments;

/// Far beyond what it takes; a machine that is that busy is told to be able to do nothing.
const DEADLINE: Duration = Duration::from_secs(30);
/// Users no machine gives to anybody: the trial only asks whether a range may be had at all.
const RANGE: &str = "0 1879048192 65536";

/// How far it got.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) namespaces: Result<(), i32>,
    pub(super) user_ranges: bool,
    pub(super) reached: Reached,
}

/// What the child could do.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) fresh_proc: bool,
    pub(super) mounts: bool,
    pub(super) overlay: bool,
    pub(super) idmapped_layers: bool,
    pub(super) idmapped_memory: bool,
    pub(super) veth: bool,
    pub(super) nf_tables: bool,
}

/// A byte the child writes for each thing it could do.
mod word {
    pub(super) const FRESH_PROC: u8 = b'p';
    pub(super) const MOUNTS: u8 = b'm';
    pub(super) const OVERLAY: u8 = b'o';
    pub(super) const IDMAPPED_LAYERS: u8 = b'i';
    pub(super) const IDMAPPED_MEMORY: u8 = b't';
    pub(super) const VETH: u8 = b'v';
    pub(super) const NF_TABLES: u8 = b'n';
}

pub(super) fn run() -> Trial {
    let mut trial = Trial { namespaces: Ok(()), user_ranges: false, reached: Reached::default() };
    if let Err(error) = attempt(&mut trial) {
        trial.namespaces = Err(error.raw_os_error().unwrap_or(libc::EIO));
    }
    trial
}

fn attempt(trial: &mut Trial) -> io::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let (go_read, go) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let child = Child::start(NAMESPACES, || try_all(&go_read, &tell))?;
    drop((go_read, tell));
    let number = child.pid;
    trial.user_ranges = map_users(number, RANGE).is_ok();
    if trial.user_ranges {
        let users = std::fs::File::open(format!("/proc/{number}/ns/user"))?;
        // Not worth giving up the rest for.
        let _ = attempt_owners(users.as_fd(), trial, deadline);
    } else {
        let own = rustix::process::geteuid().as_raw();
        map_users(number, &format!("0 {own} 1"))?;
    }
    rustix::io::write(&go, b"!")?;
    trial.reached.listen(&told, deadline)
}

/// Tries other owners as sandboxes get them: with all rights, but among mounts that nobody else sees.
fn attempt_owners(users: BorrowedFd<'_>, trial: &mut Trial, deadline: Instant) -> io::Result<()> {
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let _child = Child::start(libc::CLONE_NEWNS, || try_owners(users, &tell))?;
    drop(tell);
    trial.reached.listen(&told, deadline)
}

impl Reached {
    /// Hears what the child could do, until it ends.
    fn listen(&mut self, told: &OwnedFd, deadline: Instant) -> io::Result<()> {
        let mut words = [0_u8; 16];
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            let ready = rustix::event::poll(&mut [PollFd::new(told, PollFlags::IN)], left.as_ref())?;
            if ready == 0 {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            let length = rustix::io::read(told, &mut words)?;
            if length == 0 {
                return Ok(());
            }
            for said in &words[..length] {
                self.note(*said);
            }
        }
    }

    fn note(&mut self, said: u8) {
        match said {
            word::FRESH_PROC => self.fresh_proc = true,
            word::MOUNTS => self.mounts = true,
            word::OVERLAY => self.overlay = true,
            word::IDMAPPED_LAYERS => self.idmapped_layers = true,
            word::IDMAPPED_MEMORY => self.idmapped_memory = true,
            word::VETH => self.veth = true,
            word::NF_TABLES => self.nf_tables = true,
            _ => {}
        }
    }
}

/// Says which users of the machine the child's are. An ordinary user may only name itself, and must first give up
/// changing groups.
fn map_users(pid: i32, map: &str) -> io::Result<()> {
    let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
    if map != RANGE {
        write("setgroups", "deny")?;
        let group = rustix::process::getegid().as_raw();
        write("gid_map", &format!("0 {group} 1"))?;
    } else {
        write("gid_map", map)?;
    }
    write("uid_map", map)
}

/// The trying process. Dropping it kills it and waits for its end.
struct Child {
    pid: i32,
    handle: OwnedFd,
}

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

impl Child {
    /// `body` is run in the child, whose end its end is: it must not allocate or panic, and makes system calls alone.
    #[allow(unsafe_code)]
    fn start(namespaces: i32, body: impl FnOnce()) -> io::Result<Self> {
        let mut handle: i32 = -1;
        let arguments = CloneArguments {
            // No signal at its end: whoever else waits for children of this process does not hear of it.
            flags: u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned()),
            pidfd: (&raw mut handle) as u64,
            ..CloneArguments::default()
        };
        // SAFETY: the arguments are the kernel's structure and its size. Without CLONE_VM the child has a copy of this
        // memory and this thread only; it makes system calls and nothing else, and never returns from here.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
        match i32::try_from(pid) {
            Ok(0) => {
                body();
                // SAFETY: ends this process, which is a copy made above, without running what others registered.
                unsafe { libc::_exit(0) }
            }
            // SAFETY: on success the kernel has put a new descriptor there that nobody else owns.
            Ok(pid) if pid > 0 => Ok(Self { pid, handle: unsafe { OwnedFd::from_raw_fd(handle) } }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Child {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.handle, rustix::process::Signal::KILL);
        let descriptor = u32::try_from(self.handle.as_raw_fd()).unwrap_or(u32::MAX);
        // SAFETY: no result is asked for; the descriptor is open. Its end is certain after the signal.
        unsafe {
            libc::waitid(libc::P_PIDFD, descriptor, std::ptr::null_mut(), libc::WEXITED | libc::__WALL);
        }
    }
}

/// In the child: tries one thing after another and says what worked. Allocates nothing and cannot panic.
fn try_all(go: &OwnedFd, tell: &OwnedFd) {
    let say = |word| say(tell, word);
    let mut byte = [0_u8; 1];
    if rustix::io::read(go, &mut byte) != Ok(1) || become_root().is_err() {
        return;
    }
    if leave_mounts().is_err() {
        return;
    }
    if fresh_proc().is_ok() {
        say(word::FRESH_PROC);
    }
    if mount_memory().is_ok() {
        say(word::MOUNTS);
        if overlay().is_ok() {
            say(word::OVERLAY);
        }
    }
    if net::make_veth().is_ok() {
        say(word::VETH);
    }
    if net::ask_nf_tables().is_ok() {
        say(word::NF_TABLES);
    }
}

/// In the child: the same, about mounts that show other owners than their files have.
fn try_owners(users: BorrowedFd<'_>, tell: &OwnedFd) {
    if leave_mounts().and_then(|()| mount_memory()).is_err() {
        return;
    }
    if idmap::works(c"/tmp", users).is_ok() {
        say(tell, word::IDMAPPED_MEMORY);
    }
    if idmap::works(c"/", users).is_ok() && idmapped_layers(users).is_ok() {
        say(tell, word::IDMAPPED_LAYERS);
    }
}

fn say(tell: &OwnedFd, word: u8) {
    // Nobody hears it: then nobody waits for it either.
    let _ = rustix::io::write(tell, &[word]);
}

fn leave_mounts() -> rustix::io::Result<()> {
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// What is tried is tried in memory.
fn mount_memory() -> rustix::io::Result<()> {
    rustix::mount::mount(c"none", c"/tmp", c"tmpfs", MountFlags::empty(), None)
}

/// Takes the number 0 of the new user namespace: with a range mapped, ours is not in it.
#[allow(unsafe_code)]
fn become_root() -> rustix::io::Result<()> {
    // SAFETY: plain system calls in a process of one thread, not the library's that would look for others.
    unsafe {
        libc::syscall(libc::SYS_setresgid, 0, 0, 0);
        libc::syscall(libc::SYS_setresuid, 0, 0, 0);
    }
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(rustix::io::Errno::PERM) }
}

/// Made, and mounted nowhere. The kernel refuses where the only `/proc` there is has parts covered.
fn fresh_proc() -> rustix::io::Result<()> {
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map(drop)
}

/// A writable layer over `/usr`, and a file written through it.
fn overlay() -> rustix::io::Result<()> {
    mount_layers(c"lowerdir=/usr,upperdir=/tmp/upper,workdir=/tmp/work,userxattr")?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/tmp/merged/.stockade-probe", flags, Mode::RUSR).map(drop)
}

/// A writable layer over a `/usr` with other owners. Kernels before 5.19 have mounts with other owners, but no layers.
fn idmapped_layers(users: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let shown = idmap::copy_of(c"/usr", users)?;
    rustix::fs::mkdir(c"/tmp/lower", Mode::RWXU)?;
    rustix::mount::move_mount(&shown, c"", CWD, c"/tmp/lower", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    mount_layers(c"lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")
}

fn mount_layers(options: &CStr) -> rustix::io::Result<()> {
    for directory in [c"/tmp/upper", c"/tmp/work", c"/tmp/merged"] {
        rustix::fs::mkdir(directory, Mode::RWXU)?;
    }
    rustix::mount::mount(c"overlay", c"/tmp/merged", c"overlay", MountFlags::empty(), Some(options))
}
