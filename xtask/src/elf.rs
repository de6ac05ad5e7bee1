//! Is a program static? Read from the file itself: no `ldd` or `readelf` knows every architecture.

use anyhow::{Context, Result, bail, ensure};

/// ELF machine numbers (`e_machine`), and the names of their Rust targets.
const MACHINES: [(u16, &str); 2] = [(62, "x86_64"), (183, "aarch64")];
/// `p_type` of the segment that names a dynamic linker.
const PT_INTERP: u32 = 3;
/// `p_type` of the segment with the list of needed libraries.
const PT_DYNAMIC: u32 = 2;
/// `d_tag` of an entry that names a needed library.
const DT_NEEDED: u64 = 1;

/// Makes sure that a program is for this architecture and needs no file of the machine it runs on.
///
/// # Errors
/// When it is not; the message says what it needs.
pub fn ensure_static(program: &[u8], architecture: &str) -> Result<()> {
    ensure!(
        program.starts_with(b"\x7fELF\x02\x01"),
        "it is no ELF program of 64 bits and little-endian numbers"
    );
    let machine = u16::from_le_bytes(field(program, 18)?);
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    ensure!(name == Some(architecture), "it is for machine {machine} and not for {architecture}");
    let headers = usize::try_from(u64::from_le_bytes(field(program, 32)?))?;
    let size = usize::from(u16::from_le_bytes(field(program, 54)?));
    let count = usize::from(u16::from_le_bytes(field(program, 56)?));
    for header in (0..count).map(|number| headers + number * size) {
        match u32::from_le_bytes(field(program, header)?) {
            PT_INTERP => bail!("it wants a dynamic linker"),
            PT_DYNAMIC => {
                let start = usize::try_from(u64::from_le_bytes(field(program, header + 8)?))?;
                let length = usize::try_from(u64::from_le_bytes(field(program, header + 32)?))?;
                ensure_nothing_needed(program, start, length)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A static program that can be loaded anywhere has a dynamic section too, but needs no library.
fn ensure_nothing_needed(program: &[u8], start: usize, length: usize) -> Result<()> {
    for entry in (start..start + length).step_by(16) {
        ensure!(u64::from_le_bytes(field(program, entry)?) != DT_NEEDED, "it needs a shared library");
    }
    Ok(())
}

fn field<const N: usize>(program: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = program.get(at..at + N).context("the ELF headers lead out of the file")?;
    Ok(bytes.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This test itself is linked to the machine's C library.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = ensure_static(&own, std::env::consts::ARCH).unwrap_err().to_string();
        assert!(error.contains("dynamic linker") || error.contains("shared library"), "{error}");
        let error = ensure_static(&own, "riscv64").unwrap_err().to_string();
        assert!(error.contains("riscv64"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused_and_nothing_panics() {
        for bytes in [&b""[..], b"#!/bin/sh", b"\x7fELF\x02\x01", &[0x7f, b'E', b'L', b'F', 2, 1, 0, 0]] {
            assert!(ensure_static(bytes, "x86_64").is_err());
        }
    }
}
