//! From the table to the kernel's instructions.

use libc::{c_long, sock_filter};

use super::calls::{self, ModeCall, Purpose};

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
pub(crate) const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const ABOVE: u16 = code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
const AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
pub(crate) const ANY_BIT: u16 = code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

/// Instructions are small numbers.
#[allow(clippy::cast_possible_truncation, reason = "all codes of classic BPF have eight bits")]
const fn code(code: u32) -> u16 {
    code as u16
}

/// Where `struct seccomp_data` has the call's number.
const NUMBER: u32 = 0;
/// Where it has the architecture.
const ARCHITECTURE: u32 = 4;

#[cfg(target_arch = "x86_64")]
const OUR_ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const OUR_ARCHITECTURE: u32 = 0xC000_00B7;

/// Calls of the x32 form have this bit; none are known here.
const X32_BIT: u32 = 0x4000_0000;

pub(crate) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
pub(super) const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
pub(crate) const REFUSE: u32 = error(libc::EPERM);
pub(crate) const ABSENT: u32 = error(libc::ENOSYS);
/// Not made, though the caller hears that it was.
pub(super) const DONE: u32 = error(0);
pub(super) const NO_FAMILY: u32 = error(libc::EAFNOSUPPORT);
pub(super) const NO_PROTOCOL: u32 = error(libc::EPROTONOSUPPORT);

const fn error(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
}

pub(super) fn assemble() -> Vec<sock_filter> {
    let mut program = beginning();
    for (call, block) in with_arguments() {
        program.push(jump(EQUAL, number(call), 0, short(block.len())));
        program.extend(block);
    }
    for range in ranges() {
        program.extend([
            jump(ABOVE, range.last, 3, 0),
            jump(AT_LEAST, range.first, 0, 1),
            ret(range.verdict),
            // In the gap before this range.
            ret(ABSENT),
        ]);
    }
    program.push(ret(ABSENT));
    program
}

/// How every filter begins: with the number of a call of our architecture loaded.
pub(crate) fn beginning() -> Vec<sock_filter> {
    // A call of another architecture means other things by the same numbers, and whoever makes one wants that.
    let mut program = vec![load(ARCHITECTURE), jump(EQUAL, OUR_ARCHITECTURE, 1, 0), ret(KILL), load(NUMBER)];
    program.extend([jump(AT_LEAST, X32_BIT, 0, 1), ret(ABSENT)]);
    program
}

/// Calls with neighbouring numbers and one verdict.
struct Range {
    first: u32,
    last: u32,
    verdict: u32,
}

fn ranges() -> Vec<Range> {
    let of = |purposes: &'static [Purpose], verdict: u32| {
        purposes.iter().flat_map(|purpose| purpose.calls).map(move |call| (number(*call), verdict))
    };
    let mut all: Vec<(u32, u32)> = of(calls::ALLOWED, ALLOW)
        .chain(of(calls::ALLOWED_HERE, ALLOW))
        .chain(calls::ALLOWED_BY_NUMBER.iter().map(|(call, _)| (number(*call), ALLOW)))
        .chain(of(calls::REFUSED, REFUSE))
        .chain(of(calls::REFUSED_HERE, REFUSE))
        .collect();
    all.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for (call, verdict) in all {
        match ranges.last_mut() {
            Some(range) if range.verdict == verdict && range.last + 1 == call => range.last = call,
            _ => ranges.push(Range { first: call, last: call, verdict }),
        }
    }
    ranges
}

/// Calls whose arguments decide. Every block ends with a verdict on each way.
fn with_arguments() -> Vec<(c_long, Vec<sock_filter>)> {
    let modes = calls::MODES.iter().chain(calls::MODES_HERE).map(|call| (call.call, mode(call)));
    modes.chain(others()).collect()
}

/// `REFUSE` if the argument has any of the bits.
fn without_bits(argument: u32, bits: u32) -> Vec<sock_filter> {
    vec![load(low(argument)), jump(ANY_BIT, bits, 0, 1), ret(REFUSE), ret(ALLOW)]
}

/// A mode is looked at where the call makes or changes a file.
fn mode(call: &ModeCall) -> Vec<sock_filter> {
    let mut block = Vec::new();
    if let Some(flags) = call.flags {
        block.extend([load(low(flags)), jump(ANY_BIT, calls::MAKES_A_FILE, 1, 0), ret(ALLOW)]);
    }
    block.extend(without_bits(call.mode, calls::FORBIDDEN_MODE));
    block
}

fn others() -> Vec<(c_long, Vec<sock_filter>)> {
    vec![
        (libc::SYS_clone, without_bits(0, calls::NAMESPACE_FLAGS)),
        (libc::SYS_unshare, without_bits(0, calls::NAMESPACE_FLAGS | calls::TIME_NAMESPACE_FLAG)),
        // The kernel looks at 32 bits of the request, so the filter does too.
        (libc::SYS_ioctl, one_of(low(1), calls::REFUSED_IOCTLS, REFUSE, ALLOW)),
        (libc::SYS_personality, one_of(low(0), calls::PERSONALITIES, ALLOW, REFUSE)),
        (libc::SYS_setrlimit, one_of(low(0), &[calls::CORE_LIMIT], DONE, ALLOW)),
        (libc::SYS_prlimit64, prlimit()),
        (libc::SYS_socket, socket()),
        (libc::SYS_socketpair, one_of(low(0), &[number(libc::AF_UNIX.into())], ALLOW, NO_FAMILY)),
    ]
}

/// `found` if the word at `offset` is one of the values, else `other`.
pub(crate) fn one_of(offset: u32, values: &[u32], found: u32, other: u32) -> Vec<sock_filter> {
    let mut block = vec![load(offset)];
    for value in values {
        block.extend([jump(EQUAL, *value, 0, 1), ret(found)]);
    }
    block.push(ret(other));
    block
}

fn socket() -> Vec<sock_filter> {
    let mut block = vec![load(low(0))];
    for (family, protocols) in calls::SOCKETS {
        let protocols: Vec<u32> = protocols.iter().map(|protocol| number((*protocol).into())).collect();
        let allowed = one_of(low(2), &protocols, ALLOW, NO_PROTOCOL);
        block.push(jump(EQUAL, number((*family).into()), 0, short(allowed.len())));
        block.extend(allowed);
    }
    block.push(ret(NO_FAMILY));
    block
}

/// Setting the limit of core files does nothing, and says that it did: scripts that end at the first error do it too.
fn prlimit() -> Vec<sock_filter> {
    vec![
        load(low(1)),
        jump(EQUAL, calls::CORE_LIMIT, 1, 0),
        ret(ALLOW),
        // Without a new limit it only asks.
        load(low(2)),
        jump(EQUAL, 0, 0, 2),
        load(high(2)),
        jump(EQUAL, 0, 1, 0),
        ret(DONE),
        ret(ALLOW),
    ]
}

/// Where the lower half of an argument is.
pub(crate) const fn low(argument: u32) -> u32 {
    let half = if cfg!(target_endian = "little") { 0 } else { 4 };
    16 + argument * 8 + half
}

/// Where the upper half of an argument is.
const fn high(argument: u32) -> u32 {
    let half = if cfg!(target_endian = "little") { 4 } else { 0 };
    16 + argument * 8 + half
}

/// Numbers of calls, families and protocols are small and not negative.
pub(crate) fn number(value: c_long) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Jumps are short because every block is; a longer one would end in a filter that allows nothing.
pub(crate) fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(0)
}

pub(crate) const fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

pub(crate) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

pub(crate) const fn ret(verdict: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: verdict }
}
