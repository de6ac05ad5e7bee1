//! A file that arrives in pieces, and is where it should be only when it is whole.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;

use super::beside::{Beside, Obstacle};
use super::failure::Failure;
use super::paths::Target;
use super::place::{Old, Place};
use super::store::{Content, Note, UNCHANGED, complete, instead, refused};

/// What has arrived, and where it belongs. Dropping it leaves what was there.
pub(super) struct Incoming {
    /// `None`: that is not known yet.
    destination: Option<Destination>,
    arrived: Arrived,
    size: u64,
}

struct Destination {
    target: Target,
    place: Place,
    /// What stood there at the beginning.
    old: Option<Old>,
}

enum Arrived {
    Beside(Beside),
    /// Its directory is not known, or allows no file beside: the content waits somewhere else, and is copied.
    Elsewhere(File),
}

impl Incoming {
    /// Makes room for what `target` will hold.
    pub(super) fn begin(target: Target, home: &Path) -> Result<Self, Failure> {
        let place = Place::of(&target)?;
        let old = Old::open(&target)?;
        let arrived = match (Beside::begin(&place, old.is_some()), &old) {
            (Ok(beside), _) => Arrived::Beside(beside),
            (Err(_), Some(Old { file: Ok(_), .. })) => {
                Arrived::Elsewhere(unnamed(home).map_err(|error| target.failed(&error))?)
            }
            (Err(obstacle), old) => return Err(refused(&target, old.as_ref(), &obstacle)),
        };
        Ok(Self { destination: Some(Destination { target, place, old }), arrived, size: 0 })
    }

    /// Makes room for what may be told later where it belongs, and otherwise goes to `target`.
    pub(super) fn begin_anywhere(target: Target, home: &Path) -> Result<Self, Failure> {
        let told_later = target.clone();
        Self::begin(target, home).or_else(|_| {
            let file = unnamed(home).map_err(|error| told_later.failed(&error))?;
            Ok(Self { destination: None, arrived: Arrived::Elsewhere(file), size: 0 })
        })
    }

    fn file(&self) -> &File {
        match &self.arrived {
            Arrived::Beside(beside) => &beside.file,
            Arrived::Elsewhere(file) => file,
        }
    }

    pub(super) fn write(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        let mut file = self.file();
        for piece in pieces {
            file.write_all(piece)?;
        }
        self.size += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(())
    }

    /// What a failed write of it means.
    pub(super) fn failed(&self, target: &Target, error: &io::Error) -> Failure {
        let failure = target.failed(error);
        let replaces = self.destination.as_ref().is_some_and(|destination| destination.old.is_some());
        if replaces { failure.because(UNCHANGED) } else { failure }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The same content for another place.
    pub(super) fn moved_to(self, target: &Target, home: &Path) -> Result<Self, Failure> {
        let mut moved = Self::begin(target.clone(), home)?;
        let copied = (|| {
            let (mut from, mut to) = (self.file(), moved.file());
            from.rewind()?;
            io::copy(&mut from, &mut to)
        })();
        moved.size = copied.map_err(|error| moved.failed(target, &error))?;
        Ok(moved)
    }

    /// Puts what has arrived where it belongs, and replaces what was done there meanwhile.
    pub(super) fn finish(self, target: Target, home: &Path) -> Result<Option<Note>, Failure> {
        let Some(Destination { target, place, old: before }) = self.destination else {
            return self.moved_to(&target, home)?.finish(target, home);
        };
        let _turn = place.turn();
        let old = Old::open(&target)?;
        let (content, size) = (self.arrived, self.size);
        let mut beside = match content {
            Arrived::Beside(beside) => beside,
            Arrived::Elsewhere(file) => {
                let obstacle = Obstacle::Lost("its directory allows no other file in its place");
                return instead(&target, old.as_ref(), &Content::File(&file, size), &obstacle);
            }
        };
        if let (None, Some(before)) = (&old, &before) {
            // Removed meanwhile: the new file has the rights it had.
            beside.set_mode(before.metadata.mode()).map_err(|error| target.failed(&error))?;
        }
        match complete(&place, old.as_ref(), &mut beside) {
            Ok(()) => Ok(old.as_ref().and_then(Note::of_success)),
            Err(obstacle) => instead(&target, old.as_ref(), &Content::File(&beside.file, size), &obstacle),
        }
    }
}

/// A file for content whose place is not known yet, or allows none beside.
fn unnamed(home: &Path) -> io::Result<File> {
    Beside::unnamed(home).or_else(|_| Beside::unnamed(Path::new("/tmp")))
}
