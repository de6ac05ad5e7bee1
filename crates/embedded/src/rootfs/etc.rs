//! The `/etc` of sandboxes: what programs need of the machine's, by name.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Copied if there. Never: shadow, ssh, sudoers, machine-id, keys, package sources, anything that may hold a password
/// or a token, such as `environment`, `profile.d`, `gitconfig`, `npmrc`, `pip.conf`, `wgetrc` or `netrc`.
const COPIED: &[&str] = &[
    // Programs and libraries are found through these.
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "host.conf",
    "gai.conf",
    "networks",
    "protocols",
    "rpc",
    "services",
    "ethertypes",
    // Which certificate authorities are trusted; no private keys.
    "ca-certificates.conf",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "crypto-policies",
    // What the system is, and where.
    "debian_version",
    "redhat-release",
    "alpine-release",
    "lsb-release",
    "os-release",
    "localtime",
    "timezone",
    "locale.alias",
    "locale.conf",
    "default/locale",
    // Shells and terminals.
    "bash.bashrc",
    "bashrc",
    "inputrc",
    "profile",
    "shells",
    "terminfo",
    "vim",
    "nanorc",
    // Kinds of files.
    "magic",
    "magic.mime",
    "mailcap",
    "mime.types",
    "xml",
    "sgml",
    "fonts",
    // Languages and tools.
    "ImageMagick-6",
    "ImageMagick-7",
    "R",
    "ghostscript",
    "groff",
    "java-8-openjdk",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "java-25-openjdk",
    "java",
    "libreoffice",
    "matplotlibrc",
    "perl",
    "python3",
    "python3.9",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "texmf",
];

/// Files and directories at most: it is a copy in memory.
const MOST: usize = 20_000;
/// Larger files are no configuration.
const LARGEST: u64 = 4 * 1024 * 1024;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    gem:x:1000:1000:gem:/home/gem:/bin/bash\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\ngem:x:1000:\nnogroup:x:65534:\n";

/// What is mounted belongs to whoever it belongs to outside. git asks who a repository's owner is because another user
/// of a machine may have planted it; in a sandbox there is one user, whom a repository is mounted for. The agent tells
/// commands the same where it finds no such file, but submodules do not hear of that.
const GITCONFIG: &str = "[safe]\n\tdirectory = *\n";

/// Fills `to` from the machine's `from`. What cannot be read is left out: it is not for everyone to see.
pub(super) fn fill(from: &Path, to: &Path) -> io::Result<()> {
    let mut left = MOST;
    for name in COPIED {
        let target = to.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        copy(&from.join(name), &target, &mut left)?;
    }
    // Empty directories that only had to hold what is not there.
    for name in ["default", "pki/tls", "pki/ca-trust", "pki", "ssl"] {
        let _ = fs::remove_dir(to.join(name));
    }
    fs::write(to.join("passwd"), PASSWD)?;
    fs::write(to.join("group"), GROUP)?;
    fs::write(to.join("gitconfig"), GITCONFIG)?;
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(to.join(name), "")?;
    }
    let _ = std::os::unix::fs::symlink("/proc/self/mounts", to.join("mtab"));
    Ok(())
}

fn copy(from: &Path, to: &Path, left: &mut usize) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(from) else { return Ok(()) };
    let Some(fewer) = left.checked_sub(1) else { return Ok(()) };
    *left = fewer;
    let mode = found.permissions().mode();
    if found.is_symlink() {
        let Ok(target) = fs::read_link(from) else { return Ok(()) };
        return std::os::unix::fs::symlink(target, to);
    }
    if found.is_dir() && mode & 0o005 == 0o005 {
        fs::create_dir_all(to)?;
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        for entry in entries.flatten() {
            copy(&entry.path(), &to.join(entry.file_name()), left)?;
        }
    } else if found.is_file() && mode & 0o004 != 0 && found.len() <= LARGEST {
        let Ok(content) = fs::read(from) else { return Ok(()) };
        fs::write(to, content)?;
        fs::set_permissions(to, Permissions::from_mode(mode & 0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_read_is_not_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |name: &str, mode: u32| {
            let path = from.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write("services", 0o644);
        write("shadow", 0o644);
        write("perl/secret", 0o600);
        write("perl/open", 0o4755);
        write("ssl/private/key", 0o644);
        write("ssl/certs/a.pem", 0o644);
        fill(from.path(), to.path()).unwrap();
        let there = |name: &str| to.path().join(name).exists();
        assert!(there("services") && there("perl/open") && there("ssl/certs/a.pem"));
        assert!(!there("shadow") && !there("perl/secret") && !there("ssl/private"));
        assert_eq!(fs::metadata(to.path().join("perl/open")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(fs::read_to_string(to.path().join("passwd")).unwrap().contains("gem:x:1000:1000"));
    }
}
