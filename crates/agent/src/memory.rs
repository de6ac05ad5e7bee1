//! Giving back what the agent does not need while it is idle.

use std::ffi::{c_int, c_void};

/// Lets go of the pages of the program itself that are mapped now: code and constants that the
/// start used, and everything the kernel mapped around them. What is needed again comes from the
/// page cache, sixteen pages a fault; nothing is read from a disk for that.
#[allow(unsafe_code)]
pub(crate) fn let_go_of_program() {
    // SAFETY: the callback keeps to the contract of dl_iterate_phdr and does not unwind.
    unsafe {
        libc::dl_iterate_phdr(Some(each_object), std::ptr::null_mut());
    }
}

#[allow(unsafe_code)]
unsafe extern "C" fn each_object(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid description, whose headers stay as long as the object is loaded.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    for header in headers {
        // Never what may be written: such pages were changed at the start and exist in memory alone.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            // SAFETY: the range is a segment of this process that is never written. Its pages are those of the
            // file, and come back from there with the same content when they are touched.
            unsafe { give_back(base + header.p_vaddr, header.p_memsz) };
        }
    }
    0
}

/// # Safety
/// The range is mapped from a file and its pages are unchanged.
#[allow(unsafe_code)]
unsafe fn give_back(start: u64, length: u64) {
    let page = rustix::param::page_size();
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else { return };
    let first = start & !(page - 1);
    let whole = (start + length - first).next_multiple_of(page);
    // SAFETY: as the caller says. A failure only leaves the pages where they are.
    unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(first), whole, libc::MADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
    }

    #[test]
    fn the_program_goes_on_with_less() {
        static WRITTEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        WRITTEN.store(7, std::sync::atomic::Ordering::Relaxed);
        let before = resident();
        let_go_of_program();
        assert!(resident() < before, "{before} KiB before");
        assert_eq!(WRITTEN.load(std::sync::atomic::Ordering::Relaxed), 7);
    }
}
