//! What the first half of a launch leaves to the second, across the execution of a program: descriptors, by number.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::sys;

/// The first number. Those before it are standard input, output and errors.
const FIRST: RawFd = 3;
/// Above all numbers that a launcher uses, so that nothing is overwritten before it was copied.
const ASIDE: RawFd = 512;

/// Descriptors, in this order from [`FIRST`] on.
pub(super) struct Handover<T> {
    /// To the server: what the sandbox will be, and what came of it.
    pub(super) channel: T,
    /// The sandbox's `/proc`.
    pub(super) proc: T,
    /// The user namespace of its users.
    pub(super) users: T,
    /// The one in which what belongs to root is its user's; where there is one user only, the same as `users`.
    pub(super) of_root: T,
    /// The layer of what differs from sandbox to sandbox.
    pub(super) own: T,
    /// What becomes its root.
    pub(super) root: T,
    /// An empty file.
    pub(super) nothing: T,
    /// The program to execute as the agent; where none is to be executed, the same as `nothing`.
    pub(super) agent: T,
    /// Control groups of its commands.
    pub(super) commands: Vec<T>,
}

impl Handover<BorrowedFd<'_>> {
    /// Puts them where [`Handover::take`] finds them, and lets everything else close when a program is executed.
    /// Numbers that were in use there are lost: the caller has nothing left to do but to execute. Returns copies of
    /// `more`, which close then too.
    pub(super) fn leave<const N: usize>(&self, more: [BorrowedFd<'_>; N]) -> Result<[OwnedFd; N], Errno> {
        let fixed = [
            self.channel,
            self.proc,
            self.users,
            self.of_root,
            self.own,
            self.root,
            self.nothing,
            self.agent,
        ];
        let aside = |fd: &BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, ASIDE);
        let copies = fixed.iter().chain(&self.commands).map(aside).collect::<Result<Vec<_>, _>>()?;
        let more = more.iter().map(aside).collect::<Result<Vec<_>, _>>()?;
        sys::close_all_on_execution()?;
        for (number, copy) in (FIRST..).zip(&copies) {
            sys::copy_to(copy, number)?;
        }
        more.try_into().map_err(|_| Errno::BADF)
    }
}

impl Handover<OwnedFd> {
    /// Takes them over. Call it once, before anything is opened.
    ///
    /// # Errors
    /// `EBADF`: one of them is not open.
    #[allow(unsafe_code)]
    pub(super) fn take() -> Result<Self, Errno> {
        let take = |number: RawFd| {
            sys::close_on_execution(number)?;
            // SAFETY: it is open, was left for us by who executed this program, and is taken once.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        };
        let mut numbers = FIRST..;
        let mut next = || numbers.next().map_or(Err(Errno::BADF), take);
        let mut handover = Self {
            channel: next()?,
            proc: next()?,
            users: next()?,
            of_root: next()?,
            own: next()?,
            root: next()?,
            nothing: next()?,
            agent: next()?,
            commands: Vec::new(),
        };
        while let Ok(command) = next() {
            handover.commands.push(command);
        }
        Ok(handover)
    }
}

/// Closes every descriptor but the standard ones and these, whoever owns them.
pub(super) fn close_all_but(kept: &[&OwnedFd]) -> Result<(), Errno> {
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut from = FIRST.cast_unsigned();
    for number in numbers {
        if number > from {
            sys::close_range(from, number - 1)?;
        }
        from = number + 1;
    }
    sys::close_range(from, u32::MAX)
}
