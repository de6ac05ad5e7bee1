//! `/proc/self/mountinfo` as data (the format is in proc(5)).

use serde::Serialize;

/// One mount as this process sees it.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) mount_point: String,
    /// The path inside the mounted file system: tells the source of a bind mount.
    pub(crate) root: String,
    pub(crate) source: String,
    pub(crate) fs_type: String,
    /// Options of this mount, not of the file system below: `ro` here is what a write meets.
    pub(crate) options: Vec<String>,
    pub(crate) super_options: Vec<String>,
    pub(crate) read_only: bool,
}

pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // The optional fields in the middle vary in number; " - " ends them.
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let mut right = right.split(' ');
    let (root, mount_point, options) = (left.next()?, left.next()?, left.next()?);
    let (fs_type, source) = (right.next()?, right.next()?);
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    Some(Mount {
        mount_point: unescape(mount_point),
        root: unescape(root),
        source: unescape(source),
        fs_type: fs_type.to_owned(),
        read_only: options.iter().any(|option| option == "ro"),
        options,
        super_options: right.next().unwrap_or_default().split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits after a backslash.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_tells_point_root_and_whether_it_is_read_only() {
        let mounts = parse(
            "36 35 98:0 /srv/a\\040b /mnt/data ro,noatime master:1 shared:2 - ext4 /dev/root rw,errors=continue\n",
        );
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].mount_point, "/mnt/data");
        assert_eq!(mounts[0].root, "/srv/a b");
        assert_eq!(mounts[0].source, "/dev/root");
        assert!(mounts[0].read_only);
        assert_eq!(mounts[0].super_options, ["rw", "errors=continue"]);
    }

    #[test]
    fn lines_that_are_no_mounts_are_left_out() {
        assert_eq!(parse("garbage\n\n1 2 3\n"), []);
    }
}
