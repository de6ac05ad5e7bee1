use super::assemble::{ABSENT, ALLOW, DONE, KILL, NO_FAMILY, NO_PROTOCOL, REFUSE};
use super::*;

#[cfg(target_arch = "x86_64")]
const OURS: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const OURS: u32 = 0xC000_00B7;
const I386: u32 = 0x4000_0003;

/// What the kernel would say, by the kernel's own rules for the few instructions there are.
fn verdict_on<const N: usize>(architecture: u32, call: i64, arguments: [u64; N]) -> u32 {
    let mut data = [0_u8; 64];
    data[..4].copy_from_slice(&u32::try_from(call & 0xffff_ffff).unwrap().to_ne_bytes());
    data[4..8].copy_from_slice(&architecture.to_ne_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + index * 8..][..8].copy_from_slice(&argument.to_ne_bytes());
    }
    let program = program();
    let (mut at, mut word) = (0, 0_u32);
    loop {
        let step = program.instructions()[at];
        at += 1;
        let holds = match u32::from(step.code) {
            0x20 => {
                word = u32::from_ne_bytes(data[step.k as usize..][..4].try_into().unwrap());
                continue;
            }
            0x06 => return step.k,
            0x15 => word == step.k,
            0x25 => word > step.k,
            0x35 => word >= step.k,
            0x45 => word & step.k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { step.jt } else { step.jf });
    }
}

fn verdict<const N: usize>(call: libc::c_long, arguments: [u64; N]) -> u32 {
    verdict_on(OURS, call, arguments)
}

#[test]
fn every_call_of_the_table_gets_its_verdict() {
    for (purposes, expect) in [
        (calls::ALLOWED, ALLOW),
        (calls::ALLOWED_HERE, ALLOW),
        (calls::REFUSED, REFUSE),
        (calls::REFUSED_HERE, REFUSE),
        (calls::ABSENT, ABSENT),
    ] {
        for purpose in purposes {
            for call in purpose.calls {
                assert_eq!(verdict(*call, [0; 3]), expect, "call {call}, {}", purpose.what);
            }
        }
    }
    for (call, name) in calls::ALLOWED_BY_NUMBER {
        assert_eq!(verdict(*call, [0; 3]), ALLOW, "{name}");
    }
}

#[test]
fn no_call_is_in_the_table_twice() {
    let lists = [calls::ALLOWED, calls::ALLOWED_HERE, calls::REFUSED, calls::REFUSED_HERE, calls::ABSENT];
    let mut all: Vec<_> = lists.iter().flat_map(|list| list.iter()).flat_map(|p| p.calls).collect();
    all.extend(calls::ALLOWED_BY_NUMBER.iter().map(|(call, _)| call));
    all.extend(calls::MODES.iter().chain(calls::MODES_HERE).map(|call| &call.call));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn calls_nobody_has_heard_of_do_not_exist() {
    for call in [470, 500, 100_000, i64::from(u32::MAX)] {
        assert_eq!(verdict(call, [0; 3]), ABSENT, "{call}");
    }
}

#[test]
fn calls_of_other_architectures_end_the_process() {
    assert_eq!(verdict_on(I386, libc::SYS_read, [0; 3]), KILL);
    assert_eq!(verdict(libc::SYS_read | 0x4000_0000, [0; 3]), ABSENT);
}

#[test]
fn threads_and_processes_can_be_made_but_no_namespaces() {
    assert_eq!(verdict(libc::SYS_clone, [0x003d_0f00, 0, 0]), ALLOW);
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ] {
        let flags = u64::from(flag.cast_unsigned());
        assert_eq!(verdict(libc::SYS_clone, [flags | 17, 0, 0]), REFUSE);
        assert_eq!(verdict(libc::SYS_unshare, [flags, 0, 0]), REFUSE);
        // The upper half is not looked at by the kernel; it must not hide the lower.
        assert_eq!(verdict(libc::SYS_unshare, [flags | 1 << 40, 0, 0]), REFUSE);
    }
    assert_eq!(verdict(libc::SYS_unshare, [0x80, 0, 0]), REFUSE);
    assert_eq!(verdict(libc::SYS_unshare, [0x400, 0, 0]), ALLOW);
}

#[test]
fn no_call_makes_a_file_that_runs_as_its_owner_or_group() {
    let all = || calls::MODES.iter().chain(calls::MODES_HERE);
    for call in all() {
        let with = |mode: u64, flags: u64| {
            let mut arguments = [0; 4];
            arguments[call.mode as usize] = mode;
            if let Some(place) = call.flags {
                arguments[place as usize] = flags;
            }
            verdict(call.call, arguments)
        };
        let flags = |flags: i32| u64::from(flags.cast_unsigned());
        for makes in [libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_TMPFILE] {
            for mode in [0o4755, 0o2755, 0o6000, 0o104_755, 1 << 40 | 0o4000] {
                assert_eq!(with(mode, flags(makes | libc::O_WRONLY)), REFUSE, "call {} {mode:o}", call.call);
            }
            for mode in [0, 0o755, 0o1777, 0o100_644, 1 << 40 | 0o777] {
                assert_eq!(with(mode, flags(makes)), ALLOW, "call {} {mode:o}", call.call);
            }
        }
        if call.flags.is_some() {
            // What is no mode may be anything.
            assert_eq!(with(u64::MAX, flags(libc::O_RDONLY | libc::O_DIRECTORY)), ALLOW);
        }
    }
    assert_eq!(verdict(libc::SYS_openat2, [0; 4]), ABSENT, "its mode is behind a pointer");
    assert!(all().count() >= 6);
}

#[test]
fn nobody_types_into_anothers_terminal() {
    for request in [0x5412, 0x541C, 0x5423, 0x1_0000_5412] {
        assert_eq!(verdict(libc::SYS_ioctl, [0, request, 0]), REFUSE);
    }
    assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5413, 0]), ALLOW);
}

#[test]
fn only_common_sockets_can_be_had() {
    let socket = |family: i32, protocol: u64| {
        verdict(libc::SYS_socket, [u64::from(family.cast_unsigned()), 1, protocol])
    };
    assert_eq!(socket(libc::AF_UNIX, 0), ALLOW);
    assert_eq!(socket(libc::AF_INET, 6), ALLOW);
    assert_eq!(socket(libc::AF_INET6, 58), ALLOW);
    assert_eq!(socket(libc::AF_INET, 132), NO_PROTOCOL, "SCTP");
    assert_eq!(socket(libc::AF_NETLINK, 0), ALLOW);
    assert_eq!(socket(libc::AF_NETLINK, 12), NO_PROTOCOL, "netfilter");
    for family in [libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_BLUETOOTH, libc::AF_XDP] {
        assert_eq!(socket(family, 0), NO_FAMILY);
    }
    assert_eq!(verdict(libc::SYS_socketpair, [30, 1, 0]), NO_FAMILY, "TIPC");
}

#[test]
fn the_limit_of_core_files_is_asked_for_and_not_set() {
    for pointer in [1, 1 << 32, 0x7fff_0000_0000, u64::MAX] {
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 4, pointer, 0]), DONE);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 1 << 32 | 4, pointer, 0]), DONE);
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 7, pointer, 0]), ALLOW);
    }
    assert_eq!(verdict(libc::SYS_prlimit64, [0, 4, 0, 1 << 40]), ALLOW);
    assert_eq!(verdict(libc::SYS_setrlimit, [4, 1 << 40]), DONE);
    assert_eq!(verdict(libc::SYS_setrlimit, [7, 1 << 40]), ALLOW);
}

#[test]
fn personalities_are_the_plain_ones() {
    assert_eq!(verdict(libc::SYS_personality, [0xffff_ffff, 0, 0]), ALLOW);
    assert_eq!(verdict(libc::SYS_personality, [0x0040_0000, 0, 0]), REFUSE, "READ_IMPLIES_EXEC");
}
