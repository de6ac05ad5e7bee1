//! Which system calls a sandbox may make.
//!
//! The table in [`calls`] says which and why; this turns it into the kernel's classic BPF. Deny by default:
//! a call the table does not know does not exist (`ENOSYS`), so that programs fall back to what came before it.

pub(crate) mod assemble;
pub mod calls;

#[cfg(test)]
mod tests;

use std::io;

use libc::sock_filter;

/// A filter, ready to be applied.
#[derive(Clone)]
pub struct Program {
    instructions: Vec<sock_filter>,
}

/// Makes the filter. Do it before the fork; it depends on nothing but the processor's architecture.
#[must_use]
pub fn program() -> Program {
    Program { instructions: assemble::assemble() }
}

impl Program {
    /// Of another filter than the one for sandboxes.
    pub(crate) fn of(instructions: Vec<sock_filter>) -> Self {
        Self { instructions }
    }

    /// Applies the filter to this process, for good, after setting `no_new_privs`. To be called by a process of
    /// one thread, between fork and exec. Allocates nothing.
    ///
    /// # Errors
    /// The kernel has no filters, or one applied earlier forbids this.
    #[allow(unsafe_code)]
    pub fn apply(&self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        let length =
            u16::try_from(self.instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        // The kernel only reads; its structure has no const.
        let program = libc::sock_fprog { len: length, filter: self.instructions.as_ptr().cast_mut() };
        // SAFETY: pointer and length are those of a vector that outlives the call, and the kernel copies it.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The instructions, for whoever wants to look.
    #[must_use]
    pub fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }
}

/// Whether the kernel filters system calls.
#[must_use]
#[allow(unsafe_code)]
pub fn is_available() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads four bytes there.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    result == 0
}
