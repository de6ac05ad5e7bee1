//! What the main process of a sandbox writes: kept in files, bounded, and read as a stream.
//!
//! The process holds the file itself, so that a server that is killed loses nothing. It is cut when it has
//! grown beyond its bound, by whoever looks next; what it had is kept once as `log.1`. A start of the sandbox
//! makes both together `log.previous`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use stockade_core::BackendError;
use stockade_core::backend::{LogOptions, LogStream};
use tokio::sync::mpsc;

/// The files of one sandbox's log.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    directory: PathBuf,
    limit: u64,
}

/// How often a follower looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Room beyond the end of a log that is nobody's doing.
const ROOM_AHEAD: u64 = 1 << 20;
/// How much is read at once.
const PIECE: usize = 16 * 1024;

impl Log {
    pub(crate) fn new(directory: PathBuf, limit: u64) -> Self {
        Self { directory, limit }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A new log for a new process; the former one becomes the previous one.
    pub(crate) fn begin(&self) -> io::Result<File> {
        let (log, older, previous) = (self.path("log"), self.path("log.1"), self.path("log.previous"));
        let has_older = older.exists();
        if log.exists() || has_older {
            let mut kept = if has_older { fs::read(&older)? } else { Vec::new() };
            read_tail(&log, self.limit, &mut kept)?;
            let excess = kept.len().saturating_sub(usize::try_from(self.limit).unwrap_or(usize::MAX));
            write_new(&previous, &kept[excess..])?;
            for path in [&older, &log] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(log)
    }

    /// Cuts the log when it is too long. What is written meanwhile may be lost.
    pub(crate) fn cut(&self) -> io::Result<()> {
        let path = self.path("log");
        let (length, taken) = match fs::metadata(&path) {
            Ok(metadata) => (metadata.len(), metadata.blocks().saturating_mul(512)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // Room can be taken beyond the end, too; file systems take some themselves for what may come.
        if length <= self.limit && taken <= self.limit.saturating_mul(2).saturating_add(ROOM_AHEAD) {
            return Ok(());
        }
        let mut kept = Vec::new();
        read_tail(&path, self.limit / 2, &mut kept)?;
        write_new(&self.path("log.1"), &kept)?;
        // Its writer appends, so that it goes on at the new end.
        OpenOptions::new().write(true).open(&path)?.set_len(0)
    }

    /// The end of what was written last, for an error's text.
    pub(crate) fn last_words(&self) -> String {
        const MOST: u64 = 512;
        let mut tail = Vec::new();
        // Nothing readable is nothing said.
        let _ = read_tail(&self.path("log"), MOST, &mut tail);
        let text = String::from_utf8_lossy(&tail);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// The log as a stream.
    pub(crate) fn stream(&self, options: LogOptions) -> Result<LogStream, BackendError> {
        let mut begin = Vec::new();
        let names: &[&str] = if options.previous { &["log.previous"] } else { &["log.1", "log"] };
        let failed = |source: io::Error| BackendError::Unreachable {
            message: "the log cannot be read".to_owned(),
            source: Some(source.into()),
        };
        for name in names {
            read_tail(&self.path(name), self.limit, &mut begin).map_err(failed)?;
        }
        let begin = last_lines(&begin, options.tail_lines);
        let (sender, receiver) = mpsc::channel(4);
        let path = self.path("log");
        let at = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        tokio::spawn(send(begin, (options.follow && !options.previous).then_some((path, at)), sender));
        Ok(Box::pin(Receiving(receiver)))
    }
}

/// Sends what there is, and then what comes. Ends when nobody listens, or the log is gone.
async fn send(begin: Bytes, follow: Option<(PathBuf, u64)>, sender: mpsc::Sender<Bytes>) {
    for start in (0..begin.len()).step_by(PIECE) {
        let piece = begin.slice(start..begin.len().min(start + PIECE));
        if sender.send(piece).await.is_err() {
            return;
        }
    }
    let Some((path, mut at)) = follow else { return };
    let mut ticks = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
        loop {
            // Opened each time: another start makes another file.
            let Ok(file) = File::open(&path) else { return };
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            if length < at {
                at = 0;
            }
            let mut piece = vec![0; PIECE];
            let Ok(read) = file.read_at(&mut piece, at) else { return };
            if read == 0 {
                break;
            }
            at += read as u64;
            piece.truncate(read);
            if sender.send(piece.into()).await.is_err() {
                return;
            }
        }
    }
}

/// What a channel receives, as a stream.
struct Receiving(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Receiving {
    type Item = Result<Bytes, BackendError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

/// Appends the last bytes of a file; a file that is not there has none.
fn read_tail(path: &Path, most: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    file.take(most).read_to_end(into).map(drop)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(bytes)?;
    fs::rename(new, path)
}

fn last_lines(text: &[u8], lines: u32) -> Bytes {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 || text.is_empty() {
        return Bytes::new();
    }
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = breaks.map(|(at, _)| at + 1).nth(wanted - 1).unwrap_or(0);
    Bytes::copy_from_slice(&text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_log(limit: u64) -> (tempfile::TempDir, Log) {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::new(directory.path().to_owned(), limit);
        (directory, log)
    }

    async fn next(stream: &mut LogStream) -> Option<String> {
        let next = std::future::poll_fn(|context| stream.as_mut().poll_next(context));
        let piece = tokio::time::timeout(Duration::from_secs(10), next).await.unwrap()?;
        Some(String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    fn mk_options(follow: bool, tail_lines: u32, previous: bool) -> LogOptions {
        LogOptions { follow, tail_lines, previous }
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        for (text, lines, expect) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), expect, "{text:?} {lines}");
        }
    }

    #[tokio::test]
    async fn a_start_keeps_the_log_before_it() {
        let (_directory, log) = mk_log(1000);
        log.begin().unwrap().write_all(b"first\n").unwrap();
        log.begin().unwrap().write_all(b"second\n").unwrap();
        let mut stream = log.stream(mk_options(false, 500, false)).unwrap();
        assert_eq!(next(&mut stream).await.as_deref(), Some("second\n"));
        assert_eq!(next(&mut stream).await, None);
        let mut stream = log.stream(mk_options(true, 500, true)).unwrap();
        assert_eq!(next(&mut stream).await.as_deref(), Some("first\n"));
        assert_eq!(next(&mut stream).await, None);
        assert_eq!(log.last_words(), "second");
    }

    #[tokio::test]
    async fn a_follower_hears_what_comes_also_after_a_cut() {
        let (_directory, log) = mk_log(100);
        let mut file = log.begin().unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        let mut stream = log.stream(mk_options(true, 1, false)).unwrap();
        assert_eq!(next(&mut stream).await.as_deref(), Some("two\n"));
        file.write_all(b"three\n").unwrap();
        assert_eq!(next(&mut stream).await.as_deref(), Some("three\n"));
        file.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(next(&mut stream).await.map(|piece| piece.len()), Some(200));
        log.cut().unwrap();
        file.write_all(b"four\n").unwrap();
        assert_eq!(next(&mut stream).await.as_deref(), Some("four\n"));
    }

    #[test]
    fn room_beyond_the_end_counts() {
        let (directory, log) = mk_log(1 << 20);
        let mut file = log.begin().unwrap();
        file.write_all(b"said\n").unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 8 << 20).unwrap();
        log.cut().unwrap();
        let blocks = fs::metadata(directory.path().join("log")).unwrap().blocks();
        assert!(blocks * 512 <= 1 << 20, "{blocks} blocks");
        assert_eq!(fs::read(directory.path().join("log.1")).unwrap(), b"said\n");
    }

    #[test]
    fn a_log_is_bounded_and_its_end_is_kept() {
        let (directory, log) = mk_log(100);
        let mut file = log.begin().unwrap();
        for _ in 0..50 {
            file.write_all(&[b'x'; 90]).unwrap();
            log.cut().unwrap();
        }
        file.write_all(b"end\n").unwrap();
        let sizes =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= 300);
        log.begin().unwrap();
        assert!(fs::read_to_string(directory.path().join("log.previous")).unwrap().ends_with("end\n"));
    }
}
