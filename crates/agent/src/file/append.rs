//! Putting content behind what a file has. When that fails nothing of it stays.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::Errno;

use super::content::read_whole;
use super::failure::Failure;
use super::limits::EDIT_BYTES;
use super::paths::Target;
use super::place::{Old, Place};
use super::store::{Content, Note, UNCHANGED, replace_content};

/// Puts `parts` behind what is in a file, which is made when missing. When that fails nothing of it stays.
pub(crate) fn append(target: &Target, parts: &[&[u8]]) -> Result<Option<Note>, Failure> {
    let place = Place::of(target)?;
    let _turn = place.turn();
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY);
    let file = match options.open(&target.path) {
        Ok(file) => file,
        Err(error) => return append_to_copy(target, &place, parts, &error),
    };
    let metadata = target.require_regular(&file)?;
    if let Err(error) = require_room(&file, metadata.len(), parts) {
        return Err(target.failed(&error).because(UNCHANGED));
    }
    append_or_undo(target, &file, parts).map(|()| None)
}

/// What cannot be written may give way to a copy, with `parts` behind it.
fn append_to_copy(
    target: &Target,
    place: &Place,
    parts: &[&[u8]],
    error: &io::Error,
) -> Result<Option<Note>, Failure> {
    match Old::open(target) {
        Ok(Some(old)) if old.file.is_err() => {
            let present = read_whole(target, target.open()?, EDIT_BYTES)?;
            let all: Vec<&[u8]> = std::iter::once(present.as_slice()).chain(parts.iter().copied()).collect();
            replace_content(target, place, &all)
        }
        _ => Err(target.failed(error)),
    }
}

/// A disk that is known to be too full is not filled to its end first, which others would notice.
fn require_room(file: &File, size: u64, parts: &[&[u8]]) -> io::Result<()> {
    let Ok(disk) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let block = disk.f_frsize.max(1);
    let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    let in_last_block = (block - size % block) % block;
    let wanted = Content::Parts(parts).length();
    // File systems that cannot tell say that they have no blocks at all.
    if disk.f_blocks > 0 && wanted > free.saturating_mul(block).saturating_add(in_last_block) {
        return Err(Errno::NOSPC.into());
    }
    Ok(())
}

fn append_or_undo(target: &Target, mut file: &File, parts: &[&[u8]]) -> Result<(), Failure> {
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left: &mut [IoSlice<'_>] = &mut slices;
    IoSlice::advance_slices(&mut left, 0);
    // What was written of it, if that is not all yet.
    let mut written: Option<Written> = None;
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(count) if count > 0 => {
                IoSlice::advance_slices(&mut left, count);
                if !left.is_empty() {
                    let before = written.map_or(0, |written| written.count);
                    written = Some(Written::now(file, before, count as u64, written));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            failed => {
                let error = failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                let state = written.map_or_else(|| UNCHANGED.to_owned(), |written| written.take_back(file));
                return Err(target.failed(&error).because(&state));
            }
        }
    }
    Ok(())
}

/// The part of a content that was appended.
#[derive(Debug, Clone, Copy)]
struct Written {
    count: u64,
    /// Where it begins and ends in the file. `None`: nobody knows, or others wrote between its parts.
    range: Option<(u64, u64)>,
}

impl Written {
    fn now(file: &File, before: u64, count: u64, earlier: Option<Self>) -> Self {
        // After a write to the end of a file its descriptor stands behind what was written.
        let end = rustix::fs::tell(file).ok();
        let range = match (end, earlier) {
            (Some(end), None) => Some((end.saturating_sub(count), end)),
            (Some(end), Some(Self { range: Some((start, middle)), .. })) if middle + count == end => {
                Some((start, end))
            }
            _ => None,
        };
        Self { count: before + count, range }
    }

    /// Cuts it off, unless somebody else has appended since. Says what is so.
    fn take_back(self, file: &File) -> String {
        if let Some((start, end)) = self.range
            && file.metadata().is_ok_and(|metadata| metadata.len() == end)
            && file.set_len(start).is_ok()
        {
            return UNCHANGED.to_owned();
        }
        format!(
            "the first {} bytes stay in the file, because another program has appended to it meanwhile",
            self.count
        )
    }
}
