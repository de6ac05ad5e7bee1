//! What is ready before it is asked for.
//!
//! Making a network is the dearest step of a launch, and nothing of it depends on the sandbox. A thread of its
//! own keeps a few ready; it waits while they are enough, and ends when nobody can ask any more.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::{Mutex, mpsc};

use super::NetworkError;
use super::namespace::{Made, Maker};

/// Ready things of one kind.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    ready: Mutex<mpsc::Receiver<Result<T, NetworkError>>>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts keeping about `size` ready: namespaces, finished by `finish`. Fails when the first cannot be made.
    pub(crate) fn start(
        size: usize,
        finish: impl FnMut(Made) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let (give, ready) = mpsc::channel(size.max(1));
        let (say, started) = sync_channel(1);
        thread::Builder::new()
            .name("stockade-netns".to_owned())
            .spawn(move || fill(&give, &say, finish))
            .map_err(NetworkError::Thread)?;
        started.recv().map_err(|_| NetworkError::Ended)??;
        Ok(Self { ready: Mutex::new(ready) })
    }

    /// Takes one; waits for the thread when none is ready. Whoever asked first is served first.
    pub(crate) async fn take(&self) -> Result<T, NetworkError> {
        let mut ready = self.ready.lock().await;
        // Failures that were kept ready tell of some time ago: only one that came after this call counts.
        let kept = ready.max_capacity() + 1;
        let mut made = Err(NetworkError::Ended);
        for _ in 0..=kept {
            made = ready.recv().await.ok_or(NetworkError::Ended)?;
            if made.is_ok() {
                break;
            }
        }
        made
    }
}

fn fill<T>(
    give: &mpsc::Sender<Result<T, NetworkError>>,
    say: &SyncSender<Result<(), NetworkError>>,
    mut finish: impl FnMut(Made) -> Result<T, NetworkError>,
) {
    // Nobody to hear an answer means nobody waits: both ends of both channels are one owner's.
    let first = Maker::for_this_thread().and_then(|maker| Ok((finish(maker.make()?)?, maker)));
    let (first, maker) = match first {
        Ok(first) => first,
        Err(error) => return drop(say.send(Err(error))),
    };
    if say.send(Ok(())).is_err() || give.blocking_send(Ok(first)).is_err() {
        return;
    }
    loop {
        let made = maker.make().and_then(&mut finish);
        // A thread that cannot step out of a sandbox's namespace must not make another from there.
        let lost = matches!(made, Err(NetworkError::Home(_)));
        if give.blocking_send(made).is_err() || lost {
            return;
        }
    }
}
