//! Changing files so that a failure changes nothing: new content goes beside the old and takes its name when it is whole.
//!
//! Some files have to be written where they are. Then what lies beyond the old end is written first, because it alone
//! needs new space: a full disk is met before the old content is touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::io::Errno;

use super::beside::{Beside, Obstacle};
use super::failure::{Failure, Kind};
use super::limits::EDIT_BYTES;
use super::owner;
use super::paths::Target;
use super::place::{Old, Place};

pub(super) const UNCHANGED: &str = "the file is as it was";
/// Bytes copied at once from one file to another.
const COPIED: usize = 256 * 1024;

/// What the caller should know of a write that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) message: &'static str,
    pub(crate) hint: String,
}

impl Note {
    fn in_place(reason: &str) -> Self {
        Self {
            message: "in place",
            hint: format!(
                "the file was written in place, because {reason}: who read it meanwhile may have seen part of it"
            ),
        }
    }

    /// What is to be said although the new file has the old one's name.
    pub(super) fn of_success(old: &Old) -> Option<Self> {
        old.is_of_another().then(|| Self {
            message: "by a new file",
            hint: format!(
                "the file belonged to {} and could not be written; one of this sandbox's own user has taken its name",
                owner::name_of(old.metadata.uid())
            ),
        })
    }
}

/// Content in memory, in parts, or in a file.
pub(super) enum Content<'a> {
    Parts(&'a [&'a [u8]]),
    File(&'a File, u64),
}

impl Content<'_> {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Parts(parts) => parts.iter().map(|part| part.len() as u64).sum(),
            Self::File(_, length) => *length,
        }
    }

    /// Writes the bytes of `range` to the same place in `file`.
    fn write(&self, file: &File, range: std::ops::Range<u64>) -> io::Result<()> {
        match self {
            Self::Parts(parts) => {
                let mut start = 0;
                for part in *parts {
                    let end = start + part.len() as u64;
                    let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
                    let within = |at: u64| usize::try_from(at - start).unwrap_or(0);
                    file.write_all_at(&part[within(from)..within(to)], from)?;
                    start = end;
                }
                Ok(())
            }
            Self::File(source, _) => {
                let mut buffer = vec![0; COPIED];
                let mut at = range.start;
                while at < range.end {
                    let wanted = usize::try_from(range.end - at).unwrap_or(COPIED).min(COPIED);
                    source.read_exact_at(&mut buffer[..wanted], at)?;
                    file.write_all_at(&buffer[..wanted], at)?;
                    at += wanted as u64;
                }
                Ok(())
            }
        }
    }
}

/// Makes `parts` the content of a file, which is made when missing.
pub(crate) fn store(target: &Target, parts: &[&[u8]]) -> Result<Option<Note>, Failure> {
    let place = Place::of(target)?;
    let _turn = place.turn();
    replace_content(target, &place, parts)
}

/// Reads a file and stores what `change` makes of it. Other calls that change it wait; `None` leaves it as it is.
pub(crate) fn edit<T>(
    target: &Target,
    change: impl FnOnce(Vec<u8>) -> Result<(T, Option<Vec<u8>>), Failure>,
) -> Result<(T, Option<Note>), Failure> {
    // Nothing is made for an edit of a file that is not there.
    let found = target.open()?;
    let place = Place::of(target)?;
    let _turn = place.turn();
    drop(found);
    let bytes = super::content::read_whole(target, target.open()?, EDIT_BYTES)?;
    let (result, changed) = change(bytes)?;
    let note = match changed {
        Some(bytes) => replace_content(target, &place, &[&bytes])?,
        None => None,
    };
    Ok((result, note))
}

pub(super) fn replace_content(
    target: &Target,
    place: &Place,
    parts: &[&[u8]],
) -> Result<Option<Note>, Failure> {
    let old = Old::open(target)?;
    let content = Content::Parts(parts);
    match put_beside(place, old.as_ref(), &content) {
        Ok(()) => Ok(old.as_ref().and_then(Note::of_success)),
        Err(obstacle) => instead(target, old.as_ref(), &content, &obstacle),
    }
}

fn put_beside(place: &Place, old: Option<&Old>, content: &Content<'_>) -> Result<(), Obstacle> {
    check(place, old)?;
    let mut beside = Beside::begin(place, old.is_some())?;
    content.write(&beside.file, 0..content.length()).map_err(Obstacle::Io)?;
    complete(place, old, &mut beside)
}

/// Looks for what makes it impossible that another file takes the old one's name.
fn check(place: &Place, old: Option<&Old>) -> Result<(), Obstacle> {
    let Some(old) = old else { return Ok(()) };
    if old.metadata.nlink() > 1 {
        return Err(Obstacle::Lost("it has other names (hard links)"));
    }
    match place.occupant().map_err(Obstacle::Io)? {
        (_, true) => Err(Obstacle::Lost("it is mounted by itself")),
        (occupant, false) if occupant != old.identity() => {
            Err(Obstacle::Lost("its name leads somewhere else"))
        }
        _ => Ok(()),
    }
}

/// Gives a whole file the rights and the name of the old one.
pub(super) fn complete(place: &Place, old: Option<&Old>, beside: &mut Beside) -> Result<(), Obstacle> {
    check(place, old)?;
    if let Some(old) = old {
        beside.take_over(old)?;
    }
    beside.take_name(place).map_err(Obstacle::Io)
}

/// Writes the old file where it is, if that can be done without a risk to what is in it.
pub(super) fn instead(
    target: &Target,
    old: Option<&Old>,
    content: &Content<'_>,
    obstacle: &Obstacle,
) -> Result<Option<Note>, Failure> {
    let Some(Old { file: Ok(file), metadata, .. }) = old else { return Err(refused(target, old, obstacle)) };
    let reason = obstacle.reason();
    match overwrite(file, metadata.len(), content) {
        Ok(()) => Ok(Some(Note::in_place(&reason))),
        Err(Overwriting::Untouched(error)) => Err(target.failed(&error).because(UNCHANGED)),
        Err(Overwriting::Mixed(error)) => {
            let state = format!("it was written in place ({reason}) and may hold part of both contents");
            Err(target.failed(&error).because(&state))
        }
    }
}

/// What is said where nothing can be done.
pub(super) fn refused(target: &Target, old: Option<&Old>, obstacle: &Obstacle) -> Failure {
    match (old.map(|old| &old.file), obstacle) {
        (Some(Err(error)), _) => {
            let why = format!("and no other file can take its place: {}", obstacle.reason());
            target.failed(error).because(&why)
        }
        (_, Obstacle::Io(error)) => target.failed(error),
        (_, Obstacle::Lost(reason)) => target.refused(Kind::PermissionDenied, reason),
    }
}

enum Overwriting {
    Untouched(io::Error),
    Mixed(io::Error),
}

/// Puts `content` into `file`, of which the part beyond the old end may fail for want of space.
fn overwrite(file: &File, old_length: u64, content: &Content<'_>) -> Result<(), Overwriting> {
    let length = content.length();
    let common = length.min(old_length);
    let grown =
        allocate_holes(file, common).and_then(|()| content.write(file, common..length)).map_err(|error| {
            let _ = file.set_len(old_length);
            Overwriting::Untouched(error)
        });
    grown?;
    content.write(file, 0..common).and_then(|()| file.set_len(length)).map_err(Overwriting::Mixed)
}

/// A hole in a file is a part that needs space when it is written.
fn allocate_holes(file: &File, length: u64) -> io::Result<()> {
    let allocated = file.metadata()?.blocks() * 512;
    if allocated >= length {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(error.into()),
        // Where space cannot be asked for, the write itself will tell.
        _ => Ok(()),
    }
}
