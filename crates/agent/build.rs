//! How the static program is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // A program that can be loaded anywhere has fifteen thousand addresses to be put right at the start. Packed,
    // their list is a hundredth as long: 300 KB less of file, and of memory that the start touches. The linker of
    // the other architecture is called without a compiler and does not know `-Wl`.
    if is("CARGO_CFG_TARGET_ENV", "musl") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
