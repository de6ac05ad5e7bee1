//! Capabilities: none, in none of the five sets, and no way to get them back.

use std::io;

/// More than there are; the kernel says where they end.
const MOST: libc::c_ulong = 64;

/// `SECBIT_*` of the kernel, each with its lock: root is no special user, changing users brings nothing
/// back, nothing is kept, nothing is raised for programs to come.
const SECURE_BITS: libc::c_ulong = 0b1110_1111;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Gives up every capability for good: effective, permitted, inheritable, ambient and the bound of what programs
/// could bring. To be called between fork and exec, as the last step that needs any. Allocates nothing.
///
/// # Errors
/// The kernel refuses, which it does to a process that has no right to lower its own bound.
#[allow(unsafe_code)]
pub fn drop_all() -> io::Result<()> {
    for capability in 0..MOST {
        // SAFETY: numbers only. Beyond the last capability the kernel says EINVAL.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    // SAFETY: numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) }.into())?;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: header and sets are the kernel's structures of this version, which has two of the latter.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
